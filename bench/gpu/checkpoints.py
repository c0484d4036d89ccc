"""Checkpoints by the driver: what has to hold first, and the order of calls that is allowed.

A call on a process that stands still never comes back: the driver waits for a thread of that
process. So who stands still is asked before each call, and stopping goes through here as well.
"""

import contextlib
import os
import time
from dataclasses import dataclass

DRIVER_FROM = (570,)
CALLS = {
    ("running", "lock"): "locked",
    ("locked", "checkpoint"): "checkpointed",
    ("checkpointed", "restore"): "locked",
    ("locked", "unlock"): "running",
}
"""What each call makes of a process; any other pair is an error before the driver is asked."""
STOPPABLE = ("locked", "checkpointed")
"""States in which the process may be frozen on top: thaw before the next call."""


class Forbidden(Exception):
    """The driver was not asked."""


class CallFailed(Exception):
    """The driver refused, or was not heard of in time."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of driver, machine and process; None: nobody can say."""

    driver: str
    bindings: bool = True
    architecture: str = "x86_64"
    stands: bool = False
    uvm: bool | None = False
    ipc: bool | None = False
    mps: bool | None = False
    mig: bool | None = False
    needed_bytes: int = 0
    host_free_bytes: int = 0
    group_free_bytes: int | None = None
    """Left below the memory limit of the process's control group; None: it has no limit."""


def version(text):
    """``580.159.04`` → (580, 159, 4); () where it is none."""
    parts = text.split(".")
    return tuple(map(int, parts)) if all(part.isdigit() for part in parts) else ()


def refusals(facts):
    """Why a checkpoint by the driver must not be tried; empty: it may be."""
    found = []
    if version(facts.driver) < DRIVER_FROM:
        found.append(f"driver {facts.driver or 'unknown'}, 570 or newer is needed")
    if not facts.bindings:
        found.append("no cuda-bindings with checkpoints (pip install 'cuda-bindings>=12.8')")
    if facts.architecture != "x86_64":
        found.append(f"{facts.architecture}; the driver does it on x86_64")
    if facts.stands:
        found.append("the process stands still; the driver would wait for it for ever")
    for name, words in (
        ("uvm", "managed memory (UVM)"),
        ("ipc", "memory shared between processes (CUDA IPC)"),
        ("mps", "MPS"),
        ("mig", "MIG"),
    ):
        used = getattr(facts, name)
        if used is None:
            found.append(f"{words}: unknown whether it is used")
        elif used:
            found.append(f"{words} is used")
    if facts.host_free_bytes < facts.needed_bytes:
        found.append(
            f"the host has {facts.host_free_bytes / 1e9:.1f} GB free, "
            f"{facts.needed_bytes / 1e9:.1f} are needed"
        )
    if facts.group_free_bytes is not None and facts.group_free_bytes < facts.needed_bytes:
        found.append(
            f"its control group has {facts.group_free_bytes / 1e9:.1f} GB left, "
            f"{facts.needed_bytes / 1e9:.1f} are needed"
        )
    return found


class Checkpointed:
    """One process through lock, checkpoint, restore, unlock; ``calls`` is the driver, or not.

    ``stands()`` asks the kernel whether the process stands still. Freezing it goes through
    ``freeze`` and ``thaw`` here, so that nobody does it between that question and the call.
    """

    def __init__(self, pid, calls, stands, facts):
        refused = refusals(facts)
        if refused:
            raise Forbidden("; ".join(refused))
        self.pid = pid
        self.state = "running"
        self.took_ms = {}
        self._calls, self._stands = calls, stands
        self._frozen = False

    def lock(self, timeout_ms=10_000):
        self._call("lock", timeout_ms)

    def checkpoint(self):
        self._call("checkpoint")

    def restore(self):
        self._call("restore")

    def unlock(self):
        self._call("unlock")

    def freeze(self, stop):
        """On top of a lock: ``stop()`` stops the process."""
        if self.state not in STOPPABLE:
            raise Forbidden(f"freeze of a {self.state} process: lock it first")
        self._frozen = True
        stop()

    def thaw(self, go_on):
        go_on()
        self._frozen = False

    def _call(self, name, *arguments):
        after = CALLS.get((self.state, name))
        if after is None:
            raise Forbidden(f"{name} of a {self.state} process")
        if self._frozen or self._stands():
            raise Forbidden(f"{name} of a process that stands still; thaw it first")
        began = time.monotonic_ns()
        try:
            getattr(self._calls, name)(self.pid, *arguments)
        except Exception as error:
            self.state = self._asked()
            raise CallFailed(f"{name}: {error}") from error
        self.took_ms[name] = (time.monotonic_ns() - began) / 1e6
        self.state = after

    def _asked(self):
        """After an error the driver knows best."""
        try:
            return self._calls.state(self.pid)
        except Exception:
            return "failed"


# -- what the kernel says --------------------------------------------------------------------------


def stands_still(pid, proc="/proc", mounts=None):
    """Whether a process is stopped by signals or frozen with its group, or one above it."""
    try:
        with open(f"{proc}/{pid}/stat") as file:
            if file.read().rpartition(")")[2].split()[0] in ("T", "t"):
                return True
    except FileNotFoundError:
        return False
    place = _group(pid, proc, mounts)
    while place:
        with contextlib.suppress(OSError):
            with open(f"{place}/cgroup.events") as file:
                if "frozen 1" in file.read():
                    return True
            with open(f"{place}/cgroup.freeze") as file:
                if file.read().strip() == "1":  # it has been ordered, and is about to be so
                    return True
        above = os.path.dirname(place)
        place = above if os.path.exists(f"{above}/cgroup.freeze") else ""
    return False


def group_free_bytes(pid, proc="/proc", mounts=None):
    """What is left below the memory limit of its group; None without one."""
    place = _group(pid, proc, mounts)
    try:
        with open(f"{place}/memory.max") as limit, open(f"{place}/memory.current") as used:
            most = limit.read().strip()
            return None if most == "max" else max(0, int(most) - int(used.read()))
    except OSError:
        return None


def host_free_bytes(path="/proc/meminfo"):
    with open(path) as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 0


def _group(pid, proc, mounts):
    """The directory of its v2 group; empty where there is none."""
    with contextlib.suppress(OSError):
        with open(mounts or f"{proc}/self/mounts") as file:
            roots = [line.split()[1] for line in file if line.split()[2] == "cgroup2"]
        with open(f"{proc}/{pid}/cgroup") as file:
            for line in file:
                if line.startswith("0::") and roots:
                    return roots[0] + line.rstrip("\n")[3:].rstrip("/")
    return ""
