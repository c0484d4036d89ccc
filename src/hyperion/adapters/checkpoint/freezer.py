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
import errno
import os
import select
import signal
import threading
import time
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

HEDGE_NS = 1_500_000
CONFIRM_NS = 50_000_000
"""Whoever has not come to a stand by then is in the kernel for long: the answer is *degraded*."""
SPINS = 40
BREATH_S = 0.00005
BOOST_PASSES = 4
SIGNAL_PASSES = 8
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
        self.pids = pids
        self._state = self._events = self._stat = -1
        self._lists: dict[str, int] = {}
        """Files of the group's own members, open."""
        self._signalled: dict[int, None] = {}
        self._before: dict[int, int] = {}
        """Policies of the threads that are boosted."""
        self._nice: dict[int, int] = {}
        self._seen: dict[int, int] = {}
        """Policies of threads that are yet to be boosted."""
        self._wanted = False
        """Whether it is to stand still; a write that comes late looks here."""
        self.threads_stopped = 0
        self.is_v2 = bool(path) and os.path.exists(f"{path}/cgroup.freeze")
        self._tasks = "cgroup.threads" if self.is_v2 else "tasks"
        if not self.is_v2:
            if path:
                os.stat(f"{path}/cgroup.procs")
            return
        self._state = os.open(f"{path}/cgroup.freeze", os.O_RDWR | os.O_CLOEXEC)
        try:
            self._events = os.open(f"{path}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
            with contextlib.suppress(FileNotFoundError):
                self._stat = os.open(f"{path}/cgroup.stat", os.O_RDONLY | os.O_CLOEXEC)
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
        for fd in {self._state, self._events, self._stat, *self._lists.values()} - {-1}:
            os.close(fd)
        self._state = self._events = self._stat = -1
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
        """With all their children, where no group says who belongs to it."""
        return self._list("cgroup.procs") if self.path else _family(self.pids)

    def threads(self) -> list[int]:
        if self.path:
            return self._list(self._tasks)
        return [tid for pid in self.processes() for tid in _tasks(pid)]

    def shares(self, paths: Sequence[str], pids: Collection[int]) -> bool:
        """Whether it is one of these groups, or holds one of these processes."""
        return self.path in paths if self.path else any(pid in pids for pid in self.pids)

    def _list(self, name: str) -> list[int]:
        found: list[int] = []
        if name in self._lists:
            found = _members(self._lists[name])
        else:  # v1 shows to an open file what it held when that was opened
            with contextlib.suppress(OSError), open(f"{self.path}/{name}", "rb") as file:
                found = [int(word) for word in file.read().split()]
        with contextlib.suppress(OSError):
            if self._has_groups():
                for place in _subtree(self.path)[1:]:
                    with open(f"{place}/{name}", "rb") as file:
                        found += map(int, file.read().split())
        return found

    def _has_groups(self) -> bool:
        """Whether the job has made groups of its own in it. Not by stat(2), which waits for whoever
        makes or removes a group anywhere, and that may be a process that waits for a CPU."""
        if self._stat < 0:
            return not self.is_v2 and os.stat(self.path).st_nlink > 2
        return not os.pread(self._stat, 256, 0).startswith(b"nr_descendants 0\n")

    # -- what is done ---------------------------------------------------------------------------

    def want(self, still: bool) -> None:
        """How it is to be; ``write`` lets the kernel's freezer do it."""
        self._wanted = still

    def write(self) -> bool:
        """May wait for the hierarchy's lock, and looks afterwards whether it is still wanted so.

        Whether the kernel took the order.
        """
        while True:
            still = self._wanted
            done = self._write(still)
            if self._wanted == still:
                return done

    def _write(self, still: bool) -> bool:
        try:
            os.pwrite(self._state, b"1" if still else b"0", 0)
        except OSError as error:  # nothing runs in a group that is gone
            return error.errno in (errno.ENODEV, errno.ENOENT, errno.ESRCH)
        return True

    def signal(self) -> None:
        """The other way to the same end. Children that are born meanwhile are found too."""
        for _ in range(SIGNAL_PASSES):
            fresh = [pid for pid in self.processes() if pid not in self._signalled]
            if not fresh:
                return
            for pid in fresh:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGSTOP)
                    self._signalled[pid] = None

    def look(self) -> None:
        """See who is there and what they are, while somebody else asks the kernel to stop them."""
        for tid in self.threads():
            if tid not in self._before:
                with contextlib.suppress(ProcessLookupError):
                    self._seen[tid] = os.sched_getscheduler(tid)

    def boost(self) -> bool:
        """Let each thread that has yet to reach its trap run before all others; whether we may."""
        allowed = True
        for _ in range(BOOST_PASSES):
            if not self._seen:
                if self._before and self.stands():
                    break
                self.look()
            if not self._seen:
                break
            allowed = self._make_realtime()
            if not allowed:
                self._hurry()
                break
        self.threads_stopped = max(len(self._before), len(self._nice))
        return allowed

    def _make_realtime(self) -> bool:
        seen, self._seen = self._seen, {}
        for tid, policy in seen.items():
            self._before[tid] = policy
            if policy in _ORDINARY:
                try:
                    os.sched_setscheduler(tid, _FIFO, BOOSTED)
                except ProcessLookupError:
                    continue
                except PermissionError:
                    return False
        return True

    @property
    def is_boosted(self) -> bool:
        return bool(self._before or self._nice)

    def _hurry(self) -> None:
        """Second best, where the kernel lets no thread of the group be real-time: be nice to it."""
        for tid in self.threads():
            try:
                nice = self._nice.get(tid, os.getpriority(os.PRIO_PROCESS, tid))
                os.setpriority(os.PRIO_PROCESS, tid, -20)
                self._nice[tid] = nice
            except ProcessLookupError:
                continue
            except PermissionError:
                break

    def calm(self) -> None:
        """Each thread is again what it was before the boost."""
        for tid, policy in self._before.items():
            if policy in _ORDINARY:
                _calm(tid, policy)
        for tid, nice in self._nice.items():
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, tid, nice)
        self._before.clear()
        self._nice.clear()

    def release(self) -> None:
        """Undo boosts and signals; the freezer's hold is the writer's."""
        self.calm()
        self._seen.clear()
        signalled, self._signalled = self._signalled, {}
        for pid in signalled:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGCONT)

    def adopt(self) -> None:
        """Another process has stopped it and died since: undo its signals and boosts too."""
        self._wanted = True
        self._signalled = dict.fromkeys(self.processes())  # a signal may wait for its end, unseen
        for tid in self.threads():
            with contextlib.suppress(OSError):
                if os.sched_getscheduler(tid) == _FIFO and os.sched_getparam(tid) == BOOSTED:
                    _calm(tid, os.SCHED_OTHER)  # who else resets it on fork?


class Freezer:
    """Stops and continues groups. One thread calls; a second one writes, so that it can be late."""

    def __init__(self, hedge_ns: int = HEDGE_NS) -> None:
        self._hedge_ns = hedge_ns
        self._order, self._done = os.eventfd(0), os.eventfd(0, os.EFD_NONBLOCK)
        self._poll = select.poll()
        self._poll.register(self._done, select.POLLIN)
        self._queue: deque[tuple[int, list[Group]]] = deque()
        self._handed = self._through = 0
        """Numbers of the newest order that was handed to the writer, and of the last one done."""
        self._refused = 0
        """Number of the last order that the kernel did not take."""
        self._retired: list[Group] = []
        """Groups that are used no more, but that a late write may still be for."""
        self._writer = threading.Thread(target=self._write, name="freezer", daemon=True)
        self._writer.start()

    def _write(self) -> None:
        while os.eventfd_read(self._order) < _LEAVE:
            while self._queue:
                number, groups = self._queue.popleft()
                done = [group.write() for group in groups]
                if not all(done):
                    self._refused = number
                self._through = number
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
        for group in groups:
            group.want(still=True)
        hedged = bool(grouped) and not self._ask(grouped, look=True)
        if hedged:
            for group in grouped:
                group.signal()
        stop.stopped_ns = time.monotonic_ns()
        boosted = [group.boost() for group in groups]
        stop.boosted = all(boosted)
        confirmed = self._confirm(groups, stop.called_ns + CONFIRM_NS)
        stop.confirmed_ns = time.monotonic_ns() if confirmed else 0
        stop.threads = sum(group.threads_stopped for group in groups)
        stop.how = "hedged" if hedged else "signals" if loose else "freezer"
        if not confirmed:
            stop.how += ", degraded"
            stop.stragglers = list(stragglers(groups))
        return stop

    def go_on(self, groups: list[Group]) -> None:
        """Let them run again: at once, or as soon as the hierarchy's lock is free."""
        for group in groups:
            group.want(still=False)
        self._ask([group for group in groups if group.is_v2])
        for group in groups:
            group.release()

    def _ask(self, groups: list[Group], look: bool = False) -> bool:
        """Whether the kernel took it in time."""
        if not groups:
            return True
        wait_ms = self._hedge_ns / 1e6 if self._settled(0) else 0  # one that is late holds up all
        self._handed += 1
        self._queue.append((self._handed, groups))
        os.eventfd_write(self._order, 1)
        if look:
            for group in groups:
                group.look()
        return self._settled(wait_ms) and self._refused != self._handed

    def _settled(self, within_ms: float) -> bool:
        """Whether all writes are through."""
        until_ns = time.monotonic_ns() + int(1e6 * within_ms)
        while self._through < self._handed:
            left_ms = (until_ns - time.monotonic_ns()) / 1e6
            if not self._poll.poll(max(0, left_ms)):
                return False
            os.eventfd_read(self._done)
        while self._retired:
            self._retired.pop().close()
        return True

    def retire(self, groups: list[Group]) -> None:
        """They are used no more. Their files are closed once no late write can be for them."""
        self._retired += groups
        self._settled(0)

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


def _tasks(pid: int) -> list[int]:
    try:
        return [int(tid) for tid in os.listdir(f"/proc/{pid}/task")]
    except OSError:
        return []


def _family(pids: Sequence[int]) -> list[int]:
    """The processes and all that descend from them, as far as the chain of parents is whole."""
    found = dict.fromkeys(pids)
    ask = list(pids)
    while ask:
        pid = ask.pop()
        for tid in _tasks(pid):
            with (
                contextlib.suppress(OSError),
                open(f"/proc/{pid}/task/{tid}/children", "rb") as file,
            ):
                fresh = [child for child in map(int, file.read().split()) if child not in found]
                found.update(dict.fromkeys(fresh))
                ask += fresh
    return list(found)


def _calm(tid: int, policy: int) -> None:
    with contextlib.suppress(OSError):
        try:
            os.sched_setscheduler(tid, policy, _NONE)
        except PermissionError:  # only root may take the flag away again; it does no harm
            os.sched_setscheduler(tid, policy | os.SCHED_RESET_ON_FORK, _NONE)


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
BOOSTED = os.sched_param(2)
"""Above a standby that was just activated (``guards``), or it would keep them from their trap."""
_NONE = os.sched_param(0)
_FIFO = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
_ORDINARY = (os.SCHED_OTHER, os.SCHED_BATCH, os.SCHED_IDLE)
