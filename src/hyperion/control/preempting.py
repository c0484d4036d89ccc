"""Room made for one job at the cost of others: victims stop, and their places are kept for it."""

from collections.abc import Iterator
from typing import Any

from hyperion.control import records as r
from hyperion.control.attempts import Attempts
from hyperion.control.cluster_state import ClusterState
from hyperion.control.pausing import Pausing
from hyperion.control.seating import Seating
from hyperion.model.allocation import AllocationState as S
from hyperion.model.ids import JobId
from hyperion.model.job import JobPhase
from hyperion.placement.planner import Plan
from hyperion.placement.preemption import Eviction

_Decisions = Iterator[Any]
CLAIM_EXTRA_MS = 15_000
"""How long beyond the victims' grace a claim lasts; then the job waits like any other."""


class Preempting:
    """Carries out what ``placement.preemption`` has chosen."""

    def __init__(
        self, state: ClusterState, attempts: Attempts, seating: Seating, pausing: Pausing
    ) -> None:
        self._state = state
        self._attempts = attempts
        self._seating = seating
        self.pausing = pausing
        self.count = 0
        """Jobs and tasks stopped for others since the start of the process."""

    def evict(
        self, known: r.ClusterJob, eviction: Eviction, now_ms: int, reason: str = ""
    ) -> _Decisions:
        """Stop the victims, or let them stand still, and keep their places for the job."""
        state = self._state
        if self.pausing.will_do(known, eviction, now_ms):
            yield from self.pausing.pause(known, eviction, claims(eviction.plan), now_ms)
            return
        reason = reason or f"preempted by job {known.job.id}"
        losers = {*eviction.victims, *(job for job, _ in (*eviction.shrink, *eviction.tasks))}
        nodes = {seat.node for seat in eviction.plan.seats}
        gone_first = losers | {a.job for a in state.running.leaving if a.node in nodes}
        grace_s = max(state.jobs[job].job.checkpoint.grace_s for job in gone_first)
        for victim in eviction.victims:
            loser = state.jobs[victim]
            preemptions = loser.status.preemptions + 1
            yield from self._attempts.stop(
                loser, JobPhase.QUEUED, reason, now_ms, preemptions=preemptions
            )
        for victim, width in eviction.shrink:
            yield from self.shrink(victim, width, now_ms)
        for victim, rank in eviction.tasks:
            yield from self._stop_task(victim, rank, reason, now_ms)
        stopped = len(eviction.victims) + len(eviction.shrink) + len(eviction.tasks)
        self.count += stopped
        yield state.moved(
            state.jobs[known.job.id],
            now_ms,
            alternative=eviction.plan.alternative,
            claim=claims(eviction.plan),
            claims_over=False,
            claimed_until_ms=now_ms + int(1000 * grace_s) + CLAIM_EXTRA_MS,
            reason=f"waits until what it preempts is gone ({stopped} of lower rank)",
        )

    def claim(self, known: r.ClusterJob, plan: Plan, now_ms: int) -> _Decisions:
        """Others are being stopped already, and their places will do: keep them for the job."""
        yield self._state.moved(
            known,
            now_ms,
            alternative=plan.alternative,
            claim=claims(plan),
            claims_over=False,
            claimed_until_ms=now_ms + 2 * CLAIM_EXTRA_MS,
            reason="waits until others, which are being stopped already, are gone",
        )

    def shrink(self, job: JobId, width: int, now_ms: int) -> _Decisions:
        """An elastic job gives up its last ranks and runs on."""
        known = self._state.jobs[job]
        self._seating.resized(job, now_ms)
        for a in self._state.live_of(job):
            if a.rank >= width and a.state is not S.STOPPING:
                yield from self._attempts.order_stop(a, known, now_ms)
        yield self._state.moved(
            self._state.jobs[job], now_ms, width=width, resizes=known.status.resizes + 1
        )
        self._attempts.tell_later(job, now_ms)

    def _stop_task(self, job: JobId, rank: int, reason: str, now_ms: int) -> _Decisions:
        for a in self._state.live_of(job):
            if a.rank == rank:
                yield from self._attempts.clear(a, reason, now_ms)
        known = self._state.jobs[job]
        yield self._state.moved(known, now_ms, preemptions=known.status.preemptions + 1)
        self._attempts.tell_later(job, now_ms)


def claims(plan: Plan) -> tuple[r.Claim, ...]:
    """The seats of a plan as what the job's status remembers of them."""
    return tuple(r.Claim(rank, seat.node, seat.devices) for rank, seat in enumerate(plan.seats))
