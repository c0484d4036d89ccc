"""What a supervisor holds on this machine: its directory, its ports, its logs within bounds."""

import fcntl
import os
import socket
from contextlib import suppress
from pathlib import Path

from hyperion.daemon.world import read_world


class CannotStart(Exception):
    """The world did not come up; the message says why, and shows a daemon's last log lines."""


class Ports:
    """Free ports that stay ours between two lives of a daemon, though nobody listens on them."""

    def __init__(self) -> None:
        self._held: list[socket.socket] = []

    def reserve(self, address: str) -> str:
        """``address`` as it is, or with a port in place of 0."""
        host, _, port = address.rpartition(":")
        if port != "0":
            return address
        family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
        held = socket.socket(family, socket.SOCK_STREAM)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind((host.strip("[]"), 0))
        self._held.append(held)
        return f"{host}:{held.getsockname()[1]}"

    def descriptors(self) -> list[int]:
        return [held.fileno() for held in self._held]

    def close(self) -> None:
        for held in self._held:
            held.close()
        self._held.clear()


def own(directory: Path) -> int:
    """Own the state directory as long as the returned descriptor is open, or ``CannotStart``."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(directory / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        world = read_world(directory)
        who = f" by process {world.supervisor.pid}" if world else ""
        raise CannotStart(
            f"{directory} is up already{who}; end it with `hyperion down`, or give --state-dir"
        ) from None
    return descriptor


def trim(log: Path, limit_bytes: int) -> None:
    """Keep a log within ``limit_bytes``, and one older piece of the same size beside it.

    The writer appends, so it goes on at the new end. Lines written in the moment between copy and
    cut are lost; that is the price of holding the bound for output of every origin.
    """
    with suppress(OSError):
        if log.stat().st_size <= limit_bytes:
            return
        with log.open("r+b") as source, log.with_suffix(".log.1").open("wb") as older:
            size = os.fstat(source.fileno()).st_size
            source.seek(max(0, size - limit_bytes))
            while piece := source.read(1 << 20):
                older.write(piece)
            source.truncate(0)
