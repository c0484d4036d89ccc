"""Turns jobs into plans: filter, rank, choose. A plan is a proposal; nothing here writes it down.

A round never changes the snapshot: rows that it has used live on as trial rows beside it, so a
round costs what it places and not what the cluster measures.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from hyperion.model.ids import JobId, NodeId
from hyperion.model.job import Job
from hyperion.model.market import MarketView
from hyperion.model.resources import ResourceRequest
from hyperion.placement import feasibility
from hyperion.placement.feasibility import Reason, request_key
from hyperion.placement.objective import over_budget, price
from hyperion.placement.ranking import Candidates, Column, Guarded, Policy, Room, guarded
from hyperion.placement.refused import CODE, Unplaceable, rejections
from hyperion.placement.snapshot import Snapshot
from hyperion.placement.trial import Amounts, TrialRow

__all__ = ["Plan", "Seat", "Unplaceable", "plan", "plan_round"]


class Seat(Struct, frozen=True):
    """Where one replica goes, and which of the node's GPUs it gets."""

    node: NodeId
    devices: tuple[int, ...] = ()


class Plan(Struct, frozen=True):
    """A place for every replica, by rank, all for the same alternative of the job."""

    job: JobId
    alternative: int
    seats: tuple[Seat, ...]


def plan(snapshot: Snapshot, job: Job, policy: Policy) -> Plan | Unplaceable:
    """Where a job would go now. Writes nothing."""
    return _Round(snapshot, policy).plan(job)


def plan_round(
    snapshot: Snapshot, jobs: Iterable[Job], policy: Policy
) -> Iterator[Plan | Unplaceable]:
    """Plan jobs in the order given; each sees the choices made before it in the round.

    A demand that did not fit is not tried again: nothing is freed meanwhile. Between two results
    the caller may hold what was planned; nodes must not come or go before the round has ended.
    """
    planner = _Round(snapshot, policy)
    for job in jobs:
        yield planner.plan(job)


_NOWHERE = MarketView(as_of="", regions={})
"""Inside a cluster, prices differ by node and power only; carbon is taken as the world's mean."""
SMALL_ROUND = 64
"""Rows that a round may use before it copies the columns."""
_FORM_BYTES = 96 * 1024 * 1024
"""About how much a round, and the snapshot's memo, may keep for demands seen before."""


class Demand(Struct, frozen=True):
    """One alternative of a job against the nodes as they are built, whatever is free on them."""

    codes: NDArray[np.int8]
    """By group: 0 where an empty node would do, else the code of the reason."""
    open: NDArray[np.bool_]
    """By row: an empty node would do, and it may be used."""
    usd_per_hour: Column
    """By group, as the next one."""
    gco2e_per_hour: Column
    score: Column
    """By row, as the rest."""
    waste: Column
    nothing: Column
    """Zeros: within a cluster, data and users are equally far from every node."""
    group: NDArray[np.int32]

    def view(
        self,
        at: slice | list[int],
        fullness: Column,
        waste: Column | None,
        room: Callable[[], Room],
    ) -> Candidates:
        """Some rows as a policy sees them; ``waste`` where it changes with what is free."""
        return _Rows(self, at, fullness, self.waste[at] if waste is None else waste, room)


class _Rows(Candidates):
    """Candidates whose lesser columns are spread from groups to rows only if a policy reads them:
    at 100,000 nodes most of the time and memory of a decision would go there."""

    __slots__ = ("_at", "_demand")

    def __init__(
        self,
        demand: Demand,
        at: slice | list[int],
        fullness: Column,
        waste: Column,
        room: Callable[[], Room],
    ) -> None:
        self._demand = demand
        self._at = at
        self.egress_usd = self.latency_ms = demand.nothing[: len(fullness)]
        self.score = demand.score[at]
        self.fullness = fullness
        self.waste = waste
        self.room = room

    @property
    def usd_per_hour(self) -> Column:  # type: ignore[override]  # policies only read
        return self._demand.usd_per_hour[self._demand.group[self._at]]

    @property
    def gco2e_per_hour(self) -> Column:  # type: ignore[override]  # policies only read
        return self._demand.gco2e_per_hour[self._demand.group[self._at]]


class _Form:
    """A demand within a round: the cost of each row, infinite where there is no room now."""

    __slots__ = ("cost", "demand", "era", "request", "seen")

    def __init__(self, request: ResourceRequest, demand: Demand) -> None:
        self.request = request
        self.demand = demand
        self.cost: Column = np.zeros(0)
        self.era = -1
        self.seen = 0
        """How much of the round's log of changed rows is in ``cost``."""


class _Round:
    def __init__(self, snapshot: Snapshot, policy: Policy) -> None:
        self.snapshot = snapshot
        self.policy: Guarded = guarded(policy)
        self.trial: dict[int, TrialRow] = {}
        self.amounts = Amounts(snapshot)
        self.log: list[int] = []
        """Rows in the order in which the round used them."""
        self.forms: dict[object, list[_Form]] = {}
        self.hopeless: dict[object, Unplaceable] = {}

    def plan(self, job: Job) -> Plan | Unplaceable:
        key = demand_key(job)
        known = self.hopeless.get(key)
        if known is not None:
            return _for_job(known, job.id)
        forms = self._forms(key, job)
        for alternative in self._by_cost(job, forms):
            seats = self._seats(job, forms[alternative])
            if seats:
                return Plan(job.id, alternative, seats)
        demands = [(f.request, f.demand.codes) for f in forms]
        refused = rejections(self.snapshot, self.trial, self.amounts, job, demands)
        self.hopeless[key] = refused
        return refused

    def _forms(self, key: object, job: Job) -> list[_Form]:
        forms = self.forms.get(key)
        if forms is None:
            demands = _demands(self.snapshot, key, job)
            forms = [_Form(r, d) for r, d in zip(job.alternatives, demands, strict=True)]
            if len(self.forms) >= _most_kept(self.snapshot.rows, len(forms)):
                del self.forms[next(iter(self.forms))]
            self.forms[key] = forms
        return forms

    def _by_cost(self, job: Job, forms: list[_Form]) -> list[int]:
        """The alternatives, the one with the cheapest free row first; hopeless ones left out."""
        if not self.snapshot.rows:
            return []
        if len(forms) == 1:
            return [0]
        best = []
        for form in forms:
            self._catch_up(job, form)
            best.append(float(form.cost.min()))
        return sorted((i for i, c in enumerate(best) if c < np.inf), key=lambda i: best[i])

    def _seats(self, job: Job, form: _Form) -> tuple[Seat, ...]:
        """A seat for every replica, taken in the trial rows; empty when they do not all fit."""
        self._catch_up(job, form)
        if job.replicas > 1 and not self._all_fit(form, job.replicas):
            return ()
        seats: list[Seat] = []
        for _ in range(job.replicas):
            row = int(form.cost.argmin())
            if form.cost[row] == np.inf:
                assert not seats, "room was counted for a replica that now has none"
                return ()
            seats.append(self._take(row, form.request))
            self._catch_up(job, form)
        return tuple(seats)

    def _take(self, row: int, request: ResourceRequest) -> Seat:
        node = self.snapshot.nodes[row]
        assert node is not None
        trial = self._row(row)
        devices = trial.take(request)
        self.log.append(row)
        if self.amounts.private:
            self.amounts.write(row, trial)
        elif len(self.trial) > SMALL_ROUND:
            self.amounts.part_from(self.trial)
        return Seat(node.id, devices)

    def _all_fit(self, form: _Form, replicas: int) -> bool:
        """Greedy seating of identical replicas fails only if this does."""
        rows = np.flatnonzero(form.cost < np.inf)
        room = len(rows)
        if room >= replicas or room == 0:
            return room >= replicas
        for row in rows.tolist():
            room += self._row(row, keep=False).slots(form.request, replicas) - 1
            if room >= replicas:
                return True
        return False

    def _catch_up(self, job: Job, form: _Form) -> None:
        """Bring the costs up to date with the rows used since, in this demand or another."""
        if form.era == self.policy.era:
            changed = self.log[form.seen :]
            if len(changed) == 1:
                self._cost_trial(job, form, changed)
            elif changed:
                self._cost_changed(job, form, list(set(changed)))
        while form.era != self.policy.era:  # new, or the policy was replaced: once a round at most
            form.era = self.policy.era
            form.cost = self._cost(job, form, slice(0, self.snapshot.rows))
            self._cost_changed(job, form, [] if self.amounts.private else list(self.trial))
        form.seen = len(self.log)

    def _cost_changed(self, job: Job, form: _Form, rows: list[int]) -> None:
        if not self.amounts.private:
            self._cost_trial(job, form, rows)
        elif rows:
            form.cost[rows] = self._cost(job, form, rows)

    def _cost(self, job: Job, form: _Form, at: slice | list[int]) -> Column:
        """The costs of some rows by the columns; infinite where there is no room."""
        a, r, demand = self.amounts, form.request, form.demand
        room = demand.open[at]
        if r.cpus_milli:
            room = room & (a.cpus[at] >= r.cpus_milli)
        if r.memory_mib:
            room = room & (a.memory[at] >= r.memory_mib)
        if r.disk_mib:
            room = room & (a.disk[at] >= r.disk_mib)
        waste = None
        if r.whole_gpus:
            room = room & (a.whole[at] >= r.whole_gpus)
        elif r.gpus_milli:
            breaks = a.part[at] < r.gpus_milli
            room = room & (~breaks | (a.whole[at] > 0))
            waste = breaks.astype(np.float64)

        def free() -> Room:
            kinds = demand.group[at]
            amounts = a.whole[at], a.part[at], a.cpus[at], a.memory[at]
            return Room(r, *amounts, kinds, [g.kind.capacity for g in self.snapshot.groups])

        costs = self.policy.cost(job, demand.view(at, a.fullness[at], waste, free))
        return np.where(room, costs, np.inf)

    def _cost_trial(self, job: Job, form: _Form, rows: list[int]) -> None:
        """The same for a few rows, from their trial state."""
        request, cost = form.request, form.cost
        fitting = []
        for row in rows:
            if form.demand.open[row]:
                if self.trial[row].has_room(request):
                    fitting.append(row)
                else:
                    cost[row] = np.inf
        if not fitting:
            return
        trials = [self.trial[row] for row in fitting]
        waste = None
        if request.gpus_milli and not request.whole_gpus:
            waste = np.array([float(t.part < request.gpus_milli) for t in trials])
        at = slice(fitting[0], fitting[0] + 1) if len(fitting) == 1 else fitting

        def free() -> Room:
            kinds = form.demand.group[at]
            rows = np.array([(t.whole, t.part, t.cpus, t.memory) for t in trials])
            amounts = rows[:, 0], rows[:, 1], rows[:, 2], rows[:, 3]
            return Room(request, *amounts, kinds, [g.kind.capacity for g in self.snapshot.groups])

        few = form.demand.view(at, np.array([t.fullness for t in trials]), waste, free)
        cost[at] = self.policy.cost(job, few)

    def _row(self, row: int, keep: bool = True) -> TrialRow:
        found = self.trial.get(row)
        if found is None:
            found = TrialRow(self.snapshot, row)
            if keep:
                self.trial[row] = found
        return found


def demand_key(job: Job) -> tuple[object, ...]:
    """Equal for jobs that a cluster's planner cannot tell apart."""
    a = job.alternatives
    return (
        request_key(a[0]) if len(a) == 1 else tuple(request_key(r) for r in a),
        job.replicas,
        job.tolerations,
        bool(job.image),
        job.objective,
        job.budget,
        job.expected_s,
    )


def _demands(snapshot: Snapshot, key: object, job: Job) -> list[Demand]:
    """What the job's alternatives make of the nodes; remembered while no node comes or goes."""
    found: list[Demand] | None = snapshot.memo.get(key)
    if found is None:
        found = [_demand(snapshot, job, request) for request in job.alternatives]
        if len(snapshot.memo) >= _most_kept(snapshot.rows, len(found)):
            del snapshot.memo[next(iter(snapshot.memo))]
        snapshot.memo[key] = found
    return found


def _most_kept(rows: int, alternatives: int) -> int:
    return max(4, min(1024, _FORM_BYTES // (16 * max(1, rows * alternatives))))


def _demand(snapshot: Snapshot, job: Job, request: ResourceRequest) -> Demand:
    groups = snapshot.groups
    codes = np.zeros(len(groups), np.int8)
    usd, gco2e, score = (np.zeros(len(groups)) for _ in range(3))
    for i, group in enumerate(groups):
        if not group.nodes:
            continue
        kind = group.kind
        share = feasibility.dominant_share(request, kind.capacity)
        cost = share * kind.usd_per_hour
        p = price(job, request, snapshot.region, cost, _NOWHERE, kind.capacity.gpu_type)
        usd[i], gco2e[i], score[i] = p.usd_per_hour, p.gco2e_per_hour, p.score
        reason = feasibility.refusal(job, request, kind)
        if reason is None and over_budget(job, p.usd_per_hour, p.egress_usd):
            reason = Reason.BUDGET
        codes[i] = CODE[reason] if reason else 0
    if not _in_place(snapshot, request):
        codes[:] = CODE[Reason.INFRA]
    n = snapshot.rows
    group_of_row = snapshot.group[:n]
    nothing, with_gpus = _shared(snapshot)
    return Demand(
        codes=codes,
        open=(codes[group_of_row] == 0) & (snapshot.shut[:n] == 0),
        usd_per_hour=usd,
        gco2e_per_hour=gco2e,
        score=score[group_of_row],
        waste=nothing if request.gpus_milli else with_gpus,
        nothing=nothing,
        group=group_of_row,
    )


def _shared(snapshot: Snapshot) -> tuple[Column, Column]:
    """(zeros, 1 where a node has GPUs) by row; the same for every demand."""
    found: tuple[Column, Column] | None = snapshot.memo.get("shared")
    if found is None:
        gpus = np.array([float(g.kind.capacity.gpus > 0) for g in snapshot.groups])
        spread = gpus[snapshot.group[: snapshot.rows]] if len(gpus) else np.zeros(0)
        found = snapshot.memo["shared"] = np.zeros(snapshot.rows), spread
    return found


def _in_place(snapshot: Snapshot, request: ResourceRequest) -> bool:
    if not snapshot.cluster and not snapshot.region:
        return True
    return feasibility.in_place(request.infra, snapshot.cluster, snapshot.region)


def _for_job(known: Unplaceable, job: JobId) -> Unplaceable:
    return Unplaceable(job, known.rejected, known.nodes, known.ever, known.details)
