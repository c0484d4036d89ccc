"""The inner loops of planning: which rows have room at what cost, and the seating of replicas.

Two sets with the same answers: this one in NumPy, and a compiled one in ``kernels_numba``, in use
once ``warm`` has been called where numba is installed (the extra ``fast``).

What all of them take:

- ``need``: row 0 what one replica takes, row 1 the least that must be free, by dimension: CPUs,
  memory, disk, whole GPUs, share of one GPU, then countables of the site. Row 1 is ``NEVER`` where
  nothing is asked for, so that a node that owes some is not refused for it.
- ``amounts``, ``custom``, ``devices``, ``fullness``: the columns of a trial.
- ``kept``: what must stay free, by dimension (as ``amounts``, then countables) and row; of no
  rows where that is nothing.
- ``gate``: by row, whether it may be used at all. ``group``: by row; ``capacity``: by group, GPUs,
  CPUs and memory; ``price``: by group, the cost that does not change while a round goes on.
- ``weights``: of breaking a whole GPU, and of fullness. ``extra``: by row, added to the cost; of
  no rows where that is nothing.
- ``cost``: by row, infinite without room. ``lows``: the least of each ``BLOCK`` rows of it.
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hyperion.model.resources import MILLI

BLOCK = 256
NEVER = -(2**62)
FIXED = 5
"""Dimensions before the countables."""
Float = NDArray[np.float64]
Int = NDArray[np.int32]
Long = NDArray[np.int64]
Bool = NDArray[np.bool_]


class Seating(NamedTuple):
    """Everything that seats replicas of one demand; arrays are shared with their owners."""

    need: Long
    amounts: Int
    custom: Long
    kept: Long
    devices: Int
    fullness: Float
    group: Int
    gate: Bool
    capacity: Long
    price: Float
    weights: Float
    extra: Float
    cost: Float
    lows: Float


class Kernels(NamedTuple):
    score: Callable[[Seating], int]
    """Fill ``cost`` and ``lows``; the row of least cost, the first of equals, or -1."""
    place: Callable[[Seating, Int], int]
    """(…, out): seat one replica in the row of least cost, which is the answer, or -1. ``out`` as
    for ``seat``; what ``cost`` and ``lows`` then hold says nothing."""
    seat: Callable[[Seating, Int, int, Int], int]
    """(…, rows changed since, how many, out) → how many were seated: each the cheapest then.
    A line of ``out`` is a row and the GPUs; ``amounts`` and the like are written to."""
    slots: Callable[[Seating, int, Long], int]
    """(…, most, out): how many replicas each row takes, at most ``most``; their sum."""
    by_part: Callable[[Long, Int, Long], None]
    """(by row, the part of each row, out): the sum of each part."""
    name: str


def score(s: Seating) -> int:
    at = _open(s)
    if not isinstance(at, slice):
        s.cost.fill(np.inf)
    costs = s.cost[at] = _costs(s, at)
    return _cheapest(costs, at)


def place(s: Seating, out: Int) -> int:
    at = _open(s)
    row = _cheapest(_costs(s, at), at)
    if row >= 0:
        out[0, 0] = row
        out[0, 1:] = take(s, row)
    return row


def _open(s: Seating) -> slice | Long:
    """The rows to look at: those of an open gate, or simply all if these are not much fewer."""
    n = len(s.gate)
    few = np.count_nonzero(s.gate) * _MANY_TIMES < n
    return np.flatnonzero(s.gate) if few else slice(0, n)


_MANY_TIMES = 6


def _cheapest(costs: Float, at: slice | Long) -> int:
    if not len(costs):
        return -1
    found = int(costs.argmin())
    if costs[found] == np.inf:
        return -1
    return found if isinstance(at, slice) else int(at[found])


def seat(s: Seating, changed: Int, count: int, out: Int) -> int:
    if len(changed):
        at = np.unique(changed)
        s.cost[at] = _costs(s, at)
    if not len(s.cost):
        return 0
    if count > _FEW:
        return _seat_many(s, count, out)
    for k in range(count):
        row = int(s.cost.argmin())
        if s.cost[row] == np.inf:
            return k
        out[k, 0] = row
        out[k, 1:] = take(s, row)
        s.cost[row] = row_cost(s, row)
    return count


_FEW = 1


def _seat_many(s: Seating, count: int, out: Int) -> int:
    """By a heap over the rows that can be reached: the ``count`` cheapest as they are now."""
    import heapq

    cost = s.cost
    rows = np.flatnonzero(cost < np.inf)
    if len(rows) > count:
        limit = np.partition(cost[rows], count - 1)[count - 1]
        below = rows[cost[rows] < limit]
        rows = np.concatenate([below, rows[cost[rows] == limit][: count - len(below)]])
    rows = rows[np.lexsort((rows, cost[rows]))]
    if s.weights[1] <= 0 and s.need[1, PART] == NEVER:
        return _fill(s, rows, count, out)
    heap = list(zip(cost[rows].tolist(), rows.tolist(), strict=True))
    k = 0
    while heap and k < count:
        row = heap[0][1]
        out[k, 0] = row
        out[k, 1:] = take(s, row)
        k += 1
        cost[row] = now = row_cost(s, row)
        if now == np.inf:
            heapq.heappop(heap)
        else:
            heapq.heapreplace(heap, (now, row))
    return k


def _fill(s: Seating, rows: Long, count: int, out: Int) -> int:
    """Seat whole GPUs, or none, where the fuller a row the cheaper it is: each stays the first of
    the cheapest until it is full."""
    times = np.full(len(rows), count)
    for d in _asked(s.need):
        times = np.minimum(times, _free(s, d, rows) // int(s.need[0, d]))
    before = np.cumsum(times) - times
    used = before < count
    rows, times = rows[used], np.minimum(times, count - before)[used]
    seated = int(times.sum())
    need = s.need[0].tolist()
    for d in (CPUS, MEMORY, DISK):
        s.amounts[d, rows] -= need[d] * times
    for d in range(FIXED, len(need)):
        s.custom[d - FIXED, rows] -= need[d] * times
    out[:seated, 0] = np.repeat(rows, times)
    if need[WHOLE]:
        free = s.devices[rows]
        whole = free == MILLI
        chosen = whole & (np.cumsum(whole, axis=1) <= (need[WHOLE] * times)[:, np.newaxis])
        out[:seated, 1:] = np.nonzero(chosen)[1].reshape(seated, need[WHOLE])
        s.devices[rows] = np.where(chosen, 0, free)
        s.amounts[WHOLE, rows] -= need[WHOLE] * times
    s.fullness[rows] = _fullness(s, rows)
    s.cost[rows] = _costs(s, rows)
    return seated


def _fullness(s: Seating, rows: Long) -> Float:
    """As ``change`` works it out."""
    gpus, cpus, memory = s.capacity[s.group[rows]].T
    free = (s.devices[rows].sum(axis=1), s.amounts[CPUS, rows], s.amounts[MEMORY, rows])
    least = np.ones(len(rows))
    for amount, of in zip(free, (gpus * MILLI, cpus, memory), strict=True):
        least = np.where(of > 0, np.minimum(least, amount / np.maximum(of, 1)), least)
    return np.clip(1.0 - least, 0.0, 1.0)


def slots(s: Seating, most: int, out: Long) -> int:
    n = len(s.gate)
    need = s.need
    out[:] = np.where(s.gate, most, 0)
    for d in _asked(need):
        if d == PART:
            out[:] = np.minimum(out, _share_slots(s, n))
        else:
            free = np.maximum(_free(s, d, slice(0, n)), 0)
            out[:] = np.minimum(out, free // int(need[0, d]))
    return int(out.sum())


def by_part(by_row: Long, parts: Int, out: Long) -> None:
    out[:] = np.bincount(parts, weights=by_row, minlength=len(out))


CPUS, MEMORY, DISK, WHOLE, PART = range(FIXED)


def _share_slots(s: Seating, n: int) -> Long:
    """Whole GPUs that must stay whole are not counted."""
    share = int(s.need[0, PART])
    devices = s.devices[:n]
    each: Long = (np.maximum(devices, 0) // share).sum(axis=1, dtype=np.int64)
    if len(s.kept):
        spared = np.minimum(np.maximum(s.kept[WHOLE, :n], 0), s.amounts[WHOLE, :n])
        each -= spared * (MILLI // share)
    return each


def room(s: Seating, at: slice | Long | Int) -> tuple[Bool, Bool | None]:
    """By row of ``at``: whether a replica fits, and whether it would break a whole GPU."""
    fits = s.gate[at].copy()
    breaks = None
    for d in _asked(s.need):
        if d == PART:
            breaks = s.amounts[PART, : len(s.gate)][at] < int(s.need[1, PART])
            fits &= ~breaks | (_free(s, WHOLE, at) > 0)
        else:
            fits &= _free(s, d, at) >= int(s.need[1, d])
    return fits, breaks


def _costs(s: Seating, at: slice | Long | Int) -> Float:
    """Of some rows."""
    fits, breaks = room(s, at)
    cost: Float = s.price.take(s.group[: len(s.gate)][at])
    if breaks is not None:
        cost += s.weights[0] * breaks
    cost += s.weights[1] * s.fullness[: len(s.gate)][at]
    if len(s.extra):
        cost += s.extra[at]
    return np.where(fits, cost, np.inf)


def _free(s: Seating, d: int, at: slice | Long | Int) -> Int | Long:
    n = len(s.gate)
    free: Int | Long = s.amounts[d, :n][at] if d < FIXED else s.custom[d - FIXED, :n][at]
    return free - s.kept[d, :n][at] if len(s.kept) else free


def _asked(need: Long) -> list[int]:
    """The dimensions that are asked for."""
    return [d for d, least in enumerate(need[1].tolist()) if least != NEVER]


def take(s: Seating, row: int, chosen: list[int] | None = None) -> list[int]:
    """Seat one replica in a row; which GPUs it gets, unless they are given. There must be room."""
    need = s.need[0].tolist()
    for d in (CPUS, MEMORY, DISK):
        if need[d]:
            s.amounts[d, row] -= need[d]
    for d in range(FIXED, len(need)):
        s.custom[d - FIXED, row] -= need[d]
    gpus = int(s.capacity[s.group[row], 0])
    free = s.devices[row, :gpus].tolist()
    if chosen is not None:
        pass
    elif need[WHOLE]:
        chosen = [i for i, milli in enumerate(free) if milli == MILLI][: need[WHOLE]]
        assert len(chosen) == need[WHOLE], "fewer whole GPUs than counted"
    elif need[PART]:
        # The tightest fit keeps large shares, and whole GPUs most of all, for others.
        fits = [i for i, milli in enumerate(free) if milli >= need[PART]]
        chosen = [min(fits, key=lambda i: free[i])]
    else:
        chosen = []
    change(s, row, chosen, -1, free)
    return chosen


def give(s: Seating, row: int, chosen: list[int]) -> None:
    """Undo ``take``."""
    need = s.need[0].tolist()
    for d in (CPUS, MEMORY, DISK):
        s.amounts[d, row] += need[d]
    for d in range(FIXED, len(need)):
        s.custom[d - FIXED, row] += need[d]
    gpus = int(s.capacity[s.group[row], 0])
    change(s, row, chosen, 1, s.devices[row, :gpus].tolist())


def change(s: Seating, row: int, chosen: list[int], sign: int, free: list[int]) -> None:
    """Give or take a replica's GPUs, and bring what follows from the amounts up to date."""
    if chosen:
        share = MILLI if s.need[0, WHOLE] else int(s.need[0, PART])
        for i in chosen:
            free[i] += sign * share
            s.devices[row, i] = free[i]
        s.amounts[WHOLE, row] = free.count(MILLI)
        s.amounts[PART, row] = max((m for m in free if m != MILLI and m > 0), default=0)
    gpus, cpus, memory = s.capacity[s.group[row]].tolist()
    least = 1.0
    if gpus:
        least = sum(free) / (gpus * MILLI)
    if cpus:
        least = min(least, int(s.amounts[CPUS, row]) / cpus)
    if memory:
        least = min(least, int(s.amounts[MEMORY, row]) / memory)
    s.fullness[row] = min(1.0, max(0.0, 1.0 - least))


def row_cost(s: Seating, row: int) -> float:
    """The cost of one row as it is now."""
    need = s.need[1].tolist()
    if not s.gate[row]:
        return np.inf
    kept = s.kept[:, row].tolist() if len(s.kept) else None
    for d, least in enumerate(need):
        if least == NEVER or d == PART:
            continue
        free = int(s.amounts[d, row] if d < FIXED else s.custom[d - FIXED, row])
        if free - (kept[d] if kept else 0) < least:
            return np.inf
    cost = float(s.price[s.group[row]])
    if need[PART] != NEVER:
        breaks = int(s.amounts[PART, row]) < need[PART]
        if breaks and int(s.amounts[WHOLE, row]) - (kept[WHOLE] if kept else 0) <= 0:
            return np.inf
        cost = cost + float(s.weights[0]) * breaks
    cost = cost + float(s.weights[1]) * float(s.fullness[row])
    return cost + float(s.extra[row]) if len(s.extra) else cost


NUMPY = Kernels(score, place, seat, slots, by_part, "numpy")
_active = NUMPY


def active() -> Kernels:
    """The fastest set that is ready."""
    return _active


def warm() -> bool:
    """Load the compiled kernels, if numba is installed, and use them from now on; whether it is.

    The first time on a machine they are compiled, which takes about half a minute of CPU time, and
    kept beside this module or in the user's cache; a daemon calls this before its first round.
    """
    global _active  # noqa: PLW0603  # one switch for the process, and either setting is right
    if find_spec("numba") is None:
        return False
    from hyperion.placement import bounds
    from hyperion.placement.kernels_numba import compiled

    _active = compiled()
    return bounds.warm()


def use(kernels: Kernels) -> None:
    """For tests and benchmarks, which compare the two."""
    global _active  # noqa: PLW0603
    _active = kernels
