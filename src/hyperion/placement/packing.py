"""Which part of the topology takes all replicas: the one with the tightest fit."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from hyperion.model.constraints import LEVELS, Packing

MOST_TRIED = 64
"""Parts that are tried where room for all is likely but not sure: roles, spread, anti-affinity."""


def levels(packing: Packing) -> tuple[str | None, ...]:
    """The levels to try in turn; None is no level at all."""
    if packing.required:
        return (packing.level,)
    wider = LEVELS[: LEVELS.index(packing.level) + 1]
    return (*reversed(wider), None)


def fitting_parts(
    room: Sequence[NDArray[np.int64]], least: Sequence[int], most: Sequence[int]
) -> Iterator[int]:
    """Parts to try in turn. ``room`` is how many replicas each part takes, for each role alone.

    Those that take the most that is wanted come first, the tightest of them before the others;
    then those that take at least the least, the roomiest first.
    """
    total = np.zeros(len(room[0]), np.int64)
    enough = np.ones(len(total), np.bool_)
    all_fit = enough.copy()
    for each, low, high in zip(room, least, most, strict=True):
        total += each
        enough &= each >= low
        all_fit &= each >= high
    tight = np.flatnonzero(all_fit)
    yield from _first(tight, total)
    loose = np.flatnonzero(enough & ~all_fit)
    yield from _first(loose, -total)


def _first(parts: NDArray[np.intp], key: NDArray[np.int64]) -> Iterator[int]:
    if not len(parts):
        return
    yield int(parts[key[parts].argmin()])  # nearly always the only one that is asked for
    order = parts[np.argsort(key[parts], kind="stable")]
    yield from order[1:MOST_TRIED].tolist()
