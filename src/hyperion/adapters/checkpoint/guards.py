"""What is to stand still for whom, and the sockets that say when: the fast path's own part.

A *gate* is a socket that a standby listens on. The kernel tells us by a signal that somebody has
connected, at the same time as it wakes the standby and whoever of the two is faster: nobody stands
between the client and the server, and no connection is missed. (Polling the socket would miss
those that the standby takes first.)

Standard library only, like all of the fast path.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterable
from typing import Any

if __package__:
    from hyperion.adapters.checkpoint.held import boot_ms
else:  # started by its path
    from held import boot_ms  # type: ignore[import-not-found,no-redef]

KNOCK = signal.SIGRTMIN + 3
"""Somebody has connected."""
FIRST_MS = 10
"""So long after it was activated a standby stays real-time: by then its victims stand still. Some
hosts let a group be real-time for a few milliseconds in each second only."""
MAX_VICTIMS = 512
_RECORD = 128
"""Bytes of a struct signalfd_siginfo (signalfd(2)): the signal first, the descriptor at 20."""
_NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC
_READY = os.sched_param(1)
"""The least real-time priority: below what is being stopped, so that it comes to a stand."""
_PLAIN = os.sched_param(0)


class Guard:
    def __init__(self) -> None:
        self.victims: list[tuple[str, int]] = []
        """Names, and for how many ms they stand still at most."""
        self.gate: socket.socket | None = None
        self.is_active = False
        self.listener = -1
        """Which client is told when the gate has been knocked at."""
        self.calm_at_ms = 0
        """When it is real-time no more, after it has been activated; 0: not to be."""

    def close(self) -> None:
        if self.gate is not None:
            with contextlib.suppress(OSError):
                _deafen(self.gate)
            self.gate.close()
            self.gate = None


class Guards:
    """Who stands still for which standby. ``stop`` lets some stand still and tells how that went
    and who it was; ``threads`` are those of an armed set; ``tell`` sends a packet to a client."""

    def __init__(
        self,
        stop: Callable[[list[tuple[str, int]]], tuple[dict[str, Any], list[str]]],
        threads: Callable[[str], list[int]],
        tell: Callable[[int, bytes], None],
    ) -> None:
        self._stop = stop
        self._threads = threads
        self._tell = tell
        self._guards: dict[str, Guard] = {}
        self._knocks: Knocks | None = None

    @property
    def fd(self) -> int:
        """Readable when a gate has been knocked at; -1 as long as there is none."""
        return self._knocks.fd if self._knocks is not None else -1

    @property
    def calm_at_ms(self) -> int:
        """When ``calm`` is due next; 0: never."""
        return min((x.calm_at_ms for x in self._guards.values() if x.calm_at_ms), default=0)

    def put(self, name: str, victims: list[tuple[str, int]], gate: int, client: int) -> None:
        """Replaces what was said before; ``gate`` is a descriptor of ours from now on, or -1."""
        made = _socket(gate) if gate >= 0 else None
        guard = self._guards.setdefault(name, Guard())
        is_new, guard.listener = client != guard.listener, client
        guard.victims = victims
        if is_new and guard.is_active:  # its agent was not there, or is another one
            said, _ = self._stop([])
            event = {"event": "activated", "set": name, "received_ns": said["called_ns"], **said}
            self._tell(client, json.dumps({**event, "frozen": []}).encode())
        if made is None:
            return
        guard.close()
        guard.gate = made
        if self._knocks is None:
            self._knocks = Knocks()
        listen_to(made)

    def drop(self, name: str) -> None:
        guard = self._guards.pop(name, None)
        if guard is not None:
            guard.close()

    def rest(self, name: str) -> bool:
        """It is quiet: the next one who knocks activates it again. Whether it is real-time."""
        guard = self._guards.setdefault(name, Guard())
        guard.is_active, guard.calm_at_ms = False, 0
        return quicken(self._threads(name))

    def activate(self, name: str) -> dict[str, Any]:
        """Let its victims stand still. Once it is active this changes nothing."""
        guard = self._guards.setdefault(name, Guard())
        was = guard.is_active
        guard.is_active = True
        said, frozen = self._stop([] if was else guard.victims)
        if not was:
            guard.calm_at_ms = boot_ms() + FIRST_MS
        return {**said, "frozen": frozen, "was": was}

    def answer_knocks(self) -> None:
        """Activate whatever has been knocked at, and say so."""
        assert self._knocks is not None, "there are gates"
        fds = self._knocks.read()
        read_ns = time.monotonic_ns()
        for name, guard in self._guards.items():
            gate = guard.gate
            if gate is None or guard.is_active or not (fds is None or gate.fileno() in fds):
                continue
            said = self.activate(name)
            event = {"event": "activated", "set": name, "received_ns": read_ns, **said}
            self._tell(guard.listener, json.dumps(event).encode())

    def calm(self) -> None:
        """Those that have been active for a while are real-time no more."""
        now_ms = boot_ms()
        for name, guard in self._guards.items():
            if guard.calm_at_ms and guard.calm_at_ms <= now_ms:
                guard.calm_at_ms = 0
                calm(self._threads(name))


class Knocks:
    """Reads which gates have been knocked at. ``block`` must have been called in all threads."""

    def __init__(self) -> None:
        mask = struct.pack("Q", 1 << (KNOCK - 1) | 1 << (signal.SIGIO - 1))
        libc = ctypes.CDLL(None, use_errno=True)
        self.fd = libc.signalfd(-1, ctypes.create_string_buffer(mask), _NONBLOCK_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "signalfd")

    def read(self) -> set[int] | None:
        """Their descriptors; None: some were lost, so it may be any."""
        found: set[int] = set()
        while True:
            try:
                records = os.read(self.fd, 16 * _RECORD)
            except BlockingIOError:
                return found
            for at in range(0, len(records), _RECORD):
                number, _, _, _, _, fd = struct.unpack_from("IiiIIi", records, at)
                if number == signal.SIGIO:  # the queue of signals was full
                    return None
                found.add(fd)


def block() -> None:
    """Before there is a second thread, which inherits it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [KNOCK, signal.SIGIO])


def listen_to(gate: socket.socket) -> None:
    """From now on whoever connects is announced to this process by ``KNOCK``."""
    fd = gate.fileno()
    fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(fd, fcntl.F_SETSIG, KNOCK)
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)


def _deafen(gate: socket.socket) -> None:
    fd = gate.fileno()
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) & ~os.O_ASYNC)


def quicken(threads: Iterable[int]) -> bool:
    """A standby comes before all ordinary threads as soon as it wakes; whether we may do that."""
    for tid in threads:
        try:
            if os.sched_getscheduler(tid) == os.SCHED_OTHER:
                os.sched_setscheduler(tid, os.SCHED_RR, _READY)
        except ProcessLookupError:
            continue
        except PermissionError:
            return False
    return True


def calm(threads: Iterable[int]) -> None:
    """Those that the victims made way for need no more than anybody."""
    for tid in threads:
        with contextlib.suppress(OSError):
            if os.sched_getscheduler(tid) == os.SCHED_RR and os.sched_getparam(tid) == _READY:
                os.sched_setscheduler(tid, os.SCHED_OTHER, _PLAIN)


def _socket(fd: int) -> socket.socket:
    """Ours from now on, even if it is none: then OSError, and it is closed."""
    try:
        return socket.socket(fileno=fd)
    except OSError:
        os.close(fd)
        raise


def descriptor(ancillary: list[tuple[int, int, bytes]]) -> int:
    """What came with a packet; -1: nothing."""
    found = [
        fd
        for level, kind, data in ancillary
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
        for (fd,) in struct.iter_unpack("i", data[: len(data) // 4 * 4])
    ]
    for fd in found[1:]:
        os.close(fd)
    return found[0] if found else -1
