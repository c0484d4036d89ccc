"""When the places that running jobs hold will be free, in columns: one entry a replica.

A fold over ``Running``, brought up to date when it is asked, so that a question about the future
of a large cluster costs a few passes over arrays and not a walk over its jobs.
"""

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from hyperion.model.allocation import Allocation
from hyperion.model.ids import JobId
from hyperion.model.resources import MILLI
from hyperion.placement.running import Occupant, Running
from hyperion.placement.snapshot import Snapshot

Ints = NDArray[np.int64]

UNKNOWN_MS = 3_600_000
"""How long a job runs of which nobody knows anything; the same hour that it is priced at."""
STOPPING_MS = 10_000
"""How soon a job that is being stopped is taken to be gone: the default grace."""
OVERRUN_DIVISOR = 16
"""A job over its estimate is expected to need as long again as it is over, and at least this part
of what it has run."""
_REBUILD = 4
"""When more than a part in so many of the jobs has changed, all columns are made anew."""
_ROW, _ENDS, _STARTED, _STOPPING, _CPUS, _MEMORY, _DISK = range(7)
_DEVICE, _SHARE = 4, 5


class Seats(Struct, frozen=True):
    """The live replicas in the order of their expected ends."""

    ends_ms: Ints
    row: Ints
    cpus_milli: Ints
    memory_mib: Ints
    disk_mib: Ints
    slot: Ints
    """Of the timeline: for ``Timeline.allocation``."""


class Shares(Struct, frozen=True):
    """What they hold of single GPUs, in the same order; a whole GPU is a share of 1000."""

    ends_ms: Ints
    row: Ints
    device: Ints
    milli: Ints


class Timeline:
    """Columns of the seats of one ``Running``."""

    def __init__(self, running: Running, unknown_ms: int = UNKNOWN_MS) -> None:
        self.running = running
        self.unknown_ms = unknown_ms
        self.freed = 0
        """Counts the changes after which less may be kept free than before."""
        self._touched: dict[JobId, None] = dict.fromkeys(running.occupants)
        self._rebuild = True
        self._seat_table = _Table(7)
        self._share_table = _Table(6)
        self._version = 0
        self._rows_of: tuple[Snapshot, int] | None = None
        self._seats: tuple[tuple[int, int], Seats] | None = None
        self._shares: tuple[tuple[int, int], Shares] | None = None
        running.watch(self._touch)

    def estimate(self, seat: Allocation, now_ms: int) -> int | None:
        """When a replica will have ended, as expected at ``now_ms``; always later than that.

        None for an allocation that no running job knows, such as a claim."""
        occupant = self.running.occupants.get(seat.job)
        if occupant is None:
            return None
        life = _life(occupant, seat, self.running.leaves(seat))
        columns = np.array([(0, *life)], np.int64).T
        return int(_estimates(columns, now_ms, self.unknown_ms)[0])

    def told(self, seat: Allocation) -> tuple[int, int]:
        """(begin, end) by its estimate, whatever time it is now."""
        ends_ms, started_ms, _ = _life(self.running.occupants[seat.job], seat, False)
        return started_ms, ends_ms or started_ms + self.unknown_ms

    def seats(self, snapshot: Snapshot, now_ms: int) -> Seats:
        self._refresh(snapshot)
        key = (self._version, now_ms)
        if self._seats is None or self._seats[0] != key:
            columns, slots, ends = self._live(self._seat_table, now_ms)
            seats = Seats(
                ends, columns[_ROW], columns[_CPUS], columns[_MEMORY], columns[_DISK], slots
            )
            self._seats = (key, seats)
        return self._seats[1]

    def shares(self, snapshot: Snapshot, now_ms: int) -> Shares:
        self._refresh(snapshot)
        key = (self._version, now_ms)
        if self._shares is None or self._shares[0] != key:
            columns, _, ends = self._live(self._share_table, now_ms)
            shares = Shares(ends, columns[_ROW], columns[_DEVICE], columns[_SHARE])
            self._shares = (key, shares)
        return self._shares[1]

    def allocation(self, slot: int) -> Allocation:
        found = self._seat_table.owner[slot]
        assert found is not None
        return found

    def _touch(self, job: JobId, freed: bool) -> None:
        self._touched[job] = None
        self.freed += freed
        if len(self._touched) > 2 * len(self.running.occupants) + 1024:
            self._touched.clear()  # nobody has asked for long
            self._rebuild = True

    def _refresh(self, snapshot: Snapshot) -> None:
        rows_of = (snapshot, snapshot.structure)
        occupants = self.running.occupants
        if self._rebuild or len(self._touched) * _REBUILD > len(occupants) + 64:
            self._seat_table = _Table(7)
            self._share_table = _Table(6)
            self._version += 1
            self._rebuild = False
            self._touched = dict.fromkeys(occupants)
        elif self._rows_of is not None and (
            self._rows_of[0] is not snapshot or self._rows_of[1] != snapshot.structure
        ):
            self._seat_table.place(snapshot)
            self._share_table.place(snapshot)
            self._version += 1
        self._rows_of = rows_of
        if self._touched:
            self._version += 1
            self._take_in(snapshot)

    def _take_in(self, snapshot: Snapshot) -> None:
        row, occupants, running = snapshot.row, self.running.occupants, self.running
        seats: list[tuple[Allocation, tuple[int, ...]]] = []
        shares: list[tuple[Allocation, tuple[int, ...]]] = []
        for job in self._touched:
            self._seat_table.drop(job)
            self._share_table.drop(job)
            occupant = occupants.get(job)
            if occupant is None:
                continue
            for seat in running.seats(job):
                at, r = row.get(seat.node, -1), seat.request
                life = _life(occupant, seat, running.leaves(seat))
                seats.append((seat, (at, *life, r.cpus_milli, r.memory_mib, r.disk_mib)))
                for device in seat.devices:
                    share = min(r.gpus_milli, MILLI)
                    shares.append((seat, (at, *life, device, share)))
        self._touched.clear()
        self._seat_table.add(seats)
        self._share_table.add(shares)

    def _live(self, table: "_Table", now_ms: int) -> tuple[Ints, Ints, Ints]:
        """(columns, slots, expected ends) of the entries on known nodes, first to end first."""
        slots = np.flatnonzero(table.values[_ROW, : table.used] >= 0)
        columns = table.values[:, slots]
        ends = _estimates(columns, now_ms, self.unknown_ms)
        order = np.argsort(ends, kind="stable")
        return columns[:, order], slots[order], ends[order]


class _Table:
    """Columns with slots that are used again; a slot whose row is -1 is free or on no node."""

    def __init__(self, columns: int) -> None:
        self.values: Ints = np.zeros((columns, 0), np.int64)
        self.used = 0
        self.owner: list[Allocation | None] = []
        self._slots: dict[JobId, list[int]] = {}
        self._free: list[int] = []

    def add(self, entries: list[tuple[Allocation, tuple[int, ...]]]) -> None:
        if not entries:
            return
        slots = self._take(len(entries))
        self.values[:, slots] = np.array([values for _, values in entries], np.int64).T
        for slot, (allocation, _) in zip(slots, entries, strict=True):
            self.owner[slot] = allocation
            self._slots.setdefault(allocation.job, []).append(slot)

    def drop(self, job: JobId) -> None:
        slots = self._slots.pop(job, None)
        if slots:
            self.values[_ROW, slots] = -1
            for slot in slots:
                self.owner[slot] = None
            self._free += slots

    def place(self, snapshot: Snapshot) -> None:
        """Nodes have come or gone: find the rows again."""
        row = snapshot.row
        self.values[_ROW, : self.used] = [
            -1 if owner is None else row.get(owner.node, -1) for owner in self.owner
        ]

    def _take(self, count: int) -> list[int]:
        again = min(count, len(self._free))
        slots = self._free[len(self._free) - again :]
        del self._free[len(self._free) - again :]
        new = count - again
        if self.used + new > self.values.shape[1]:
            width = max(64, 2 * self.values.shape[1], self.used + new)
            wider = np.full((len(self.values), width), -1, np.int64)
            wider[:, : self.used] = self.values[:, : self.used]
            self.values = wider
        slots += range(self.used, self.used + new)
        self.used += new
        self.owner += [None] * new
        return slots


def _life(occupant: Occupant, seat: Allocation, leaves: bool) -> tuple[int, int, int]:
    """(end as told, begin, whether it is being stopped) of one replica. The tasks of an array
    begin one by one, and each lasts as long as the first was expected to."""
    ends_ms, started_ms = occupant.ends_at_ms, occupant.started_at_ms
    if occupant.array:
        own_ms = seat.started_at_ms or seat.placed_at_ms or started_ms
        ends_ms += own_ms - started_ms if ends_ms else 0
        started_ms = own_ms
    return ends_ms, started_ms, int(leaves)


def _estimates(columns: Ints, now_ms: int, unknown_ms: int) -> Ints:
    started, told = columns[_STARTED], columns[_ENDS]
    ends: Ints = np.where(told > 0, told, started + unknown_ms)
    over = ends <= now_ms
    if over.any():
        more = np.maximum(now_ms - ends, (now_ms - started) // OVERRUN_DIVISOR)
        ends = np.where(over, now_ms + np.maximum(more, 1), ends)
    stopping = columns[_STOPPING] > 0
    if stopping.any():
        ends = np.where(stopping, np.minimum(ends, now_ms + STOPPING_MS), ends)
    return ends


def whole_again(snapshot: Snapshot, shares: Shares, wanted: NDArray[np.bool_]) -> tuple[Ints, Ints]:
    """(when, row) of each GPU of the wanted rows that will be nobody's, in the order of time.

    A GPU is whole again when the last that has a share of it has ended. One that others hold
    than those who run, such as a claim, never is.
    """
    width = snapshot.devices.shape[1]
    here = wanted[shares.row] & (shares.device < width)
    key = shares.row[here] * width + shares.device[here]
    size = snapshot.rows * width
    free = snapshot.devices[: snapshot.rows].reshape(-1).astype(np.int64)
    free += np.bincount(key, shares.milli[here], size).astype(np.int64)
    last = np.zeros(size, np.int64)
    last[key] = shares.ends_ms[here]  # in order of time: the last assignment is the latest end
    back = np.flatnonzero((last > 0) & (free >= MILLI))
    order = np.argsort(last[back], kind="stable")
    return last[back][order], (back // width)[order]
