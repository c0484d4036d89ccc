"""Bounds compiled: only what has changed, has expired or may be the cheapest is worked out."""

import math

# ruff: noqa: ANN001, ANN202, PLR0912  # compiled: typed by its callers
# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
import numpy as np
from numba import njit

from hyperion.placement.bounds import ROOM, ROUNDING, Ask, Kept
from hyperion.placement.ledger import (
    BEGAN_MS,
    CPUS,
    DEVICE,
    DISK,
    EVERY_MS,
    FIXED_USD,
    FROM_MS,
    GPUS,
    LEAVES,
    MEMORY,
    PARTS,
    SHARE,
    SLOPE_USD,
    STANDING,
    TERM,
)

MOST_EXACT = 10
"""Jobs on a node up to which all sets of them are tried; else parts of them are filled in."""
MOST_JOBS = 64
"""Jobs on a node that are told apart; with more, the bound of the node is that of the best one."""
NEVER_MS = 2**62
_DEVICES = 64


def compiled_bounds(ask: Ask, kept: Kept) -> None:
    """See ``bounds.Kernel``."""
    _bounds(
        ask.now_ms,
        ask.compare,
        ask.gpus,
        ask.share,
        ask.least,
        ask.open,
        ask.place,
        *ask.ledger,
        ask.allowed,
        ask.amounts,
        ask.devices,
        kept.value,
        kept.since_ms,
        kept.growth_usd,
        kept.until_ms,
        kept.version,
        kept.amounts,
        kept.floor,
    )


@njit(cache=True)
def _bounds(
    now, compare, gpus, share, least, open, place, first, count, version, seats, terms, usd,
    allowed, amounts, devices, value, since, growth, until, seen, known, floor,
):  # fmt: skip
    n = len(open)
    stale = np.empty(n, np.bool_)
    for row in range(n):
        stale[row] = now >= until[row]
    if compare:
        for d in range(5):
            for row in range(n):
                stale[row] |= known[d, row] != amounts[d, row]
        for row in range(n):
            at = place[row]
            stale[row] |= seen[row] != (version[at] if at >= 0 else 0)
    cheapest = -1
    low = math.inf
    for row in range(n):
        if open[row] and not stale[row]:
            floor[row] = value[row] + growth[row] * (now - since[row])
            if floor[row] < low:
                low = floor[row]
                cheapest = row
    scratch = (
        np.empty(MOST_JOBS), np.empty((MOST_JOBS, 4)), np.empty(MOST_JOBS, np.int64),
        np.empty(MOST_JOBS, np.int64), np.empty(_DEVICES),
    )  # fmt: skip
    best = math.inf
    for step in range(-1, n):
        row = step
        if step < 0:
            if cheapest < 0:
                continue
            row = cheapest
        elif not open[row]:
            floor[row] = math.inf
            if stale[row]:
                until[row] = 0
            continue
        elif not stale[row] and (floor[row] >= best or row == cheapest):
            continue
        found, until[row], growth[row] = _row(
            now, gpus, share, least, row, place, first, count, seats, terms, usd, allowed,
            amounts, devices, best, scratch,
        )  # fmt: skip
        if stale[row]:
            at = place[row]
            seen[row] = version[at] if at >= 0 else 0
            known[:, row] = amounts[:, row]
            value[row] = found
        else:
            value[row] = max(floor[row], found)
        since[row] = now
        floor[row] = value[row]
        best = min(best, value[row])


@njit(cache=True)
def _row(
    now, gpus, share, least, row, place, first, count, seats, terms, usd, allowed,
    amounts, devices, cutoff, scratch,
):  # fmt: skip
    """(a lower bound, until when it holds, by how much it grows in each millisecond). Above the
    cutoff it need not be tight."""
    on_device = scratch[4]
    at = place[row]
    begin = first[at] if at >= 0 else 0
    end = begin + count[at] if at >= 0 else 0
    lack, leaving, shared = _lack(
        gpus, share, least, row, seats, begin, end, amounts, devices, on_device
    )
    # Its seats may yet be claimed by others that wait, device by device: looked at each time.
    ends = now if leaving else NEVER_MS
    if lack[0] <= 0 and lack[1] <= 0 and lack[2] <= 0 and lack[3] <= 0:
        return ROOM, ends, 0.0
    if shared:
        on_device[:] = 0.0
        for s in range(begin, end):
            if seats[s, SHARE] and not seats[s, LEAVES]:
                on_device[min(seats[s, DEVICE], _DEVICES - 1)] += seats[s, SHARE]
    jobs, lowest, crowded, until, slowest = _offers(
        now, gpus, share, seats, begin, end, terms, usd, allowed, scratch
    )
    ends = min(ends, until)
    slowest *= ROUNDING
    if crowded:
        return lowest * ROUNDING, ends, slowest
    cost, gain, _, order, _ = scratch
    bound = lowest
    for d in range(4):
        if lack[d] > 0:
            bound = max(bound, _filled(jobs, cost, gain, d, lack[d], order))
    if bound == math.inf or bound >= cutoff or jobs > MOST_EXACT:
        return bound * ROUNDING, ends, slowest
    return max(bound, _exact(jobs, cost, gain, lack)) * ROUNDING, ends, slowest


@njit(cache=True)
def _lack(gpus, share, least, row, seats, begin, end, amounts, devices, on_device):
    """(what is short once those have gone that are leaving, whether any are, whether GPUs are
    shared)."""
    free_cpus, free_memory = np.int64(amounts[0, row]), np.int64(amounts[1, row])
    free_disk = np.int64(amounts[2, row])
    free_whole, free_part = np.int64(amounts[3, row]), np.int64(amounts[4, row])
    leaving = False
    shared = False
    for s in range(begin, end):
        if seats[s, LEAVES]:
            leaving = True
            free_cpus += seats[s, CPUS]
            free_memory += seats[s, MEMORY]
            free_disk += seats[s, DISK]
        elif seats[s, SHARE]:
            shared = True
    if leaving and (gpus or share):
        free_whole, free_part = _devices(devices, row, seats, begin, end, on_device)
    lack_gpus = 0
    if gpus:
        lack_gpus = gpus - free_whole
    elif share and free_part < share and free_whole <= 0:
        lack_gpus = 1
    lack = (lack_gpus, least[0] - free_cpus, least[1] - free_memory, least[2] - free_disk)
    return lack, leaving, shared


@njit(cache=True)
def _offers(now, gpus, share, seats, begin, end, terms, usd, allowed, scratch):
    """(jobs that may be taken from, the least regret, whether there are more than are told apart,
    until when that holds, the least growth of a regret); what each costs and gives is written to
    the scratch."""
    cost, gain, term_of, _, on_device = scratch
    ends = NEVER_MS
    jobs = 0
    crowded = False
    lowest = math.inf
    slowest = math.inf
    for s in range(begin, end):
        if seats[s, LEAVES]:
            continue
        term = seats[s, TERM]
        if not allowed[terms[term, STANDING]]:
            continue
        if now < terms[term, FROM_MS]:
            ends = min(ends, terms[term, FROM_MS])
            continue
        j = 0
        while j < jobs and term_of[j] != term:
            j += 1
        if j == jobs:
            unsaved = max(0, now - terms[term, BEGAN_MS])
            every = terms[term, EVERY_MS]
            if every:
                unsaved %= every
                ends = min(ends, now + every - unsaved)
            regret = usd[term, FIXED_USD] + usd[term, SLOPE_USD] * unsaved
            regret /= terms[term, PARTS]
            lowest = min(lowest, regret)
            grows = now >= terms[term, BEGAN_MS]
            slowest = min(slowest, usd[term, SLOPE_USD] / terms[term, PARTS] if grows else 0.0)
            if jobs == MOST_JOBS:
                crowded = True
                continue
            jobs += 1
            term_of[j] = term
            cost[j] = regret
            gain[j, :] = 0.0
        if gpus:
            gain[j, 0] += _gpus(seats, s, on_device)
        elif share and (seats[s, SHARE] or seats[s, GPUS]):
            gain[j, 0] = 1.0
        gain[j, 1] += seats[s, CPUS]
        gain[j, 2] += seats[s, MEMORY]
        gain[j, 3] += seats[s, DISK]
    return jobs, lowest, crowded, ends, slowest if slowest < math.inf else 0.0


@njit(cache=True)
def _gpus(seats, s, on_device):
    """How many whole ones, or which part of what is held of a shared one."""
    if seats[s, SHARE]:
        return seats[s, SHARE] / on_device[min(seats[s, DEVICE], _DEVICES - 1)]
    return float(seats[s, GPUS])


@njit(cache=True)
def _devices(devices, row, seats, begin, end, on_device):
    """(whole GPUs, largest part of one) once those have gone that are leaving."""
    width = min(devices.shape[1], _DEVICES)
    for d in range(width):
        on_device[d] = devices[row, d]
    for s in range(begin, end):
        if not seats[s, LEAVES]:
            continue
        if seats[s, SHARE]:
            on_device[min(seats[s, DEVICE], _DEVICES - 1)] += seats[s, SHARE]
        elif seats[s, GPUS]:
            for d in range(width):
                if (seats[s, DEVICE] >> min(d, 62)) & 1:
                    on_device[d] += 1000
    whole = 0
    part = 0
    for d in range(width):
        if on_device[d] >= 1000:
            whole += 1
        elif on_device[d] > part:
            part = int(on_device[d])
    return whole, part


@njit(cache=True)
def _filled(jobs, cost, gain, d, lack, order):
    """The least for which parts of jobs give what is short of one dimension."""
    total = 0.0
    found = 0
    for j in range(jobs):
        if gain[j, d] > 0.0:
            total += min(gain[j, d], lack)
            density = cost[j] / min(gain[j, d], lack)
            k = found
            while k > 0 and cost[order[k - 1]] / min(gain[order[k - 1], d], lack) > density:
                order[k] = order[k - 1]
                k -= 1
            order[k] = j
            found += 1
    if total < lack - 1e-9:
        return math.inf
    bound = 0.0
    left = float(lack)
    for k in range(found):
        gained = min(gain[order[k], d], lack)
        if gained >= left:
            return bound + cost[order[k]] * left / gained
        bound += cost[order[k]]
        left -= gained
    return bound


@njit(cache=True)
def _exact(jobs, cost, gain, lack):
    """The cheapest set of jobs that gives all that is short: every set, one change at a time."""
    best = math.inf
    usd = 0.0
    had = np.zeros(4)
    chosen = 0
    for step in range(1, 1 << jobs):
        j = 0
        while not (step >> j) & 1:
            j += 1
        sign = -1.0 if (chosen >> j) & 1 else 1.0
        chosen ^= 1 << j
        usd += sign * cost[j]
        enough = True
        for d in range(4):
            had[d] += sign * gain[j, d]
            enough &= had[d] >= lack[d] - 1e-9
        if enough and usd < best:
            best = usd
    return best
