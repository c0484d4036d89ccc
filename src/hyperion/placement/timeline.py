"""When the places that running jobs hold will be free, in columns: one entry a replica.

A fold over ``Running``, brought up to date when it is asked, so that a question about the future
of a large cluster costs a few passes over arrays and not a walk over its jobs.
"""

import numpy as np
from numpy.typing import NDArray

from hyperion.model.allocation import Allocation
from hyperion.model.ids import JobId
from hyperion.model.resources import MILLI
from hyperion.placement.running import Running
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
CPUS, MEMORY, DISK, GPUS, ROW, _STARTED, _ENDS = range(7)
DEVICE, SHARE = 0, 1
"""Columns of seats, and of shares of GPUs."""


class Ends:
    """Entries in the order of their expected ends, with columns that are read when asked for."""

    __slots__ = ("_values", "ends_ms", "row", "slot")

    def __init__(self, ends_ms: Ints, slot: Ints, values: Ints) -> None:
        self.ends_ms = ends_ms
        self.slot = slot
        """Of the timeline: for ``Timeline.allocation``."""
        self.row: Ints = values[ROW, slot]
        """-1 on a node that the snapshot does not have."""
        self._values = values

    def on(self, wanted: NDArray[np.bool_]) -> NDArray[np.intp]:
        """The places of those on the wanted rows."""
        return np.flatnonzero(wanted[self.row] & (self.row >= 0))

    def column(self, which: int, at: NDArray[np.intp]) -> Ints:
        found: Ints = self._values[which, self.slot[at]]
        return found


class Timeline:
    """Columns of the seats of one ``Running``.

    A whole GPU is a whole one of its seat's; shares of GPUs are entries of their own.
    """

    def __init__(self, running: Running, unknown_ms: int = UNKNOWN_MS) -> None:
        self.running = running
        self.unknown_ms = unknown_ms
        self.freed = 0
        """Counts the changes after which less may be kept free than before."""
        self._touched: dict[JobId, None] = dict.fromkeys(running.occupants)
        self._rebuild = True
        self._seat_table = _Table()
        self._share_table = _Table()
        self._version = 0
        self._rows_of: tuple[Snapshot, int] | None = None
        self._seats: tuple[tuple[int, int], Ends] | None = None
        self._shares: tuple[tuple[int, int], Ends] | None = None
        running.watch(self._touch)

    def estimate(self, seat: Allocation, now_ms: int) -> int | None:
        """When a replica will have ended, as expected at ``now_ms``; always later than that.

        None for an allocation that no running job knows, such as a claim.
        """
        if seat.job not in self.running.occupants:
            return None
        started_ms, ends_ms = self.told(seat)
        if ends_ms <= now_ms:
            ends_ms = int(_overrun(np.array([started_ms]), np.array([ends_ms]), now_ms)[0])
        return min(ends_ms, now_ms + STOPPING_MS) if self.running.leaves(seat) else ends_ms

    def told(self, seat: Allocation) -> tuple[int, int]:
        """(begin, end) by its estimate, whatever time it is now. The tasks of an array begin one
        by one, and each lasts as long as the first was expected to."""
        occupant = self.running.occupants[seat.job]
        ends_ms, started_ms = occupant.ends_at_ms, occupant.started_at_ms
        if occupant.array:
            own_ms = seat.started_at_ms or seat.placed_at_ms or started_ms
            ends_ms += own_ms - started_ms if ends_ms else 0
            started_ms = own_ms
        return started_ms, ends_ms or started_ms + self.unknown_ms

    def seats(self, snapshot: Snapshot, now_ms: int) -> Ends:
        """The live replicas."""
        self._refresh(snapshot)
        key = (self._version, now_ms)
        if self._seats is None or self._seats[0] != key:
            self._seats = (key, self._seat_table.expected(now_ms))
        return self._seats[1]

    def shares(self, snapshot: Snapshot, now_ms: int) -> Ends:
        """What they hold of GPUs that they do not hold whole."""
        self._refresh(snapshot)
        key = (self._version, now_ms)
        if self._shares is None or self._shares[0] != key:
            self._shares = (key, self._share_table.expected(now_ms))
        return self._shares[1]

    def allocation(self, slot: int) -> Allocation:
        found = self._seat_table.owner[slot]
        assert found is not None
        return found

    def whole_gpus(
        self, snapshot: Snapshot, wanted: NDArray[np.bool_], now_ms: int
    ) -> tuple[Ints, Ints, Ints]:
        """(when, row, how many) GPUs of the wanted rows come free with those that hold them whole,
        in the order of time. What others than running jobs hold too, such as a claim, does not."""
        seats = self.seats(snapshot, now_ms)
        here = seats.on(wanted)
        gpus = seats.column(GPUS, here)
        some = np.flatnonzero(gpus)
        here, gpus = here[some], gpus[some]
        ends, row = seats.ends_ms[here], seats.row[here]
        devices = snapshot.devices[: snapshot.rows]
        if devices.min(initial=0) < 0:
            claimed: NDArray[np.bool_] = np.min(devices, axis=1) < 0
            for n in np.flatnonzero(claimed[row]).tolist():
                of_row = devices[row[n]]
                held = self.allocation(int(seats.slot[here[n]])).devices
                gpus[n] = sum(bool(d < len(of_row) and of_row[d] >= 0) for d in held)
        return ends, row, gpus

    def shared_gpus(
        self, snapshot: Snapshot, wanted: NDArray[np.bool_], now_ms: int
    ) -> tuple[Ints, Ints, Ints]:
        """The same of GPUs that are shared: each comes free with the last that has a part of it."""
        shares = self.shares(snapshot, now_ms)
        here = shares.on(wanted)
        if not len(here):
            return _NOTHING
        width = snapshot.devices.shape[1]
        key = shares.row[here] * width + shares.column(DEVICE, here)
        numbers, of = np.unique(key, return_inverse=True)
        free = snapshot.devices.reshape(-1)[numbers].astype(np.int64)
        free += np.bincount(of, shares.column(SHARE, here)).astype(np.int64)
        last = np.zeros(len(numbers), np.int64)
        last[of] = np.arange(len(here))  # in order of time: the latest end is assigned last
        back = here[np.sort(last[free >= MILLI])]
        return shares.ends_ms[back], shares.row[back], np.ones(len(back), np.int64)

    def whole_again(
        self, snapshot: Snapshot, wanted: NDArray[np.bool_], now_ms: int
    ) -> tuple[Ints, Ints, Ints]:
        """Both together."""
        whole = self.whole_gpus(snapshot, wanted, now_ms)
        shared = self.shared_gpus(snapshot, wanted, now_ms)
        if not len(shared[0]):
            return whole
        ends, row, gpus = (np.concatenate(both) for both in zip(whole, shared, strict=True))
        order = np.argsort(ends, kind="stable")  # of two runs that are in order already
        return ends[order], row[order], gpus[order]

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
            self._seat_table = _Table()
            self._share_table = _Table()
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
        seats: list[_Entry] = []
        shares: list[_Entry] = []
        for job in self._touched:
            self._seat_table.drop(job)
            self._share_table.drop(job)
            if job not in occupants:
                continue
            for seat in running.seats(job):
                at, r, life = row.get(seat.node, -1), seat.request, self.told(seat)
                leaves = running.leaves(seat)
                whole = len(seat.devices) if r.gpus_milli >= MILLI else 0
                amounts = (r.cpus_milli, r.memory_mib, r.disk_mib, whole)
                seats.append((seat, leaves, (*amounts, at, *life)))
                shares += (
                    (seat, leaves, (device, r.gpus_milli, 0, 0, at, *life))
                    for device in (() if whole else seat.devices)
                )
        self._touched.clear()
        self._seat_table.add(seats)
        self._share_table.add(shares)


_NOTHING = (np.zeros(0, np.int64),) * 3
_Entry = tuple[Allocation, bool, tuple[int, ...]]
"""(whose, whether it is being stopped, columns)."""


class _Table:
    """Columns with slots that are used again, and the live slots in the order of their ends."""

    def __init__(self) -> None:
        self.values: Ints = np.zeros((7, 0), np.int64)
        self.owner: list[Allocation | None] = []
        self._slots: dict[JobId, list[int]] = {}
        self._leaving: set[int] = set()
        self._free: list[int] = []
        self._ends: Ints = np.zeros(0, np.int64)
        self._order: Ints = np.zeros(0, np.int64)
        self._gone: list[int] = []
        self._come: list[int] = []

    def add(self, entries: list[_Entry]) -> None:
        if not entries:
            return
        self._sort()  # before slots are used again that are still in order
        slots = self._take(len(entries))
        self.values[:, slots] = np.array([values for _, _, values in entries], np.int64).T
        for slot, (allocation, leaves, _) in zip(slots, entries, strict=True):
            self.owner[slot] = allocation
            self._slots.setdefault(allocation.job, []).append(slot)
            if leaves:
                self._leaving.add(slot)
        self._come += slots

    def drop(self, job: JobId) -> None:
        slots = self._slots.pop(job, None)
        if slots:
            for slot in slots:
                self.owner[slot] = None
            self._leaving.difference_update(slots)
            self._free += slots
            self._gone += slots

    def place(self, snapshot: Snapshot) -> None:
        """Nodes have come or gone: find the rows again."""
        row = snapshot.row
        self.values[ROW, : len(self.owner)] = [
            -1 if owner is None else row.get(owner.node, -1) for owner in self.owner
        ]

    def expected(self, now_ms: int) -> Ends:
        """In the order of what is expected now: those over their estimate, and those that are
        being stopped, have other ends than they were given."""
        self._sort()
        ends, order = self._ends, self._order
        late = int(np.searchsorted(ends, now_ms, "right"))
        if late or self._leaving:
            leaving = np.zeros(len(self.owner), np.bool_)
            leaving[list(self._leaving)] = True
            moved = leaving[order]
            moved[:late] = True
            slots, other = order[moved], ends[moved]
            over = other <= now_ms
            other[over] = _overrun(self.values[_STARTED, slots[over]], other[over], now_ms)
            soon = np.minimum(other, now_ms + STOPPING_MS)
            other = np.where(leaving[slots], soon, other)
            ends, order = _merged(ends[~moved], order[~moved], other, slots)
        return Ends(ends, order, self.values)

    def _sort(self) -> None:
        if self._gone:
            gone = np.zeros(len(self.owner), np.bool_)
            gone[self._gone] = True
            self._come = [slot for slot in self._come if not gone[slot]]
            stay = ~gone[self._order]
            self._ends, self._order = self._ends[stay], self._order[stay]
            self._gone = []
        if self._come:
            slots = np.array(self._come, np.int64)
            self._ends, self._order = _merged(
                self._ends, self._order, self.values[_ENDS, slots], slots
            )
            self._come = []

    def _take(self, count: int) -> list[int]:
        again = min(count, len(self._free))
        slots = self._free[len(self._free) - again :]
        del self._free[len(self._free) - again :]
        used, new = len(self.owner), count - again
        if used + new > self.values.shape[1]:
            width = max(64, 2 * self.values.shape[1], used + new)
            wider = np.full((len(self.values), width), -1, np.int64)
            wider[:, :used] = self.values[:, :used]
            self.values = wider
        slots += range(used, used + new)
        self.owner += [None] * new
        return slots


def _merged(ends: Ints, order: Ints, new_ends: Ints, new: Ints) -> tuple[Ints, Ints]:
    """An order with some slots more."""
    by_end = np.argsort(new_ends, kind="stable")
    new_ends, new = new_ends[by_end], new[by_end]
    if not len(ends):
        return new_ends, new
    at = np.searchsorted(ends, new_ends, "right")
    return np.insert(ends, at, new_ends), np.insert(order, at, new)


def _overrun(started: Ints, told: Ints, now_ms: int) -> Ints:
    """When jobs will end whose estimates are over."""
    more = np.maximum(now_ms - told, (now_ms - started) // OVERRUN_DIVISOR)
    ends: Ints = now_ms + np.maximum(more, 1)
    return ends
