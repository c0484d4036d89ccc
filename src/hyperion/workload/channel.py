"""The workload's side of the page: where it may pause, and how it waits while it does.

`point` is one load and one comparison while nobody asks. A pause ends when the agent says so, or by
itself at the deadline, so a dead agent holds nobody up for longer than it had asked for.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import select
import sys
import threading
import time
from collections.abc import Callable

from hyperion.workload import memory, page

# A lost wake-up costs this much and no more.
RECHECK_S = 0.05


class Channel:
    def __init__(self, path: str) -> None:
        """Maps the page. ValueError where it is not one of ours; OSError."""
        if sys.byteorder != "little":
            raise ValueError("the page is little-endian, this machine is not")
        self.path = path
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            if os.fstat(fd).st_size != page.SIZE:
                raise ValueError(f"{path} is no page of a workload: wrong size")
            mapped = mmap.mmap(fd, page.SIZE)
            self._words = memoryview(mapped).cast("Q")
            known = mapped[:8] == page.MAGIC_BYTES
            if not known or self._words[page.VERSION] != page.VERSION_NUMBER:
                raise ValueError(f"{path} is no page of a workload that is known here")
            self._pid = os.getpid()
            self.answers = self._claim(fd)
            """One process answers for a page; the others of its replica only read it."""
        finally:
            os.close(fd)
        # Read and write: a FIFO without a writer would be readable for ever.
        self._wake = os.open(page.wake_path(path), os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        order = self._words[page.ORDER]
        done = order >> 8 <= self._words[page.ACKNOWLEDGED]
        self._seen = order if done or not self.answers else 0
        self._lock = threading.Lock()
        self._snapshot: Callable[[], Callable[[], int]] | None = None
        self._aside: threading.Thread | None = None
        """Does what is left to do while the workload stands."""
        self._settling = threading.Lock()

    def _claim(self, fd: int) -> bool:
        fcntl.flock(fd, fcntl.LOCK_EX)
        owner = self._words[page.PID]
        free = owner in (0, self._pid) or not os.path.exists(f"/proc/{owner}")
        if free:
            self._words[page.PID] = self._pid
            self._words[page.STATE] = page.RUNNING
        fcntl.flock(fd, fcntl.LOCK_UN)
        return free

    @property
    def notice_ns(self) -> int:
        """By when this workload is to have ended (CLOCK_MONOTONIC); 0: nobody has said so."""
        return self._words[page.NOTICE]

    def able(
        self, capabilities: int, snapshot: Callable[[], Callable[[], int]] | None = None
    ) -> None:
        """Says what this workload can do. `snapshot` copies the state of the step that has just
        ended; what it returns writes the copy, and gives its bytes."""
        if not self.answers:
            return
        if snapshot is not None:
            self._snapshot = snapshot
            capabilities |= page.SNAPSHOTS
        self._words[page.CAPABILITIES] |= capabilities

    def point(self) -> None:
        """A place where the workload may pause."""
        if self._words[page.ORDER] != self._seen:
            self._obey(at_step=False)

    def step(self, number: int | None = None) -> None:
        """A step is done: it is committed, then what was asked for is done."""
        if not self.answers or os.getpid() != self._pid:
            return
        words = self._words
        words[page.STEP] += 1
        words[page.COMMITTED] = words[page.COMMITTED] + 1 if number is None else number
        if words[page.ORDER] != self._seen:
            self._obey(at_step=True)

    def _obey(self, at_step: bool) -> None:
        # A forked child (a DataLoader's worker) shares the mapping: it must not answer.
        if not self.answers or os.getpid() != self._pid:
            return
        with self._lock:
            order = self._words[page.ORDER]
            if order == self._seen:
                return
            wanted = order & 255
            if wanted in (page.SNAPSHOT, page.STEP_PAUSE) and not at_step:
                return
            self._seen = order
            if wanted == page.SNAPSHOT:
                self._write(self._copy(), self._words[page.COMMITTED])
            self._words[page.FREED_BYTES] = 0
            if wanted == page.STEP_PAUSE:  # said before the answer: who waits for that looks here
                self._words[page.STATE] = page.SETTLING
            elif wanted == page.PAUSE:
                self._words[page.STATE] = page.AT_STEP if at_step else page.AT_POINT
            self._acknowledge(order >> 8)
            if wanted == page.STEP_PAUSE:
                self._stand_and_settle(order)
            elif wanted == page.PAUSE:
                self._wait(order)
            with self._settling:
                self._words[page.STATE] = page.RUNNING

    def _stand_and_settle(self, order: int) -> None:
        """What is left to do at the end of a step is done aside: whoever has the CPUs now is not to
        feel it, and whoever gives them back is not to wait for it."""
        copied = threading.Event()
        work = (order, copied, self._aside)
        self._aside = threading.Thread(target=self._settle, args=work, name="hyperion-settle")
        self._aside.start()
        self._wait(order)
        copied.wait()  # the state must not change under it; what is copied can be written later

    def _settle(self, order: int, copied: threading.Event, before: threading.Thread | None) -> None:
        with contextlib.suppress(OSError, AttributeError):  # of this thread alone, under Linux
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        step = self._words[page.COMMITTED]
        try:
            write = self._copy()
            self._words[page.FREED_BYTES] = memory.give_back()
        finally:
            copied.set()
        if before is not None:
            before.join()  # what an earlier pause has left to write comes first
        self._write(write, step)
        with self._settling:
            if self._seen == order and self._words[page.STATE] == page.SETTLING:
                self._words[page.STATE] = page.AT_STEP

    def settle(self) -> None:
        """Wait until what an earlier pause has left to do is done."""
        if self._aside is not None and self._aside is not threading.current_thread():
            self._aside.join()
            self._aside = None

    @property
    def settles(self) -> bool:
        return self._aside is not None and self._aside.is_alive()

    def _copy(self) -> Callable[[], int] | None:
        """A copy of the step that has just ended, and what writes it; None: there is none."""
        if self._snapshot is None:
            return None
        try:
            return self._snapshot()
        except Exception as error:  # The user's program goes on without a snapshot.
            self._no_snapshot(error)
            return None

    def _write(self, write: Callable[[], int] | None, step: int) -> None:
        if write is None:
            return
        try:
            size = write()
        except Exception as error:
            self._no_snapshot(error)
            return
        self._words[page.SNAPSHOT_BYTES] = size
        self._words[page.SNAPSHOT_STEP] = step

    def _no_snapshot(self, error: Exception) -> None:
        step = self._words[page.COMMITTED]
        print(f"hyperion: no snapshot of step {step}: {error!r}", file=sys.stderr)

    def _acknowledge(self, request: int) -> None:
        # The number last: who sees it finds the rest written.
        self._words[page.ACKNOWLEDGED_AT] = time.monotonic_ns()
        self._words[page.ACKNOWLEDGED] = request

    def _wait(self, order: int) -> None:
        while self._words[page.ORDER] == order:
            left_s = (self._words[page.DEADLINE] - time.monotonic_ns()) / 1e9
            if left_s <= 0:
                return
            if select.select([self._wake], [], [], min(RECHECK_S, left_s))[0]:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake, page.SIZE)

    def note_saved(self, line: bytes) -> None:
        """Adds a line to the journal of checkpoints. OSError."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        fd = os.open(page.journal_path(self.path), flags, 0o600)
        try:
            os.write(fd, line)
        finally:
            os.close(fd)
