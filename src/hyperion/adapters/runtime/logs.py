"""A replica's output: one file it appends to itself, cut at the head by us, followed by offset.

The file outlives the agent because nobody stands between the replica and it. To bound the disk
the oldest part is given back to the file system by punching a hole, so that offsets stay what they
were and a reader loses nothing it has not been too slow for. File systems that cannot do that have
the file emptied instead.
"""

import asyncio
import ctypes
import errno
import os
from collections.abc import AsyncIterator, Callable, Sequence

_CHUNK_BYTES = 64 * 1024
_BLOCK_BYTES = 4096
_POLL_S = 0.1
_FALLOC_FL_KEEP_SIZE = 1
_FALLOC_FL_PUNCH_HOLE = 2
CUT = b"[hyperion: older output was removed to bound the log]\n"


def cut(path: str, keep_bytes: int, slack_bytes: int) -> bool:
    """Give back all but the newest ``keep_bytes`` once the file holds ``slack_bytes`` more.

    Returns whether it did. ``OSError`` where the file is missing or cannot be changed.
    """
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        stat = os.fstat(fd)
        if min(stat.st_size, stat.st_blocks * 512) <= keep_bytes + slack_bytes:
            return False
        head = (stat.st_size - keep_bytes) // _BLOCK_BYTES * _BLOCK_BYTES
        if not _punch(fd, head):
            os.ftruncate(fd, 0)
        return True
    finally:
        os.close(fd)


async def read(
    path: Callable[[], str],
    has_ended: Callable[[], bool],
    follow: bool,
    tail_lines: int | None,
) -> AsyncIterator[bytes]:
    """The content, from its last ``tail_lines`` lines on; then what comes, until it has ended.

    ``path`` is asked until the file is there. Ends when ended and all has been delivered; what has
    not begun has said nothing. ``FileNotFoundError`` where no file is to be expected.
    """
    fd = await _open(path, has_ended, follow)
    if fd is None:
        return
    try:
        offset = _first_offset(fd) if tail_lines is None else _tail_offset(fd, tail_lines)
        if tail_lines is None and offset > 0:
            yield CUT
        while True:
            over = has_ended()  # looked at before reading, so that the last bytes are read
            chunk, offset, skipped = _next(fd, offset)
            if skipped:
                yield CUT
            if chunk:
                yield chunk
            elif over or not follow:
                return
            else:
                await asyncio.sleep(_POLL_S)
    finally:
        os.close(fd)


async def _open(path: Callable[[], str], has_ended: Callable[[], bool], follow: bool) -> int | None:
    while True:
        over = has_ended()
        try:
            return os.open(path(), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            if over:
                name = os.path.basename(os.path.dirname(path()))
                raise FileNotFoundError(f"no output of {name} is kept here") from None
            if not follow:
                return None
        await asyncio.sleep(_POLL_S)


def _next(fd: int, offset: int) -> tuple[bytes, int, bool]:
    """(bytes at ``offset``, the offset after them, whether something before them is lost)."""
    size = os.fstat(fd).st_size
    lost = False
    if size < offset:  # emptied, by us or by the replica
        offset, lost = 0, True
    first = _first_offset(fd) if size > offset else offset
    if first > offset:
        offset, lost = first, True
    chunk = os.pread(fd, _CHUNK_BYTES, offset) if size > offset else b""
    return chunk, offset + len(chunk), lost


def _first_offset(fd: int) -> int:
    """Where the content begins, after what has been cut."""
    try:
        return os.lseek(fd, 0, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:  # nothing but a hole, or nothing at all
            return os.fstat(fd).st_size
        return 0


def _tail_offset(fd: int, lines: int) -> int:
    """Where the last ``lines`` lines begin; the end of the file for 0."""
    first, end = _first_offset(fd), os.fstat(fd).st_size
    if lines <= 0:
        return end
    position, wanted = end, lines + 1
    if end > first and os.pread(fd, 1, end - 1) != b"\n":
        wanted = lines  # the last line is not complete, and counts
    while position > first:
        start = max(first, position - _CHUNK_BYTES)
        chunk = os.pread(fd, position - start, start)
        found = chunk.count(b"\n")
        if found >= wanted:
            at = len(chunk)
            for _ in range(wanted):
                at = chunk.rfind(b"\n", 0, at)
            return start + at + 1
        wanted -= found
        position = start
    return first


def _punch(fd: int, length_bytes: int) -> bool:
    """Turn the first bytes into a hole that takes no disk; False where that is not known."""
    libc = ctypes.CDLL(None, use_errno=True)
    fallocate = libc.fallocate
    fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long)
    if fallocate(fd, _FALLOC_FL_PUNCH_HOLE | _FALLOC_FL_KEEP_SIZE, 0, length_bytes) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EOPNOTSUPP, errno.ENOSYS):
        return False
    raise OSError(code, os.strerror(code))


def first(places: Sequence[str]) -> str:
    """The first of the files that is there; else the last."""
    return next((place for place in places if os.path.exists(place)), places[-1])
