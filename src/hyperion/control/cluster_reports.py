"""What a cluster's report about a job changes at the federation, and what it is told in answer."""

from collections.abc import Callable, Iterator
from typing import Any

from msgspec.structs import replace

from hyperion.control import accounts
from hyperion.control import messages as m
from hyperion.control import records as r
from hyperion.control.federation_state import FederationState, facts_of
from hyperion.control.moves import Moves
from hyperion.control.orders import Orders
from hyperion.control.progress import saved_s
from hyperion.model.ids import ClusterId, JobId
from hyperion.model.job import Job, JobPhase
from hyperion.placement.objective import Price

_Decisions = Iterator[Any]
P = JobPhase


class Reports:
    def __init__(
        self,
        state: FederationState,
        orders: Orders[JobId],
        price_there: Callable[[Job, ClusterId], Price | None],
    ) -> None:
        self._state = state
        self._orders = orders
        self._moves = Moves(state)
        self._price_there = price_there
        """What the job would cost in that cluster now; None where it could not go."""

    def hear(self, cluster: ClusterId, report: m.JobReport, now_ms: int) -> _Decisions:
        known = self._state.jobs.get(report.job)
        if known is not None and accounts.never_left(known.status, report):
            yield self._taken_back(known, cluster, now_ms)
            known = self._state.jobs[report.job]
        if known is None or known.status.cluster != cluster or known.status.phase.is_terminal:
            yield from self._disown(cluster, known, report)
            return
        status = known.status
        if report.generation != status.generation:
            return  # it answers an order since replaced, and will answer that one too
        self._orders.heard(report.job, now_ms)
        if report.lost or report.refused:
            yield from self._give_back(known, report, now_ms)
        elif report.version > status.version or status.answered != report.generation:
            yield from self._take_in(known, report, now_ms)
        if report.phase.is_terminal:
            forget = m.ForgetJob(job=report.job, generation=report.generation)
            yield m.SendToCluster(cluster, forget)

    def _taken_back(
        self, known: r.FederatedJob, cluster: ClusterId, now_ms: int
    ) -> r.FederatedJobMoved:
        return self._moves.moved(
            known,
            now_ms,
            phase=P.ASSIGNED,
            cluster=cluster,
            region=self._state.clusters[cluster].cluster.region,
            price=self._price_there(known.job, cluster),
            reason="",
            held="",
            leaving="",
        )

    def _disown(
        self, cluster: ClusterId, known: r.FederatedJob | None, report: m.JobReport
    ) -> _Decisions:
        """The cluster speaks of a job that is not, or no longer, its own."""
        if report.phase.is_terminal:
            forget = m.ForgetJob(job=report.job, generation=report.generation)
            yield m.SendToCluster(cluster, forget)
        elif not report.lost and report.phase is not P.STOPPING:
            newest = known.status.generation if known else 0
            if known and not known.status.phase.is_terminal and report.generation >= newest:
                return  # an old report of a placement given back: a Stop could hit the next one
            yield m.SendToCluster(
                cluster,
                m.StopJob(
                    job=report.job,
                    generation=max(newest, report.generation + 1),
                    phase=P.CANCELLED,
                    reason="the federation has placed it elsewhere or ended it",
                ),
            )

    def _give_back(self, known: r.FederatedJob, report: m.JobReport, now_ms: int) -> _Decisions:
        """The cluster does not have the job: it ends if that was wanted, else it waits again."""
        status = known.status
        if status.wanted is not None and not status.comes_back:
            yield self._moves.ended(known, status.wanted, status.reason, now_ms)
            return
        reason = status.reason if status.comes_back else report.reason
        yield self._moves.requeued(known, reason, now_ms, accounts.given_back(status, report))

    def _take_in(self, known: r.FederatedJob, report: m.JobReport, now_ms: int) -> _Decisions:
        status = known.status
        facts = facts_of(report, status)
        if report.phase.is_terminal:
            natural = report.phase is P.SUCCEEDED or status.wanted is None
            if not natural and status.comes_back:
                started_ms = report.started_at_ms or status.started_at_ms
                stopped = replace(known, status=replace(status, started_at_ms=started_ms))
                yield from self._give_back(stopped, report, now_ms)
                return
            phase = report.phase if natural else status.wanted
            reason = report.reason if natural else status.reason
            facts["started_at_ms"] = report.started_at_ms or status.started_at_ms
            yield self._moves.ended(known, phase or report.phase, reason, now_ms, facts)
            return
        if status.wanted is None:
            facts["phase"] = P.ASSIGNED if report.phase is P.QUEUED else report.phase
            facts["reason"] = report.reason
        facts |= accounts.run_on(status, report.phase, report.started_at_ms, now_ms)
        if status.started_at_ms and facts["started_at_ms"] != status.started_at_ms:
            facts["saved_s"] = saved_s(known, facts["started_at_ms"] or now_ms)
        yield self._moves.moved(known, now_ms, **facts)
