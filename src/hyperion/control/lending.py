"""Replicas of standbys and the CPUs that they lend: one more fold of what is placed.

A standby that waits to be wanted stays charged with all that it has, like a job that stands still.
Whoever borrows its CPUs is charged with them too: what is free of CPU goes below zero, and nobody
but a borrower is put there. So nothing else has to know of it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from msgspec.structs import replace

from hyperion.control import records as r
from hyperion.model.allocation import Allocation
from hyperion.model.allocation import AllocationState as S
from hyperion.model.ids import AllocationId, JobId, NodeId
from hyperion.model.job import Job, Priority
from hyperion.model.node import PAUSE
from hyperion.placement.snapshot import Snapshot


class Lending:
    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self.seats: dict[AllocationId, Allocation] = {}
        """Live replicas of standbys."""
        self._jobs: dict[JobId, r.ClusterJob] = {}
        self._on: dict[NodeId, dict[AllocationId, None]] = {}
        self.changed: set[NodeId] = set()
        """Nodes with standbys on which something has moved since this was last cleared."""
        self.grown = False
        """There may be more to borrow since this was last cleared."""

    # -- the fold -------------------------------------------------------------------------------

    def seat(self, a: Allocation, known: r.ClusterJob) -> None:
        if known.job.standby is not None:
            self.seats[a.id] = a
            self._jobs[a.job] = known
            self._on.setdefault(a.node, {})[a.id] = None
        self._note(a.node)

    def moved(self, a: Allocation) -> None:
        if a.id in self.seats:
            self.seats[a.id] = a
            self.grown = self.grown or a.state is S.WARM
        self._note(a.node)

    def unseat(self, a: Allocation) -> None:
        self._note(a.node)
        self.grown = self.grown or a.node in self._on
        if self.seats.pop(a.id, None) is None:
            return
        here = self._on[a.node]
        del here[a.id]
        if not here:
            del self._on[a.node]
        if not any(seat.job == a.job for seat in self.seats.values()):
            del self._jobs[a.job]

    def _note(self, node: NodeId) -> None:
        if node in self._on:
            self.changed.add(node)

    # -- questions ------------------------------------------------------------------------------

    def __bool__(self) -> bool:
        return bool(self.seats)

    def on(self, node: NodeId) -> list[Allocation]:
        """Replicas of standbys on the node."""
        return [self.seats[id] for id in self._on.get(node, ())]

    @contextmanager
    def lent(self, most: Callable[[NodeId], int] | None = None) -> Iterator[bool]:
        """As if what is lent were free, of each node ``most`` at the utmost; tells whether anything
        is. All is as before afterwards."""
        warm: list[Allocation] = []
        for node in list(self._on):
            left = self._warm_cpus_milli(node)
            if left and most is not None:
                left = min(left, most(node))
            for a in self.on(node):
                if left > 0 and a.state is S.WARM:
                    cut = min(left, a.request.cpus_milli)
                    left -= cut
                    warm.append(a)
                    self._rehold(a, a.request.cpus_milli - cut)
        try:
            yield bool(warm)
        finally:
            for a in warm:
                self._rehold(a, a.request.cpus_milli)

    def _rehold(self, a: Allocation, cpus_milli: int) -> None:
        self._snapshot.drop(a)
        request = replace(a.request, cpus_milli=cpus_milli)
        self._snapshot.hold(replace(a, request=request), self._jobs[a.job].job)

    def _warm_cpus_milli(self, node: NodeId) -> int:
        """What standbys that wait to be wanted have there, if their node lets others borrow it."""
        row = self._snapshot.row.get(node)
        found = None if row is None else self._snapshot.nodes[row]
        if found is None or PAUSE not in found.abilities:
            return 0
        return sum(a.request.cpus_milli for a in self.on(node) if a.state is S.WARM)


def may_borrow(job: Job) -> bool:
    """Whether it can be made to stand still at once, when the lender wants its CPUs back."""
    if job.priority >= Priority.LATENCY_CRITICAL or not job.can_stand_still:
        return False
    asked = [role.resources for role in job.roles] if job.roles else list(job.alternatives)
    return job.yields_gpus or not any(request.gpus_milli for request in asked)
