"""The lease on disk, and the dead-man's switch that ends replicas when it has run out.

The lease is kept on the clock that counts since boot, sleep included, together with the boot's id,
so that neither a change of the wall clock nor a restart of the agent moves it.
"""

import asyncio
import contextlib
import fcntl
import os
import time
from pathlib import Path

from hyperion.adapters.runtime import tree

_SCRIPT = Path(__file__).with_name("deadman.sh")
_OWN_S = 1.0


def keep_lease(directory: Path, boot: str, remaining_ms: int) -> None:
    """Write down that the lease ends in ``remaining_ms``; whole or not at all."""
    replace(directory / "lease", f"{_boot_ms() + remaining_ms} {boot}\n")


def recover_lease(directory: Path, boot: str) -> int | None:
    """What is left of it in ms; 0 when it is of an earlier boot, None when there is none."""
    try:
        words = (directory / "lease").read_text(encoding="ascii").split()
    except FileNotFoundError:
        return None
    if len(words) != 2 or not words[0].isdigit():
        return 0
    return int(words[0]) - _boot_ms() if words[1] == boot else 0


def sign(directory: Path) -> None:
    """Say who the agent is, so that the switch knows whether it lives."""
    pid = os.getpid()
    replace(directory / "agent", f"{pid} {tree.start_ticks(pid)}\n")


def ensure(directory: Path, runtime: str, boot: str) -> int | None:
    """Start the switch unless one watches this directory already; its pid if started.

    The lock travels into the switch by inheritance and is free again when that has died.
    """
    lock = os.open(directory / "deadman.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        return os.posix_spawn(
            "/bin/sh",
            ["sh", str(_SCRIPT), str(directory), runtime, boot],
            {"PATH": os.environ.get("PATH", os.defpath)},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_DUP2, 1, 2),
                (os.POSIX_SPAWN_DUP2, lock, 9),
            ],
            setsid=True,
            setsigmask=(),
        )
    finally:
        os.close(lock)


async def own(directory: Path) -> int:
    """Take the directory for this process alone; the descriptor holds it.

    ``OSError`` when another agent has it. Waits a second, since a process just started by an
    agent that has ended holds the lock until its ``exec`` is through.
    """
    until = time.monotonic() + _OWN_S
    while (lock := _try_to_own(directory)) is None:
        if time.monotonic() > until:
            raise OSError(
                f"{directory} belongs to another agent that is running: stop it, or give this "
                "one a state directory of its own"
            )
        await asyncio.sleep(0.02)
    return lock


def _try_to_own(directory: Path) -> int | None:
    lock = os.open(directory / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def reap(pid: int) -> bool:
    """Whether our child ``pid`` has ended; it leaves no zombie."""
    with contextlib.suppress(ChildProcessError):
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    return True


def replace(path: Path, text: str) -> None:
    """Write a small file so that readers see the old or the new text, never a part."""
    draft = path.with_name(path.name + ".new")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
    os.replace(draft, path)


def _boot_ms() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
