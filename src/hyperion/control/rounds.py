"""A cluster's round: what waits is placed from one snapshot, and what does not fit is told why."""

from collections.abc import Hashable, Iterator

from hyperion.control import gang
from hyperion.control import messages as m
from hyperion.control import records as r
from hyperion.control.cluster_state import ClusterState
from hyperion.control.orders import Orders
from hyperion.control.uplink import ClusterTimes, Uplink
from hyperion.model.allocation import Allocation
from hyperion.model.ids import AllocationId, allocation_id
from hyperion.model.job import Job, JobPhase
from hyperion.placement import planner
from hyperion.placement.planner import Plan, Unplaceable
from hyperion.placement.ranking import Policy

_Decisions = Iterator[r.JobMoved | r.AllocationPlaced | m.ClusterCommand]
EXPLAIN_AFTER_MS = 1000
"""Most waits are shorter, and need no reason beside them."""


class Rounds:
    def __init__(
        self,
        policy: Policy,
        times: ClusterTimes,
        state: ClusterState,
        uplink: Uplink,
        orders: Orders[AllocationId],
    ) -> None:
        self.due = True
        self.refusals: dict[Hashable, Unplaceable] = {}
        """Why the jobs of a blocked shape do not fit, by shape."""
        self._policy = policy
        self._times = times
        self._state = state
        self._uplink = uplink
        self._orders = orders

    def freed(self) -> None:
        """There is room where there was none: whoever did not fit may try again."""
        self.due = True
        self._state.queue.unblock()
        self.refusals.clear()

    def place(self, now_ms: int) -> _Decisions:
        """Place what waits, in order, as far as it fits."""
        self.due = False
        wishes = self._wishes(now_ms, self._uplink.may_run(now_ms))
        placed = 0
        for result in planner.plan_round(self._state.snapshot, wishes, self._policy):
            known = self._state.jobs[result.job]
            if isinstance(result, Unplaceable):
                yield from self._block(known, result, now_ms)
                continue
            yield from self._start(known, result, now_ms)
            placed += 1
            if placed >= self._times.placements_per_round:
                self.due = True
                break

    def explain(self, now_ms: int) -> _Decisions:
        """Write the reason beside the first jobs of each shape that has not fitted for a while."""
        for shape, jobs in self._state.queue.shapes_blocked():
            refusal = self.refusals.get(shape)
            if refusal is None:
                continue
            text = gang.refusal_text(refusal)
            for job_id in jobs:
                known = self._state.jobs[job_id]
                waited_ms = now_ms - known.submitted_at_ms
                if known.status.reason != text and waited_ms >= EXPLAIN_AFTER_MS:
                    yield self._state.moved(known, now_ms, reason=text)
                    yield from self._uplink.tell(job_id, now_ms)

    def _wishes(self, now_ms: int, federated_too: bool) -> Iterator[Job]:
        for job_id, _ in self._state.queue.candidates(now_ms):
            known = self._state.jobs[job_id]
            if federated_too or not known.federated:
                yield known.job

    def _block(self, known: r.ClusterJob, refusal: Unplaceable, now_ms: int) -> _Decisions:
        """Pass over its likes until something is freed; what can never fit goes back."""
        shape = self._state.shape(known.job)
        self._state.queue.block(shape)
        self.refusals[shape] = refusal
        if known.federated and not refusal.ever and self._state.has_ready_nodes():
            yield self._state.moved(
                known,
                now_ms,
                phase=JobPhase.CANCELLED,
                reason=gang.refusal_text(refusal),
                refused=True,
                ended_at_ms=now_ms,
            )
            yield from self._uplink.tell(known.job.id, now_ms)

    def _start(self, known: r.ClusterJob, plan: Plan, now_ms: int) -> _Decisions:
        status = known.status
        attempt = status.attempt + 1
        yield self._state.moved(
            known,
            now_ms,
            phase=JobPhase.STARTING,
            attempt=attempt,
            alternative=plan.alternative,
            reason="",
        )
        job = self._state.whole(known.job)
        for rank, seat in enumerate(plan.seats):
            a = Allocation(
                id=allocation_id(job.id, status.generation, attempt, rank),
                job=job.id,
                rank=rank,
                node=seat.node,
                request=job.alternatives[plan.alternative],
                devices=seat.devices,
                placed_at_ms=now_ms,
            )
            yield r.AllocationPlaced(a)
            self._orders.sent(a.id, now_ms)
            yield m.SendToNode(a.node, gang.first_order(a, job, attempt))
        if known.federated:
            self._uplink.tell_later(job.id, now_ms)
