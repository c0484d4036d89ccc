"""One job's search for victims: what it asks for, where, and what is so once they have gone."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from hyperion.model.allocation import Allocation
from hyperion.model.job import Job
from hyperion.model.resources import ResourceRequest
from hyperion.placement import planner
from hyperion.placement.ground import Ground, Share
from hyperion.placement.planner import Plan
from hyperion.placement.ranking import Policy
from hyperion.placement.rights import Rights
from hyperion.placement.running import Running
from hyperion.placement.snapshot import Snapshot


class Part:
    """Replicas of a job that ask for the same, and the rows that could take one were they empty."""

    __slots__ = ("open", "replicas", "request")

    def __init__(self, request: ResourceRequest, replicas: int, open: NDArray[np.bool_]) -> None:
        self.request = request
        self.replicas = replicas
        self.open = open


class Case:
    def __init__(
        self,
        snapshot: Snapshot,
        running: Running,
        job: Job,
        policy: Policy,
        rights: Rights,
        now_ms: int,
    ) -> None:
        self.snapshot = snapshot
        self.running = running
        self.job = job
        self.policy = policy
        self.rights = rights
        self.now_ms = now_ms
        self.least = job.least_replicas

    @property
    def alternatives(self) -> range:
        return range(len(self.job.alternatives))

    @property
    def plain(self) -> bool:
        """Whether amounts alone decide where on open rows its replicas fit."""
        job = self.job
        packed = job.packing is not None and job.packing.required and self.least > 1
        spread = any(s.required for s in job.spread) and self.least > 1
        near = any(not term.weight for term in job.replica_affinity)
        return not (packed or spread or near)

    def parts(self, alternative: int) -> list[Part]:
        """The job's replicas by what they ask for."""
        job = self.job
        if not job.roles:
            request = job.alternatives[alternative]
            return [Part(request, self.least, self._open(job, alternative))]
        found = []
        for role in job.roles:
            alone = replace(job, alternatives=(role.resources,), roles=())
            found.append(Part(role.resources, role.replicas, self._open(alone, 0)))
        return found

    def ground(self) -> Ground:
        """A fresh one, on which nothing has been given up yet."""
        return Ground(self.snapshot, self.running, self.rights, self.now_ms)

    def plan_without(self, shares: Iterable[Share]) -> Plan | None:
        """What the planner would do had they gone, and all that is being stopped."""
        seats = [seat for share in shares for seat in share.seats]
        with without(self.snapshot, [*self.running.leaving, *seats]):
            result = planner.plan(self.snapshot, self.job, self.policy)
        return result if isinstance(result, Plan) else None

    def fits(self) -> bool:
        """Whether it needs nobody to go, now."""
        return isinstance(planner.plan(self.snapshot, self.job, self.policy), Plan)

    def _open(self, job: Job, alternative: int) -> NDArray[np.bool_]:
        return planner.open_rows(self.snapshot, job, alternative)


@contextmanager
def without(snapshot: Snapshot, seats: Iterable[Allocation]) -> Iterator[None]:
    """The snapshot as if these had gone; afterwards as it was, whatever happened."""
    taken = []
    try:
        for seat in seats:
            held = snapshot.held(seat.node) if seat.node in snapshot.row else ()
            kept = next((a for a in held if a.id == seat.id), None)
            if kept is not None:
                taken.append((kept, snapshot.neighbours.job_of(kept.id)))
                snapshot.drop(kept)
        yield
    finally:
        for kept, job in reversed(taken):
            snapshot.hold(kept, job)
