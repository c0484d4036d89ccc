"""How a daemon says that it serves, and how whoever started it learns of that."""

import os
import socket
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Struct

READY = "ready.json"
_MAX_BYTES = 4096


class Ready(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``<state_dir>/ready.json``: true as long as the process ``pid`` lives."""

    pid: int
    port: int = 0
    """Of gRPC; 0 where the daemon only dials."""
    rest: str = ""
    """URL of REST; empty for none."""
    attached: bool | None = None
    """Whether it has reached the peer above it; None where there is none, or it does not say."""


def say_ready(
    state_dir: str | Path, *, port: int = 0, rest: str = "", attached: bool | None = None
) -> None:
    """Say that this process serves; again when ``attached`` has changed.

    Systemd is told as well, by its own protocol (sd_notify(3)), where it asked for that.
    """
    said = Ready(pid=os.getpid(), port=port, rest=rest, attached=attached)
    path = Path(state_dir) / READY
    draft = path.with_suffix(f".{said.pid}")
    draft.write_bytes(msgspec.json.encode(said))
    draft.replace(path)
    _tell_systemd(f"READY=1\nSTATUS=serves, port {port}" if port else "READY=1")


def read_ready(state_dir: str | Path, pid: int) -> Ready | None:
    """What the process ``pid`` has said; None when it has not yet."""
    with suppress(OSError, msgspec.DecodeError):
        with (Path(state_dir) / READY).open("rb") as file:
            said = msgspec.json.decode(file.read(_MAX_BYTES), type=Ready)
        if said.pid == pid:
            return said
    return None


def _tell_systemd(message: str) -> None:
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        out.connect("\0" + address[1:] if address[0] == "@" else address)
        out.send(message.encode())
