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
CHUNK = 8 * BLOCK
"""So many rows at a time are scored: few enough to stay in the nearest cache from step to step."""
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
    fits = np.empty(CHUNK, np.bool_)
    n = len(gate)
    best_row = -1
    best = np.inf
    for begin in range(0, n, CHUNK):
        end = min(n, begin + CHUNK)
        costs = cost[begin:end]
        some = _cost(
            need[1], amounts, custom, kept, fullness, group, gate, price, weights, extra,
            begin, end, fits[: end - begin], costs,
        )  # fmt: skip
        for block in range(begin // BLOCK, (end + BLOCK - 1) // BLOCK):
            lows[block] = np.inf
            if some:
                _lower(cost, lows, block)
                if lows[block] < best:
                    best = lows[block]
                    best_row = block * BLOCK + _first(cost[block * BLOCK : end], best)
    return best_row


@njit(cache=True)
def _place(
    need, amounts, custom, kept, devices, fullness, group, gate, capacity, price, weights, extra,
    cost, lows, out,
):  # fmt: skip
    """Costs stay in the nearest cache: they are compared, and not written down."""
    fits = np.empty(CHUNK, np.bool_)
    scratch = np.empty(CHUNK)
    row = -1
    best = np.inf
    for begin in range(0, len(gate), CHUNK):
        end = min(len(gate), begin + CHUNK)
        costs = scratch[: end - begin]
        if _cost(
            need[1], amounts, custom, kept, fullness, group, gate, price, weights, extra,
            begin, end, fits[: end - begin], costs,
        ):  # fmt: skip
            low = _least(costs)
            if low < best:
                best = low
                row = begin + _first(costs, low)
    if row >= 0:
        out[0, 0] = row
        _take(row, need, amounts, custom, devices, fullness, group, capacity, out[0])
    return row


@njit(cache=True)
def _cost(
    least, amounts, custom, kept, fullness, group, gate, price, weights, extra,
    begin, end, fits, costs,
):  # fmt: skip
    """Of some rows; whether any has room. Loops do one thing each, over columns that follow each
    other in memory, so that several rows are worked out at once."""
    if not _any(gate[begin:end]):
        costs[:] = np.inf
        return False
    _room(least, amounts, custom, kept, gate, begin, end, fits)
    if not _any(fits):
        costs[:] = np.inf
        return False
    _priced(group[begin:end], price, costs)
    if least[PART] != NEVER:
        _breaking(amounts[PART, begin:end], np.int32(least[PART]), weights[0], costs)
    _filling(fullness[begin:end], weights[1], costs)
    if len(extra):
        _added(extra[begin:end], costs)
    _where(fits, costs)
    return True


@njit(cache=True)
def _room(least, amounts, custom, kept, gate, begin, end, fits):
    """Which rows have room for one more."""
    if len(kept):
        _room_kept(least, amounts, kept, gate, begin, end, fits)
    else:
        _free(
            _narrow(least[CPUS]), _narrow(least[MEMORY]), _narrow(least[DISK]),
            _narrow(least[WHOLE]), amounts[CPUS, begin:end], amounts[MEMORY, begin:end],
            amounts[DISK, begin:end], amounts[WHOLE, begin:end], gate[begin:end], fits,
        )  # fmt: skip
        if least[PART] != NEVER:
            _share(amounts[PART, begin:end], amounts[WHOLE, begin:end], np.int32(least[PART]), fits)
    for d in range(FIXED, len(least)):
        if least[d] != NEVER:
            if len(kept):
                _above(custom[d - FIXED, begin:end] - kept[d, begin:end], least[d], fits)
            else:
                _above(custom[d - FIXED, begin:end], least[d], fits)


@njit(cache=True)
def _free(c, m, d, w, cpus, memory, disk, whole, gate, fits):
    for i in range(len(fits)):
        fits[i] = gate[i] & (cpus[i] >= c) & (memory[i] >= m) & (disk[i] >= d) & (whole[i] >= w)


@njit(cache=True)
def _share(part, whole, least, fits):
    """A share of one GPU: of one that is shared already, or of a whole one."""
    nothing = np.int32(0)
    for i in range(len(fits)):
        fits[i] &= (part[i] >= least) | (whole[i] > nothing)


@njit(cache=True)
def _room_kept(least, amounts, kept, gate, begin, end, fits):
    """The same where something must stay free."""
    fits[:] = gate[begin:end]
    for d in range(PART):
        if least[d] != NEVER:
            _above(amounts[d, begin:end] - kept[d, begin:end], least[d], fits)
    if least[PART] != NEVER:
        part, whole = amounts[PART, begin:end], amounts[WHOLE, begin:end]
        spared = kept[WHOLE, begin:end]
        for i in range(len(fits)):
            fits[i] &= (part[i] >= least[PART]) | (whole[i] - spared[i] > 0)


@njit(cache=True)
def _above(free, least, fits):
    for i in range(len(fits)):
        fits[i] &= free[i] >= least


@njit(cache=True)
def _any(fits):
    found = False
    for i in range(len(fits)):
        found |= fits[i]
    return found


@njit(cache=True)
def _priced(kind, price, costs):
    for i in range(len(costs)):
        costs[i] = price[np.uint32(kind[i])]


@njit(cache=True)
def _breaking(part, least, weight, costs):
    for i in range(len(costs)):
        costs[i] += weight if part[i] < least else 0.0


@njit(cache=True)
def _filling(full, weight, costs):
    for i in range(len(costs)):
        costs[i] += weight * full[i]


@njit(cache=True)
def _added(more, costs):
    for i in range(len(costs)):
        costs[i] += more[i]


@njit(cache=True)
def _where(fits, costs):
    for i in range(len(costs)):
        costs[i] = costs[i] if fits[i] else np.inf


@njit(cache=True)
def _first(costs, low):
    for i in range(len(costs)):
        if costs[i] == low:
            return i
    return -1


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
    fits = np.empty(CHUNK, np.bool_)
    total = 0
    for begin in range(0, len(gate), CHUNK):
        end = min(len(gate), begin + CHUNK)
        may, rooms = fits[: end - begin], out[begin:end]
        rooms[:] = 0
        if not _any(gate[begin:end]):
            continue
        _room(need[1], amounts, custom, kept, gate, begin, end, may)
        if not _any(may):
            continue
        rooms[:] = most
        for d in range(PART):
            if need[1, d] != NEVER:
                if len(kept):
                    _times(amounts[d, begin:end] - kept[d, begin:end], need[0, d], may, rooms)
                else:
                    _times_small(amounts[d, begin:end], need[0, d], rooms)
        for d in range(FIXED, need.shape[1]):
            if need[1, d] != NEVER:
                if len(kept):
                    spare = custom[d - FIXED, begin:end] - kept[d, begin:end]
                    _times(spare, need[0, d], may, rooms)
                else:
                    _times(custom[d - FIXED, begin:end], need[0, d], may, rooms)
        if need[1, PART] != NEVER:
            _shares(need[0, PART], amounts, kept, devices, begin, end, may, rooms)
        total += _only(may, rooms)
    return total


@njit(cache=True)
def _times(free, each, fits, rooms):
    for i in range(len(rooms)):
        if fits[i]:
            rooms[i] = min(rooms[i], free[i] // each)


@njit(cache=True)
def _times_small(free, each, rooms):
    """Of four bytes: a quotient of floats, of which several are worked out at once, is never
    rounded up to the next whole number."""
    divisor = float(each)
    for i in range(len(rooms)):
        times = np.int64(free[i] / divisor)
        rooms[i] = times if times < rooms[i] else rooms[i]


@njit(cache=True)
def _shares(share, amounts, kept, devices, begin, end, fits, rooms):
    for i in range(end - begin):
        if fits[i]:
            row = begin + i
            shares = 0
            for k in range(devices.shape[1]):
                if devices[row, k] > 0:
                    shares += devices[row, k] // share
            if len(kept):
                spared = min(max(kept[WHOLE, row], 0), np.int64(amounts[WHOLE, row]))
                shares -= spared * (MILLI // share)
            rooms[i] = min(rooms[i], shares)


@njit(cache=True)
def _only(fits, rooms):
    total = 0
    for i in range(len(rooms)):
        rooms[i] = rooms[i] if fits[i] else 0
        total += rooms[i]
    return total


@njit(cache=True)
def _by_part(by_row, parts, out):
    """Rows of one part mostly follow each other: their sum is kept at hand."""
    out[:] = 0
    part = -1
    held = 0
    for row in range(len(by_row)):
        if parts[row] != part:
            if part >= 0:
                out[part] += held
            part = parts[row]
            held = 0
        held += by_row[row]
    if part >= 0:
        out[part] += held


def score(s: Seating) -> int:
    return int(_score(*s))


def place(s: Seating, out: Int) -> int:
    return int(_place(*s, out))


def seat(s: Seating, changed: Int, count: int, out: Int) -> int:
    return int(_seat(*s, changed, count, out))


def slots(s: Seating, most: int, out: Long) -> int:
    return int(_slots(*s, most, out))


def by_part(by_row: Long, parts: Int, out: Long) -> None:
    _by_part(by_row, parts, out)


def compiled() -> Kernels:
    """Ready to be called: each has run once."""
    made = Kernels(score, place, seat, slots, by_part, "numba")
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
    assert made.place(s, np.zeros((1, 1), np.int32)) == -1
    made.by_part(np.ones(1, np.int64), np.zeros(1, np.int32), np.zeros(1, np.int64))
    return made
