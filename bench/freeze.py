"""How fast a job's processes stand still: orders through the fast path's own socket, one by one.

Run: ``python bench/freeze.py [--trials 10000] [--victims 8] [--threads 2] [--overload 0] [--churn]
[--no-realtime] [--signals] [--json]``
"""

import json
import os
import random
import resource
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from measure import parser, percentile, progress, report

from hyperion.adapters.checkpoint import fastpath
from hyperion.adapters.runtime.cgroup import Cgroups

METHOD = (
    "The agent's fast path in a process of its own; victims that never sleep, each with so many "
    "threads, in one control group. Each trial: some ms of running, the order to freeze, the "
    "answer, 1 ms of standing, the order to go on. Commanded → frozen: clock of whoever asks, from "
    "before the order is sent until the answer is read; called → …: stamps of the fast path. "
    "Overload: so many further processes that never sleep. Whoever asks is real-time, unless "
    "--plain-clock: then it is at nice -15, as the agent. Churn: two that make and remove groups "
    "all the time"
)
SEED = 20261126
SPIN = """
import os, sys, threading
for group in sys.argv[3:]:
    open(group + "/cgroup.procs", "w").write("0")
def work():
    n = 0
    while True:
        n += 1
for _ in range(int(sys.argv[1]) - 1):
    if os.fork() == 0:
        break
for _ in range(int(sys.argv[2]) - 1):
    threading.Thread(target=work, daemon=True).start()
print("runs", flush=True)
work()
"""
CHURN = """
import os, sys
path = sys.argv[1]
while True:
    os.mkdir(path)
    os.rmdir(path)
"""


@contextmanager
def process(*command, runs=0):
    """A process group of its own, which has said ``runs`` times that it runs."""
    made = subprocess.Popen(
        [sys.executable, *command], start_new_session=True, stdout=subprocess.PIPE, text=True
    )
    try:
        for _ in range(runs):
            made.stdout.readline()
        yield made
    finally:
        with suppress(ProcessLookupError):
            os.killpg(made.pid, 9)
        made.wait(10)
        made.stdout.close()


class Wire:
    def __init__(self, path):
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        until = time.monotonic() + 10
        while self._socket.connect_ex(path):
            assert time.monotonic() < until, "the fast path does not start"
            time.sleep(0.01)

    def send(self, order):
        self._socket.send(order)
        return self._socket.recv(1 << 14)

    def ask(self, **order):
        said = json.loads(self.send(json.dumps(order).encode()))
        assert "error" not in said, said
        return said


def trials(wire, count, pause_s):
    """What each trial took, in ms, by step; and how it was done, by word."""
    freeze = json.dumps({"do": "freeze", "set": "victims", "hold_ms": 60_000}).encode()
    thaw = json.dumps({"do": "thaw", "set": "victims"}).encode()
    took = {"commanded → frozen": [], "called → stopped": [], "called → frozen": []}
    how, chance = {}, random.Random(SEED)
    for n in range(count):
        time.sleep(chance.uniform(0.5, 1.5) * pause_s)
        asked_ns = time.monotonic_ns()
        answer = wire.send(freeze)
        answered_ns = time.monotonic_ns()
        said = json.loads(answer)
        took["commanded → frozen"].append((answered_ns - asked_ns) / 1e6)
        took["called → stopped"].append((said["stopped_ns"] - said["called_ns"]) / 1e6)
        if said["confirmed_ns"]:
            took["called → frozen"].append((said["confirmed_ns"] - said["called_ns"]) / 1e6)
        how[said["how"]] = how.get(said["how"], 0) + 1
        time.sleep(0.001)
        wire.send(thaw)
        if n % 1000 == 999:
            progress(f"{n + 1} of {count}")
    return took, how


def measured(options, groups, stack):
    directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="hyperion-freeze-"))
    base = groups.create("victims", cpus_milli=0, memory_mib=0)
    stack.callback(groups.kill, "victims")
    spun = options.victims * options.threads
    tree = stack.enter_context(
        process("-c", SPIN, str(options.victims), str(options.threads), *base, runs=options.victims)
    )
    if options.overload:
        stack.enter_context(process("-c", SPIN, str(options.overload), "1", runs=options.overload))
    if options.churn:
        for n in range(2):
            stack.enter_context(process("-c", CHURN, f"{base[0]}.churn{n}"))
    started = [fastpath.__file__, directory]
    if options.no_realtime:
        started = ["-c", NO_REALTIME, *started]
    stack.enter_context(process(*started))
    wire = Wire(f"{directory}/socket")
    try:  # this one is the clock, and is not to read the answers late
        if options.plain_clock:
            os.setpriority(os.PRIO_PROCESS, 0, -15)
        else:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(30))
    except PermissionError:
        progress("without the right to go before the victims: the answers are read late")
    pids = [int(pid) for pid in Path(f"{base[0]}/cgroup.procs").read_text().split()]
    if options.signals:
        wire.ask(do="arm", set="victims", pids=pids)
    else:
        wire.ask(do="arm", set="victims", groups=[groups.group("victims")])
    assert len(pids) == options.victims, (pids, tree.pid, spun)
    rights = wire.ask(do="status")["rights"]
    took, how = trials(wire, options.trials, options.pause_ms / 1e3)
    return took, how, rights


NO_REALTIME = """
import os, runpy, sys
def refused(*_):
    raise PermissionError(1, "switched off")
os.sched_setscheduler = os.setpriority = refused
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def main():
    arguments = parser(__doc__)
    arguments.add_argument("--trials", type=int, default=10_000)
    arguments.add_argument("--victims", type=int, default=8, help="processes")
    arguments.add_argument("--threads", type=int, default=2, help="of each")
    arguments.add_argument("--overload", type=int, default=0, help="further busy processes")
    arguments.add_argument("--pause-ms", type=float, default=4.0, help="running between two trials")
    arguments.add_argument("--churn", action="store_true", help="groups come and go all the time")
    arguments.add_argument("--no-realtime", action="store_true", help="an agent without the right")
    arguments.add_argument(
        "--plain-clock", action="store_true", help="who asks is at nice -15 only"
    )
    arguments.add_argument("--signals", action="store_true", help="as without control groups")
    options = arguments.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
    groups = Cgroups(f"hyperion-bench-{os.getpid()}")
    if not groups.holds:
        print(f"no control groups here: {groups.abilities()['cgroup']}", file=sys.stderr)
        return 1
    with ExitStack() as stack:
        took, how, rights = measured(options, groups, stack)
    until = time.monotonic() + 10
    while not groups.remove("victims") and time.monotonic() < until:
        time.sleep(0.02)
    groups.close()
    rows = []
    for step, values in took.items():
        for part in (0.5, 0.99, 0.999, 1.0):
            name = "max" if part == 1 else f"p{100 * part:g}"
            value = round(percentile(values, part), 3)
            rows.append({"figure": f"{step}, {name}", "value": value, "unit": "ms"})
    over = sum(x > 50 for x in took["commanded → frozen"])
    rows.append({"figure": "commanded → frozen, above 50 ms", "value": over, "unit": "trials"})
    rows += [{"figure": f"done by {word}", "value": n, "unit": "trials"} for word, n in how.items()]
    real = "real-time" if rights["realtime"] else "not real-time"
    title = (
        f"freeze, {options.trials} trials, {options.victims} processes x {options.threads} "
        f"threads, overload {options.overload}{', churn' * options.churn}, {real}"
    )
    report(title, METHOD, rows, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
