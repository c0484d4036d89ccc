"""The files by which a replica is known: who claimed it, how it ended, who stopped it.

``claim`` is created exclusively, by the shim that runs the replica or by whoever makes sure that
none ever will (a fence). ``exit`` is written by the shim when the command has ended. ``stop`` is
written before anybody ends the replica, and says why. The order of these writes is the protocol.
"""

import os
import re
from pathlib import Path

from msgspec import Struct

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+=-]{0,199}", re.ASCII)
_MAX_BYTES = 4096


class Claim(Struct, frozen=True):
    """Who runs a replica. ``pid`` 0 is a fence; None is a claim whose writer died writing it."""

    pid: int | None
    boot: str = ""
    group: str = ""
    """The control group by which to kill it; empty where there is none."""

    @property
    def is_fence(self) -> bool:
        return self.pid == 0


class Exit(Struct, frozen=True):
    """How the shim saw it end. ``phase`` is run, setup, cwd or group."""

    code: int
    phase: str = "run"


def is_name(text: str) -> bool:
    """Whether ``text`` may be the name of a directory and of a control group."""
    return _NAME.fullmatch(text) is not None


def is_there(directory: str) -> bool:
    """Whether the replica's directory exists."""
    return os.path.isdir(directory)


def boot_id() -> str:
    """Which boot of the machine this is; a pid means something only within one."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def read_claim(directory: str) -> Claim | None:
    """The claim on the replica in ``directory``; None where nobody has claimed it."""
    line = _read(f"{directory}/claim")
    if line is None:
        return None
    words = line[:-1].split(" ", 2) if line.endswith("\n") else []
    if len(words) < 2 or not words[0].isdigit():
        return Claim(None)
    return Claim(int(words[0]), words[1], words[2] if len(words) > 2 else "")


def fence(directory: str, boot: str) -> bool:
    """Claim a replica so that it can never start. False: somebody else has claimed it."""
    try:
        fd = os.open(f"{directory}/claim", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC)
    except FileExistsError:
        return False
    try:
        os.write(fd, f"0 {boot} \n".encode())
    finally:
        os.close(fd)
    return True


def read_exit(directory: str) -> Exit | None:
    """How it ended; None where the shim has not written that, or not to the end."""
    line = _read(f"{directory}/exit")
    if line is None or not line.endswith("\n"):
        return None
    code, _, phase = line.strip().partition(" ")
    return Exit(int(code), phase or "run") if code.isdigit() else None


def write_stop(directory: str, reason: str) -> None:
    """Note that somebody ends it, before doing so. The first reason stays."""
    try:
        fd = os.open(f"{directory}/stop", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC)
    except FileExistsError:
        return
    try:
        os.write(fd, f"{reason}\n".encode())
    finally:
        os.close(fd)


def read_stop(directory: str) -> str | None:
    """Why somebody ended it; None where nobody did."""
    line = _read(f"{directory}/stop")
    return None if line is None else line.strip()


def claimed_at_ms(directory: str) -> int:
    """When the replica began, ms since the epoch."""
    return os.stat(f"{directory}/claim").st_mtime_ns // 1_000_000


def _read(path: str) -> str | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return os.read(fd, _MAX_BYTES).decode(errors="replace")
    finally:
        os.close(fd)
