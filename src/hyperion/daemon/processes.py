"""Processes on this machine: start one as a fork, know one for sure, end one for good."""

import ctypes
import gc
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from hyperion.daemon.world import ProcessMark

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_CRASHED = 70
"""EX_SOFTWARE of sysexits.h."""
_SWEEPS = 50


def mark_of(pid: int) -> ProcessMark | None:
    """How to know this process again; None when it is gone (a zombie counts as gone)."""
    stat = _stat(pid)
    if stat is None or stat[0] in ("Z", "X"):
        return None
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ProcessMark(pid, int(stat[19]), boot)


def is_alive(mark: ProcessMark) -> bool:
    return mark_of(mark.pid) == mark


def end(mark: ProcessMark, number: int, wait_s: float) -> bool:
    """Send a signal to exactly this process and wait for its end; whether it is gone."""
    try:
        handle = os.pidfd_open(mark.pid)
    except OSError:
        return True
    try:
        if not is_alive(mark):  # asked after the handle was taken: it cannot be another one now
            return True
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, number)
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        return bool(poll.poll(wait_s * 1000)) or not is_alive(mark)
    finally:
        os.close(handle)


def children() -> list[int]:
    """Living processes whose parent we are, those that their own parents left to us included."""
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            stat = _stat(int(entry.name))
            if stat is not None and int(stat[1]) == os.getpid() and stat[0] not in ("Z", "X"):
                found.append(int(entry.name))
    return found


def adopt_orphans() -> None:
    """Become the parent of whatever our daemons leave behind, so that it can be ended."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def end_all_children(grace_s: float) -> int:
    """End every child, and what those leave to us, by SIGTERM, then SIGKILL; how many there were.

    Bounded: gives up after ``_SWEEPS`` looks, which only an unkillable process can bring about.
    """
    seen: set[int] = set()
    until = time.monotonic() + grace_s
    for _ in range(_SWEEPS):
        _reap()
        living = children()
        if not living:
            break
        late = time.monotonic() >= until
        for pid in living:
            if late or pid not in seen:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
        seen.update(living)
        time.sleep(0.02 if late else min(0.1, max(0.005, grace_s / 20)))
    _reap()
    return len(seen)


def _reap() -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def share_memory() -> None:
    """Call once, before the first ``fork``, when all is loaded that children share.

    The garbage collector would write into every object it looks at, and so give each process its
    own copy of the page: it leaves alone what is here now.
    """
    gc.collect()
    gc.freeze()


def fork(
    main: Callable[[], int], *, title: Sequence[str], log: Path, close: Iterable[int]
) -> ProcessMark:
    """Run ``main`` in a child: own session, output appended to ``log``, SIGTERM when we die.

    A fork, not an exec: the child shares the modules that are loaded already. The caller must have
    one thread only and no event loop.
    """
    parent = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    begun, go = os.pipe()
    pid = os.fork()
    if pid:
        for unneeded in (descriptor, begun):
            os.close(unneeded)
        mark = mark_of(pid)
        os.close(go)
        assert mark is not None, "a child that waits for us cannot be gone"
        return mark
    code = _CRASHED
    try:
        os.close(go)
        _become_daemon(parent, title, descriptor, (*close, begun))
        code = main()
    except BaseException:  # nothing may return into the parent's code
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _become_daemon(parent: int, title: Sequence[str], log: int, close: Iterable[int]) -> None:
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    os.setsid()
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before we could ask to be told
        os._exit(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    *others, begun = close
    os.read(begun, 1)  # returns when the parent has taken our mark
    for descriptor in (nothing, log, begun, *others):
        with suppress(OSError):
            os.close(descriptor)
    _take_title(title)


def _take_title(words: Sequence[str]) -> None:
    """Show up in ``ps`` and ``top`` as what we are, in place of the parent's arguments."""
    stat = _stat(os.getpid())
    if stat is None:
        return
    start, stop = int(stat[45]), int(stat[46])
    text = "\0".join(words).encode() + b"\0"
    if 0 < start < stop:
        ctypes.memmove(start, text[: stop - start - 1].ljust(stop - start, b"\0"), stop - start)
    _prctl(_PR_SET_NAME, "-".join(words)[:15].encode())


def _prctl(option: int, value: int | bytes) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    argument = ctypes.c_char_p(value) if isinstance(value, bytes) else ctypes.c_ulong(value)
    if libc.prctl(option, argument, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), f"prctl {option}")


def _stat(pid: int) -> list[str] | None:
    """/proc/PID/stat from the third field (state) on; see proc(5)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b") ")[2].decode("ascii").split()
    except OSError:
        return None
