"""Jobs with a deadline leave spot machines while there is still time to end elsewhere.

Each that is placed on spot has an instant noted at which its slack may be used up. When that comes
it is reckoned anew, since checkpoints may have come meanwhile; if it holds, the job is stopped
where it is and goes back to the queue, from where it takes no spot machine any more.
"""

import heapq
from collections.abc import Callable, Iterator
from typing import Any

from hyperion.control.federation_state import FederationState
from hyperion.control.moves import Moves
from hyperion.control.progress import slack_of
from hyperion.control.records import FederatedJob
from hyperion.model.ids import JobId
from hyperion.model.job import JobPhase
from hyperion.placement import deadline
from hyperion.placement.choice import Place

AGAIN_MS = 10_000
"""One that should leave and has nowhere to go is looked at again after this long."""
LOOKED_AT_ONCE = 100
"""Jobs for which another place is looked for in one step; the others are next."""
_Decisions = Iterator[Any]


class Rescues:
    def __init__(
        self,
        state: FederationState,
        refuge: Callable[[FederatedJob, int], Place | None],
        end: Callable[[FederatedJob, JobPhase, str, int], _Decisions],
    ) -> None:
        self._state = state
        self._refuge = refuge
        """Where it would go if it left now."""
        self._end = end
        """How a job is stopped wherever it is."""
        self._moves = Moves(state)
        self._due: list[tuple[int, JobId, int]] = []
        """A heap: (when to look, job, generation of the placement it is about)."""

    def note(self, known: FederatedJob, now_ms: int) -> None:
        """It has been placed, or is found after a restart."""
        status = known.status
        if status.spot and not status.phase.is_terminal and deadline.is_governed(known.job):
            stays_s = deadline.leaves_in_s(known.job, slack_of(known, now_ms))
            at_ms = now_ms + int(1000 * stays_s)
            heapq.heappush(self._due, (at_ms, known.job.id, known.status.placed))

    def tick(self, now_ms: int) -> _Decisions:
        again: list[FederatedJob] = []
        looked = 0
        while self._due and self._due[0][0] <= now_ms and looked < LOOKED_AT_ONCE:
            _, job_id, placed = heapq.heappop(self._due)
            known = self._state.jobs.get(job_id)
            if known is None or known.status.phase.is_terminal or known.status.placed != placed:
                continue
            slack = slack_of(known, now_ms)
            place = None
            if _may_leave(known, now_ms) and deadline.must_leave_spot(known.job, slack):
                looked += 1
                place = self._refuge(known, now_ms)
            if place is None or not place.has_room:
                again.append(known)
                continue
            reason = f"leaves spot machines: {deadline.why_off_spot(known.job, slack)}"
            yield self._moves.moved(known, now_ms, leaving=reason)
            yield from self._end(self._state.jobs[job_id], JobPhase.CANCELLED, reason, now_ms)
        for known in again:
            stays_ms = int(1000 * deadline.leaves_in_s(known.job, slack_of(known, now_ms)))
            at_ms = now_ms + max(AGAIN_MS, stays_ms)
            heapq.heappush(self._due, (at_ms, known.job.id, known.status.placed))


def _may_leave(known: FederatedJob, now_ms: int) -> bool:
    """Not one that waits (its cluster, if it was lost, may have it still), nor one on its way out,
    nor one that has run for longer than it said: nobody knows how long it would take elsewhere."""
    status = known.status
    if not status.cluster or status.wanted is not None:
        return False
    ran_s = (now_ms - status.started_at_ms) / 1000.0 if status.started_at_ms else 0.0
    return ran_s < known.job.expected_s * (1.0 + deadline.MARGIN)
