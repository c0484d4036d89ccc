"""At least how much regret one more replica costs on each node: what a search begins with.

A bound is kept while it holds: regrets only grow until a job writes its next checkpoint, so one
worked out earlier is still a lower bound, unless the node changed or one of its jobs has written.
It grows with them: whoever is stopped there is at least one job, so by no less than the slowest of
them does. In practice a search looks at the few nodes that have changed, and at the cheapest ones.

Two ways with the same meaning: ``bounds_numba``, compiled, keeps bounds; NumPy works all of them
out anew, and less tightly.
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hyperion.model.resources import MILLI, ResourceRequest
from hyperion.placement.ledger import (
    BEGAN_MS,
    CPUS,
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
    Float,
    Ledger,
    Long,
)
from hyperion.placement.occupant import Occupant
from hyperion.placement.rights import Rights
from hyperion.placement.running import Running
from hyperion.placement.snapshot import Snapshot

Bool = NDArray[np.bool_]
Int = NDArray[np.int32]
ROUNDING = 1.0 - 1e-12
"""Sums in another order differ in their last bits; a bound must not exceed a sum for that."""
ROOM = -1.0
"""The bound where there is room without any victim: less than that of one who costs nothing."""
MOST_KEPT = 32
"""Kinds of demand whose bounds are kept; the one unused for longest makes way."""


class Kept:
    """Bounds of one demand by row, and what they were worked out from."""

    __slots__ = (
        "amounts", "floor", "growth_usd", "read", "since_ms", "until_ms", "value", "version",
    )  # fmt: skip

    def __init__(self, rows: int) -> None:
        self.value: Float = np.zeros(rows)
        """The bound at ``since_ms``; from then on it grows."""
        self.since_ms: Long = np.zeros(rows, np.int64)
        self.growth_usd: Float = np.zeros(rows)
        """In each millisecond."""
        self.until_ms: Long = np.zeros(rows, np.int64)
        """0: not worked out yet."""
        self.version: Long = np.zeros(rows, np.int64)
        self.amounts: Int = np.zeros((5, rows), np.int32)
        """As the snapshot's."""
        self.floor: Float = np.zeros(rows)
        """The newest answer: the bound where the row is open, else infinite."""
        self.read: tuple[object, int, int] = (None, 0, 0)
        """How nodes were numbered, and how far the two logs of changes have been read."""

    def learn(self, row: int, usd: float, now_ms: int) -> None:
        """It costs so much there now, which is no less than the newest answer."""
        self.value[row] = max(self.floor[row], usd * ROUNDING)
        self.since_ms[row] = now_ms


class Ask(NamedTuple):
    """What the kernels take; arrays are shared with their owners."""

    now_ms: int
    compare: bool
    """Whether to find out what has changed; else that has been marked."""
    gpus: int
    """Whole ones, 0 where a share of one is asked for."""
    share: int
    least: Long
    """CPUs, memory and disk that must be free; far below nothing where none is asked for."""
    open: Bool
    place: Long
    """By row, -1 where nothing runs."""
    ledger: tuple[Long, Long, Long, Long, Long, Float]
    """First, count, version by place; seats; terms, twice."""
    allowed: Bool
    """By standing."""
    amounts: Int
    """The snapshot's, as the next one; longer than there are rows."""
    devices: Int


Kernel = Callable[[Ask, Kept], None]


class Bounds:
    """Of one running set on one snapshot; kept with the former."""

    def __init__(self, snapshot: Snapshot, running: Running) -> None:
        self.snapshot = snapshot
        self.running = running
        self.ledger: Ledger = running.ledger
        self._kept: dict[object, Kept] = {}
        self._place: Long = np.zeros(0, np.int64)
        self._row: Long = np.zeros(0, np.int64)
        """By place, -1 where the snapshot has no such node."""
        self._numbered = (-1, -1)
        self._places = 0
        self._allowed: dict[object, Bool] = {}

    @staticmethod
    def of(snapshot: Snapshot, running: Running) -> "Bounds":
        found: Bounds | None = running.memo
        if found is None or found.snapshot is not snapshot:
            found = running.memo = Bounds(snapshot, running)
        return found

    def least(
        self, request: ResourceRequest, open: Bool, rights: Rights, now_ms: int
    ) -> tuple[Float, Kept]:
        """(by row the least that room for one more can cost, infinite where there is none; what
        to write better knowledge to)."""
        self.running.settle()
        allowed = self._allowed_to(rights)
        r = request
        key = (r.gpus_milli, r.cpus_milli, r.memory_mib, r.disk_mib, allowed.tobytes())
        rows = self.snapshot.rows
        kept = self._kept.pop(key, None)
        if kept is None or len(kept.value) != rows:
            kept = Kept(rows)
        self._kept[key] = kept
        if len(self._kept) > MOST_KEPT:
            del self._kept[next(iter(self._kept))]
        place = self._places_of_rows()
        compare = not self._marked(kept)
        _active(self._ask(r, open, allowed, now_ms, place, compare), kept)
        return kept.floor, kept

    def _marked(self, kept: Kept) -> bool:
        """Mark the bounds of what has changed, if the logs of changes tell it all."""
        s, led = self.snapshot, self.ledger
        numbered, rows_read, places_read = kept.read
        rows_behind, places_behind = rows_read - s.changed_from, places_read - led.changed_from
        kept.read = (
            self._numbered,
            s.changed_from + len(s.changed),
            led.changed_from + len(led.changed),
        )
        if numbered != self._numbered or rows_behind < 0 or places_behind < 0:
            return False
        changed = s.changed[rows_behind:]
        if changed:
            kept.until_ms[changed] = 0
        places = led.changed[places_behind:]
        if places:
            rows = self._row[places]
            kept.until_ms[rows[rows >= 0]] = 0
        return True

    def _ask(
        self,
        r: ResourceRequest,
        open: Bool,
        allowed: Bool,
        now_ms: int,
        place: Long,
        compare: bool,
    ) -> Ask:
        s, led = self.snapshot, self.ledger
        whole = r.gpus_milli >= MILLI
        needs = (r.cpus_milli, r.memory_mib, r.disk_mib)
        return Ask(
            now_ms,
            compare,
            r.whole_gpus if whole else 0,
            0 if whole else r.gpus_milli,
            np.array([need or _NOTHING for need in needs], np.int64),
            open,
            place,
            (led.first, led.count, led.version, led.seats, led.terms, led.usd),
            allowed,
            s.amounts,
            s.devices,
        )

    def _allowed_to(self, rights: Rights) -> Bool:
        standings = self.ledger.standings
        own = (rights.queue, rights.nice) if rights.within else None
        key = rights.priority, own, rights.holders, rights.moves, len(standings)
        found = self._allowed.get(key)
        if found is None:
            who = [Occupant(job=_ANYBODY, queue=q, priority=p, nice=n) for q, p, n in standings]
            found = np.array([rights.title(o) is not None for o in who], np.bool_)
            if len(self._allowed) >= MOST_KEPT:
                self._allowed.clear()
            self._allowed[key] = found
        return found

    def _places_of_rows(self) -> Long:
        """The ledger's numbers of nodes by the snapshot's; both change rarely."""
        place, row = self.ledger.place, self.snapshot.row
        if self._numbered != (self.snapshot.structure, self.ledger.renumbered):
            self.ledger.forget(row)
            self._numbered = self.snapshot.structure, self.ledger.renumbered
            self._place = np.full(self.snapshot.rows, -1, np.int64)
            self._places = 0
        if self._places != len(place):
            new = list(place)[self._places :]
            self._row = np.full(len(self.ledger.first), -1, np.int64)
            self._row[self._place[self._place >= 0]] = np.flatnonzero(self._place >= 0)
            for node in new:
                if node in row:
                    self._place[row[node]] = place[node]
                    self._row[place[node]] = row[node]
            self._places = len(place)
        return self._place


_ANYBODY: Any = "anybody"
_NOTHING = -(2**62)


def numpy_bounds(ask: Ask, kept: Kept) -> None:
    """All rows anew: the dimension that is short is filled up with the cheapest parts of shares."""
    first, count, _, seats, terms, usd = ask.ledger
    rows = np.flatnonzero(ask.place >= 0)
    places = ask.place[rows]
    each = count[places]
    row = np.repeat(rows, each)
    begins = np.cumsum(each) - each
    line = seats[np.repeat(first[places] - begins, each) + np.arange(len(row))]
    free = list(ask.amounts[:, : len(ask.open)].astype(np.int64))
    leaving = line[:, LEAVES] != 0
    for d, field in enumerate((CPUS, MEMORY, DISK)):
        np.add.at(free[d], row[leaving], line[leaving, field])
    gone = np.maximum(line[:, GPUS], line[:, SHARE] > 0)
    np.add.at(free[3], row[leaving], gone[leaving])
    lacks = _lacks(ask, free)
    row, line = row[~leaving], line[~leaving]
    regret = _regrets(ask, line, terms, usd)
    row, line, regret = row[regret < np.inf], line[regret < np.inf], regret[regret < np.inf]
    regret = _in_parts(row, line, regret)
    gains = (np.maximum(line[:, GPUS], line[:, SHARE] > 0), line[:, CPUS], line[:, MEMORY],
             line[:, DISK])  # fmt: skip
    kept.value[:] = np.where(np.any([lack > 0 for lack in lacks], axis=0), 0.0, ROOM)
    for lack, gain in zip(lacks, gains, strict=True):
        short = np.flatnonzero(lack > 0)
        if len(short):
            kept.value[short] = np.maximum(
                kept.value[short], _filled(lack, row, gain, regret)[short]
            )
    kept.value[kept.value > 0] *= ROUNDING
    kept.since_ms[:] = ask.now_ms
    kept.floor[:] = np.where(ask.open, kept.value, np.inf)


def _lacks(ask: Ask, free: list[Long]) -> tuple[Long, Long, Long, Long]:
    cpus, memory, disk, whole, part = free
    if ask.share:
        gpus = ((part < ask.share) & (whole <= 0)).astype(np.int64)
    else:
        gpus = ask.gpus - whole if ask.gpus else np.zeros_like(whole)
    return gpus, ask.least[0] - cpus, ask.least[1] - memory, ask.least[2] - disk


def _regrets(ask: Ask, line: Long, terms: Long, usd: Float) -> Float:
    """By seat, of its whole job, or of a part where that can go alone; infinite if it may not."""
    term = line[:, TERM]
    t = terms[term]
    unsaved = np.maximum(0, ask.now_ms - t[:, BEGAN_MS])
    every = t[:, EVERY_MS]
    unsaved = np.where(every > 0, unsaved % np.maximum(every, 1), unsaved)
    regret = usd[term, FIXED_USD] + usd[term, SLOPE_USD] * unsaved
    may = ask.allowed[t[:, STANDING]] & (ask.now_ms >= t[:, FROM_MS])
    found: Float = np.where(may, regret / t[:, PARTS], np.inf)
    return found


def _in_parts(row: NDArray[np.intp], line: Long, regret: Float) -> Float:
    """A job with several seats on one node, which all go together: to each its part."""
    key = row * (int(line[:, TERM].max(initial=0)) + 1) + line[:, TERM]
    _, which, seats = np.unique(key, return_inverse=True, return_counts=True)
    parts: Float = regret / seats[which]
    return parts


def _filled(lack: Long, row: NDArray[np.intp], gain: Long, regret: Float) -> Float:
    """By row: the least for which parts of its seats would give what it lacks."""
    n = len(lack)
    useful = (gain > 0) & (lack[row] > 0)
    row, gain, regret = row[useful], np.minimum(gain, lack[row])[useful], regret[useful]
    density = regret / gain
    order = np.lexsort((density, row))
    row, gain, density = row[order], gain[order], density[order]
    before = np.cumsum(gain) - gain
    starts = np.searchsorted(row, np.arange(n))
    had = before - before[np.minimum(starts[row], len(before) - 1)] if len(row) else before
    used = np.clip(lack[row] - had, 0, gain)
    filled = np.bincount(row, weights=used * density, minlength=n)
    got = np.bincount(row, weights=used, minlength=n)
    return np.where(got >= lack, filled, np.inf)


_active: Kernel = numpy_bounds


def warm() -> bool:
    """Use compiled bounds from now on, if numba is installed; whether it is."""
    global _active  # noqa: PLW0603  # one switch for the process, and either setting is right
    if find_spec("numba") is None:
        return False
    from hyperion.placement.bounds_numba import compiled_bounds

    nobody = Bounds(Snapshot(), Running())
    none = np.zeros(0, np.bool_)
    ask = nobody._ask(ResourceRequest(), none, none, 0, np.zeros(0, np.int64), True)
    compiled_bounds(ask, Kept(0))  # compiled, or read from the disk, by its first call
    _active = compiled_bounds
    return True


def use(kernel: Kernel) -> None:
    """For tests and benchmarks, which compare the two."""
    global _active  # noqa: PLW0603
    _active = kernel
