"""Starts that have been promised to waiting jobs, and what must stay free so that they hold."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
from msgspec import Struct

from hyperion.model.ids import JobId, NodeId
from hyperion.model.job import Job, Priority
from hyperion.model.resources import MILLI, ResourceRequest
from hyperion.placement.snapshot import Snapshot
from hyperion.placement.timeline import CPUS, DISK, GPUS, MEMORY, Ends, Ints, Timeline

MOST_PROMISES = 256
"""Kept at a time: the jobs that come next. Those behind them wait without."""


class Promise(Struct, frozen=True):
    """A place for a waiting job from a time on; what runs beside it must leave it free."""

    job: JobId
    at_ms: int
    seats: tuple[tuple[NodeId, ResourceRequest], ...]
    confidence: float = 0.0
    """How likely it is that it can start by then: 0 to 1."""
    because: tuple[JobId, ...] = ()
    """Whose ends it waits for last."""
    ends_at_ms: int = 0
    """When it would end if it started at ``at_ms``; 0 unknown."""
    priority: Priority = Priority.BATCH
    """Jobs of a higher one are not bound by it."""
    made_at_ms: int = 0
    """When the job was first promised a start. Who started later on its places is a guest."""
    alternative: int = 0


class Kept(Struct, frozen=True):
    """What some rows must keep free, in columns by place in ``rows``."""

    rows: Ints
    amounts: Ints
    """CPUs, memory, disk, whole GPUs; by column of ``rows``."""
    shared: Ints
    """For wishes of shares of GPUs: how many GPUs must be nobody's. Each share may keep a GPU
    from being whole again that is counted on."""


class Booked:
    """A promise in the columns of one snapshot."""

    __slots__ = ("amounts", "ends_ms", "promise", "rows")

    def __init__(self, promise: Promise, ends_ms: int, snapshot: Snapshot) -> None:
        self.promise = promise
        self.ends_ms = ends_ms
        by_row: dict[int, list[ResourceRequest]] = defaultdict(list)
        for node, request in promise.seats:
            row = snapshot.row.get(node)
            if row is not None:
                by_row[row].append(request)
        self.rows: Ints = np.array(sorted(by_row), np.int64)
        columns = [amounts_together(by_row[row]) for row in self.rows.tolist()]
        self.amounts: Ints = np.array(columns, np.int64).reshape(-1, 4).T

    def begins_ms(self, now_ms: int) -> int:
        """One that is late begins as soon as it can."""
        return max(self.promise.at_ms, now_ms)

    def lasts_to_ms(self, now_ms: int) -> int:
        return self.begins_ms(now_ms) + self.ends_ms - self.promise.at_ms


LATE_MS = 30_000
"""Behind its time by this, a promised start is no longer held up by those promised for later."""


class Promises:
    """In the order of their times; ``edition`` changes with every change of them."""

    def __init__(self, unknown_ms: int) -> None:
        self.unknown_ms = unknown_ms
        self.by_job: dict[JobId, Promise] = {}
        self.edition = 0
        self._ordered: list[Promise] = []
        self._times: list[int] = []
        self._booked: dict[JobId, Booked] = {}
        self._booked_for: tuple[Snapshot, int] | None = None
        self._made: dict[object, Kept | None] = {}
        self._to_come: tuple[tuple[Ends, int, int], _Releases] | None = None

    def put(self, promise: Promise) -> bool:
        """Kept, or there are too many. Another one of the same job is replaced."""
        if len(self.by_job) >= MOST_PROMISES and promise.job not in self.by_job:
            return False
        self.by_job[promise.job] = promise
        self._booked.pop(promise.job, None)
        self._changed()
        return True

    def drop(self, job: JobId) -> None:
        if self.by_job.pop(job, None) is not None:
            self._booked.pop(job, None)
            self._changed()

    def copy(self) -> "Promises":
        made = Promises(self.unknown_ms)
        made.by_job = dict(self.by_job)
        made._changed()
        return made

    def count_before(self, ends_ms: int) -> int:
        """How many begin before this time."""
        return bisect_left(self._times, ends_ms)

    def times(self) -> list[int]:
        return self._times

    def ends_ms(self, promise: Promise) -> int:
        return promise.ends_at_ms or promise.at_ms + self.unknown_ms

    def binding(
        self, snapshot: Snapshot, job: Job, begins_ms: int, ends_ms: int, now_ms: int
    ) -> list[Booked]:
        """Those that a job must respect that runs from one time to another."""
        found = []
        own = self.by_job.get(job.id)
        late = own is not None and own.at_ms + LATE_MS <= begins_ms <= now_ms
        for promise in self._ordered[: self.count_before(ends_ms)]:
            if promise.job == job.id or promise.priority < job.priority:
                continue
            if late and own is not None and (promise.at_ms, promise.job) > (own.at_ms, own.job):
                continue  # its own time has come first: two that are late must not bar each other
            booked = self.booked(snapshot, promise)
            if booked.lasts_to_ms(now_ms) > begins_ms and booked.begins_ms(now_ms) < ends_ms:
                found.append(booked)
        return found

    def booked(self, snapshot: Snapshot, promise: Promise) -> Booked:
        if self._booked_for is None or (
            self._booked_for[0] is not snapshot or self._booked_for[1] != snapshot.structure
        ):
            self._booked_for = (snapshot, snapshot.structure)
            self._booked.clear()
            self._made.clear()
        found = self._booked.get(promise.job)
        if found is None:
            found = Booked(promise, self.ends_ms(promise), snapshot)
            self._booked[promise.job] = found
        return found

    def kept(
        self, snapshot: Snapshot, timeline: Timeline, binding: list[Booked], at: "Span"
    ) -> Kept | None:
        """What must be free of the rows at ``at.begins_ms``, so that with what is freed later all
        of ``binding`` find theirs at their times."""
        if not binding:
            return None
        key = (
            tuple(b.promise.job for b in binding),
            at, self.edition, timeline.freed, snapshot.structure,
        )  # fmt: skip
        if key not in self._made:
            if len(self._made) >= MOST_PROMISES:
                self._made.clear()
            own = self.by_job.get(at.promised)
            mine = self.booked(snapshot, own) if own is not None and at.shares else None
            to_come = self._releases(snapshot, timeline, at.now_ms)
            self._made[key] = _kept(to_come, binding, at, mine)
        return self._made[key]

    def _releases(self, snapshot: Snapshot, timeline: Timeline, now_ms: int) -> "_Releases":
        """What all rows with promises get back, as long as nothing has changed."""
        seats = timeline.seats(snapshot, now_ms)
        known = self._to_come
        if (
            known is None
            or known[0][0] is not seats
            or known[0][1:] != (self.edition, snapshot.structure)
        ):
            every = [self.booked(snapshot, p).rows for p in self._ordered]
            made = _Releases(snapshot, timeline, np.unique(np.concatenate(every)), now_ms)
            known = self._to_come = ((seats, self.edition, snapshot.structure), made)
        return known[1]

    def _changed(self) -> None:
        self.edition += 1
        self._ordered = sorted(self.by_job.values(), key=lambda p: (p.at_ms, p.job))
        self._times = [p.at_ms for p in self._ordered]
        self._made.clear()


class Span(Struct, frozen=True):
    """When a wish would start, as seen at ``now_ms``, and how many shares of GPUs it wants."""

    begins_ms: int
    now_ms: int
    shares: int = 0
    promised: JobId = JobId("")
    """The wish's own promise: on its rows it wants as many as were promised there."""


def amounts_together(requests: list[ResourceRequest]) -> tuple[int, int, int, int]:
    """GPUs as whole ones: each share may need one of its own."""
    cpus = memory = disk = gpus = 0
    for r in requests:
        cpus += r.cpus_milli
        memory += r.memory_mib
        disk += r.disk_mib
        gpus += -(-r.gpus_milli // MILLI)
    return cpus, memory, disk, gpus


def _kept(
    to_come: "_Releases", binding: list[Booked], at: Span, mine: Booked | None
) -> Kept | None:
    rows = to_come.rows
    if not len(rows):
        return None
    shares = np.full(len(rows), at.shares, np.int64)
    if mine is not None:
        both, ours, theirs = np.intersect1d(rows, mine.rows, return_indices=True)
        shares[ours] = mine.amounts[GPUS, theirs[: len(both)]]
    freed = _Freed(to_come, at.begins_ms)
    active = np.zeros((4, len(rows)), np.int64)
    most = np.zeros((4, len(rows)), np.int64)
    shared = np.zeros(len(rows), np.int64)
    for when, begin, end in _steps(binding, at):
        for sign, some in ((-1, end), (1, begin)):
            for booked in some:
                active[:, np.searchsorted(rows, booked.rows)] += sign * booked.amounts
        if begin:
            needed = active - freed.by(when)
            np.maximum(most, needed, out=most)
            taken = np.minimum(shares, freed.again)
            if at.begins_ms > at.now_ms:  # to be promised: each share is booked as a whole GPU
                taken = np.where(active[GPUS] > 0, shares, taken)
            np.maximum(shared, needed[GPUS] + taken, out=shared)
    return Kept(rows, most, shared)


def _steps(binding: list[Booked], at: Span) -> Iterator[tuple[int, list[Booked], list[Booked]]]:
    """(time, those that begin then, those that end then), in order."""
    steps: dict[int, tuple[list[Booked], list[Booked]]] = {}
    for booked in binding:
        begins_ms = max(at.begins_ms, booked.begins_ms(at.now_ms))
        steps.setdefault(begins_ms, ([], []))[0].append(booked)
        steps.setdefault(booked.lasts_to_ms(at.now_ms), ([], []))[1].append(booked)
    for when in sorted(steps):
        yield when, *steps[when]


class _Releases:
    """What some rows will get back, in the order of time."""

    def __init__(self, snapshot: Snapshot, timeline: Timeline, rows: Ints, now_ms: int) -> None:
        self.rows = rows
        wanted = np.zeros(snapshot.rows, np.bool_)
        wanted[rows] = True
        seats = timeline.seats(snapshot, now_ms)
        here = seats.on(wanted)
        amounts = [seats.column(which, here) for which in (CPUS, MEMORY, DISK)]
        self.seats = _Track(seats.ends_ms[here], seats.row[here], rows, amounts)
        ends, row, gpus = timeline.whole_gpus(snapshot, wanted, now_ms)
        self.whole = _Track(ends, row, rows, [gpus])
        ends, row, gpus = timeline.shared_gpus(snapshot, wanted, now_ms)
        self.shared = _Track(ends, row, rows, [gpus])


class _Track:
    """Some amounts that come back at the same times."""

    __slots__ = ("amounts", "ends", "place", "size")

    def __init__(self, ends: Ints, row: Ints, rows: Ints, amounts: list[Ints]) -> None:
        self.ends = ends
        self.place = np.searchsorted(rows, row)
        self.amounts = amounts
        self.size = len(rows)

    def until(self, when_ms: int) -> int:
        return int(np.searchsorted(self.ends, when_ms, "right"))

    def between(self, begin: int, end: int) -> list[Ints]:
        place = self.place[begin:end]
        return [
            np.bincount(place, each[begin:end], self.size).astype(np.int64) for each in self.amounts
        ]


class _Freed:
    """What some rows get back after a time."""

    def __init__(self, to_come: _Releases, begins_ms: int) -> None:
        self.tracks = (to_come.seats, to_come.whole, to_come.shared)
        self.done = [track.until(begins_ms) for track in self.tracks]
        self.amounts = np.zeros((4, len(to_come.rows)), np.int64)
        self.again = np.zeros(len(to_come.rows), np.int64)
        """Of the GPUs, those that were shared."""

    def by(self, when_ms: int) -> Ints:
        """Until this time; the times asked for must not go back."""
        for n, track in enumerate(self.tracks):
            end = track.until(when_ms)
            if end <= self.done[n]:
                continue
            back = track.between(self.done[n], end)
            self.done[n] = end
            if n == 0:
                self.amounts[:GPUS] += back
            else:
                self.amounts[GPUS] += back[0]
            if n == 2:
                self.again += back[0]
        return self.amounts
