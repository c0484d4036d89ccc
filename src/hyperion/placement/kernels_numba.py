"""The kernels compiled: the same answers as those in NumPy, to the last bit, several times sooner.

Imported only where numba is installed. What is compiled is kept on disk, so that only the first
start of the first daemon after an update waits for it.
"""

# ruff: noqa: ANN001, ANN202, ARG001, PLR0912, PLW3301  # what is compiled is typed by what it is called with
# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
import numpy as np
from numba import njit

from hyperion.placement import kernels
from hyperion.placement.kernels import Int, Kernels, Long, Seating

BLOCK = kernels.BLOCK
NEVER = kernels.NEVER
FIXED = kernels.FIXED
CPUS, MEMORY, DISK, WHOLE, PART = range(FIXED)
MILLI = 1000


@njit(cache=True, inline="always")
def _row_cost(row, need, amounts, custom, kept, fullness, group, gate, price, weights, extra):
    """As ``kernels.row_cost``; the same sums in the same order."""
    if not gate[row]:
        return np.inf
    keeps = len(kept) > 0
    for d in range(PART):
        if need[1, d] != NEVER:
            free = np.int64(amounts[d, row])
            if keeps:
                free -= kept[d, row]
            if free < need[1, d]:
                return np.inf
    for d in range(FIXED, need.shape[1]):
        if need[1, d] != NEVER:
            free = custom[d - FIXED, row]
            if keeps:
                free -= kept[d, row]
            if free < need[1, d]:
                return np.inf
    cost = price[group[row]]
    if need[1, PART] != NEVER and amounts[PART, row] < need[1, PART]:
        whole = np.int64(amounts[WHOLE, row])
        if keeps:
            whole -= kept[WHOLE, row]
        if whole <= 0:
            return np.inf
        cost = cost + weights[0]
    cost = cost + weights[1] * fullness[row]
    if len(extra):
        cost = cost + extra[row]
    return cost


@njit(cache=True)
def _score(
    need, amounts, custom, kept, devices, fullness, group, gate, capacity, price, weights, extra,
    cost, lows,
):  # fmt: skip
    best_row = -1
    best = np.inf
    n = len(gate)
    for block in range(len(lows)):
        begin, end = block * BLOCK, min(n, (block + 1) * BLOCK)
        costs, kind, may = cost[begin:end], group[begin:end], gate[begin:end]
        free, full = amounts[:, begin:end], fullness[begin:end]
        if len(kept):
            _cost_kept(need[1], free, kept[:, begin:end], full, kind, may, price, weights, costs)
        else:
            _cost(need[1], free, full, kind, may, price, weights, costs)
        for d in range(FIXED, need.shape[1]):
            if need[1, d] != NEVER:
                spare = custom[d - FIXED, begin:end]
                if len(kept):
                    spare = spare - kept[d, begin:end]
                _without(spare, need[1, d], costs)
        if len(extra):
            more = extra[begin:end]
            for i in range(end - begin):
                costs[i] += more[i]
        low = _least(costs)
        lows[block] = low
        if low < best:
            best = low
            for i in range(end - begin):
                if costs[i] == low:
                    best_row = begin + i
                    break
    return best_row


@njit(cache=True)
def _cost(least, free, full, kind, may, price, weights, costs):
    """Without branches, so that several rows are worked out at once."""
    cpus, memory, disk, whole, part = free[CPUS], free[MEMORY], free[DISK], free[WHOLE], free[PART]
    c, m, d = _narrow(least[CPUS]), _narrow(least[MEMORY]), _narrow(least[DISK])
    w, p = _narrow(least[WHOLE]), _narrow(least[PART])
    breaking, filling = weights[0], weights[1]
    nothing = np.int32(0)
    for i in range(len(costs)):
        breaks = part[i] < p
        fits = (
            may[i]
            & (cpus[i] >= c)
            & (memory[i] >= m)
            & (disk[i] >= d)
            & (whole[i] >= w)
            & (~breaks | (whole[i] > nothing))
        )
        now = price[np.uint32(kind[i])] + (breaking if breaks else 0.0) + filling * full[i]
        costs[i] = now if fits else np.inf


@njit(cache=True)
def _cost_kept(least, free, kept, full, kind, may, price, weights, costs):
    """The same where something must stay free."""
    cpus, memory, disk, whole, part = free[CPUS], free[MEMORY], free[DISK], free[WHOLE], free[PART]
    kc, km, kd, kw = kept[CPUS], kept[MEMORY], kept[DISK], kept[WHOLE]
    c, m, d = least[CPUS], least[MEMORY], least[DISK]
    w, p = least[WHOLE], _narrow(least[PART])
    breaking, filling = weights[0], weights[1]
    for i in range(len(costs)):
        breaks = part[i] < p
        fits = (
            may[i]
            & (cpus[i] - kc[i] >= c)
            & (memory[i] - km[i] >= m)
            & (disk[i] - kd[i] >= d)
            & (whole[i] - kw[i] >= w)
            & (~breaks | (whole[i] - kw[i] > 0))
        )
        now = price[np.uint32(kind[i])] + (breaking if breaks else 0.0) + filling * full[i]
        costs[i] = now if fits else np.inf


@njit(cache=True)
def _without(free, least, costs):
    for i in range(len(costs)):
        costs[i] = costs[i] if free[i] >= least else np.inf


@njit(cache=True, inline="always")
def _narrow(least):
    """``NEVER`` stays below all amounts."""
    return np.int32(max(least, -(2**31)))


@njit(cache=True)
def _lower(cost, lows, block):
    lows[block] = _least(cost[block * BLOCK : min(len(cost), (block + 1) * BLOCK)])


@njit(cache=True)
def _least(costs):
    """In four chains, so that none waits for the one before."""
    a = b = c = d = np.inf
    whole = len(costs) // 4 * 4
    for i in range(0, whole, 4):
        a = costs[i] if costs[i] < a else a
        b = costs[i + 1] if costs[i + 1] < b else b
        c = costs[i + 2] if costs[i + 2] < c else c
        d = costs[i + 3] if costs[i + 3] < d else d
    for i in range(whole, len(costs)):
        a = costs[i] if costs[i] < a else a
    return min(min(a, b), min(c, d))


@njit(cache=True)
def _take(row, need, amounts, custom, devices, fullness, group, capacity, out):
    for d in range(WHOLE):
        amounts[d, row] -= need[0, d]
    for d in range(FIXED, need.shape[1]):
        custom[d - FIXED, row] -= need[0, d]
    kind = group[row]
    gpus, cpus, memory = capacity[kind, 0], capacity[kind, 1], capacity[kind, 2]
    free = devices[row]
    if need[0, WHOLE]:
        found = 0
        for i in range(gpus):
            if free[i] == MILLI:
                free[i] = 0
                found += 1
                out[found] = i
                if found == need[0, WHOLE]:
                    break
    elif need[0, PART]:
        chosen = -1
        for i in range(gpus):
            if free[i] >= need[0, PART] and (chosen < 0 or free[i] < free[chosen]):
                chosen = i
        free[chosen] -= need[0, PART]
        out[1] = chosen
    total, whole, part = 0, 0, 0
    for i in range(gpus):
        total += free[i]
        if free[i] == MILLI:
            whole += 1
        elif free[i] > part:
            part = free[i]
    amounts[WHOLE, row] = whole
    amounts[PART, row] = part
    least = 1.0
    if gpus:
        least = total / (gpus * MILLI)
    if cpus:
        least = min(least, amounts[CPUS, row] / cpus)
    if memory:
        least = min(least, amounts[MEMORY, row] / memory)
    fullness[row] = min(1.0, max(0.0, 1.0 - least))


@njit(cache=True)
def _seat(
    need, amounts, custom, kept, devices, fullness, group, gate, capacity, price, weights, extra,
    cost, lows, changed, count, out,
):  # fmt: skip
    for i in range(len(changed)):
        row = changed[i]
        before = cost[row]
        now = _row_cost(
            row, need, amounts, custom, kept, fullness, group, gate, price, weights, extra
        )
        cost[row] = now
        block = row // BLOCK
        if now <= lows[block]:
            lows[block] = now
        elif before <= lows[block]:
            _lower(cost, lows, block)
    row = -1
    for k in range(count):
        if row < 0:
            block = -1
            low = np.inf
            for b in range(len(lows)):
                if lows[b] < low:
                    low = lows[b]
                    block = b
            if block < 0:
                return k
            for r in range(block * BLOCK, min(len(cost), (block + 1) * BLOCK)):
                if cost[r] == low:
                    row = r
                    break
        before = cost[row]
        out[k, 0] = row
        _take(row, need, amounts, custom, devices, fullness, group, capacity, out[k])
        now = _row_cost(
            row, need, amounts, custom, kept, fullness, group, gate, price, weights, extra
        )
        cost[row] = now
        block = row // BLOCK
        if now <= before:  # it was the first of the cheapest, and still is
            lows[block] = now
        else:
            _lower(cost, lows, block)
            row = -1
    return count


@njit(cache=True)
def _slots(
    need, amounts, custom, kept, devices, fullness, group, gate, capacity, price, weights, extra,
    cost, lows, most, out,
):  # fmt: skip
    keeps = len(kept) > 0
    total = 0
    for row in range(len(gate)):
        room = most if gate[row] else 0
        for d in range(PART):
            if room > 0 and need[1, d] != NEVER:
                free = np.int64(amounts[d, row])
                if keeps:
                    free -= kept[d, row]
                room = min(room, max(free, 0) // need[0, d])
        for d in range(FIXED, need.shape[1]):
            if room > 0 and need[1, d] != NEVER:
                free = custom[d - FIXED, row]
                if keeps:
                    free -= kept[d, row]
                room = min(room, max(free, 0) // need[0, d])
        if room > 0 and need[1, PART] != NEVER:
            shares = 0
            for i in range(devices.shape[1]):
                if devices[row, i] > 0:
                    shares += devices[row, i] // need[0, PART]
            if keeps:
                spared = min(max(kept[WHOLE, row], 0), np.int64(amounts[WHOLE, row]))
                shares -= spared * (MILLI // need[0, PART])
            room = min(room, shares)
        out[row] = room
        total += room
    return total


def score(s: Seating) -> int:
    return int(_score(*s))


def seat(s: Seating, changed: Int, count: int, out: Int) -> int:
    return int(_seat(*s, changed, count, out))


def slots(s: Seating, most: int, out: Long) -> int:
    return int(_slots(*s, most, out))


def compiled() -> Kernels:
    """Ready to be called: each has run once."""
    made = Kernels(score, seat, slots, "numba")
    s = Seating(
        need=np.array([[1, 0, 0, 0, 0], [1, NEVER, NEVER, NEVER, NEVER]], np.int64),
        amounts=np.ones((FIXED, 1), np.int32),
        custom=np.zeros((0, 1), np.int64),
        kept=np.zeros((0, 0), np.int64),
        devices=np.zeros((1, 0), np.int32),
        fullness=np.zeros(1),
        group=np.zeros(1, np.int32),
        gate=np.ones(1, np.bool_),
        capacity=np.ones((1, 3), np.int64),
        price=np.zeros(1),
        weights=np.zeros(2),
        extra=np.zeros(0),
        cost=np.zeros(1),
        lows=np.zeros(1),
    )
    assert made.score(s) == 0, "one empty node has room"
    assert made.slots(s, 2, np.zeros(1, np.int64)) == 1
    assert made.seat(s, np.zeros(1, np.int32), 2, np.zeros((2, 1), np.int32)) == 1
    return made
