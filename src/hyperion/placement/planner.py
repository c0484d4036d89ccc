"""Turns wishes into plans: filter, rank, choose. A plan is a proposal; nothing here writes it down.

A round never changes the snapshot: it works on a copy of the columns, which is brought up to date
by what has changed since the last round, so that a round costs what it places and not what the
cluster measures.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from hyperion.model.constraints import LEVELS
from hyperion.model.job import Job
from hyperion.model.node import Node
from hyperion.placement import packing
from hyperion.placement.demand import demand_key, demands, most_kept
from hyperion.placement.feasibility import UNBOUNDED
from hyperion.placement.forms import Form, Forms, Taken
from hyperion.placement.nearness import Nearness
from hyperion.placement.neighbours import Apart, Neighbours, is_social
from hyperion.placement.ranking import Policy, guarded
from hyperion.placement.refused import Tried, Unplaceable, for_job, rejections
from hyperion.placement.snapshot import Snapshot
from hyperion.placement.wishes import Plan, Seat, View, Wish, Withheld

__all__ = [
    "Plan",
    "Seat",
    "Unplaceable",
    "View",
    "Wish",
    "Withheld",
    "demand_key",
    "open_rows",
    "plan",
    "plan_round",
]


def plan(
    snapshot: Snapshot,
    job: Job | Wish,
    policy: Policy,
    view: View | None = None,
    now_ms: int = 0,
) -> Plan | Unplaceable:
    """Where a job would go now. Writes nothing."""
    planner = _Round(snapshot, policy, view, now_ms)
    try:
        return planner.plan(job)
    finally:
        planner.close()


def plan_round(
    snapshot: Snapshot,
    wishes: Iterable[Job | Wish],
    policy: Policy,
    view: View | None = None,
    now_ms: int = 0,
) -> Iterator[Plan | Unplaceable]:
    """Plan wishes in the order given; each sees the choices made before it in the round.

    A demand that did not fit is not tried again unless something has been freed, or somebody has
    been placed whom it may have to be near to. Between two
    results the caller may hold what was planned, and hold and drop what else it wants; nodes must
    not come or go before the round has ended.
    """
    planner = _Round(snapshot, policy, view, now_ms)
    try:
        for wish in wishes:
            yield planner.plan(wish)
    finally:
        planner.close()


def open_rows(
    snapshot: Snapshot,
    job: Job,
    alternative: int = 0,
    view: View | None = None,
    ends_at_ms: int = 0,
    now_ms: int = 0,
) -> NDArray[np.bool_]:
    """By row: whether it could take a replica (of any role) of the job, were it empty."""
    found = demands(snapshot, demand_key(job), job)
    rows: NDArray[np.bool_] = snapshot.shut[: snapshot.rows] == 0
    if job.roles:
        rows &= np.logical_or.reduce([d.open for d in found])
    else:
        rows &= found[alternative].open
    closed = view.closed(snapshot, job, ends_at_ms, now_ms) if view is not None else None
    return rows if closed is None else rows & ~closed


class _Round:
    def __init__(self, snapshot: Snapshot, policy: Policy, view: View | None, now_ms: int) -> None:
        self.snapshot = snapshot
        self.view = view
        self.now_ms = now_ms
        self.planned = Neighbours()
        """The replicas planned and not held, as far as others may ask about them."""
        self.known: dict[Hashable, list[Form]] = {}
        self.hopeless: dict[Hashable, Unplaceable] = {}
        self.alone: list[Hashable] = []
        """Those of them that have to be near to somebody."""
        self.forms = Forms(snapshot, guarded(policy))
        self.last: tuple[Job, int, Taken, bool] | None = None
        """The newest plan, until it is known whether the caller holds it; and whether its replicas
        are among those planned already."""

    def close(self) -> None:
        self.forms.close()

    def plan(self, asked: Job | Wish) -> Plan | Unplaceable:
        if isinstance(asked, Wish):
            job, least, rank, ends_at_ms = (
                asked.job,
                asked.least,
                asked.first_rank,
                asked.ends_at_ms,
            )
        else:
            job, least, rank, ends_at_ms = asked, asked.replicas, 0, 0
        self._see_what_is_held()
        kept_from = self._kept_from(job) if job.metadata else ()
        shape = demand_key(job)
        key: Hashable = shape
        if self.view is not None:
            key = key, self.view.mark(job, ends_at_ms, self.now_ms)
        if kept_from:
            key = key, kept_from
        refused = self.hopeless.get((key, least, rank)) if self.hopeless else None
        if refused is not None:
            return for_job(refused, job.id)
        wish = asked if isinstance(asked, Wish) else None
        forms = self.known.get(key) if self.known else None
        if forms is None:
            forms = self._make(key, shape, wish or Wish(job))
        if kept_from or _is_particular(job):
            return self._particular(wish or Wish(job), (key, least, rank), forms, kept_from)
        most = least if wish is None else wish.most
        for alternative in self.forms.by_cost(job, forms):
            taken = self.forms.seat(job, forms[alternative], least, most)
            if taken:
                return self._planned(job, rank, alternative, taken, known=False)
        near = Nearness(self.snapshot, self.planned, job, ())
        refused = rejections(self.forms, wish or Wish(job), forms, near, Tried())
        self.hopeless[key, least, rank] = refused
        return refused

    def _particular(
        self, wish: Wish, asked: Hashable, forms: list[Form], kept_from: tuple[Apart, ...]
    ) -> Plan | Unplaceable:
        """Wishes whose replicas have something to say about each other, or about others'."""
        job = wish.job
        near = Nearness(self.snapshot, self.planned, job, kept_from)
        attempt = _Attempt(self.forms, self.planned, near, wish)
        for alternative in [0] if job.roles else self.forms.by_cost(job, forms):
            chosen = forms if job.roles else [forms[alternative]]
            taken = attempt.seats(_runs(wish, chosen))
            if taken:
                known = attempt.one_by_one
                return self._planned(job, wish.first_rank, alternative, taken, known)
        refused = rejections(self.forms, wish, forms, near, attempt.tried)
        self.hopeless[asked] = refused
        if any(not term.anti for term in job.replica_affinity):
            self.alone.append(asked)
        return refused

    def _planned(
        self, job: Job, first_rank: int, alternative: int, taken: Taken, known: bool
    ) -> Plan:
        self.last = (job, first_rank, taken, known)
        if self.alone and job.metadata:
            for asked in self.alone:
                self.hopeless.pop(asked, None)
            self.alone.clear()
        if len(taken) == 1 and len(taken[0].rows) == 1:
            block = taken[0]
            node = self.snapshot.nodes[block.rows[0]]
            assert node is not None, "a seat is on a node"
            devices = tuple(block.devices[0].tolist()) if block.form.width else ()
            return Plan(job.id, alternative, (Seat(node.id, devices),))
        return Plan(job.id, alternative, _named(self.snapshot.nodes, taken))

    def _kept_from(self, job: Job) -> tuple[Apart, ...]:
        """What must not have a replica of this job near it."""
        held = self.snapshot.neighbours.kept_from(job.metadata)
        planned = self.planned.kept_from(job.metadata)
        return tuple(dict.fromkeys((*held, *planned))) if planned else held

    def _make(self, key: Hashable, shape: Hashable, wish: Wish) -> list[Form]:
        job = wish.job
        closed, kept = self._forbidden(wish)
        found = demands(self.snapshot, shape, job)
        forms = [self.forms.make(job, demand, closed, kept) for demand in found]
        if len(self.known) >= most_kept(self.snapshot.rows, len(forms)):
            del self.known[next(iter(self.known))]
        self.known[key] = forms
        return forms

    def _forbidden(self, wish: Wish) -> tuple[NDArray[np.bool_] | None, dict[int, Withheld] | None]:
        if self.view is None:
            return None, None
        facts = (self.snapshot, wish.job, wish.ends_at_ms, self.now_ms)
        return self.view.closed(*facts), dict(self.view.withheld(*facts))

    def _see_what_is_held(self) -> None:
        """Whether the caller holds the newest plan by now, and what else it has changed."""
        rows = self.forms.changed_outside()
        if self.last is None:
            if rows:
                self.forms.adopt(rows)
                self.hopeless.clear()
            return
        job, first_rank, taken, known = self.last
        self.last = None
        planned = taken[0].rows if len(taken) == 1 else [r for b in taken for r in b.rows]
        held = rows == planned
        foreign: list[int] = []
        if not held and rows:
            missing = Counter(planned)
            missing.subtract(rows)
            held = max(missing.values()) <= 0
            foreign = list(rows)
        if not held:
            self.forms.remember(taken)
        if held == known and is_social(job):
            for rank, row in enumerate(planned, first_rank):
                if held:
                    self.planned.drop((job.id, rank))
                else:
                    self.planned.put((job.id, rank), row, job)
        if foreign:
            self.forms.adopt(foreign)
            self.hopeless.clear()


def _named(nodes: Sequence[Node | None], taken: Taken) -> tuple[Seat, ...]:
    """Equal sets of GPUs are one tuple, and equal seats in a row one seat: gangs are large."""
    seats: list[Seat] = []
    known: dict[bytes, tuple[int, ...]] = {b"": ()}
    for block in taken:
        before, seat = -1, None
        width = 4 * block.form.width
        codes = block.devices.tobytes()
        for n, row in enumerate(block.rows):
            if seat is None or row != before or width:
                code = codes[n * width : (n + 1) * width]
                devices = known.get(code)
                if devices is None:
                    devices = known[code] = tuple(block.devices[n].tolist())
                node = nodes[row]
                assert node is not None, "a seat is on a node"
                seat, before = Seat(node.id, devices), row
            seats.append(seat)
    return tuple(seats)


def _is_particular(job: Job) -> bool:
    return bool(job.roles or job.packing is not None or job.replica_affinity or job.spread)


class Run:
    """Ranks that follow each other and need the same."""

    __slots__ = ("form", "least", "most")

    def __init__(self, form: Form, least: int, most: int) -> None:
        self.form = form
        self.least = least
        self.most = most


def _runs(wish: Wish, forms: list[Form]) -> list[Run]:
    job = wish.job
    if not job.roles:
        return [Run(forms[0], wish.least, wish.most)]
    runs = []
    rank = 0
    for form, role in zip(forms, job.roles, strict=True):
        begin = max(rank, wish.first_rank)
        rank += role.replicas
        count = min(rank, wish.first_rank + wish.least) - begin
        if count > 0:
            runs.append(Run(form, count, count))
    return runs


class _Attempt:
    """One alternative of one wish: seats for all its runs, or none."""

    def __init__(self, forms: Forms, planned: Neighbours, near: Nearness, wish: Wish) -> None:
        self.forms = forms
        self.planned = planned
        self.near = near
        self.wish = wish
        self.job = wish.job
        self.one_by_one = wish.most > 1 and near.follows_own
        self.tried = Tried()

    def seats(self, runs: list[Run]) -> Taken:
        """Taken in the trial columns; empty when they do not all fit."""
        levels = self._levels()
        if not levels:
            return self._anywhere(runs, None)
        for level in levels:
            if level is None:
                self.tried.packed.clear()
                return self._anywhere(runs, None)
            taken = self._packed(runs, level)
            if taken:
                return taken
        return []

    def _levels(self) -> tuple[str | None, ...]:
        """The levels at which all must be in one part, in the order of trying."""
        job = self.job
        if self.wish.most > 1 and job.replica_affinity:
            together = self.near.gathers()
            if together:
                if job.packing is not None and job.packing.required:
                    together.append(job.packing.level)
                return (max(together, key=LEVELS.index),)
        if job.packing is None or (self.wish.most == 1 and not self.near.is_placed):
            return ()
        return packing.levels(job.packing)

    def _packed(self, runs: list[Run], level: str) -> Taken:
        snapshot = self.forms.snapshot
        parts, count = snapshot.labels.parts(level, snapshot.rows)
        within = self._within(None)
        rooms = [
            self.forms.slots_by_part(run.form, UNBOUNDED, within, parts, count) for run in runs
        ]
        own = self.near.own_parts(level)
        best = int(np.add.reduce(rooms).max(initial=0))
        self.tried.packed[level] = max(self.tried.packed.get(level, 0), best)
        least, most = [r.least for r in runs], [r.most for r in runs]
        for tried, part in enumerate(packing.fitting_parts(rooms, least, most)):
            if own and (part not in own or len(own) > 1):
                continue
            taken = self._anywhere(runs, parts == part)
            if taken or tried >= packing.MOST_TRIED:
                return taken
        return []

    def _anywhere(self, runs: list[Run], allowed: NDArray[np.bool_] | None) -> Taken:
        """Seats in the allowed rows; roles in order, and if that fails the largest first."""
        taken = self._in_order(runs, allowed)
        if taken or len(runs) < 2:
            return taken
        by_size = sorted(range(len(runs)), key=lambda i: runs[i].form.size, reverse=True)
        if by_size == list(range(len(runs))):
            return []
        taken = self._in_order([runs[i] for i in by_size], allowed)
        if not taken:
            return []
        place = {id(runs[i].form): i for i in by_size}
        return sorted(taken, key=lambda block: place[id(block.form)])

    def _in_order(self, runs: list[Run], allowed: NDArray[np.bool_] | None) -> Taken:
        taken: Taken = []
        for run in runs:
            if self.one_by_one:
                got = self._singly(run, allowed, _seats(taken))
            else:
                got = self._together(run, allowed)
            taken += got
            if _seats(got) < run.least:
                if self.one_by_one:
                    self.tried.seated = max(self.tried.seated, _seats(taken))
                self._undo(taken)
                return []
        return taken

    def _together(self, run: Run, allowed: NDArray[np.bool_] | None) -> Taken:
        form, extra, allowed = run.form, self._extra(run.form), self._within(allowed)
        uneven = self.near.uneven if self.job.spread and self.near.is_placed else None
        if allowed is None and extra is None and uneven is None:
            return self.forms.seat(self.job, form, run.least, run.most)
        return self.forms.seat_where(self.job, form, run.least, run.most, allowed, extra, uneven)

    def _singly(self, run: Run, allowed: NDArray[np.bool_] | None, before: int) -> Taken:
        """Where each seat has a say in the next one."""
        taken: Taken = []
        for n in range(run.most):
            within, extra = self._within(allowed), self._extra(run.form)
            got = self.forms.seat_where(self.job, run.form, 1, 1, within, extra, self.near.uneven)
            if not got:
                break
            taken += got
            rank = self.wish.first_rank + before + n
            self.planned.put((self.job.id, rank), got[0].rows[0], self.job)
        return taken

    def _within(self, allowed: NDArray[np.bool_] | None) -> NDArray[np.bool_] | None:
        """The allowed rows that its terms on replicas allow as well; None for all."""
        near = self.near.allowed() if self.near.matters else None
        return near if allowed is None else allowed if near is None else allowed & near

    def _extra(self, form: Form) -> NDArray[np.float64] | None:
        if not self.near.matters:
            return None
        return self.near.penalties(self.forms.unit(self.job, form))

    def _undo(self, taken: Taken) -> None:
        self.forms.give(taken)
        if self.one_by_one:
            for n in range(_seats(taken)):
                self.planned.drop((self.job.id, self.wish.first_rank + n))


def _seats(taken: Taken) -> int:
    return sum(len(block.rows) for block in taken)
