"""One process of a workload: its channel to the agent, its checkpoints, and the notice to end."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from hyperion.workload import dice, files, page, tree
from hyperion.workload.channel import Channel
from hyperion.workload.notice import EXIT_CODE, Notice

VARIABLE = "HYPERION_WORKLOAD_PAGE"
EVERY = "HYPERION_CHECKPOINT_EVERY_S"
LINGER_S = 1.0
"""So long after it has heard that it is to end a rank waits for the others to hear it too."""


class Session:
    def __init__(self) -> None:
        self.channel = _open_channel()
        self.place = files.Place(os.environ)
        self.notice = Notice(lambda: self.channel.notice_ns if self.channel else 0)
        self.is_explicit = False
        """The program says itself when a step ends: hooks must not count it as well."""
        self.step = 0
        """The last step that has ended."""
        self._every_s = _seconds(os.environ.get(EVERY))
        self._saved_at = time.monotonic()
        self._saved_step = -1
        self._saved_bytes = 0
        self._noticed_at: float | None = None
        self._lingers_s = 0.0
        self._writer: threading.Thread | None = None
        self._state: Callable[[], Any] | None = None
        self._extra: dict[str, Any] = {}

    # -- steps ----------------------------------------------------------------------------------

    def point(self) -> None:
        if self.channel is not None:
            self.channel.able(page.POINTS)
            self.channel.point()

    def end_step(
        self,
        number: int | None = None,
        state: Callable[[], Any] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        """A step is done. ``state`` gives what a checkpoint of it holds; ``extra`` is added."""
        self.step = self.step + 1 if number is None else number
        self._state, self._extra = state, extra or {}
        if self.channel is not None:
            snapshot = self.snapshot if state is not None and self.place.directory else None
            self.channel.able(page.STEPS, snapshot)
            self.channel.step(self.step)
        if state is not None or self.notice.callbacks:
            self.notice.listen()
            if self.notice.given:
                self._end_in_time()
        if state is not None and self.place.directory:
            self._save_when_due()

    def _end_in_time(self) -> None:
        """A process that is alone ends after this step. The ranks of a gang hear of it at different
        moments: each writes every step from then on, and ends only when all must have heard. Since
        no rank can end a step without the others, the last step of the first that ends is one that
        all of them have written."""
        if self._state is not None:
            self.save()
        if self._noticed_at is None:
            self._noticed_at = time.monotonic()
            left_s = self.notice.left_s
            self._lingers_s = LINGER_S if left_s is None else min(LINGER_S, left_s / 4)
            self.notice.run_callbacks()
        if self._state is None:
            return  # The program has been told; when it ends is its own affair.
        if self.place.ranks > 1 and time.monotonic() - self._noticed_at < self._lingers_s:
            return
        self.wait_written()
        raise SystemExit(EXIT_CODE)

    # -- checkpoints ----------------------------------------------------------------------------

    def save(self) -> int:
        """Write a checkpoint of the step that has just ended; its bytes. Nothing where it has been
        written already, or where there is no place for it."""
        self.wait_written()
        if self._state is None or self._saved_step == self.step:
            return 0
        if not self.place.directory:
            print(
                f"hyperion: step {self.step} is not saved: the job has no `checkpoint.dir`",
                file=sys.stderr,
            )
            self._saved_step = self.step
            return 0
        return self.snapshot()()

    def snapshot(self) -> Callable[[], int]:
        """Copy the state of the step that has just ended. What is returned writes the copy, and
        gives its bytes."""
        if self._saved_step == self.step:
            return lambda: self._saved_bytes
        step = self.step
        header, encoder = self._copy()

        def write() -> int:
            size = self._write(step, header, encoder)
            self._saved_step, self._saved_bytes = step, size
            self._saved_at = time.monotonic()
            return size

        return write

    def is_save_due(self) -> bool:
        due = self._every_s and time.monotonic() - self._saved_at >= self._every_s
        return bool(due) and self._saved_step != self.step

    def note_saved(self) -> None:
        """The step that has just ended is saved."""
        self._saved_step, self._saved_at = self.step, time.monotonic()

    def _save_when_due(self) -> None:
        """At a step's end; the copy is made at once, and written while the program goes on."""
        busy = self._writer is not None and self._writer.is_alive()
        busy = busy or (self.channel is not None and self.channel.settles)
        if busy or not self.is_save_due():
            return
        header, encoder = self._copy()
        self.note_saved()
        work = threading.Thread(
            target=self._write_quietly, args=(self.step, header, encoder), name="hyperion-save"
        )
        self._writer = work
        work.start()

    def wait_written(self) -> None:
        if self._writer is not None:
            self._writer.join()
            self._writer = None
        if self.channel is not None:
            self.channel.settle()

    def _copy(self) -> tuple[Any, tree.Encoder]:
        assert self._state is not None
        encoder = tree.Encoder()
        header: dict[str, Any] = {
            "step": self.step,
            "rank": self.place.rank,
            "ranks": self.place.ranks,
            "extra": encoder.tree(self._extra, "extra"),
            "dice": encoder.tree(dice.capture(), "dice"),
            "state": encoder.tree(self._state(), "state"),
        }
        header["size"] = encoder.size
        return header, encoder

    def _write_quietly(self, step: int, header: Any, encoder: tree.Encoder) -> None:
        try:
            self._write(step, header, encoder)
        except OSError as error:
            print(f"hyperion: no checkpoint of step {step}: {error}", file=sys.stderr)

    def _write(self, step: int, header: Any, encoder: tree.Encoder) -> int:
        folder = self.place.step_directory(step)
        size = files.write(self.place.file(folder), header, encoder)
        self.register(folder, step, size, whole=False)
        self.place.prune()
        return size

    def register(self, path: str, step: int, size_bytes: int, *, whole: bool) -> None:
        """Tell the agent of a checkpoint that lies at ``path``. ValueError, OSError."""
        if self.channel is None:
            return
        self.channel.note_saved(
            page.journal_line(
                step=step,
                path=os.path.abspath(path),
                at_ms=time.time_ns() // 1_000_000,
                size_bytes=size_bytes,
                part=self.place.part,
                parts=1 if whole else self.place.parts,
                whole=whole,
            )
        )

    def load(self) -> Saved | None:
        """The checkpoint to go on from; None where there is none. ValueError where it is damaged,
        OSError where it cannot be read: better to fail than to start from the beginning."""
        folder = self.place.resume_from()
        if not folder:
            return None
        path = self.place.file(folder)
        if not os.path.exists(path):  # Another number of ranks than wrote it: all hold the same.
            first = os.path.join(folder, "rank-0.ckpt")
            path = first if os.path.exists(first) else path
        saved = Saved(tree.Decoder(path))
        self.step = self._saved_step = saved.step
        return saved


class Saved:
    """What a checkpoint holds."""

    def __init__(self, decoder: tree.Decoder) -> None:
        header = decoder.header
        self.step: int = header["step"]
        self.ranks: int = header["ranks"]
        self.extra: dict[str, Any] = decoder.tree(header["extra"])
        self.dice: dict[str, Any] = decoder.tree(header["dice"])
        self.state: Any = decoder.tree(header["state"])


def _open_channel() -> Channel | None:
    path = os.environ.get(VARIABLE)
    if not path:
        return None
    try:
        return Channel(path)
    except (OSError, ValueError) as error:
        print(f"hyperion: this process does not pause by itself: {error}", file=sys.stderr)
        return None


def _seconds(text: str | None) -> float:
    try:
        return max(0.0, float(text or 0))
    except ValueError:
        return 0.0
