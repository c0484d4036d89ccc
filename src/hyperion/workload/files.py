"""Where checkpoints lie and how they come there: whole or not at all, the newest few of them.

``<HYPERION_CHECKPOINT_DIR>/<job>/step-<n>/rank-<r>.ckpt``; a task of an array has a folder of its
own in the job's. Each process writes its own rank, into a file of another name that is renamed
once it is on the disk.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from typing import Any

from hyperion.workload import tree

KEPT = 3
"""Ranks may differ by a step or two in what they have written when they are stopped."""
_STEP = re.compile(r"step-(\d+)$")


class Place:
    """Of one process, by its environment."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        get = environment.get
        by_torchrun = "TORCHELASTIC_RUN_ID" in environment
        self.rank = _number(get("RANK") or get("HYPERION_RANK"), 0)
        self.ranks = _number(get("WORLD_SIZE") or get("HYPERION_REPLICAS"), 1)
        # Without torchrun a replica is one process, and LOCAL_WORLD_SIZE counts replicas.
        self.part = _number(get("LOCAL_RANK"), 0) if by_torchrun else 0
        self.parts = _number(get("LOCAL_WORLD_SIZE"), 1) if by_torchrun else 1
        top = get("HYPERION_CHECKPOINT_DIR") or ""
        job = get("HYPERION_JOB_ID") or ""
        task = get("HYPERION_ARRAY_INDEX")
        self.directory = os.path.join(top, job, f"task-{task}" if task else "") if top else ""
        self._told = get("HYPERION_RESUME_FROM") or ""

    def step_directory(self, step: int) -> str:
        return os.path.join(self.directory, f"step-{step}")

    def file(self, step_directory: str) -> str:
        return os.path.join(step_directory, f"rank-{self.rank}.ckpt")

    def resume_from(self) -> str:
        """The folder of the checkpoint to go on from, or empty.

        A gang goes on from the one that its cluster has named: of it all ranks have written their
        part. A process that is alone takes its newest, even where nobody has heard of it yet.
        """
        if self.ranks == 1 and self.directory:
            for step in reversed(self.steps()):
                folder = self.step_directory(step)
                if os.path.exists(self.file(folder)):
                    return folder
        return self._told

    def steps(self) -> list[int]:
        with contextlib.suppress(FileNotFoundError):
            found = (_STEP.fullmatch(name) for name in os.listdir(self.directory))
            return sorted(int(match[1]) for match in found if match)
        return []

    def prune(self, kept: int = KEPT) -> None:
        """This rank's part of older checkpoints; a folder goes with the last part in it."""
        mine = [step for step in self.steps() if os.path.exists(self._file_of(step))]
        for step in mine[:-kept]:
            with contextlib.suppress(OSError):
                os.unlink(self._file_of(step))
                os.rmdir(self.step_directory(step))

    def _file_of(self, step: int) -> str:
        return self.file(self.step_directory(step))


def write(path: str, header: Any, encoder: tree.Encoder) -> int:
    """All of it or nothing, and on the disk; the bytes written. OSError."""
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    draft = f"{path}.{os.getpid()}.part"
    try:
        with open(draft, "wb") as file:
            size = tree.write(file, header, encoder)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(draft)
        raise
    for changed in (folder, os.path.dirname(folder)):
        _sync(changed)
    return size


def _sync(folder: str) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):  # Some network file systems know no sync of folders.
            os.fsync(fd)
    finally:
        os.close(fd)


def _number(text: str | None, otherwise: int) -> int:
    return int(text) if text and text.isdecimal() else otherwise
