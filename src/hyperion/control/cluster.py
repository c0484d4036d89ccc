"""The cluster scheduler as a state machine: which replica runs on which node.

``handle`` answers one event, ``round`` places what waits; the driver runs it at its own pace, so a
burst of events costs one round. ``apply`` is the only line that changes what is kept.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from hyperion.control import gang
from hyperion.control import messages as m
from hyperion.control import records as r
from hyperion.control.cluster_state import ClusterState
from hyperion.control.liveness import Peer
from hyperion.control.machine import Outcome, sort_out
from hyperion.control.orders import Orders
from hyperion.control.rounds import Rounds
from hyperion.control.uplink import ClusterTimes, Uplink
from hyperion.model.allocation import TRANSITIONS, Allocation
from hyperion.model.allocation import AllocationState as S
from hyperion.model.cluster import Cluster
from hyperion.model.ids import AllocationId, JobId, NodeId
from hyperion.model.job import Job, JobPhase
from hyperion.placement.ranking import Policy

_RECORDS = (
    r.SecretsKept,
    r.JobAccepted,
    r.JobMoved,
    r.JobForgotten,
    r.MarkDropped,
    r.AllocationPlaced,
    r.AllocationMoved,
    r.NodeAdmitted,
    r.NodeMarked,
    r.NodeForgotten,
)
_Decisions = Iterator[Any]


class ClusterMachine:
    def __init__(self, cluster: Cluster, policy: Policy, times: ClusterTimes | None = None) -> None:
        times = times or ClusterTimes()
        self.cluster = cluster
        self.policy = policy
        self.times = times
        self.state = ClusterState()
        self.peers: dict[NodeId, Peer] = {}
        self.uplink = Uplink(cluster, times, self.state)
        self.orders: Orders[AllocationId] = Orders(times.resend_ms, times.silent_ms)
        self.rounds = Rounds(policy, times, self.state, self.uplink, self.orders)
        self._tidied_ms = 0

    # -- the machine's outside ------------------------------------------------------------------

    @property
    def wants_round(self) -> bool:
        return self.rounds.due

    def handle(self, event: m.ClusterEvent, now_ms: int) -> Outcome:
        return sort_out(self._decide(event, now_ms), _RECORDS, self.apply)

    def round(self, now_ms: int) -> Outcome:
        return sort_out(self.rounds.place(now_ms), _RECORDS, self.apply)

    def resume(self, now_ms: int) -> Outcome:  # noqa: ARG002 - agents attach and are told then
        return Outcome([], [])

    def restore(self, items: Iterable[tuple[str, bytes]], now_ms: int) -> None:
        self.state.restore(items)
        for id, entry in self.state.nodes.items():
            if not entry.lost:  # it may hold a lease granted just before the restart
                self.peers[id] = Peer(now_ms, now_ms + self.times.node_lease_ms)
        for a in self.state.allocations.values():
            if not a.state.is_terminal:
                self.orders.sent(a.id, now_ms)
        self.uplink.restored()

    def writes(self) -> dict[str, bytes | None]:
        return self.state.writes()

    def apply(self, record: Struct) -> None:
        self.state.apply(record)
        match record:
            case r.AllocationMoved(a) if a.state.is_terminal:
                self.rounds.freed()
                self.orders.over(a.id)
            case r.NodeAdmitted() | r.NodeMarked():
                self.rounds.freed()
            case r.JobForgotten(job):
                self.uplink.forget(job)
            case r.JobAccepted() | r.JobMoved():
                self.rounds.due = True

    # -- decisions ------------------------------------------------------------------------------

    def _decide(self, event: m.ClusterEvent, now_ms: int) -> _Decisions:  # noqa: PLR0912
        match event:
            case m.NodeReported(node, report):
                yield from self._hear_replica(node, report, now_ms)
            case m.NodeHeard(node, heartbeat):
                yield from self._hear_node(node, heartbeat, now_ms)
            case m.NodesHeard(heartbeats):
                for heard in heartbeats:
                    yield from self._hear_node(heard.node, heard.heartbeat, now_ms)
            case m.PlaceJob():
                yield from self._place(event, now_ms)
            case m.StopJob():
                yield from self._stop_ordered(event, now_ms)
            case m.ForgetJob(job_id, generation):
                known = self.state.jobs.get(job_id)
                ended = known is not None and known.status.phase.is_terminal
                if known and ended and generation >= known.status.generation:
                    yield r.JobForgotten(job_id, generation, now_ms)
            case m.Lease(sequence, duration_ms):
                if not self.uplink.may_run(now_ms):
                    yield from self._fence(now_ms)  # what the gap made void must not go on
                if self.uplink.lease.granted(sequence, duration_ms):
                    self.rounds.due = True
                    yield m.KeepLease(self.uplink.lease.until_ms - now_ms)
            case m.LeaseRecovered(remaining_ms):
                self.uplink.lease.recovered(now_ms, remaining_ms)
            case m.JobSubmitted(job, token):
                yield from self._submit(job, token, now_ms)
            case m.JobCancelRequested(job_id, by, token):
                yield from self._cancel(job_id, by, token, now_ms)
            case m.NodeAttached(hello):
                yield from self._attach_node(hello, now_ms)
            case m.NodeDetached(node):
                if node in self.peers:
                    self.peers[node].attached = False
                    self.state.set_silent(node, True)
            case m.CordonRequested():
                yield from self._cordon(event, now_ms)
            case m.FederationAttached():
                yield from self.uplink.greet(now_ms)
            case m.Tick():
                yield from self._tick(now_ms)
            case _:
                raise TypeError(event)

    def _place(self, order: m.PlaceJob, now_ms: int) -> _Decisions:
        job = order.job
        known = self.state.jobs.get(job.id)
        if known is None:
            mark = self.state.marks.get(job.id)
            overtaken = mark is not None and order.generation <= mark.generation
            if order.known or overtaken:
                yield m.SendToFederation(
                    m.JobReport(
                        job=job.id,
                        generation=order.generation,
                        version=0,
                        phase=JobPhase.QUEUED,
                        lost=True,
                        reason=f"cluster {self.cluster.id} no longer knows it",
                    )
                )
            elif self.uplink.lease.is_valid(now_ms):
                yield from self._accept(job, order.generation, 1, order.submitted_at_ms, now_ms)
        elif not known.federated:
            yield m.SendToFederation(
                m.JobReport(
                    job=job.id,
                    generation=order.generation,
                    version=0,
                    phase=JobPhase.CANCELLED,
                    refused=True,
                    reason=f"cluster {self.cluster.id} has a job of that id of its own",
                )
            )
        elif order.generation <= known.status.generation:
            yield from self.uplink.tell(job.id, now_ms)
        elif known.status.phase.is_terminal and gang.is_void(known.status):
            if self.uplink.lease.is_valid(now_ms):  # it ended here only since it was ordered away
                version = known.status.version + 1
                yield from self._accept(
                    job, order.generation, version, order.submitted_at_ms, now_ms
                )
        else:  # it never left: the new order finds it as it is
            yield self.state.moved(known, now_ms, generation=order.generation)
            yield from self.uplink.tell(job.id, now_ms)

    def _accept(
        self, job: Job, generation: int, version: int, submitted_at_ms: int, now_ms: int
    ) -> _Decisions:
        federated = generation > 0
        if job.secrets:
            yield r.SecretsKept(job.id, job.secrets)
            job = replace(job, secrets={})
        order = self.state.next_order
        yield r.JobAccepted(job, federated, generation, version, submitted_at_ms, order, now_ms)
        if federated:
            self.uplink.tell_later(job.id, now_ms)

    def _submit(self, job: Job, token: int, now_ms: int) -> _Decisions:
        if job.id not in self.state.jobs and job.id not in self.state.marks:
            yield from self._accept(job, 0, 1, now_ms, now_ms)
        yield m.Answer(token, job.id)

    def _cancel(self, job_id: JobId, by: str, token: int, now_ms: int) -> _Decisions:
        known = self.state.jobs.get(job_id)
        if known is None:
            yield m.Answer(token, job_id, f"no job {job_id}", "not_found")
            return
        if not known.status.phase.is_terminal:
            reason = f"cancelled by {by}" if by else "cancelled"
            yield from self._stop(known, JobPhase.CANCELLED, reason, now_ms)
        yield m.Answer(token, job_id)

    def _stop_ordered(self, order: m.StopJob, now_ms: int) -> _Decisions:
        known = self.state.jobs.get(order.job)
        if known is None:
            # A PlaceJob may still be on its way: it must find that its time has passed.
            mark = self.state.marks.get(order.job)
            if mark is None or order.generation > mark.generation:
                yield r.JobForgotten(order.job, order.generation, now_ms)
            yield m.SendToFederation(
                m.JobReport(
                    job=order.job,
                    generation=order.generation,
                    version=0,
                    phase=order.phase,
                    reason=order.reason,
                )
            )
            return
        if order.generation > known.status.generation:
            yield self.state.moved(known, now_ms, generation=order.generation)
            known = self.state.jobs[order.job]
            if not known.status.phase.is_terminal and known.status.after_stop != order.phase:
                yield from self._stop(known, order.phase, order.reason, now_ms)
        yield from self.uplink.tell(order.job, now_ms)

    def _stop(
        self,
        known: r.ClusterJob,
        after: JobPhase,
        reason: str,
        now_ms: int,
        **more: Any,
    ) -> _Decisions:
        """End all replicas; ``after`` is where the job goes once the last of them is gone."""
        live = self.state.live_of(known.job.id)
        for a in live:
            if a.state is not S.STOPPING:
                yield from self._order_stop(a, known, now_ms)
        if live:
            yield self.state.moved(
                known, now_ms, phase=JobPhase.STOPPING, after_stop=after, reason=reason, **more
            )
            yield from self.uplink.tell(known.job.id, now_ms)
        else:
            yield from self._arrive(known, after, reason, now_ms, **more)

    def _order_stop(self, a: Allocation, known: r.ClusterJob, now_ms: int) -> _Decisions:
        stopping = replace(a, state=S.STOPPING, generation=a.generation + 1)
        yield r.AllocationMoved(stopping)
        self.orders.sent(a.id, now_ms)
        yield m.SendToNode(a.node, gang.stop_order(stopping, known))

    def _arrive(
        self,
        known: r.ClusterJob,
        phase: JobPhase,
        reason: str,
        now_ms: int,
        **more: Any,
    ) -> _Decisions:
        """No replica is left: the job ends, or waits for its next attempt."""
        ended_at_ms = now_ms if phase.is_terminal else 0
        if not phase.is_terminal:
            more["started_at_ms"] = 0  # the attempt that is over is told of and paid for
        yield self.state.moved(
            known,
            now_ms,
            phase=phase,
            reason=reason,
            after_stop=None,
            ended_at_ms=ended_at_ms,
            **more,
        )
        yield from self.uplink.tell(known.job.id, now_ms)

    # -- nodes ----------------------------------------------------------------------------------

    def _attach_node(self, hello: m.NodeHello, now_ms: int) -> _Decisions:
        node = hello.node
        entry = self.state.nodes.get(node.id)
        if entry is None or entry.node != node or entry.lost:
            yield r.NodeAdmitted(node, now_ms)
        peer = self.peers.setdefault(node.id, Peer(now_ms, now_ms))
        peer.attached = True
        self.state.set_silent(node.id, False)
        self.rounds.freed()
        yield from self._renew(node.id, 0, now_ms)  # the lease leads, orders follow
        for report in hello.allocations:
            yield from self._hear_replica(node.id, report, now_ms)
        mentioned = {report.allocation for report in hello.allocations}
        for a in self.state.live_on(node.id):
            if a.id not in mentioned:
                yield from self._order_again(a, now_ms)
        yield from self.uplink.beat(now_ms, news_ms=20)  # somebody may wait for such a node

    def _hear_node(self, node: NodeId, heartbeat: m.NodeHeartbeat, now_ms: int) -> _Decisions:
        if not heartbeat.fresh:
            yield from self._renew(node, heartbeat.sequence, now_ms)
        elif node in self.peers:
            self.peers[node].heard_ms = now_ms

    def _renew(self, node: NodeId, sequence: int, now_ms: int) -> _Decisions:
        peer = self.peers.get(node)
        if peer is None or not peer.attached:
            return
        peer.grant(now_ms, self.times.node_lease_ms)
        lease = m.Lease(sequence=sequence, duration_ms=self.times.node_lease_ms)
        yield m.SendToNode(node, lease)

    def _hear_replica(self, node: NodeId, report: m.AllocationReport, now_ms: int) -> _Decisions:
        a = self.state.allocations.get(report.allocation)
        if a is None or a.node != node:
            if report.state.is_terminal:
                yield m.SendToNode(
                    node, m.Forget(allocation=report.allocation, generation=report.generation)
                )
            elif report.state is not S.STOPPING:
                yield m.SendToNode(
                    node, m.Stop(allocation=report.allocation, generation=report.generation + 1)
                )
            return
        if report.generation != a.generation:
            if a.state.is_terminal and not report.state.is_terminal:
                # Given up for lost here, alive there: it must end before anything else.
                generation = max(a.generation, report.generation) + 1
                yield m.SendToNode(node, m.Stop(allocation=a.id, generation=generation))
            elif a.state.is_terminal:
                forget = m.Forget(allocation=a.id, generation=report.generation)
                yield m.SendToNode(node, forget)
            return  # else it answers an order since replaced, and will answer that one too
        if not a.state.is_terminal:
            self.orders.heard(a.id, now_ms)
        if report.state in TRANSITIONS[a.state]:
            yield r.AllocationMoved(gang.reported(a, report))
            if report.state.is_terminal:
                yield m.SendToNode(node, m.Forget(allocation=a.id, generation=a.generation))
            yield from self._advance(a.job, now_ms)
        elif a.answered != report.generation:
            yield r.AllocationMoved(replace(a, answered=report.generation))
        elif a.state.is_terminal and report.state.is_terminal:
            yield m.SendToNode(node, m.Forget(allocation=a.id, generation=a.generation))
        elif a.state.is_terminal:
            yield m.SendToNode(node, m.Stop(allocation=a.id, generation=a.generation + 1))

    def _advance(self, job_id: JobId, now_ms: int) -> _Decisions:
        """One replica has moved: see what that means for its gang."""
        known = self.state.jobs[job_id]
        allocations = self.state.attempt_of(job_id)
        verdict = gang.judge(known, allocations, now_ms)
        match verdict:
            case gang.Wait():
                pass
            case gang.GoAhead():
                for a in allocations:
                    ordered = replace(a, generation=a.generation + 1)
                    yield r.AllocationMoved(ordered)
                    self.orders.sent(a.id, now_ms)
                job = self.state.whole(known.job)
                peers = gang.peers(allocations)
                for a in self.state.attempt_of(job_id):
                    order = gang.run_order(a, job, known.status.attempt, peers)
                    yield m.SendToNode(a.node, order)
            case gang.Started(started_at_ms):
                yield self.state.moved(
                    known, now_ms, phase=JobPhase.RUNNING, reason="", started_at_ms=started_at_ms
                )
                yield from self.uplink.tell(job_id, now_ms)
            case gang.StopRest(after, reason, changes):
                yield from self._stop(known, after, reason, now_ms, **changes)
            case gang.Ended(phase, reason, changes):
                yield from self._arrive(known, phase, reason, now_ms, **changes)

    def _order_again(self, a: Allocation, now_ms: int) -> _Decisions:
        """The newest order about it has not been answered, or its agent did not mention it."""
        self.orders.sent(a.id, now_ms)
        known = self.state.jobs[a.job]
        if a.state is S.STOPPING:
            yield m.SendToNode(a.node, gang.stop_order(a, known))
            return
        allocations = self.state.attempt_of(a.job)
        job = self.state.whole(known.job)
        yield m.SendToNode(a.node, gang.order_again(a, job, known.status.attempt, allocations))

    def _lose_node(self, node: NodeId, now_ms: int) -> _Decisions:
        """Its lease has surely ended: by its own hand, nothing of ours runs there any more."""
        entry = self.state.nodes[node]
        self.peers.pop(node, None)
        yield m.DisconnectNode(node)
        gone = self.state.live_on(node)
        for a in gone:
            reason = f"node {node} was lost"
            lost = replace(
                a, state=S.LOST, generation=a.generation + 1, reason=reason, ended_at_ms=now_ms
            )
            yield r.AllocationMoved(lost)
        yield r.NodeMarked(node, entry.cordoned, entry.draining, True, now_ms)
        for job in sorted({a.job for a in gone}):
            yield from self._advance(job, now_ms)

    def _cordon(self, event: m.CordonRequested, now_ms: int) -> _Decisions:
        entry = self.state.nodes.get(event.node)
        if entry is None:
            yield m.Answer(event.token, error=f"no node {event.node}", code="not_found")
            return
        cordon = event.cordon or event.drain
        yield r.NodeMarked(event.node, cordon, event.drain, entry.lost, now_ms)
        if event.drain:
            for job in sorted({a.job for a in self.state.live_on(event.node)}):
                known = self.state.jobs[job]
                if known.status.phase is not JobPhase.STOPPING:
                    reason = f"node {event.node} is being drained"
                    yield from self._stop(known, JobPhase.QUEUED, reason, now_ms)
        yield m.Answer(event.token)

    # -- time -----------------------------------------------------------------------------------

    def _tick(self, now_ms: int) -> _Decisions:
        times = self.times
        yield from self.uplink.tick(now_ms)
        if not self.uplink.may_run(now_ms):
            yield from self._fence(now_ms)
        for node, peer in list(self.peers.items()):
            if peer.surely_ended(now_ms, times.node_lease_ms):
                yield from self._lose_node(node, now_ms)
        late = self.orders.late(now_ms)
        each_second = now_ms - self._tidied_ms >= 1000
        if each_second:
            late += self.orders.silent(now_ms)
        for id in late:
            a = self.state.allocations[id]
            if self.peers.get(a.node, _NOBODY).attached:
                yield from self._order_again(a, now_ms)
        if each_second:
            self._tidied_ms = now_ms
            yield from self.rounds.explain(now_ms)
            yield from self._tidy(now_ms)
        if not self.rounds.due and self.state.queue.next_due_ms(now_ms):
            self.rounds.due = True

    def _fence(self, now_ms: int) -> _Decisions:
        """Cut off for a whole lease: the federation may place these jobs elsewhere any moment.

        Those that wait are given up too, for they might start when the lease is renewed, before
        the federation can say where they are by then. Those that are being stopped already are
        told again: their grace may outlast the lease.
        """
        for job_id in self.state.federated_active():
            known = self.state.jobs[job_id]
            if known.status.fenced:
                continue
            reason = "cut off from the federation until the lease ended"
            if known.status.phase is JobPhase.QUEUED:
                yield from self._arrive(known, JobPhase.CANCELLED, reason, now_ms, fenced=True)
                continue
            yield self.state.moved(
                known,
                now_ms,
                phase=JobPhase.STOPPING,
                after_stop=JobPhase.CANCELLED,
                reason=reason,
                fenced=True,
            )
            fenced = self.state.jobs[job_id]
            for a in self.state.live_of(job_id):
                yield from self._order_stop(a, fenced, now_ms)
            yield from self.uplink.tell(job_id, now_ms)

    def _tidy(self, now_ms: int) -> _Decisions:
        """Forget, a bounded number at a time, what nobody will ask for."""
        old_ms = now_ms - self.times.retention_ms
        for job_id in self.state.ended_before(old_ms, limit=1000):
            yield r.JobForgotten(job_id, 0, now_ms)
        for node, entry in list(self.state.nodes.items()):
            if entry.lost and not self.state.live_on(node) and self.state.lost_before(node, old_ms):
                yield r.NodeForgotten(node)
        for name in self.state.marks_before(now_ms - self.times.mark_ms, limit=5000):
            yield r.MarkDropped(name)


_NOBODY = Peer(0, 0)
