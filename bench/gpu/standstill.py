"""A process that is stopped while its device works on, and when that work came to its end."""

import contextlib
import os
import time
from dataclasses import dataclass

from hyperion.adapters.checkpoint.freezer import Freezer, Group

BREATH_S = 0.00002


@dataclass(frozen=True, slots=True)
class Trial:
    """One stop; host times are of CLOCK_MONOTONIC, stamps of the device's clock."""

    called_ns: int
    stopped_ns: int
    begin: int
    begin_stamp: int
    end: int
    end_stamp: int
    end_when_stopped: int
    seen_ns: int
    """When the host saw the last beat change; 0: none changed after the stop."""
    drained: bool
    """Nothing moved any more when the watch ended."""


def work_end_ns(trial, correlation, unit_ns):
    """When the device had done all it was given, or later.

    A unit that began and did not end was frozen while it was launched: what of it had been
    launched took at most as long as a whole one.
    """
    ended = correlation.host_ns(trial.end_stamp)
    if trial.begin > trial.end:
        return max(ended, correlation.host_ns(trial.begin_stamp) + unit_ns)
    return ended


def free_ms(trial, correlation, unit_ns):
    """From the order until neither the process nor the device does anything of it."""
    return (max(trial.stopped_ns, work_end_ns(trial, correlation, unit_ns)) - trial.called_ns) / 1e6


def watch(page, now_ns, rest, quiet_ns, limit_ns):
    """Look until no beat has come for ``quiet_ns``: (when the last was seen or 0, whether so)."""
    began = last = now_ns()
    seen, beat = 0, (page["begin"], page["end"])
    while True:
        now = now_ns()
        fresh = (page["begin"], page["end"])
        if fresh != beat:
            beat, last, seen = fresh, now, now
        elif now - last >= quiet_ns:
            return seen, True
        if now - began >= limit_ns:
            return seen, False
        rest(BREATH_S)


def group_v2(name, mounts="/proc/self/mounts", own="/proc/self/cgroup"):
    """A control group of our own in the v2 hierarchy; empty where the host refuses one."""
    with open(mounts) as file:
        roots = [line.split()[1] for line in file if line.split()[2] == "cgroup2"]
    with open(own) as file:
        ours = [line.rstrip("\n").partition("::")[2] for line in file if line.startswith("0::")]
    for root in roots:
        for place in [*(root + path.rstrip("/") for path in ours), root]:
            path = f"{place}/{name}"
            with contextlib.suppress(OSError):
                os.mkdir(path)
                if os.path.exists(f"{path}/cgroup.freeze"):
                    return path
                os.rmdir(path)
    return ""


def remove_group(path, within_s=5.0):
    """Kill what is in it, and remove it; whether it is gone."""
    until = time.monotonic() + within_s
    with contextlib.suppress(OSError), open(f"{path}/cgroup.kill", "w") as file:
        file.write("1")
    while os.path.isdir(path):
        with contextlib.suppress(OSError):
            os.rmdir(path)
            return True
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


class Stopper:
    """Stops a process by the freezer of its group, or by signals where it has none."""

    def __init__(self, path, pid):
        self._freezer = Freezer()
        self._group = Group(path) if path else Group("", (pid,))
        self.how = {}

    def stop(self):
        stop = self._freezer.freeze([self._group])
        self.how[stop.how] = self.how.get(stop.how, 0) + 1
        return stop

    def go_on(self):
        self._freezer.go_on([self._group])

    def close(self):
        self.go_on()
        self._freezer.retire([self._group])
        self._freezer.close()


def stopped_once(stopper, page, quiet_ns, limit_ns=5_000_000_000):
    """One trial; the process goes on afterwards, whatever happens."""
    try:
        stop = stopper.stop()
        at_stop = page["end"]
        seen, drained = watch(page, time.monotonic_ns, time.sleep, quiet_ns, limit_ns)
        return Trial(
            stop.called_ns,
            stop.confirmed_ns or stop.stopped_ns,
            page["begin"],
            page["begin_stamp"],
            page["end"],
            page["end_stamp"],
            at_stop,
            seen,
            drained,
        )
    finally:
        stopper.go_on()
