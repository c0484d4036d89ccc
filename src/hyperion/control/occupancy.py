"""Who holds what of the cluster: the planner's columns, the running jobs, the use of the queues.

All are folds over the same records: whatever holds a place is counted in each of them, once.
"""

from collections.abc import Hashable, Iterator
from contextlib import contextmanager

from hyperion.control import records as r
from hyperion.control.lending import Lending
from hyperion.model.allocation import Allocation
from hyperion.model.ids import AllocationId, JobId, NodeId, QueueName
from hyperion.model.job import Job, JobPhase
from hyperion.model.queue import DEFAULT_QUEUE
from hyperion.model.resources import MILLI, ResourceRequest
from hyperion.placement import snapshot as columns
from hyperion.placement.fairness import Need, QueueTree, need_of
from hyperion.placement.planner import Plan
from hyperion.placement.running import Occupant, Running

NEEDS_REMEMBERED = 4096
QUANTUM_MS = 100
"""Between two pauses a job runs at least so long, and is not stopped instead."""
STAND_WITHIN_MS = 500
"""Who does not stand still within this time is asked once more, then stopped instead; until then it
is left to the one for whom it is to stand still."""


class Occupancy:
    def __init__(self, quantum_ms: int = 0) -> None:
        self.snapshot = columns.empty()
        self.running = Running()
        self.lending = Lending(self.snapshot)
        self.tree = QueueTree()
        self.claims: dict[JobId, tuple[Allocation, ...]] = {}
        """Places being cleared for jobs, as allocations that nobody runs."""
        self.at_ms = 0
        """The newest time told; use is counted from then."""
        self.freed: set[NodeId] = set()
        """Nodes on which something was given back since a round last asked."""
        self._quantum_ms = quantum_ms
        self._structure = -1
        self._charged: dict[AllocationId, Need] = {}
        """What each one was counted as: its node may be another, or gone, when it ends."""
        self._leaving: set[AllocationId] = set()
        self._needs: dict[Hashable, Need] = {}

    def see_capacity(self) -> None:
        """Shares are parts of what the cluster has; that changes with its nodes."""
        if self._structure == self.snapshot.structure:
            return
        self._structure = self.snapshot.structure
        total: dict[str, int] = {}
        for group in self.snapshot.groups:
            c = group.kind.capacity
            whole = ResourceRequest(
                gpus_milli=MILLI * c.gpus,
                gpu_type=c.gpu_type,
                cpus_milli=c.cpus_milli,
                memory_mib=c.memory_mib,
                disk_mib=c.disk_mib,
                custom=c.custom,
            )
            for resource, amount in need_of(whole, replicas=group.nodes):
                total[resource] = total.get(resource, 0) + amount
        self.tree.set_capacity(total)

    # -- allocations ----------------------------------------------------------------------------

    def hold(self, a: Allocation, known: r.ClusterJob) -> None:
        """A replica has a place, its own or as a claim's."""
        self.snapshot.hold(a, known.job)
        need = self._charged[a.id] = self._need(a)
        self._charge(known.job, need, 1)

    def seat(self, a: Allocation, known: r.ClusterJob) -> None:
        """A live replica has a place: its job is one of those that run."""
        self.hold(a, known)
        if known.job.id not in self.running.occupants:
            self.running.begin(occupant(known, a, self._quantum_ms), a)
        else:
            self.running.seat(a)
        self._see_leaving(a)
        if self.lending or known.job.standby is not None:
            self.lending.seat(a, known)

    def moved(self, a: Allocation) -> None:
        """A replica with a place is in another state."""
        self.running.seat(a)
        self._see_leaving(a)
        if self.lending:
            self.lending.moved(a)

    def _see_leaving(self, a: Allocation) -> None:
        leaves = self.running.leaves(a)
        if leaves is not (a.id in self._leaving):
            (self._leaving.add if leaves else self._leaving.remove)(a.id)
            queue = self.running.occupants[a.job].queue
            self.tree.leave(queue, self._charged[a.id], 1 if leaves else -1)

    def unseat(self, a: Allocation, known: r.ClusterJob, on_node: bool) -> None:
        """A replica is over; ``on_node``: its node is still one of the cluster."""
        if a.id in self._leaving:
            self._leaving.remove(a.id)
            self.tree.leave(queue_of(known.job), self._charged[a.id], -1)
        self._charge(known.job, self._charged.pop(a.id), -1)
        if on_node:
            self.snapshot.drop(a)
            self.freed.add(a.node)
        if self.lending:
            self.lending.unseat(a)
        self.running.unseat(a)
        if next(iter(self.running.seats(known.job.id)), None) is None:
            self.running.drop(known.job.id)

    def note(self, known: r.ClusterJob) -> None:
        """The status of a job has changed."""
        seat = next(iter(self.running.seats(known.job.id)), None)
        if seat is not None:
            before = self.running.occupants[known.job.id].stopping
            self.running.put(occupant(known, seat, self._quantum_ms))
            if before is not (known.status.phase is JobPhase.STOPPING):
                for a in self.running.seats(known.job.id):
                    self._see_leaving(a)

    def charged(self, id: AllocationId) -> Need:
        """What a replica, or a claim, is counted as."""
        return self._charged[id]

    def _need(self, a: Allocation) -> Need:
        gpu_type = a.request.gpu_type
        if a.request.gpus_milli and not gpu_type:
            node = self.snapshot.nodes[self.snapshot.row[a.node]]
            gpu_type = node.capacity.gpu_type if node is not None else ""
        return self._need_of(a.request, gpu_type)

    def need_of_job(self, job: Job) -> Need:
        """What must be admitted together for the job to start: its least replicas, or one task."""
        if job.roles or job.least_replicas != 1:
            return need_of_job(job)
        return self._need_of(job.alternatives[0])

    def _need_of(self, request: ResourceRequest, gpu_type: str = "") -> Need:
        r = request
        key = (
            r.gpus_milli,
            gpu_type or r.gpu_type,
            r.cpus_milli,
            r.memory_mib,
            r.disk_mib,
            r.custom,
        )
        known = self._needs.get(key)
        if known is None:
            if len(self._needs) >= NEEDS_REMEMBERED:
                self._needs.clear()
            known = self._needs[key] = need_of(request, gpu_type)
        return known

    def _charge(self, job: Job, need: Need, sign: int) -> None:
        self.tree.charge(
            queue_of(job),
            need,
            sign,
            self.at_ms,
            user=job.user,
            priority=job.priority,
            nice=job.nice,
        )

    def admits(self, job: Job) -> bool:
        """Whether its queue would let it start now, nobody else stopped."""
        return self.tree.admission(queue_of(job), self.need_of_job(job)).at_once

    def admits_plan(self, job: Job, plan: Plan) -> bool:
        """Whether the quotas allow what was found: it may be another alternative than was asked
        about, or GPUs of a type that has a quota of its own."""
        if len(job.alternatives) == 1 and not job.roles:
            r = job.alternatives[0]
            if r.gpu_type or not r.gpus_milli:
                return True
        branch = self.tree.branch(queue_of(job))
        if True not in branch.named:
            return not branch.stopped
        total: dict[str, int] = {}
        for rank, seat in enumerate(plan.seats):
            request = job.request(rank, plan.alternative)
            for resource, amount in self._need_of(request, self._type_on(request, seat.node)):
                total[resource] = total.get(resource, 0) + amount
        return self.tree.admission(queue_of(job), tuple(sorted(total.items()))).at_once

    def _type_on(self, request: ResourceRequest, node: NodeId) -> str:
        if request.gpu_type or not request.gpus_milli:
            return request.gpu_type
        found = self.snapshot.nodes[self.snapshot.row[node]]
        return found.capacity.gpu_type if found is not None else ""

    # -- claims ---------------------------------------------------------------------------------

    def claim(self, known: r.ClusterJob) -> None:
        """Whatever the job claimed before, it claims what its status says now."""
        self.unclaim(known)
        if known.status.claim:
            self.claims[known.job.id] = claimed(known)
            self._hold_claim(known)

    def unclaim(self, known: r.ClusterJob) -> None:
        self._drop_claim(known)
        self.freed.update(a.node for a in self.claims.pop(known.job.id, ()))

    def _hold_claim(self, known: r.ClusterJob) -> None:
        for a in self.claims.get(known.job.id, ()):
            self.hold(a, known)

    def _drop_claim(self, known: r.ClusterJob) -> None:
        for a in self.claims.get(known.job.id, ()):
            self.snapshot.drop(a)
            self._charge(known.job, self._charged.pop(a.id), -1)

    @contextmanager
    def without_claim(self, known: r.ClusterJob) -> Iterator[bool]:
        """As if the job claimed nothing, to see where it could go; tells whether its queue would
        let it. All is as before afterwards."""
        self._drop_claim(known)
        try:
            yield self.admits(known.job)
        finally:
            self._hold_claim(known)


def queue_of(job: Job) -> QueueName:
    return job.queue or DEFAULT_QUEUE


def need_of_job(job: Job) -> Need:
    """What must be admitted together for the job to start: its least replicas, or one task."""
    if job.roles:
        total: dict[str, int] = {}
        for role in job.roles:
            for resource, amount in need_of(role.resources, replicas=role.replicas):
                total[resource] = total.get(resource, 0) + amount
        return tuple(sorted(total.items()))
    return need_of(job.alternatives[0], replicas=job.least_replicas)


def occupant(known: r.ClusterJob, seat: Allocation, quantum_ms: int) -> Occupant:
    """A running job as those see it that wait for its place; ``seat`` is any one of its own."""
    job, status, checkpoint = known.job, known.status, known.job.checkpoint
    started_at_ms = status.started_at_ms or seat.placed_at_ms
    expected_ms = int(1000 * job.expected_s) if job.expected_s else 0
    safe_ms = quantum_ms * status.preemptions
    if job.min_runtime_s:
        safe_ms = max(int(1000 * job.min_runtime_s), safe_ms)
    settled_ms = status.resumed_at_ms + QUANTUM_MS if status.resumed_at_ms else 0
    if status.paused_for:
        settled_ms = status.paused_at_ms + job.pausing.asked_ms + STAND_WITHIN_MS
    is_live = job.elastic is not None and not job.elastic.restart
    return Occupant(
        job=job.id,
        queue=queue_of(job),
        priority=job.priority,
        nice=job.nice,
        started_at_ms=started_at_ms,
        ends_at_ms=started_at_ms + expected_ms + status.paused_ms if expected_ms else 0,
        preemptible_at_ms=max(started_at_ms + safe_ms, settled_ms),
        saved_at_ms=status.saved_at_ms,
        saves_every_ms=int(1000 * checkpoint.every_s) if checkpoint.every_s else 0,
        saves_on_stop=bool(checkpoint.dir),
        restore_ms=int(1000 * checkpoint.restore_s) if checkpoint.restore_s else 0,
        yields_ms=job.pausing.asked_ms,
        least=job.elastic.min if is_live and job.elastic is not None else 0,
        array=job.array is not None,
        min_runtime_ms=safe_ms,
        stopping=status.phase is JobPhase.STOPPING,
    )


def claimed(known: r.ClusterJob) -> tuple[Allocation, ...]:
    """What a job claims, in the form of allocations under names that no real one has."""
    return tuple(
        Allocation(
            id=AllocationId(f"{known.job.id}/claim/{claim.rank}"),
            job=known.job.id,
            rank=claim.rank,
            node=claim.node,
            request=known.job.request(claim.rank, known.status.alternative),
            devices=claim.devices,
        )
        for claim in known.status.claim
    )
