"""Lets all processes of a control group stand still within a fraction of a millisecond.

Nothing here but the standard library: the fast path's process holds its memory locked.

Three things make the tail short (docs/pausing.md has the figures):

* *Boost.* A thread that waits for a CPU reaches the freezer's trap only once it gets one. So each
  is made real-time for that instant, and what it was before again before it goes on.
* *Reading.* The kernel tells of ``cgroup.events`` every 10 ms at most; read in a loop it tells at
  once.
* *The hedge.* Writing ``cgroup.freeze`` takes a lock of the whole hierarchy, which others may hold
  for a tenth of a second. A thread writes; if it is not back after 1.5 ms, signals do the same.
"""

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

HEDGE_NS = 1_500_000
CONFIRM_NS = 50_000_000
"""Whoever has not come to a stand by then is in the kernel for long: the answer is *degraded*."""
SPINS = 40
BREATH_S = 0.00005
BOOST_PASSES = 4
STRAGGLERS_SHOWN = 8


@dataclass(slots=True)
class Stop:
    """How a set came to a stand; times are of ``time.monotonic_ns``."""

    called_ns: int
    stopped_ns: int = 0
    """From then on none of its threads runs any code of its own."""
    confirmed_ns: int = 0
    """The kernel says that all stand; 0: it does not yet."""
    how: str = ""
    """``freezer``, ``hedged`` or ``signals``; ``degraded`` where some were still in the kernel."""
    threads: int = 0
    boosted: bool = False
    stragglers: list[str] = field(default_factory=list)


class Group:
    """The processes of one replica: a control group of v2 with its freezer, one of v1, or a list of
    pids. The freezer of v1 is not used: it does not come to an end where processes fork; signals
    do, and its groups say to whom."""

    def __init__(self, path: str, pids: tuple[int, ...] = ()) -> None:
        """``path``: of the group, empty where there is none. OSError if it cannot be used."""
        self.path = path
        self._pids = pids
        self._state = self._events = -1
        self._lists: dict[str, int] = {}
        """Files of the group's own members, open."""
        self._signalled: dict[int, None] = {}
        self._before: dict[int, int] = {}
        """Policies of the threads that were boosted."""
        self._nice: dict[int, int] = {}
        self.is_v2 = bool(path) and os.path.exists(f"{path}/cgroup.freeze")
        self._tasks = "cgroup.threads" if self.is_v2 else "tasks"
        if not self.is_v2:
            if path:
                os.stat(f"{path}/cgroup.procs")
            return
        self._state = os.open(f"{path}/cgroup.freeze", os.O_RDWR | os.O_CLOEXEC)
        try:
            self._events = os.open(f"{path}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
            for name in ("cgroup.procs", self._tasks):
                self._lists[name] = os.open(f"{path}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self.close()
            raise

    @property
    def version(self) -> int:
        """Of the control group; 0 where there is none."""
        return (2 if self.is_v2 else 1) if self.path else 0

    def close(self) -> None:
        for fd in {self._state, self._events, *self._lists.values()} - {-1}:
            os.close(fd)
        self._state = self._events = -1
        self._lists.clear()

    # -- what the kernel says -------------------------------------------------------------------

    def stands(self) -> bool:
        """Whether nothing of it runs."""
        if self.is_v2:
            try:
                text = os.pread(self._events, 256, 0)
            except OSError:  # the group is gone, and with it all that ran
                return True
            if b"frozen 1" in text or b"populated 0" in text:
                return True
            if not self._signalled:
                return False
        return all(map(_stopped, self.threads()))

    def processes(self) -> list[int]:
        return self._list("cgroup.procs") if self.path else list(self._pids)

    def threads(self) -> list[int]:
        if self.path:
            return self._list(self._tasks)
        found = []
        for pid in self._pids:
            with contextlib.suppress(OSError):
                found += [int(tid) for tid in os.listdir(f"/proc/{pid}/task")]
        return found

    def _list(self, name: str) -> list[int]:
        found: list[int] = []
        if name in self._lists:
            found = _members(self._lists[name])
        else:  # v1 shows to an open file what it held when that was opened
            with contextlib.suppress(OSError), open(f"{self.path}/{name}", "rb") as file:
                found = [int(word) for word in file.read().split()]
        with contextlib.suppress(OSError):
            if os.stat(self.path).st_nlink > 2:  # the job has made groups of its own in it
                for place in _subtree(self.path)[1:]:
                    with open(f"{place}/{name}", "rb") as file:
                        found += map(int, file.read().split())
        return found

    # -- what is done ---------------------------------------------------------------------------

    def write(self, still: bool) -> None:
        """Ask the kernel's freezer; may wait for the hierarchy's lock."""
        if self.is_v2:
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                os.pwrite(self._state, b"1" if still else b"0", 0)

    def signal(self) -> None:
        """The other way to the same end; those that have been signalled are left alone."""
        for pid in self.processes():
            if pid not in self._signalled:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGSTOP)
                    self._signalled[pid] = None

    def boost(self) -> bool:
        """Let each thread that has yet to reach its trap run before all others; whether we may."""
        for _ in range(BOOST_PASSES):
            fresh = [tid for tid in self.threads() if tid not in self._before]
            if not fresh or (self._before and self.stands()):
                return True
            for tid in fresh:
                try:
                    policy = os.sched_getscheduler(tid)
                    self._before[tid] = policy
                    if policy in _ORDINARY:
                        os.sched_setscheduler(tid, _FIFO, _LOW)
                except ProcessLookupError:
                    continue
                except PermissionError:
                    return self._hurry()
        return True

    def _hurry(self) -> bool:
        """Second best, where the kernel lets no thread of the group be real-time: be nice to it."""
        for tid in self.threads():
            try:
                nice = os.getpriority(os.PRIO_PROCESS, tid)
                os.setpriority(os.PRIO_PROCESS, tid, -20)
                self._nice[tid] = nice
            except ProcessLookupError:
                continue
            except PermissionError:
                break
        return False

    def calm(self) -> None:
        """Each thread is again what it was before the boost."""
        for tid, policy in self._before.items():
            if policy in _ORDINARY:
                with contextlib.suppress(OSError):
                    os.sched_setscheduler(tid, policy, _NONE)
        for tid, nice in self._nice.items():
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, tid, nice)
        self._before.clear()
        self._nice.clear()

    def go_on(self) -> None:
        self.calm()
        self.write(still=False)
        signalled, self._signalled = self._signalled, {}
        for pid in signalled:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGCONT)

    def adopt(self) -> None:
        """It may have been stopped by a process that has died since: undo what that did."""
        self._signalled = {pid: None for pid in self.processes() if _stopped(pid)}
        for tid in self.threads():
            with contextlib.suppress(OSError):
                if os.sched_getscheduler(tid) == _FIFO:  # our mark: who else resets it on fork?
                    os.sched_setscheduler(tid, os.SCHED_OTHER, _NONE)

    def __len__(self) -> int:
        return max(len(self._before), len(self._nice), len(self._signalled))


class Freezer:
    """Stops and continues groups. One thread calls; a second one writes, so that it can be late."""

    def __init__(self, hedge_ns: int = HEDGE_NS) -> None:
        self._hedge_ns = hedge_ns
        self._order, self._done = os.eventfd(0), os.eventfd(0, os.EFD_NONBLOCK)
        self._poll = select.poll()
        self._poll.register(self._done, select.POLLIN)
        self._groups: list[Group] = []
        self._busy = False
        self._writer = threading.Thread(target=self._write, name="freezer", daemon=True)
        self._writer.start()

    def _write(self) -> None:
        while os.eventfd_read(self._order) < _LEAVE:
            for group in self._groups:
                group.write(still=True)
            os.eventfd_write(self._done, 1)

    def close(self) -> None:
        os.eventfd_write(self._order, _LEAVE)
        self._writer.join(1.0)
        if not self._writer.is_alive():
            os.close(self._order)
            os.close(self._done)

    def freeze(self, groups: list[Group]) -> Stop:
        """Let all of them stand still. Returns within ``CONFIRM_NS``, whatever happens."""
        stop = Stop(called_ns=time.monotonic_ns())
        grouped = [group for group in groups if group.is_v2]
        loose = [group for group in groups if not group.is_v2]
        for group in loose:
            group.signal()
        hedged = bool(grouped) and not self._ask(grouped)
        if hedged:
            for group in grouped:
                group.signal()
        stop.stopped_ns = time.monotonic_ns()
        boosted = [group.boost() for group in groups]
        stop.boosted = all(boosted)
        confirmed = self._confirm(groups, stop.called_ns + CONFIRM_NS)
        stop.confirmed_ns = time.monotonic_ns() if confirmed else 0
        stop.threads = sum(len(group) for group in groups)
        stop.how = "hedged" if hedged else "signals" if loose else "freezer"
        if not confirmed:
            stop.how += ", degraded"
            stop.stragglers = list(stragglers(groups))
        return stop

    def _ask(self, groups: list[Group]) -> bool:
        """Whether the write was through in time."""
        if self._busy and not self._poll.poll(0):
            return False  # the last one still waits for the lock
        if self._busy:
            os.eventfd_read(self._done)
        self._groups, self._busy = groups, True
        os.eventfd_write(self._order, 1)
        if not self._poll.poll(self._hedge_ns / 1e6):
            return False
        os.eventfd_read(self._done)
        self._busy = False
        return True

    def settle(self) -> None:
        """Wait for a write that was late: it must not come true after its group was let go on."""
        if self._busy and self._poll.poll(2000):
            os.eventfd_read(self._done)
            self._busy = False

    def _confirm(self, groups: list[Group], until_ns: int) -> bool:
        spins = 0
        while True:
            if all(group.stands() for group in groups):
                return True
            for group in groups:
                if not group.is_v2:  # it may have forked before its signal came
                    group.signal()
            if time.monotonic_ns() > until_ns:
                return False
            spins += 1
            if spins > SPINS:  # a real-time process that never sleeps starves the host
                time.sleep(BREATH_S)


def stragglers(groups: list[Group]) -> Iterator[str]:
    """What those do that have not come to a stand: where they are in the kernel."""
    shown = 0
    for group in groups:
        for tid in group.threads():
            if shown >= STRAGGLERS_SHOWN:
                return
            state = _state(tid)
            if state in ("R", "D"):
                shown += 1
                yield f"{tid} {state} {_where(tid)}"


def _members(fd: int) -> list[int]:
    """The numbers in a file of the kernel's that is open; it is read anew from its beginning."""
    pieces, at = [], 0
    while True:
        try:
            piece = os.pread(fd, 65536, at)
        except OSError:
            break
        if not piece:
            break
        pieces.append(piece)
        at += len(piece)
    return [int(word) for word in b"".join(pieces).split()]


def _subtree(path: str) -> list[str]:
    return [place for place, _, _ in os.walk(path)]


def _state(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read(512)
    except OSError:
        return "X"
    return chr(text[text.rfind(b")") + 2])


def _stopped(pid: int) -> bool:
    """Stopped by a signal, or gone; or waiting in the kernel for its vforked child, which has been
    stopped too: it gets no further than to its own signal."""
    state = _state(pid)
    if state == "D":
        where = _where(pid)
        return where == "kernel_clone" or "vfork" in where
    return state in ("T", "t", "Z", "X")


def _where(tid: int) -> str:
    """The function of the kernel in which it waits, where that is told."""
    try:
        with open(f"/proc/{tid}/wchan") as file:
            return file.read(64)
    except OSError:
        return "?"


_LEAVE = 1 << 32
_LOW = os.sched_param(1)
_NONE = os.sched_param(0)
_FIFO = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
_ORDINARY = (os.SCHED_OTHER, os.SCHED_BATCH, os.SCHED_IDLE)
