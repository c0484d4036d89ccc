"""When a job that waits could start at the earliest, and where.

What counts is looked at in columns, at a few moments found by bisection: between two changes of
windows and promises, what is free only grows. Only jobs with wishes that amounts cannot express
(roles, near to or away from others, even spreads, countables of the site's own) are also put to
the planner, on a snapshot from which the allocations that will have ended are lifted meanwhile.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from hyperion.model.allocation import Allocation
from hyperion.model.ids import JobId, NodeId
from hyperion.model.job import Job
from hyperion.model.resources import MILLI, ResourceRequest
from hyperion.placement.calendar import Calendar
from hyperion.placement.feasibility import request_key
from hyperion.placement.horizon import Horizon, ends_on, first_time
from hyperion.placement.planner import Plan, Wish, Withheld, open_rows, plan
from hyperion.placement.promises import Promise, amounts_together
from hyperion.placement.ranking import Policy
from hyperion.placement.running import Occupant, Running
from hyperion.placement.snapshot import Snapshot
from hyperion.placement.timeline import Ints, Timeline

MOST_SPANS = 1024
"""Spans between two changes of windows or promises that are looked at; 0.1 ms each and more."""
MOST_NAMED = 16
"""Jobs named in ``because``."""
MARGIN_MS = 60_000
MARGIN_DIVISOR = 10
"""A promise gives up its places for others only if that is a minute, and a tenth of the wait,
earlier: else what is kept free would wander, and nothing long could start anywhere."""
EVEN_CHANCE = 0.5
"""Of a job's end by its estimate, when no forecast is asked."""


class Certainty(Protocol):
    """How likely a running job has ended by a time (``Forecast`` knows)."""

    def ended_by(self, occupant: Occupant, by_ms: int, now_ms: int) -> float: ...


def earliest(
    snapshot: Snapshot,
    running: Running,
    calendar: Calendar,
    wish: Job | Wish,
    policy: Policy,
    now_ms: int,
    certainty: Certainty | None = None,
) -> Promise | None:
    """The first time at which the wish fits if all end as expected; None when it never does.

    A promise that the calendar has for this job keeps its places as long as they do: they are
    given up only if they have become impossible, or a start is possible elsewhere that is earlier
    by ``MARGIN_MS`` and a tenth of the wait. The snapshot is left as it was found.
    """
    assert calendar.timeline.running is running, "a calendar counts on the ends of its own jobs"
    if isinstance(wish, Job):
        wish = Wish(wish)
    search = _Search(snapshot, calendar, wish, policy, now_ms)
    best: _Start | None = None
    for alternative in range(len(wish.job.alternatives) if not wish.job.roles else 1):
        found = search.start(alternative, best)
        if found is not None and (best is None or found.at_ms < best.at_ms):
            best = found
    if best is None:
        return None
    known = calendar.promises.get(wish.job.id)
    if known is not None:
        best = search.stay(known, best)
    return search.promise(best, known, certainty)


class _Start(Struct, frozen=True):
    at_ms: int
    alternative: int
    seats: tuple[tuple[NodeId, ResourceRequest], ...]


class _Search:
    """One wish against one state of the cluster."""

    def __init__(
        self, snapshot: Snapshot, calendar: Calendar, wish: Wish, policy: Policy, now_ms: int
    ) -> None:
        self.snapshot = snapshot
        self.calendar = calendar
        self.wish = wish
        self.job = job = wish.job
        self.policy = policy
        self.now_ms = now_ms
        self.count = wish.at_least or (1 if job.array is not None else job.least_replicas)
        self.length_ms = max(1, wish.ends_at_ms - now_ms) if wish.ends_at_ms else 0
        """0: unknown."""
        changes = calendar.changes_ms(job, self.length_ms or calendar.unknown_ms, now_ms)
        self.spans = [now_ms, *changes[: MOST_SPANS - 1]]

    def start(self, alternative: int, before: _Start | None) -> _Start | None:
        """The first of one alternative; those that are not before a known one do not matter."""
        needs = self._needs(alternative)
        horizons = [self._horizon(request, count) for request, count in needs]
        times = horizons[0].times
        if len(horizons) > 1:
            times = np.sort(np.concatenate([h.times for h in horizons]))

        def enough(at_ms: int) -> bool:
            return all(self._room(self._slots(h, at_ms)) >= h.most for h in horizons)

        def amounts(at_ms: int) -> bool:
            return all(self._room(h.slots(at_ms, None, None)) >= h.most for h in horizons)

        def settle(at_ms: int) -> None:
            for horizon in horizons:
                horizon.settle(at_ms)

        spans = list(self._spans(times))
        least_ms = self.now_ms  # before which there is not enough, whatever the calendar says
        if len(spans) > 1:
            found_ms = first_time(times, self.now_ms, spans[-1][1], amounts, settle)
            if found_ms is None:
                return None
            least_ms = found_ms
        for begins_ms, until_ms in spans:
            if before is not None and begins_ms >= before.at_ms:
                return None
            if until_ms < least_ms:
                continue
            at_ms = first_time(times, max(begins_ms, least_ms), until_ms, enough, settle)
            if at_ms is None:
                continue
            seats = self._apart(needs, horizons, at_ms)
            if seats:
                return _Start(at_ms, alternative, seats)
            found = self._planned(times, at_ms, until_ms)
            if found is not None:
                return found
        return None

    def stay(self, known: Promise, other: _Start) -> _Start:
        """The places promised before, if they can still be had about as early as others."""
        for at_ms in (other.at_ms, max(known.at_ms, self.now_ms)):
            margin_ms = max(MARGIN_MS, (at_ms - self.now_ms) // MARGIN_DIVISOR)
            if other.at_ms <= at_ms <= other.at_ms + margin_ms and self._holds(known, at_ms):
                return _Start(at_ms, known.alternative, known.seats)
        return other

    def promise(self, start: _Start, known: Promise | None, certainty: Certainty | None) -> Promise:
        """With the jobs that it waits for, and how likely they have ended by then."""
        awaited = self._awaited(start)
        chance = 1.0
        for job in awaited:
            occupant = self.calendar.timeline.running.occupants[job]
            chance *= (
                EVEN_CHANCE if certainty is None
                else certainty.ended_by(occupant, start.at_ms, self.now_ms)
            )  # fmt: skip
        for other, ends_ms in self._before(start):
            chance *= other.confidence
            awaited[other.job] = ends_ms
        last_ms = max(awaited.values(), default=0)
        because = sorted(job for job, ends_ms in awaited.items() if ends_ms == last_ms)
        return Promise(
            job=self.job.id,
            at_ms=start.at_ms,
            seats=start.seats,
            confidence=chance,
            because=tuple(because[:MOST_NAMED]),
            ends_at_ms=self._ends_ms(start.at_ms),
            priority=self.job.priority,
            made_at_ms=known.made_at_ms if known is not None else self.now_ms,
            alternative=start.alternative,
        )

    # -- what is wanted ---------------------------------------------------------------------------

    def _needs(self, alternative: int) -> list[tuple[ResourceRequest, int]]:
        """What the replicas ask for, and how many ask for that."""
        first, job = self.wish.first_rank, self.job
        if not job.roles:
            return [(job.alternatives[alternative], self.count)]
        found = []
        for role in job.roles:
            count = min(first + self.count, role.replicas) - max(first, 0)
            if count > 0:
                found.append((role.resources, count))
            first -= role.replicas
        return found

    def _is_hard(self, request: ResourceRequest) -> bool:
        """Whether amounts do not tell where it may be."""
        job = self.job
        return bool(
            request.custom
            or any(not term.weight for term in job.replica_affinity)
            or any(spread.required for spread in job.spread)
            or self.snapshot.neighbours.kept_from(job.metadata)
            or (job.packing is not None and self.wish.first_rank)
        )

    def _ends_ms(self, begins_ms: int) -> int:
        return begins_ms + self.length_ms if self.length_ms else 0

    def _spans(self, times: Ints) -> Iterator[tuple[int, int]]:
        """(begin, end) of each span within which what is free only grows."""
        for begins_ms, next_ms in zip(self.spans, self.spans[1:], strict=False):
            yield begins_ms, next_ms - 1
        last_ms = self.spans[-1]
        yield last_ms, max(last_ms, int(times[-1]) if len(times) else 0)

    # -- by amounts -------------------------------------------------------------------------------

    def _horizon(self, request: ResourceRequest, count: int) -> Horizon:
        alone = replace(self.job, alternatives=(request,), roles=())
        open = open_rows(self.snapshot, alone)
        timeline = self.calendar.timeline
        return Horizon(self.snapshot, timeline, request, open, self.now_ms, count)

    def _slots(self, horizon: Horizon, at_ms: int) -> Ints:
        ends_ms, calendar, now_ms = self._ends_ms(at_ms), self.calendar, self.now_ms
        closed = calendar.closed_at(self.snapshot, self.job, ends_ms, at_ms)
        kept = calendar.kept_at(self.snapshot, self.job, ends_ms, at_ms, now_ms)
        return horizon.slots(at_ms, closed, kept)

    def _room(self, slots: Ints) -> int:
        """For how many replicas together."""
        parts = self._parts()
        if parts is None:
            return int(slots.sum())
        return int(np.bincount(parts, slots).max(initial=0))

    def _parts(self) -> NDArray[np.int32] | None:
        """By row, where they must all be in one part of the topology."""
        packing = self.job.packing
        if packing is None or not packing.required or self.count == 1:
            return None
        return self.snapshot.labels.parts(packing.level, self.snapshot.rows)[0]

    def _apart(
        self, needs: list[tuple[ResourceRequest, int]], horizons: list[Horizon], at_ms: int
    ) -> tuple[tuple[NodeId, ResourceRequest], ...]:
        """Seats by amounts alone, with no row for two roles; none if that does not do."""
        if any(self._is_hard(request) for request, _ in needs):
            return ()
        if len(needs) > 1 and self._parts() is not None:
            return ()
        taken = np.zeros(self.snapshot.rows, np.bool_)
        found: dict[int, list[tuple[NodeId, ResourceRequest]]] = {}
        for n in sorted(range(len(needs)), key=lambda n: (-needs[n][0].gpus_milli, n)):
            slots = self._slots(horizons[n], at_ms)
            slots[taken] = 0
            request, count = needs[n]
            if self._room(slots) < count:
                return ()
            found[n] = self._seats(slots, request, count)
            taken[[self.snapshot.row[node] for node, _ in found[n]]] = True
        return tuple(seat for n in range(len(needs)) for seat in found[n])

    def _seats(
        self, slots: Ints, request: ResourceRequest, count: int
    ) -> list[tuple[NodeId, ResourceRequest]]:
        """On few nodes: the tightest part that takes all, and in it the rows with most room."""
        parts = self._parts()
        if parts is not None:
            room = np.bincount(parts, slots)
            part = int(np.where(room >= count, room, np.inf).argmin())
            slots = np.where(parts == part, slots, 0)
        rows = np.flatnonzero(slots)
        rows = rows[np.argsort(-slots[rows], kind="stable")]
        seats: list[tuple[NodeId, ResourceRequest]] = []
        for row in rows.tolist():
            node = self.snapshot.nodes[row]
            assert node is not None, "an open row has a node"
            seats += [(node.id, request)] * min(int(slots[row]), count - len(seats))
            if len(seats) == count:
                break
        return seats

    def _holds(self, known: Promise, at_ms: int) -> bool:
        """Whether the places of a promise can be had at a time."""
        if len(known.seats) != self.count:
            return False
        by_row: dict[int, list[ResourceRequest]] = {}
        for node, request in known.seats:
            if node not in self.snapshot.row or request.custom:
                return False
            by_row.setdefault(self.snapshot.row[node], []).append(request)
        alike: dict[tuple[object, ...], tuple[ResourceRequest, int, list[int]]] = {}
        for row, requests in by_row.items():
            request, count = _together(requests)
            key = (request_key(request), count)
            alike.setdefault(key, (request, count, []))[2].append(row)
        for request, count, rows in alike.values():
            horizon = self._horizon(request, count)
            only = np.zeros(self.snapshot.rows, np.bool_)
            only[rows] = True
            horizon.open &= only
            if (self._slots(horizon, at_ms)[rows] < count).any():
                return False
        return True

    # -- by the planner ---------------------------------------------------------------------------

    def _planned(self, times: Ints, begins_ms: int, until_ms: int) -> _Start | None:
        """The first time in a span at which the planner finds places too."""
        with _lifted(self.snapshot, self.calendar.timeline, self.now_ms) as lift:
            plans: dict[int, Plan] = {}

            def enough(at_ms: int) -> bool:
                lift(at_ms)
                ends_ms = self._ends_ms(at_ms)
                wish = replace(self.wish, at_least=self.count, at_most=0, ends_at_ms=ends_ms)
                view = _Later(self.calendar, at_ms, self.now_ms)
                found = plan(self.snapshot, wish, self.policy, view, at_ms)
                if isinstance(found, Plan):
                    plans[at_ms] = found
                return isinstance(found, Plan)

            at_ms = first_time(times, begins_ms, until_ms, enough, lambda _: None)
            if at_ms is None:
                return None
            found = plans[at_ms]
        first = self.wish.first_rank
        seats = tuple(
            (seat.node, self.job.request(rank, found.alternative))
            for rank, seat in enumerate(found.seats, first)
        )
        return _Start(at_ms, found.alternative, seats)

    # -- who it waits for -------------------------------------------------------------------------

    def _before(self, start: _Start) -> Iterator[tuple[Promise, int]]:
        """The promises to others that are over, with their ends, when it starts on their places."""
        nodes = {node for node, _ in start.seats}
        for other in self.calendar.promises.values():
            ends_ms = self.calendar.lasts_to_ms(other, self.now_ms)
            if (
                ends_ms <= start.at_ms
                and other.job != self.job.id
                and other.priority >= self.job.priority
                and any(node in nodes for node, _ in other.seats)
            ):
                yield other, ends_ms

    def _awaited(self, start: _Start) -> dict[JobId, int]:
        """The jobs that must end first, with their expected ends: those on its rows that have no
        room for it yet, the first to end before those that need not."""
        timeline, snapshot = self.calendar.timeline, self.snapshot
        by_row: dict[int, list[ResourceRequest]] = {}
        for node, request in start.seats:
            by_row.setdefault(snapshot.row[node], []).append(request)
        missing: dict[int, list[int]] = {}
        for row, requests in by_row.items():
            lacks = _lacks(snapshot, row, requests)
            if lacks:
                missing[row] = lacks
        seats = timeline.seats(snapshot, self.now_ms)
        here = ends_on(seats, np.array(list(missing), np.int64), snapshot.rows, start.at_ms)
        columns = [seats.row, seats.ends_ms, seats.slot]
        ended = list(zip(*(column[here].tolist() for column in columns), strict=True))
        if (np.diff(seats.ends_ms[here]) == 0).any():  # by name, not by how the columns came about
            ended.sort(key=lambda e: (e[1], timeline.allocation(e[2]).id))
        awaited: dict[JobId, int] = {}
        for row, ends_ms, slot in ended:
            lacks = missing[row]
            if max(lacks) > 0:
                allocation = timeline.allocation(slot)
                awaited[allocation.job] = ends_ms
                for n, amount in enumerate(_amounts_of(allocation)):
                    lacks[n] -= amount
        return awaited


class _Later:
    """The calendar's view as it will be at another time, with the ends that are expected now."""

    def __init__(self, calendar: Calendar, at_ms: int, now_ms: int) -> None:
        self.calendar = calendar
        self.at_ms = at_ms
        self.now_ms = now_ms

    def mark(self, job: Job, ends_at_ms: int, now_ms: int) -> Hashable:
        return self.at_ms, self.calendar.mark(job, ends_at_ms, now_ms)

    def closed(
        self, snapshot: Snapshot, job: Job, ends_at_ms: int, now_ms: int
    ) -> NDArray[np.bool_] | None:
        return self.calendar.closed_then(snapshot, job, ends_at_ms, now_ms, self.now_ms)

    def withheld(
        self, snapshot: Snapshot, job: Job, ends_at_ms: int, now_ms: int
    ) -> Mapping[int, Withheld]:
        return self.calendar.withheld_at(snapshot, job, ends_at_ms, now_ms, self.now_ms)


@contextmanager
def _lifted(snapshot: Snapshot, timeline: Timeline, now_ms: int) -> Iterator[Callable[[int], None]]:
    """A function that lifts from the snapshot what will have ended by a time, and puts back what
    will not; in the end all is put back as it was."""
    seats = timeline.seats(snapshot, now_ms)
    lifted: list[tuple[Allocation, Job | None] | None] = []

    def lift(at_ms: int) -> None:
        count = int(np.searchsorted(seats.ends_ms, at_ms, "right"))
        while len(lifted) > count:
            put_back(lifted.pop())
        for place in range(len(lifted), count):
            seat = timeline.allocation(int(seats.slot[place]))
            held = next((a for a in snapshot.held(seat.node) if a.id == seat.id), None)
            lifted.append(None if held is None else (held, snapshot.neighbours.job_of(held.id)))
            if held is not None:
                snapshot.drop(held)

    def put_back(entry: tuple[Allocation, Job | None] | None) -> None:
        if entry is not None:
            snapshot.hold(*entry)

    try:
        yield lift
    finally:
        lift(now_ms)


def _together(requests: list[ResourceRequest]) -> tuple[ResourceRequest, int]:
    """One request, and how often, that stands for all that one row is to take."""
    first = requests[0]
    if all(request == first for request in requests):
        return first, len(requests)
    cpus, memory, disk, gpus = amounts_together(requests)
    whole = ResourceRequest(
        gpus_milli=gpus * MILLI, cpus_milli=cpus, memory_mib=memory, disk_mib=disk
    )
    return whole, 1


def _lacks(snapshot: Snapshot, row: int, requests: list[ResourceRequest]) -> list[int]:
    """What a row does not have of some amounts now; empty when it has all."""
    cpus, memory, disk, gpus = amounts_together(requests)
    lacks = [
        cpus - int(snapshot.free_cpus[row]),
        memory - int(snapshot.free_memory[row]),
        disk - int(snapshot.free_disk[row]),
        gpus * MILLI - int(snapshot.whole[row]) * MILLI,
    ]
    if len(requests) == 1 and 0 < requests[0].gpus_milli <= snapshot.part[row]:
        lacks[3] = 0
    return lacks if max(lacks) > 0 else []


def _amounts_of(allocation: Allocation) -> tuple[int, int, int, int]:
    r = allocation.request
    return (
        r.cpus_milli,
        r.memory_mib,
        r.disk_mib,
        len(allocation.devices) * min(r.gpus_milli, MILLI),
    )
