"""Processes and control groups that stand still in tests, and a fast path to order it."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from hyperion.adapters.checkpoint import fastpath
from hyperion.adapters.runtime.cgroup import Cgroups

PROGRAM = Path(fastpath.__file__)
TREE = """
import os, sys, threading, time, mmap
count, threads, trace = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
for group in sys.argv[4:]:
    open(group + "/cgroup.procs", "w").write("0")
page = mmap.mmap(os.open(trace, os.O_RDWR), 4096)
words = memoryview(page).cast("Q")
def work(n):
    while True:
        words[n] += 1
        time.sleep(0) if n % 2 else None
for child in range(count - 1):
    if os.fork() == 0:
        break
else:
    child = count - 1
for n in range(threads - 1):
    threading.Thread(target=work, args=(child * threads + n + 1,), daemon=True).start()
work(child * threads)
"""
FORKER = """
import os, sys, time, mmap
for group in sys.argv[4:]:
    open(group + "/cgroup.procs", "w").write("0")
page = mmap.mmap(os.open(sys.argv[3], os.O_RDWR), 4096)
words = memoryview(page).cast("Q")
while True:
    pid = os.fork()
    if pid == 0:
        for n in range(2000):
            words[0] += 1
        os._exit(0)
    os.waitpid(pid, 0)
"""


class Tree:
    """Processes that count in a page of memory, so that it shows whether any of them runs."""

    def __init__(self, trace, groups=(), count=8, threads=2, program=TREE, nice=0):
        trace.write_bytes(bytes(4096))
        self._trace = trace
        command = [sys.executable, "-c", program, str(count), str(threads), str(trace), *groups]
        command = ["nice", "-n", str(nice), *command]
        self.process = subprocess.Popen(command, start_new_session=True)
        workers = count * threads if program == TREE else 1
        until(lambda: all(self.counts()[:workers]), "the tree to count")

    def counts(self):
        return memoryview(self._trace.read_bytes()).cast("Q").tolist()

    def stands(self, for_s=0.1):
        before = self.counts()
        time.sleep(for_s)
        return before == self.counts()

    def goes_on(self):
        before = sum(self.counts())
        return until(lambda: sum(self.counts()) > before, "it to go on")

    def pids(self):
        """Those of its session, threads left out."""
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
                except OSError:
                    continue
                if int(fields[3]) == self.process.pid and fields[0] != "Z":
                    found.append(int(entry))
        return found

    def threads(self):
        return [int(tid) for pid in self.pids() for tid in os.listdir(f"/proc/{pid}/task")]

    def end(self):
        for pid in self.pids():
            try:
                os.kill(pid, 9)
            except ProcessLookupError:
                continue
        self.process.kill()
        self.process.wait(10)


class Wire:
    """A connection to a fast path."""

    def __init__(self, directory):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(10)
        until(lambda: self.socket.connect_ex(f"{directory}/socket") == 0, "it to listen")

    def send(self, packet):
        self.socket.send(packet)
        return json.loads(self.socket.recv(1 << 16))

    def ask(self, **order):
        return self.send(json.dumps(order).encode())

    def close(self):
        self.socket.close()


class FastPath:
    """The real process, in a directory of its own."""

    def __init__(self, directory):
        self.directory = directory
        directory.mkdir(mode=0o700, exist_ok=True)
        self.start()

    def start(self):
        command = [sys.executable, "-I", "-S", str(PROGRAM), str(self.directory)]
        self.process = subprocess.Popen(command, start_new_session=True)
        self.wire = Wire(self.directory)

    def ask(self, **order):
        return self.wire.ask(**order)

    def kill(self):
        self.process.kill()
        self.process.wait(10)
        self.wire.close()

    def end(self):
        self.kill()
        for name in ("held", "socket"):
            (self.directory / name).unlink(missing_ok=True)


def made_groups(name):
    """(groups, why there are none)."""
    groups = Cgroups(name)
    if not groups.holds:
        return None, groups.abilities()["cgroup"]
    return groups, ""


def until(condition, what, within_s=20):
    ends = time.monotonic() + within_s
    while not (answer := condition()):
        assert time.monotonic() < ends, f"waited in vain for {what}"
        time.sleep(0.005)
    return answer
