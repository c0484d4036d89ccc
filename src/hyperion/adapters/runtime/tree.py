"""Which processes belong to a replica, told by the marks in their environment; and their end."""

import asyncio
import os
import select
import signal
from collections.abc import Iterator, Mapping

ALLOCATION = "HYPERION_ALLOCATION"
RUNTIME = "HYPERION_RUNTIME"
_ENVIRON_MAX_BYTES = 4 << 20
_SHELLS = frozenset(("ash", "bash", "busybox", "csh", "dash", "fish", "ksh", "sh", "tcsh", "zsh"))
_IDLE_PER_SCAN = 9
"""Scans take at most one part in ten of a CPU, however many ask."""


class Census:
    """Looks up the processes of replicas by their marks, once for all who wait at the moment."""

    def __init__(self, runtime: str) -> None:
        self._runtime = runtime
        self._waiting: list[asyncio.Future[dict[str, list[int]]]] = []
        self._task: asyncio.Task[None] | None = None
        self._not_before = 0.0

    async def of(self, allocation: str) -> list[int]:
        """Living processes of ``allocation``, as of a moment after the call."""
        return (await self.all()).get(allocation, [])

    async def all(self) -> dict[str, list[int]]:
        """Living processes of every replica, by allocation."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[dict[str, list[int]]] = loop.create_future()
        self._waiting.append(answer)
        if self._task is None:
            self._task = loop.create_task(self._scan())
        return await answer

    async def _scan(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            await asyncio.sleep(self._not_before - loop.time())
            waiting, self._waiting = self._waiting, []
            began = loop.time()
            found = await asyncio.to_thread(marked, self._runtime)
            self._not_before = loop.time() + _IDLE_PER_SCAN * (loop.time() - began)
            for answer in waiting:
                if not answer.done():
                    answer.set_result(found)
        self._task = None

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
        for answer in self._waiting:
            answer.cancel()


def watch(pid: int, allocation: str) -> int | None:
    """A pidfd of process ``pid`` if it lives and belongs to ``allocation``, else None.

    The descriptor is opened before the marks are read, so a pid that is used anew cannot deceive.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except (ProcessLookupError, PermissionError, OverflowError, OSError):
        return None
    if _marks(pid).get(ALLOCATION) == allocation and not has_ended(pidfd):
        return pidfd
    os.close(pidfd)
    return None


def has_ended(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def marked(runtime: str) -> dict[str, list[int]]:
    """Every living process that ``runtime`` has launched, with its descendants, by allocation.

    Reads the environment of each process of this user: about 20 µs per process on the machine.
    """
    found: dict[str, list[int]] = {}
    for pid in _pids():
        marks = _marks(pid)
        if marks.get(RUNTIME) == runtime:
            found.setdefault(marks.get(ALLOCATION, ""), []).append(pid)
    return found


def signal_all(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            continue


def signal_group(leader: int, number: signal.Signals) -> None:
    """Signal the process group; its leader must be alive or not yet reaped."""
    if leader <= 1:  # 0 would be our own group
        return
    try:
        os.killpg(leader, number)
    except (ProcessLookupError, PermissionError):
        return


def ask_to_end(members: list[int], leader: int, wanted: str, told: dict[int, str]) -> None:
    """The first signal of an end: SIGTERM, or what is wanted, to each that has not been told yet
    and for which nobody else answers; after ``B:`` only to what the leader, our shim, has started
    itself. ``told``: by its number, what it was when it was told."""
    number = signal.Signals[f"SIG{wanted.removeprefix('B:') or 'TERM'}"]
    parents = {pid: _parent(pid) for pid in members}
    if wanted.startswith("B:"):
        to = [pid for pid, (parent, _) in parents.items() if parent == leader]
    else:
        to = [pid for pid in members if pid != leader and _is_head(pid, parents, leader)]
    signal_all([pid for pid in to if pid not in told], number)
    told.update((pid, parents[pid][1]) for pid in to if pid not in told)


def ask_again(wanted: str, told: dict[int, str]) -> None:
    """A process that is another program than when it was told has lost the signal: it was just
    about to become that."""
    number = signal.Signals[f"SIG{wanted.removeprefix('B:') or 'TERM'}"]
    changed = {pid: now for pid, was in told.items() if (now := _parent(pid)[1]) not in ("", was)}
    signal_all(list(changed), number)
    told.update(changed)


def _is_head(pid: int, parents: Mapping[int, tuple[int, str]], leader: int) -> bool:
    """A shell hands no signal on. Any other program sees to what it has started itself: what loads
    data in the background, say, must not vanish under it."""
    above, _ = parents[pid]
    while above != leader and above in parents:
        above, name = parents[above]
        if name not in _SHELLS:
            return False
    return True


def _parent(pid: int) -> tuple[int, str]:
    """(its parent, its own name); (0, "") when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
            name, _, rest = stat.read().partition("(")[2].rpartition(") ")
        return int(rest.split()[1]), name
    except OSError:
        return 0, ""


def start_ticks(pid: int) -> str:
    """When the process began, in clock ticks since boot; with the pid it names it for ever."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
        return stat.read().rpartition(") ")[2].split()[19]


def _pids() -> Iterator[int]:
    own = os.getpid()
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != own:
            yield int(name)


def _marks(pid: int) -> dict[str, str]:
    try:
        fd = os.open(f"/proc/{pid}/environ", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return {}
    try:
        environ = b""
        while len(environ) < _ENVIRON_MAX_BYTES and (part := os.read(fd, 1 << 17)):
            environ += part
    except OSError:
        return {}
    finally:
        os.close(fd)
    if RUNTIME.encode() not in environ:
        return {}
    marks: dict[str, str] = {}
    for entry in environ.split(b"\0"):
        name, _, value = entry.partition(b"=")
        if name in (ALLOCATION.encode(), RUNTIME.encode()):
            marks.setdefault(name.decode(), value.decode(errors="replace"))
    return marks
