"""The processes beside the measuring one: ``python -m gpu.roles ROLE DEVICE …``.

Each says ``ready`` once it is, and then does what lines on its input ask for.
"""

import json
import os
import select
import signal
import statistics
import sys
import time

from gpu import cpu, cuda, program
from gpu.checkpoints import CallFailed, Checkpointed, Forbidden, stands_still
from gpu.page import Page
from gpu.training import train

DEVICES = {"cpu": cpu, "cuda": cuda}


def say(**words):
    print(json.dumps(words), flush=True)


def describe(device):
    try:
        say(**device.described())
    except cuda.NoGpu as error:
        say(missing=str(error))


def training(device, page_path, steps, group):
    """Trains for so many steps, or until it is killed."""
    if group:
        with open(f"{group}/cgroup.procs", "w") as file:
            file.write("0")
    page = Page(page_path)
    launcher = device.Launcher(page, keep=bool(int(steps)))
    train(launcher, page, launcher.layers, int(steps))
    launcher.finish(page_path)


def programme(_device, page_path, group):
    """An ordinary program, until it is killed."""
    if group:
        with open(f"{group}/cgroup.procs", "w") as file:
            file.write("0")
    program.run(Page(page_path), page_path)


def answering(device):
    """A line in, an answer out."""
    model = device.Answers()
    for _ in range(5):
        model.answer()
    say(ready=True)
    for _ in sys.stdin:
        say(answer=model.answer())


def holding(device, size, page_path):
    """Holds so many bytes; answers each line with a digest of them."""
    held = device.Held(int(size), Page(page_path))
    say(ready=True, digest=held.digest())
    while True:
        runs = held.beat()
        if runs and select.select([sys.stdin], [], [], 0.005)[0]:
            if not sys.stdin.readline():
                return
            say(digest=held.digest())
        elif not runs:
            time.sleep(0.002)


def copying(device, *sizes):
    """Snapshots of such sizes to the host and back, a line for each way."""
    copies = device.Copies()
    for size in map(int, sizes):
        if size > copies.free_bytes():
            say(size=size, left_out=f"{copies.free_bytes() / 1e9:.1f} GB are free for it")
            continue
        copies.fill(size)
        for kind in copies.kinds:
            began = time.monotonic()
            host = copies.host(size, kind)
            made_s = time.monotonic() - began
            for way in ("to_host", "to_device"):
                say(
                    size=size, kind=kind, way=way, gb_s=rate(copies, way, host, size), made_s=made_s
                )
            say(size=size, kind=kind, same=copies.is_same())
            del host


def rate(copies, way, host, size):
    """GB/s: the median of three copies, or of as many as began within 4 s."""
    rates, until = [], time.monotonic() + 4
    while len(rates) < 3 and (not rates or time.monotonic() < until):
        began = time.monotonic_ns()
        getattr(copies, way)(host)
        rates.append(size / (time.monotonic_ns() - began))
    return statistics.median(rates)


def checkpointing(device, pid, size, page_path):
    """The sacrificial process: twice through all calls, the second time frozen in between."""
    pid, size = int(pid), int(size)
    try:
        for cycle in (1, 2):
            calls = device.Calls(page_path)
            whole = Checkpointed(pid, calls, lambda: stands_still(pid), device.facts(pid, size))
            used = calls.used_bytes()
            whole.lock()
            whole.checkpoint()
            freed = None if used is None else used - calls.used_bytes()
            if cycle == 2:
                whole.freeze(lambda: os.kill(pid, signal.SIGSTOP))
                whole.thaw(lambda: os.kill(pid, signal.SIGCONT))
                wait_until_it_runs(pid)
            whole.restore()
            whole.unlock()
            say(cycle=cycle, took_ms=whole.took_ms, freed=freed)
    except Forbidden as error:
        say(forbidden=str(error))
    except CallFailed as error:
        say(failed=str(error))


def wait_until_it_runs(pid):
    until = time.monotonic() + 5
    while stands_still(pid) and time.monotonic() < until:
        time.sleep(0.001)


ROLES = {
    "describe": describe,
    "train": training,
    "program": programme,
    "answer": answering,
    "hold": holding,
    "copy": copying,
    "checkpoint": checkpointing,
    "execute": lambda device, page_path: device.execute(page_path),
}

if __name__ == "__main__":
    ROLES[sys.argv[1]](DEVICES[sys.argv[2]], *sys.argv[3:])
