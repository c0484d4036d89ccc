"""Removes directories of ended replicas: the oldest, and what exceeds a number or a size."""

import contextlib
import os
import shutil
import time
from pathlib import Path

from msgspec import Struct


class Bounds(Struct, frozen=True, kw_only=True):
    """What may be kept of replicas that everybody has forgotten."""

    days: float = 7.0
    replicas: int = 10_000
    total_bytes: int = 4 << 30


def remove(ended: Path, bounds: Bounds) -> int:
    """Remove what is too old or too much, oldest first; how many. Runs in a thread."""
    newest_first = sorted(_entries(ended), reverse=True)
    limit_s = time.time_ns() / 1e9 - bounds.days * 86_400
    removed, kept_bytes = 0, 0
    for count, (ended_s, path) in enumerate(newest_first, 1):
        if ended_s >= limit_s and count <= bounds.replicas:
            kept_bytes += _size_bytes(path)
            if kept_bytes <= bounds.total_bytes:
                continue
        shutil.rmtree(path, ignore_errors=True)
        removed += 1
    return removed


def _entries(ended: Path) -> list[tuple[float, str]]:
    found = []
    with os.scandir(ended) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                found.append((entry.stat(follow_symlinks=False).st_ctime, entry.path))
    return found


def _size_bytes(path: str) -> int:
    """Disk taken, holes not counted."""
    total = 0
    for place, _, files in os.walk(path):
        for name in files:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(place, name)).st_blocks * 512
    return total
