"""Checkpoints that jobs have written: which of them are whole, and which is the newest. Pure."""

from collections.abc import Sequence

from hyperion.model.allocation import Allocation
from hyperion.model.job import SavedCheckpoint

MOST_KEPT = 3
"""Of a replica and of a job. Ranks may differ by a step or two in what they wrote last."""


def newest(written: Sequence[SavedCheckpoint]) -> tuple[SavedCheckpoint, ...]:
    """The last ones, each step once: a step that is written again replaces what it was."""
    by_step = {checkpoint.step: checkpoint for checkpoint in written}
    order = {checkpoint.step: n for n, checkpoint in enumerate(written)}
    kept = sorted(by_step.values(), key=lambda checkpoint: order[checkpoint.step])
    return tuple(kept[-MOST_KEPT:])


def news(
    known: Sequence[SavedCheckpoint], said: Sequence[SavedCheckpoint]
) -> tuple[SavedCheckpoint, ...] | None:
    """What a replica has written by now; None when the report tells nothing new."""
    fresh = [checkpoint for checkpoint in said if checkpoint not in known]
    if not fresh or (known and max(fresh, key=_written).at_ms < max(known, key=_written).at_ms):
        return None
    return newest((*known, *fresh))


def whole(
    known: Sequence[SavedCheckpoint], said: Sequence[SavedCheckpoint], gang: Sequence[Allocation]
) -> tuple[SavedCheckpoint, ...]:
    """The job's checkpoints, now that one of its replicas has said what it has written: a step is
    whole once all of its gang have it."""
    found = list(known)
    for checkpoint in sorted(said, key=_written):
        if checkpoint.whole:
            found.append(checkpoint)
        elif all(any(c.step == checkpoint.step for c in a.checkpoints) for a in gang):
            parts = [c for a in gang for c in a.checkpoints if c.step == checkpoint.step]
            found.append(_together(parts))
    return newest(found)


def _together(parts: Sequence[SavedCheckpoint]) -> SavedCheckpoint:
    return SavedCheckpoint(
        step=parts[0].step,
        path=parts[0].path,
        at_ms=max(part.at_ms for part in parts),
        size_bytes=sum(part.size_bytes for part in parts),
    )


def _written(checkpoint: SavedCheckpoint) -> tuple[int, int]:
    return checkpoint.at_ms, checkpoint.step
