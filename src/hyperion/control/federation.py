"""The federation as a state machine: which cluster a job goes to, and whether it is still there.

A job is placed anew only when its cluster has given it up, or when the cluster's lease has surely
ended, so that it never runs in two places at once.
"""

import heapq
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from msgspec import Struct

from hyperion.control import (
    accounts,
    bill_records,
    bills,
    dataset_records,
    dependencies,
    telling,
    timed,
)
from hyperion.control import messages as m
from hyperion.control import records as r
from hyperion.control.admission import Admission
from hyperion.control.cluster_reports import Reports
from hyperion.control.federation_state import FederationState
from hyperion.control.federation_times import FederationTimes
from hyperion.control.hauling import Hauling
from hyperion.control.liveness import Peer
from hyperion.control.machine import Outcome, sort_out
from hyperion.control.migrating import Migrations
from hyperion.control.moves import Moves
from hyperion.control.opening import HomePrices
from hyperion.control.orders import Orders
from hyperion.control.planning import Planning, Standing
from hyperion.control.progress import rest_of, saved_s, slack_of
from hyperion.control.rescue import Rescues
from hyperion.control.returning import Returning
from hyperion.control.spending import Spending
from hyperion.control.together import Rights, Together
from hyperion.model.cluster import ClusterLoad
from hyperion.model.ids import ClusterId, JobId
from hyperion.model.job import Job, JobPhase
from hyperion.model.market import MarketView
from hyperion.placement import choice, gravity
from hyperion.placement.choice import FleetCluster, Place
from hyperion.placement.explain import Planned
from hyperion.placement.ranking import Rankers

_RECORDS = frozenset(
    {
        r.SecretsKept,
        r.FederatedJobAccepted,
        r.FederatedJobMoved,
        r.FederatedJobPruned,
        r.Decided,
        r.ClusterAdmitted,
        r.ClusterLost,
        *bill_records.RECORDS,
        *dataset_records.RECORDS,
    }
)
_Decisions = Iterator[Any]
P = JobPhase
ALONE_COUNTS = 10
"""As many of a round's placements one job is that is ranked by itself: for its deadline, or since
one before it names the same dataset."""
ORDERS_AT_ONCE = 5000  # repeated in one step: more would overrun the link's queue and end it


class Federation:
    def __init__(
        self,
        market: MarketView,
        policy: str,
        times: FederationTimes | None = None,
        rankers: Rankers | None = None,
        home: str = "",
        *,
        replicates: bool = False,
    ) -> None:
        times = times or FederationTimes()
        self.market = market
        self.policy = policy
        self.times = times
        self.state = FederationState()
        self.peers: dict[ClusterId, Peer] = {}
        self.loads: dict[ClusterId, ClusterLoad] = {}
        self.orders: Orders[JobId] = Orders(times.resend_ms, times.silent_ms)
        self.rankers = rankers or Rankers()
        self._home = HomePrices(home)
        self._round_due = True
        self._fleet: tuple[FleetCluster, ...] | None = None
        self._tidied_ms = 0
        self._reconsidered_ms = 0
        self._returning = Returning()
        self._planning = Planning(policy, self.rankers, times.reconsider_ms, self._standing)
        self._moves = Moves(self.state)
        self._reports = Reports(self.state, self.orders, self._planning.price_there)
        self._spending = Spending(self.state, self._end)
        self._rescues = Rescues(self.state, self._planning.refuge, self._end)
        self._migrations = Migrations(
            self.state, self._planning.anew, self._end, times.migrate_ms, times.least_stay_ms
        )
        self.hauling = Hauling(self.state.datasets, times.advise_ms, acts=replicates)
        self._admission = Admission(self.state, times.queue_max, self.hauling, self._end)
        self._seen_ms = 0

    # -- the machine's outside ------------------------------------------------------------------

    @property
    def wants_round(self) -> bool:
        return self._round_due

    def handle(self, event: m.FederationEvent, now_ms: int) -> Outcome:
        self._seen_ms = now_ms
        decisions = dependencies.following(
            self._decide(event, now_ms), _ended, lambda job: self._admission.release(job, now_ms)
        )
        return sort_out(self._booking(decisions, now_ms), _RECORDS, self.apply)

    def round(self, now_ms: int) -> Outcome:
        self._seen_ms = now_ms
        decisions = self._booking(self._place_waiting(now_ms), now_ms)
        return sort_out(decisions, _RECORDS, self.apply)

    def _booking(self, decisions: _Decisions, now_ms: int) -> _Decisions:
        def opening(job: Job, status: r.FederatedStatus) -> bills.Opening:
            return self._home.opening(job, status, self.market, self.fleet, self.data)

        return bills.booking(decisions, self.state.jobs, self.state.bills, opening, now_ms)

    def resume(self, now_ms: int) -> Outcome:
        """Clusters attach and are told then; the hook of datasets is told now."""
        decisions = self.hauling.unfinished(self.market, now_ms)
        return sort_out(decisions, _RECORDS, self.apply)

    def restore(self, items: Iterable[tuple[str, bytes]], now_ms: int) -> None:
        self.state.restore(items)
        self._seen_ms = now_ms
        for id, entry in self.state.clusters.items():
            if not entry.lost:  # it may hold a lease granted just before the restart
                self.peers[id] = Peer(now_ms, now_ms + self._lease_ms)
        for job, known in self.state.jobs.items():
            status = known.status
            if status.cluster and not status.phase.is_terminal:
                self.orders.sent(job, now_ms)
                if status.answered >= status.generation:
                    self.orders.heard(job, now_ms)
                self._migrations.note(known, now_ms)
            self._rescues.note(known, now_ms)  # one that waits may be taken back with its cluster

    def writes(self) -> dict[str, bytes | None]:
        return self.state.writes()

    def apply(self, record: Struct) -> None:
        self.state.apply(record)
        match record:
            case r.FederatedJobMoved(job_id, status):
                self._fleet = None
                if status.phase.is_terminal or status.phase is P.QUEUED:
                    self.orders.over(job_id)
                    self._freed()
            case r.FederatedJobAccepted():
                self._round_due = True
            case r.ClusterAdmitted() | r.ClusterLost():
                self._freed()
            case dataset_records.DatasetUsed() | dataset_records.CopyFailed():
                pass
            case _ if type(record) in dataset_records.RECORDS:
                self._freed()

    def plan(self, job: Job, without: Iterable[ClusterId] = ()) -> Planned:
        """Where the job would go now if it waited alone. Changes nothing; a round does the same."""
        return self._planning.plan(job, without)

    def _standing(self) -> Standing:
        return Standing(self.fleet, self.market, self.data, self._seen_ms, self._returning)

    @property
    def data(self) -> gravity.DataView:
        """The datasets as of now."""
        return self.state.datasets.view(self._seen_ms)

    @property
    def fleet(self) -> tuple[FleetCluster, ...]:
        if self._fleet is None:
            reachable = [c for c, peer in self.peers.items() if peer.attached]
            self._fleet = self.state.fleet(self.loads, reachable)
        return self._fleet

    # -- decisions ------------------------------------------------------------------------------

    def _decide(self, event: m.FederationEvent, now_ms: int) -> _Decisions:
        match event:
            case m.JobSubmitted(job, token):
                yield from self._admission.submit(job, token, now_ms)
            case m.ClusterReported(cluster, report):
                yield from self._reports.hear(cluster, report, now_ms)
            case m.ClusterHeard(cluster, heartbeat):
                yield from self._hear_cluster(cluster, heartbeat, now_ms)
            case m.JobCancelRequested(job_id, by, token):
                yield from self._admission.cancel(job_id, by, token, now_ms)
            case m.ClusterAttached(hello):
                yield from self._attach(hello, now_ms)
            case m.ClusterDetached(cluster):
                if cluster in self.peers:
                    self.peers[cluster].attached = False
                    self._fleet = None
            case m.MarketQuoted(view):
                self.market = view
                self._freed()
            case m.DatasetApplied() | m.DatasetDropAsked() | m.CopyReported():
                yield from self.hauling.decide(event, now_ms)
            case m.Tick():
                yield from self._tick(now_ms)
            case _:
                yield from self._spending.decide(event, now_ms)

    def _end(self, known: r.FederatedJob, wanted: P, reason: str, now_ms: int) -> _Decisions:
        """Stop it wherever it is; it has ended once its cluster says so."""
        status = known.status
        if status.phase.is_terminal or (status.wanted is not None and not status.comes_back):
            return
        if status.wanted is not None:  # it was to wait; now it is to end
            yield self._moves.moved(
                known, now_ms, wanted=wanted, reason=reason, held="", leaving=""
            )
            return
        if not status.cluster:
            yield self._moves.moved(
                known, now_ms, phase=wanted, awaits=(), reason=reason, ended_at_ms=now_ms
            )
            return
        generation = status.generation + 1
        yield self._moves.moved(
            known, now_ms, phase=P.STOPPING, wanted=wanted, reason=reason, generation=generation
        )
        yield from self._order(known.job.id, now_ms)

    def _order(self, job_id: JobId, now_ms: int) -> _Decisions:
        """Send the newest order about the job, for the first time or again."""
        known = self.state.jobs[job_id]
        self.orders.sent(job_id, now_ms)
        order = telling.newest_order(known, self.state.whole(known.job))
        yield m.SendToCluster(known.status.cluster, order)

    # -- clusters -------------------------------------------------------------------------------

    @property
    def _lease_ms(self) -> int:
        return self.times.cluster_lease_ms

    def _attach(self, hello: m.ClusterHello, now_ms: int) -> _Decisions:
        cluster = hello.cluster
        entry = self.state.clusters.get(cluster.id)
        if entry is None or entry.cluster != cluster or entry.lost:
            yield r.ClusterAdmitted(cluster, now_ms)
        peer = self.peers.setdefault(cluster.id, Peer(now_ms, now_ms))
        peer.attached = True
        self._note_load(cluster.id, hello.load)
        self._freed()
        yield from self._renew(cluster.id, 0, now_ms)  # the lease leads, orders follow
        for report in hello.jobs:
            yield from self._reports.hear(cluster.id, report, now_ms)
        mentioned = {report.job for report in hello.jobs}
        missing = (j for j in self.state.placed_in.get(cluster.id, ()) if j not in mentioned)
        for job_id in list(islice(missing, ORDERS_AT_ONCE)):  # `silent` finds the rest
            yield from self._order(job_id, now_ms)

    def _hear_cluster(
        self, cluster: ClusterId, heartbeat: m.ClusterHeartbeat, now_ms: int
    ) -> _Decisions:
        if cluster not in self.peers:
            yield m.DisconnectCluster(cluster)  # who it is we were never told, or know no more
            return
        if heartbeat.load is not None:
            self._note_load(cluster, heartbeat.load)
        yield from self._renew(cluster, heartbeat.sequence, now_ms)

    def _renew(self, cluster: ClusterId, sequence: int, now_ms: int) -> _Decisions:
        peer = self.peers.get(cluster)
        if peer is None or not peer.attached:
            return
        peer.grant(now_ms, self._lease_ms)
        yield m.SendToCluster(cluster, m.Lease(sequence=sequence, duration_ms=self._lease_ms))

    def _note_load(self, cluster: ClusterId, load: ClusterLoad) -> None:
        self.loads[cluster] = load
        self._returning.note(cluster, load, self._seen_ms)
        self._freed()

    def _lose_cluster(self, cluster: ClusterId, now_ms: int) -> _Decisions:
        peer = self.peers.pop(cluster, None)
        heard_ms = peer.heard_ms if peer is not None else now_ms
        self.loads.pop(cluster, None)
        self._returning.drop(cluster)
        yield m.DisconnectCluster(cluster)
        yield r.ClusterLost(cluster, now_ms)
        for job_id in list(self.state.placed_in.get(cluster, ())):
            known = self.state.jobs[job_id]
            if known.status.wanted is not None and not known.status.comes_back:
                yield self._moves.ended(known, known.status.wanted, known.status.reason, now_ms)
            else:
                facts = {
                    "losses": known.status.losses + 1,
                    "saved_s": saved_s(known, heard_ms),  # what came later, nobody can vouch for
                }
                reason = f"cluster {cluster} was lost"
                yield self._moves.requeued(known, reason, now_ms, facts)

    # -- time -----------------------------------------------------------------------------------

    def _tick(self, now_ms: int) -> _Decisions:
        times = self.times
        for cluster, peer in list(self.peers.items()):
            # The cluster's nodes may run on for their own lease after its own has ended.
            if peer.surely_ended(now_ms - int(1.2 * times.node_lease_ms), self._lease_ms):
                yield from self._lose_cluster(cluster, now_ms)
        late = self.orders.late(now_ms)
        if now_ms - self._tidied_ms >= 1000:
            self._tidied_ms = now_ms
            old_ms = now_ms - times.retention_ms
            for job_id in self.state.prunable(old_ms, times.ended_kept, limit=2000):
                yield r.FederatedJobPruned(job_id)
            yield from self.state.bills.to_roll(self.state.jobs, times.bills_kept, now_ms)
            late += self.orders.silent(now_ms)
            yield from self.hauling.tick(self.market, now_ms)
            for known, why in self.state.unexplained():
                yield self._moves.moved(known, now_ms, reason=why)
        for job_id in late[:ORDERS_AT_ONCE]:
            peer_or_none = self.peers.get(self.state.jobs[job_id].status.cluster)
            if peer_or_none is not None and peer_or_none.attached:
                yield from self._order(job_id, now_ms)
        while self.state.dues and self.state.dues[0][0] <= now_ms:
            _, job_id = heapq.heappop(self.state.dues)
            due = self.state.jobs.get(job_id)
            if due is not None and (reason := accounts.run_out(due, now_ms)):
                yield from self._end(due, P.FAILED, reason, now_ms)
        yield from self._spending.tick(now_ms)
        yield from self._rescues.tick(now_ms)
        yield from self._migrations.tick(self.market, now_ms)
        if now_ms - self._reconsidered_ms >= times.reconsider_ms:
            self._reconsidered_ms = now_ms
            self._freed()
        elif not self._round_due and self.state.begins_before(now_ms):
            self._round_due = True

    # -- rounds ---------------------------------------------------------------------------------

    def _place_waiting(self, now_ms: int) -> _Decisions:
        """Jobs with equal rights get their places together, as long as there is room for each;
        whoever finds none queues somewhere, or waits."""
        self._round_due = False
        left = self.times.placements_per_round
        drawn: Together | None = None
        some_gone = bool(self._returning)
        for job_id, _ in self.state.queue.candidates(now_ms):
            known = self.state.jobs[job_id]
            held = self._spending.hold(known, now_ms)
            if held is not None:
                yield held
                continue
            without = self._planning.refused_lately(known, now_ms)
            slack = slack_of(known, now_ms)
            policy = known.job.policy or self.policy
            if known.status.left or timed.is_alone(
                known.job, slack, self.market, policy, some_gone
            ):
                yield from self._settle(drawn, now_ms)
                drawn = None
                yield from self._place_alone(known, self._planning.anew(known, now_ms), now_ms)
                left -= ALONE_COUNTS
                if left > 0:
                    continue
                self._round_due = True
                break
            job = rest_of(known, now_ms)
            rights = Rights(job.priority, job.nice, policy)
            shares = drawn is not None and drawn.shares(job)
            if drawn is None or drawn.rights != rights or shares:
                yield from self._settle(drawn, now_ms)
                drawn = self._together(rights)
            taken = drawn.take(job, without)
            if not taken and len(drawn):
                yield from self._settle(drawn, now_ms)
                drawn = self._together(rights)
                taken = drawn.take(job, without)
            if not taken:
                alone = drawn.alone(job, without)
                if alone.chosen is None:
                    yield from self._wait(known, alone.sentence, without, now_ms)
                    continue
                yield from self._dispatch(known, alone, alone.chosen, now_ms)
                drawn = None
            left -= ALONE_COUNTS if shares else 1
            if left <= 0:
                self._round_due = True
                break
        yield from self._settle(drawn, now_ms)

    def _place_alone(self, known: r.FederatedJob, planned: Planned, now_ms: int) -> _Decisions:
        if planned.later is not None and not known.status.left:
            until_ms = min(planned.later.start_ms, now_ms + planned.later.look_ms)
            reason = planned.later.words
            yield self._moves.moved(known, now_ms, not_before_ms=until_ms, reason=reason)
        elif planned.chosen is not None:
            yield from self._dispatch(known, planned, planned.chosen, now_ms)
        else:  # its shape is not passed over for its sake; it is looked at again after a while
            until_ms = now_ms + self.times.reconsider_ms
            sentence = planned.sentence
            yield self._moves.moved(known, now_ms, not_before_ms=until_ms, reason=sentence)

    def _together(self, rights: Rights) -> Together:
        ranker = self.rankers.of(rights.policy)
        return Together(rights, self.fleet, self.market, ranker, self.data)

    def _settle(self, drawn: Together | None, now_ms: int) -> _Decisions:
        for job_id, told in drawn.settled() if drawn is not None else ():
            known = self.state.jobs[job_id]
            held = self._spending.hold(known, now_ms)  # by what those before it have spent
            if held is not None:
                yield held
            elif told.chosen is not None:
                yield from self._dispatch(known, told, told.chosen, now_ms)

    def _wait(
        self, known: r.FederatedJob, sentence: str, without: tuple[ClusterId, ...], now_ms: int
    ) -> _Decisions:
        if without and known.status.reason:
            return  # whoever refused it has said why, and its likes may still fit
        self.state.queue.block(choice.shape_key(known.job), sentence)
        if known.status.reason != sentence:
            yield self._moves.moved(known, now_ms, reason=sentence)

    def _dispatch(
        self, known: r.FederatedJob, planned: Planned, place: Place, now_ms: int
    ) -> _Decisions:
        status = known.status
        placed = accounts.placed(status, place, now_ms)
        yield r.FederatedJobMoved(known.job.id, placed, now_ms)
        self._rescues.note(self.state.jobs[known.job.id], now_ms)
        self._migrations.note(self.state.jobs[known.job.id], now_ms)
        yield r.Decided(
            known.job.id,
            placed.generation,
            planned.policy,
            planned.sentence,
            planned.rows,
            planned.arithmetic,
            self.market.as_of,
            now_ms,
        )
        yield from self.hauling.brought(known.job, place, planned.places, self.market, now_ms)
        yield from self._order(known.job.id, now_ms)

    # -- small changes --------------------------------------------------------------------------

    def position(self, job: JobId) -> int | None:
        return self.state.queue.position(job)

    def _freed(self) -> None:
        self._round_due = True
        self._fleet = None
        self.state.queue.unblock()


def _ended(decision: Any) -> JobId | None:
    ends = isinstance(decision, r.FederatedJobMoved) and decision.status.phase.is_terminal
    return decision.job if ends else None
