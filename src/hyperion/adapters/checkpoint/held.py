"""What stands still and until when, in a file that outlives the process which stopped it.

One line of 1,024 bytes a group, so that a freeze writes down its end with one call before it acts:
``until version members``. ``until`` is in ms since boot (0: it runs), ``version`` that of the
control group, whose path follows; version 0 is followed by pids. The first line is the boot's id.
Nothing is synced to the disk: with the machine's power all that stood still is gone too. Standard
library only, like the fast path.
"""

import contextlib
import os
import time

LINE = 1024
MAX_LINES = 8192


def boot_ms() -> int:
    """On the clock that counts since boot, sleep included."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


class Held:
    def __init__(self, path: str) -> None:
        """A new file, which takes an older one's place once it is published. Raises OSError."""
        self._path = path
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        self._fd = os.open(f"{path}.new", flags, 0o600)
        self._spare: list[int] = []
        self._lines = 1
        os.pwrite(self._fd, _line(boot_id()), 0)

    def publish(self) -> None:
        """Only when it holds all that the older one held: a death in between orphans nobody."""
        os.replace(f"{self._path}.new", self._path)

    def unpublish(self) -> None:
        """Nothing stands still, and nobody needs to look any more."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)

    def add(self, version: int, members: str) -> int:
        """The line of a group from now on. OSError where it does not fit."""
        if len(members.encode()) > LINE - 32:
            raise OSError(f"too long for the list of what is held: {members[:80]}")
        if not self._spare and self._lines >= MAX_LINES:
            raise OSError("too many groups are armed")
        line = self._spare.pop() if self._spare else self._lines
        self._lines = max(self._lines, line + 1)
        os.pwrite(self._fd, _line(f"{0:020d} {version} {members}"), LINE * line)
        return line

    def drop(self, line: int) -> None:
        os.pwrite(self._fd, _line(f"{0:020d} 0 -"), LINE * line)
        self._spare.append(line)

    def mark(self, line: int, until_ms: int) -> None:
        os.pwrite(self._fd, b"%020d" % until_ms, LINE * line)

    def close(self) -> None:
        os.close(self._fd)


def read(path: str) -> list[tuple[int, int, str]]:
    """(until when, version, members) of what stands still; what stood before this boot does not."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read(LINE * MAX_LINES).splitlines()
    except OSError:
        return []
    if not lines or lines[0].rstrip() != boot_id():
        return []
    found = []
    for line in lines[1:]:
        until, version, members = (*line.rstrip().split(" ", 2), "", "")[:3]
        if until.isdigit() and version in ("0", "1", "2") and int(until) and members:
            found.append((int(until), int(version), members))
    return found


def _line(text: str) -> bytes:
    return text.encode().ljust(LINE - 1) + b"\n"
