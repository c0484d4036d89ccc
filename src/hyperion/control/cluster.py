"""The cluster scheduler as a state machine: which replica runs on which node.

``handle`` answers one event, ``round`` places what waits; the driver runs it at its own pace, so a
burst of events costs one round. ``apply`` is the only line that changes what is kept.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from msgspec.structs import replace

from hyperion.control import dependencies, gang
from hyperion.control import messages as m
from hyperion.control import records as r
from hyperion.control.appointments import Appointments
from hyperion.control.attempts import Attempts
from hyperion.control.cluster_state import ClusterState
from hyperion.control.consolidating import Consolidating
from hyperion.control.intake import Intake
from hyperion.control.liveness import Peer
from hyperion.control.machine import Outcome, sort_out
from hyperion.control.orders import Orders
from hyperion.control.outlook import Prospects
from hyperion.control.pausing import Pausing
from hyperion.control.preempting import Preempting
from hyperion.control.rounds import Rounds
from hyperion.control.seating import Seating
from hyperion.control.standbys import Standbys
from hyperion.control.uplink import ClusterTimes, Uplink
from hyperion.model.allocation import TRANSITIONS, Allocation
from hyperion.model.allocation import AllocationState as S
from hyperion.model.cluster import Cluster
from hyperion.model.ids import AllocationId, JobId, NodeId
from hyperion.model.job import JobPhase
from hyperion.placement.ranking import Policy, guarded

_RECORDS = frozenset(
    {
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
        r.TaskEnded,
        r.QueuesKept,
        r.WindowKept,
        r.WindowDropped,
        r.HistoryKept,
    }
)
_STANDING = frozenset({S.PAUSED, S.RUNNING})
"""A replica stands still, or will not: somebody may wait for that."""
_UNASKED = frozenset({S.RUNNING, S.WARM, S.PAUSED})
"""What a node may do with a replica though nobody has told it to."""
_OPENING = frozenset({r.NodeAdmitted, r.NodeMarked, r.QueuesKept, r.WindowKept, r.WindowDropped})
"""There may be room now where there was none."""
_Decisions = Iterator[Any]


class ClusterMachine:
    def __init__(self, cluster: Cluster, policy: Policy, times: ClusterTimes | None = None) -> None:
        times = times or ClusterTimes()
        self.cluster = cluster
        self.policy = guarded(policy)
        self.times = times
        self.state = ClusterState(self.policy, times.quantum_ms)
        self.peers: dict[NodeId, Peer] = {}
        self.uplink = Uplink(cluster, times, self.state)
        self.orders: Orders[AllocationId] = Orders(times.resend_ms, times.silent_ms)
        self.attempts = Attempts(self.state, self.uplink, self.orders)
        self.intake = Intake(cluster, self.state, self.uplink, self.attempts)
        self.seating = Seating(
            self.policy, times, self.state, self.uplink, self.orders, self.attempts
        )
        self.pausing = Pausing(self.state, self.attempts, self.seating, self.orders)
        self.preempting = Preempting(self.state, self.attempts, self.seating, self.pausing)
        self.standbys = Standbys(self.policy, self.state, self.seating, self.pausing)
        self.rounds = Rounds(
            self.policy,
            times,
            self.state,
            self.uplink,
            self.seating,
            self.preempting,
            self.standbys,
        )
        self.consolidating = Consolidating(
            self.policy, times, self.state, self.seating, self.preempting
        )
        self.prospects = Prospects(self.policy, self.state, self.rounds, self.seating, self.intake)
        self.appointments = Appointments(self.policy, self.state, self.seating, self.attempts)
        self._tidied_ms = 0
        self._lease_ends_ms = 0

    # -- the machine's outside ------------------------------------------------------------------

    @property
    def wants_round(self) -> bool:
        return self.rounds.due

    def handle(self, event: m.ClusterEvent, now_ms: int) -> Outcome:
        self.state.occupancy.at_ms = now_ms
        decisions = self._with_dependents(self._decide(event, now_ms), now_ms)
        return sort_out(decisions, _RECORDS, self.apply)

    def _with_dependents(self, decisions: _Decisions, now_ms: int) -> _Decisions:
        if not self.state.noted.awaiting:
            return decisions  # whoever begins to wait in this step waits for jobs that go on
        return dependencies.following(
            decisions, _ended, lambda job: self.attempts.release(job, now_ms)
        )

    def round(self, now_ms: int) -> Outcome:
        self.state.occupancy.at_ms = now_ms
        return sort_out(
            self._with_dependents(self.rounds.place(now_ms), now_ms), _RECORDS, self.apply
        )

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

    def apply(self, record: Any) -> None:
        self.state.apply(record)
        kind = type(record)
        if kind is r.AllocationPlaced:
            return
        if kind is r.JobMoved:
            if record.status.phase is JobPhase.QUEUED or self.state.occupancy.freed:
                self.rounds.due = True
        elif kind is r.JobAccepted:
            self.rounds.due = True
        elif kind is r.AllocationMoved or kind is r.TaskEnded:
            if record.allocation.state.is_terminal:
                self.rounds.due = True
                self.orders.over(record.allocation.id)
            elif self.state.occupancy.lending.changed or (
                record.allocation.state in _STANDING and self.state.noted.winners()
            ):
                self.rounds.due = True
        elif kind in _OPENING:
            self.rounds.freed()
        elif kind is r.JobForgotten:
            self.uplink.forget(record.job)

    # -- decisions ------------------------------------------------------------------------------

    def _decide(self, event: m.ClusterEvent, now_ms: int) -> _Decisions:  # noqa: PLR0912
        match event:
            case m.NodeReported(node, report):
                if report.freeze is not None or self.pausing.promise.watches:
                    yield from self.pausing.hear(node, report, now_ms)
                yield from self._hear_replica(node, report, now_ms)
            case m.NodeHeard(node, heartbeat):
                yield from self._hear_node(node, heartbeat, now_ms)
            case m.NodesHeard(heartbeats):
                for heard in heartbeats:
                    yield from self._hear_node(heard.node, heard.heartbeat, now_ms)
            case m.PlaceJob():
                yield from self.intake.place(event, now_ms)
            case m.StopJob():
                yield from self.intake.stop_ordered(event, now_ms)
            case m.ForgetJob(job_id, generation):
                known = self.state.jobs.get(job_id)
                ended = known is not None and known.status.phase.is_terminal
                if known and ended and known.federated and generation >= known.status.generation:
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
                yield from self.intake.submit(job, token, now_ms)
            case m.JobCancelRequested(job_id, by, token):
                yield from self.intake.cancel(job_id, by, token, now_ms)
            case m.NodeAttached(hello):
                yield from self._attach_node(hello, now_ms)
            case m.NodeDetached(node):
                if node in self.peers:
                    self.peers[node].attached = False
                    self.state.set_silent(node, True)
            case m.CordonRequested():
                yield from self._cordon(event, now_ms)
            case m.QueuesApplied(queues, token):
                yield from self.intake.apply_queues(queues, token, now_ms)
            case m.WindowApplied(window, token):
                yield from self.appointments.apply_window(window, token, now_ms)
            case m.WindowCancelled():
                yield from self.appointments.cancel_window(event, now_ms)
            case m.FederationAttached():
                yield from self.uplink.greet(now_ms)
            case m.Tick():
                yield from self._tick(now_ms)
            case _:
                raise TypeError(event)

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
        self.standbys.attached(node.id)
        for report in hello.allocations:
            yield from self._hear_replica(node.id, report, now_ms)
        mentioned = {report.allocation for report in hello.allocations}
        for a in self.state.live_on(node.id):
            if a.id not in mentioned:
                yield from self.attempts.order_again(a, now_ms)
        yield from self.uplink.beat(now_ms, news_ms=20)  # somebody may wait for such a node

    def _hear_node(self, node: NodeId, heartbeat: m.NodeHeartbeat, now_ms: int) -> _Decisions:
        if node not in self.peers:
            yield m.DisconnectNode(node)  # who it is we were never told, or know no more
        elif not heartbeat.fresh:
            yield from self._renew(node, heartbeat.sequence, now_ms)
        else:
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
            yield from _away_with(node, report)
            return
        if report.turn < a.turn and report.state in _UNASKED:
            return  # it was overtaken by a newer one
        if not a.state.is_terminal:
            yield from self._learn(a, report, now_ms)
            a = self.state.allocations[report.allocation]
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
            yield from self._moved(gang.reported(a, report), report, now_ms)
            if report.state.is_terminal:
                yield m.SendToNode(node, m.Forget(allocation=a.id, generation=a.generation))
        elif a.answered != report.generation or report.turn > a.turn:
            yield r.AllocationMoved(replace(a, answered=report.generation, turn=report.turn))
        elif a.state.is_terminal and report.state.is_terminal:
            yield m.SendToNode(node, m.Forget(allocation=a.id, generation=a.generation))
        elif a.state.is_terminal:
            yield m.SendToNode(node, m.Stop(allocation=a.id, generation=a.generation + 1))

    def _learn(self, a: Allocation, report: m.AllocationReport, now_ms: int) -> _Decisions:
        """What is true whatever order it answers: the checkpoints that it has written. And it may
        answer an order to stand still that was sent before it was kept, by a scheduler that died
        right then: unless it stood still for somebody before that, nobody needs it to."""
        if report.checkpoints:
            yield from self.attempts.saved(a, report, now_ms)
        if report.generation <= a.generation:
            return
        a = self.state.allocations[a.id]
        forgotten = replace(a, generation=report.generation, answered=report.generation)
        if report.state is not S.PAUSED:
            yield r.AllocationMoved(forgotten)
            return
        forgotten = replace(forgotten, state=S.PAUSED)
        yield r.AllocationMoved(forgotten)
        yield from self.pausing.unless_wanted(forgotten, now_ms)

    def _moved(self, a: Allocation, report: m.AllocationReport, now_ms: int) -> _Decisions:
        """A replica is in another state than before."""
        if self.state.jobs[a.job].job.array is None:
            yield r.AllocationMoved(a)
            yield from self.attempts.advance(a.job, now_ms)
            if a.state is S.PAUSED and not report.stands_for:
                yield from self.pausing.unless_wanted(a, now_ms)
            if self.state.occupancy.lending and not a.state.is_terminal:
                yield from self.standbys.hear(a, report, now_ms)
        elif not a.state.is_terminal:
            yield r.AllocationMoved(a)
        else:
            yield from self.attempts.end_task(a, now_ms)

    def _lose_nodes(self, now_ms: int) -> _Decisions:
        """Look at all leases; none can end before the first of those that are left."""
        lease_ms = self.times.node_lease_ms
        for node, peer in list(self.peers.items()):
            if peer.surely_ended(now_ms, lease_ms):
                yield from self._lose_node(node, now_ms)
        ends_ms = (peer.ends_ms(lease_ms) for peer in self.peers.values())
        self._lease_ends_ms = min(ends_ms, default=now_ms + lease_ms)

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
            if self.state.jobs[a.job].job.array is None:
                yield r.AllocationMoved(lost)
            else:
                yield from self.attempts.end_task(lost, now_ms)
        for job in self.state.claimants_on(node):
            yield self.state.moved(self.state.jobs[job], now_ms, claim=())
        yield r.NodeMarked(node, entry.cordoned, entry.draining, True, now_ms)
        for job in sorted({a.job for a in gone}):
            if self.state.jobs[job].job.array is None:
                yield from self.attempts.advance(job, now_ms)

    def _cordon(self, event: m.CordonRequested, now_ms: int) -> _Decisions:
        entry = self.state.nodes.get(event.node)
        if entry is None:
            yield m.Answer(event.token, error=f"no node {event.node}", code="not_found")
            return
        cordon = event.cordon or event.drain
        yield r.NodeMarked(event.node, cordon, event.drain, entry.lost, now_ms)
        if event.drain:
            for a in self.state.live_on(event.node):
                reason = f"node {event.node} is being drained"
                yield from self.attempts.clear(self.state.allocations[a.id], reason, now_ms)
        yield m.Answer(event.token)

    # -- time -----------------------------------------------------------------------------------

    def _tick(self, now_ms: int) -> _Decisions:
        yield from self.uplink.tick(now_ms)
        if not self.uplink.may_run(now_ms):
            yield from self._fence(now_ms)
        if now_ms > self._lease_ends_ms:
            yield from self._lose_nodes(now_ms)
        late = self.orders.late(now_ms)
        each_second = now_ms - self._tidied_ms >= 1000
        if each_second:
            late += self.orders.silent(now_ms)
        for id in late:
            a = self.state.allocations[id]
            if self.peers.get(a.node, _NOBODY).attached:
                yield from self.attempts.order_again(a, now_ms)
        if each_second:
            self._tidied_ms = now_ms
            yield from self.rounds.explain(now_ms)
            yield from self.appointments.each_second(now_ms)
            yield from self.consolidating.each_second(now_ms)
            yield from self.pausing.each_second(now_ms)
            self.state.running.settle_ahead()
            if self.appointments.times_changed(now_ms):
                self.rounds.freed()
            elif self.state.occupancy.freed:
                self.rounds.due = True
            yield from self._tidy(now_ms)
        if self.pausing.rested(now_ms) or each_second:
            self.rounds.look_again(now_ms)
        if self.state.occupancy.lending.changed or self.state.queue.next_due_ms(now_ms):
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
            if not self.state.live_of(job_id):
                yield from self.attempts.arrive(
                    known, JobPhase.CANCELLED, reason, now_ms, fenced=True
                )
                continue
            yield self.state.moved(
                known,
                now_ms,
                phase=JobPhase.STOPPING,
                after_stop=JobPhase.CANCELLED,
                reason=reason,
                fenced=True,
                claim=(),
            )
            fenced = self.state.jobs[job_id]
            for a in self.state.live_of(job_id):
                yield from self.attempts.order_stop(a, fenced, now_ms)
            yield from self.uplink.tell(job_id, now_ms)

    def _tidy(self, now_ms: int) -> _Decisions:
        """Forget, a bounded number at a time, what nobody will ask for."""
        old_ms = now_ms - self.times.retention_ms
        for job_id in self.state.noted.ended_before(old_ms, limit=1000):
            yield r.JobForgotten(job_id, 0, now_ms)
        for node, entry in list(self.state.nodes.items()):
            if entry.lost and not self.state.live_on(node) and self.state.lost_before(node, old_ms):
                yield r.NodeForgotten(node)
        for name in self.state.marks_before(now_ms - self.times.mark_ms, limit=5000):
            yield r.MarkDropped(name)


_NOBODY = Peer(0, 0)


def _ended(decision: Any) -> JobId | None:
    ends = isinstance(decision, r.JobMoved) and decision.status.phase.is_terminal
    return decision.job if ends else None


def _away_with(node: NodeId, report: m.AllocationReport) -> _Decisions:
    """Nothing is known here of what the node reports: it is to end, or to be forgotten."""
    id, generation = report.allocation, report.generation
    if report.state.is_terminal:
        yield m.SendToNode(node, m.Forget(allocation=id, generation=generation))
    elif report.state is not S.STOPPING:
        yield m.SendToNode(node, m.Stop(allocation=id, generation=generation + 1))
