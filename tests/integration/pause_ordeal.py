"""One daemon, or the urgent job itself, is killed at one state of a pause; then all goes on."""

import os
import random
import signal
import time
from contextlib import suppress

from counting import fast_paths
from daemons import until

WHO = ("scheduler", "agent", "fast path", "urgent job")
WHEN = ("ordered", "paused", "resumed")
"""The state of the pause: the order is on its way, all stand still, they are told to go on."""
HOLD_S = 20


def strike(world, counting, who, when, traces, dice=random):
    """One urgent job, and one kill. AssertionError says what went wrong."""
    time.sleep(1.2)  # nobody stands still for more than half of its time
    id = world.client.submit({
        "name": f"urgent-{who}-{when}".replace(" ", "-"),
        "run": f'echo "$HYPERION_ALLOCATION $$" >>{traces}; exec sleep 0.4',
        "priority": "LATENCY_CRITICAL",
        "resources": {"cpus": world.cpus},
    })  # fmt: skip
    if when == "ordered":
        time.sleep(dice.uniform(0, 0.02))
    else:
        until(lambda: id in _text(traces), f"{id} to run", pause_s=0.002)
        if when == "resumed":
            until(lambda: _ended(world, id), f"{id} to end", pause_s=0.002)
    _kill(world, who, id, traces)
    view = world.client.wait(id, 60)
    allowed = ("succeeded", "failed") if who == "urgent job" else ("succeeded",)
    assert view.phase in allowed, view
    counting.goes_on()
    ran = [line.split()[0] for line in _text(traces).splitlines()]
    assert len(ran) == len(set(ran)), f"a replica ran twice: {ran}"
    assert any(name.startswith(f"{id}.") for name in ran), f"{id} {view.phase}, and never ran"


def _ended(world, id):
    return world.client.get(id).phase in ("succeeded", "failed")


def _kill(world, who, id, traces):
    if who == "fast path":
        for pid in fast_paths(world):
            os.kill(pid, signal.SIGKILL)
    elif who == "urgent job":
        for line in _text(traces).splitlines():
            if line.startswith(f"{id}."):
                with suppress(ProcessLookupError):
                    os.kill(int(line.split()[1]), signal.SIGKILL)
    else:
        daemon = world.scheduler if who == "scheduler" else world.agent
        daemon.restart().ready()


def _text(path):
    return path.read_text() if path.exists() else ""
