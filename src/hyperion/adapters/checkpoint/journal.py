"""Reads which checkpoints a workload says that it has written (layout: `hyperion.workload.page`).

The file is the workload's: nothing in it is trusted, and no more than so much of it is read.
"""

import os
from collections.abc import Iterator

import msgspec

from hyperion.model.job import SavedCheckpoint
from hyperion.workload import page

MOST_READ_BYTES = 1 << 16
"""At a time."""
MOST_KEPT_BYTES = 1 << 20
"""A longer journal that has been read is put aside and a new one begun."""
MOST_PATH_CHARS = 4096
MOST_PARTS = 1024
_MOST_STEPS_OPEN = 8
"""So many steps of which some parts are missing are remembered."""


class _Line(msgspec.Struct, frozen=True):
    step: int
    path: str
    at_ms: int
    size_bytes: int = 0
    part: int = 0
    parts: int = 1
    whole: bool = False


_LINE = msgspec.json.Decoder(_Line)


class Journal:
    """Of one replica. Its processes write their parts; a step is there once all have."""

    def __init__(self, page_path: str) -> None:
        self._path = page.journal_path(page_path)
        self._old = f"{self._path}.old"
        self._at = 0
        self._open: dict[int, dict[int, _Line]] = {}
        self.faults = 0
        """Lines that were none."""

    def read(self) -> list[SavedCheckpoint]:
        """What has been written whole since the last time, at most so much of it. OSError."""
        lines: list[bytes] = []
        if os.path.exists(self._old):
            lines += self._rest_of(self._old, until_end=True)
            if self._at < os.path.getsize(self._old):
                return list(self._whole(lines))  # the rest of it comes before what is newer
            os.unlink(self._old)
            self._at = 0
        lines += self._rest_of(self._path, until_end=False)
        if self._at > MOST_KEPT_BYTES:
            os.replace(self._path, self._old)
        return list(self._whole(lines))

    def _rest_of(self, path: str, *, until_end: bool) -> list[bytes]:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return []
        with open(fd, "rb") as file:
            file.seek(self._at)
            content = file.read(MOST_READ_BYTES)
        cut = len(content) == MOST_READ_BYTES
        end = content.rfind(b"\n") + 1 if cut or not until_end else len(content)
        if not end and cut:
            end = len(content)  # no line is that long: it is left out
        self._at += end
        return content[:end].splitlines()

    def _whole(self, lines: list[bytes]) -> Iterator[SavedCheckpoint]:
        for raw in lines:
            try:
                line = _LINE.decode(raw)
            except (msgspec.DecodeError, UnicodeDecodeError):
                self.faults += 1
                continue
            fits = 0 <= line.step < 2**53 and 0 <= line.at_ms < 2**53
            fits = fits and 0 <= line.size_bytes < 2**60 and 1 <= len(line.path) <= MOST_PATH_CHARS
            if not fits or not 0 <= line.part < line.parts <= MOST_PARTS:
                self.faults += 1
            elif line.whole or line.parts == 1:
                yield _saved([line])
            else:
                parts = self._open.setdefault(line.step, {})
                parts[line.part] = line
                if len(parts) == line.parts:
                    del self._open[line.step]
                    yield _saved(list(parts.values()))
                while len(self._open) > _MOST_STEPS_OPEN:
                    del self._open[next(iter(self._open))]


def _saved(parts: list[_Line]) -> SavedCheckpoint:
    return SavedCheckpoint(
        step=parts[0].step,
        path=parts[0].path,
        at_ms=max(part.at_ms for part in parts),
        size_bytes=sum(part.size_bytes for part in parts),
        whole=parts[0].whole,
    )
