"""One job's search for victims: what it asks for, where, and what is so once they have gone."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from hyperion.model.allocation import Allocation
from hyperion.model.ids import JobId
from hyperion.model.job import Job
from hyperion.model.resources import MILLI, ResourceRequest
from hyperion.placement import planner
from hyperion.placement.bounds import Bounds
from hyperion.placement.feasibility import slots
from hyperion.placement.ground import Ground, Share
from hyperion.placement.ledger import Float, Long
from hyperion.placement.planner import Plan, View, Wish, Withheld
from hyperion.placement.ranking import Policy
from hyperion.placement.rights import Rights
from hyperion.placement.running import Running
from hyperion.placement.snapshot import Snapshot


class Part:
    """Replicas of a job that ask for the same, and the rows that could take one were they empty."""

    __slots__ = ("_floor", "_most", "_slots", "open", "replicas", "request")

    def __init__(self, request: ResourceRequest, replicas: int, open: NDArray[np.bool_]) -> None:
        self.request = request
        self.replicas = replicas
        self.open = open
        self._floor: Float | None = None
        self._most: Long | None = None
        self._slots: Long | None = None

    def floor(self, case: "Case") -> Float:
        """By row the least that a place for one more can cost."""
        if self._floor is None:
            bounds = Bounds.of(case.snapshot, case.running)
            found = bounds.least(self.request, self.open, case.rights, case.now_ms)
            self._floor = found[0].copy()
        return self._floor

    def most(self, case: "Case") -> Long:
        """By row how many could be there were it empty."""
        if self._most is None:
            groups = case.snapshot.groups
            each = [min(self.replicas, slots(self.request, g.capacity)) for g in groups]
            of_group = np.array(each, np.int64)
            self._most = of_group[case.snapshot.group[: case.snapshot.rows]]
        return self._most

    def slots(self, case: "Case", rows: NDArray[np.intp]) -> Long:
        """How many more these rows take once all have gone that are leaving."""
        if self._slots is None:
            self._slots = self._free(case)
        found: Long = self._slots[rows]
        return found

    def _free(self, case: "Case") -> Long:
        snapshot, r = case.snapshot, self.request
        n = snapshot.rows
        free = np.where(self.open, self.replicas, 0).astype(np.int64)
        for need, column in (
            (r.cpus_milli, snapshot.free_cpus),
            (r.memory_mib, snapshot.free_memory),
            (r.disk_mib, snapshot.free_disk),
            (r.whole_gpus, snapshot.whole),
        ):
            if need:
                free = np.minimum(free, np.maximum(0, column[:n]) // need)
        if 0 < r.gpus_milli < MILLI:
            free = np.minimum(free, (np.maximum(0, snapshot.devices[:n]) // r.gpus_milli).sum(1))
        ground = case.ground()
        rows = {snapshot.row[a.node] for a in case.running.leaving if a.node in snapshot.row}
        rows.update(ground.withheld)
        if r.custom:
            rows.update(np.flatnonzero(free).tolist())
        for row in rows:
            free[row] = ground.row(row).slots(r, self.replicas) if self.open[row] else 0
        return free


class Case:
    def __init__(
        self,
        snapshot: Snapshot,
        running: Running,
        wish: Job | Wish,
        policy: Policy,
        rights: Rights,
        view: View | None,
        now_ms: int,
    ) -> None:
        if not isinstance(wish, Wish):
            wish = Wish(wish, at_least=wish.least_replicas)
        self.snapshot = snapshot
        self.running = running
        self.wish = wish if wish.at_most == 0 else replace(wish, at_most=0)
        self.job = wish.job
        self.least = wish.least
        self.policy = policy
        self.rights = rights
        self.view = view
        self.now_ms = now_ms
        self.spared: set[JobId] = set()
        """Jobs that are left alone, whatever the rights."""

    @property
    def alternatives(self) -> range:
        return range(len(self.job.alternatives))

    @property
    def plain(self) -> bool:
        """Whether amounts alone decide where on open rows its replicas fit."""
        job = self.job
        if not (job.packing or job.spread or job.replica_affinity or job.metadata):
            return True
        alone = self.least == 1 and not self.wish.first_rank
        return not (
            (job.packing is not None and job.packing.required and not alone)
            or any(s.required for s in job.spread if not alone)
            or any(not term.weight for term in job.replica_affinity)
            or self.snapshot.neighbours.kept_from(job.metadata)
        )

    @property
    def counts(self) -> bool:
        """Whether it fits where there are enough places, in all or in one part of a level."""
        packed = self.job.packing is not None and self.job.packing.required
        if not packed or self.wish.first_rank:
            return self.plain
        job = self.job
        near = any(not t.weight for t in job.replica_affinity) or (
            bool(job.metadata) and bool(self.snapshot.neighbours.kept_from(job.metadata))
        )
        return not near and not any(s.required for s in job.spread)

    def parts(self, alternative: int) -> list[Part]:
        """The job's replicas by what they ask for."""
        job = self.job
        if not job.roles:
            request = job.alternatives[alternative]
            return [Part(request, self.least, self._open(job, alternative))]
        found = []
        ranks = range(self.wish.first_rank, self.wish.first_rank + self.least)
        for role, several in groupby(ranks, job.role_of):
            assert role is not None, "a rank that no role has"
            alone = replace(job, alternatives=(role.resources,), roles=())
            found.append(Part(role.resources, len(list(several)), self._open(alone, 0)))
        return found

    def ground(self) -> Ground:
        """A fresh one, on which nothing has been given up yet."""
        kept: Mapping[int, Withheld] = {}
        if self.view is not None:
            ends_ms = self.wish.ends_at_ms
            kept = self.view.withheld(self.snapshot, self.job, ends_ms, self.now_ms)
        ground = Ground(self.snapshot, self.running, self.rights, self.now_ms, kept)
        ground.spared = self.spared
        return ground

    def plan_without(self, shares: Iterable[Share]) -> Plan | None:
        """What the planner would do had they gone, and all that is being stopped."""
        seats = [seat for share in shares for seat in share.seats]
        with without(self.snapshot, [*self.running.leaving, *seats]):
            return self._plan()

    def plan_now(self) -> Plan | None:
        """What the planner would do if nobody went."""
        return self._plan()

    def _plan(self) -> Plan | None:
        found = planner.plan(self.snapshot, self.wish, self.policy, self.view, self.now_ms)
        return found if isinstance(found, Plan) else None

    def _open(self, job: Job, alternative: int) -> NDArray[np.bool_]:
        return planner.open_rows(
            self.snapshot, job, alternative, self.view, self.wish.ends_at_ms, self.now_ms
        )


@contextmanager
def without(snapshot: Snapshot, seats: Iterable[Allocation]) -> Iterator[None]:
    """The snapshot as if these had gone; afterwards as it was, whatever happened."""
    taken = []
    try:
        for seat in seats:
            held = snapshot.held(seat.node) if seat.node in snapshot.row else ()
            kept = next((a for a in held if a.id == seat.id), None) if held else None
            if kept is not None:
                taken.append((kept, snapshot.neighbours.job_of(kept.id)))
                snapshot.drop(kept)
        yield
    finally:
        for kept, job in reversed(taken):
            snapshot.hold(kept, job)
