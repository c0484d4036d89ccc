"""The agent's side of the page shared with a workload (layout: `hyperion.workload.page`)."""

import contextlib
import mmap
import os
import time
from dataclasses import dataclass

from hyperion.workload import page

POLL_S = 0.0002


@dataclass(frozen=True, slots=True)
class Answer:
    """What the page says of the workload."""

    capabilities: int
    pid: int
    committed_step: int
    state: int
    acknowledged: int
    acknowledged_at_ns: int
    snapshot_bytes: int
    snapshot_step: int
    freed_bytes: int


class Cooperative:
    def __init__(self, path: str) -> None:
        """Makes the page and its FIFO, before the workload starts, or takes over those that an
        earlier agent has made. Raises OSError."""
        self._wake_path = page.wake_path(path)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(fd, page.SIZE)
            self._mapped = mmap.mmap(fd, page.SIZE)
        finally:
            os.close(fd)
        with contextlib.suppress(FileExistsError):
            os.mkfifo(self._wake_path, 0o600)
        self._words = memoryview(self._mapped).cast("Q")
        self._words[page.VERSION] = page.VERSION_NUMBER
        self._mapped[:8] = page.MAGIC_BYTES

    def notice(self, by_ns: int) -> None:
        """The workload is to have ended by then (CLOCK_MONOTONIC); it sees so after its step."""
        self._words[page.NOTICE] = by_ns

    def ask(self, wanted: int, deadline_ns: int) -> int:
        """The request's number. A pause ends by itself at the deadline (CLOCK_MONOTONIC)."""
        self._words[page.DEADLINE] = deadline_ns
        return self._order(wanted)

    def resume(self) -> int:
        return self._order(page.RUN)

    @property
    def is_asked(self) -> bool:
        """Whether it has been asked to stand, by this agent or an earlier one."""
        return self._words[page.ORDER] & 255 in (page.PAUSE, page.STEP_PAUSE)

    def _order(self, wanted: int) -> int:
        request = (self._words[page.ORDER] >> 8) + 1
        self._words[page.ORDER] = request << 8 | wanted
        try:
            fd = os.open(self._wake_path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:  # Nobody has opened it yet.
            return request
        try:
            os.write(fd, b"!")
        except OSError:  # Full or just left: a waiting workload looks again by itself.
            pass
        finally:
            os.close(fd)
        return request

    def wait(self, request: int, timeout_s: float) -> bool:
        """Whether the request was carried out in time."""
        end = time.monotonic() + timeout_s
        while self._words[page.ACKNOWLEDGED] < request:
            if time.monotonic() >= end:
                return False
            time.sleep(POLL_S)
        return True

    def read(self) -> Answer:
        words = self._words
        return Answer(
            words[page.CAPABILITIES],
            words[page.PID],
            words[page.COMMITTED],
            words[page.STATE],
            words[page.ACKNOWLEDGED],
            words[page.ACKNOWLEDGED_AT],
            words[page.SNAPSHOT_BYTES],
            words[page.SNAPSHOT_STEP],
            words[page.FREED_BYTES],
        )

    def close(self) -> None:
        self._words.release()
        self._mapped.close()
