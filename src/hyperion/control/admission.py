"""How jobs come to the federation and are called off, and whose wait for others is over."""

from collections.abc import Callable, Iterator
from typing import Any

from msgspec.structs import replace

from hyperion.control import dependencies
from hyperion.control import messages as m
from hyperion.control import records as r
from hyperion.control.federation_state import FederationState
from hyperion.control.hauling import Hauling
from hyperion.control.moves import Moves
from hyperion.model.ids import JobId
from hyperion.model.job import Job, JobPhase

_Decisions = Iterator[Any]
P = JobPhase


class Admission:
    def __init__(
        self,
        state: FederationState,
        queue_max: int,
        hauling: Hauling,
        end: Callable[[r.FederatedJob, JobPhase, str, int], _Decisions],
    ) -> None:
        self._state = state
        self._queue_max = queue_max
        self._hauling = hauling
        self._end = end
        """How a job is stopped wherever it is."""
        self._moves = Moves(state)

    def submit(self, job: Job, token: int, now_ms: int) -> _Decisions:
        if job.id in self._state.jobs:
            yield m.Answer(token, job.id)  # a retried submit is not a second job
            return
        if len(self._state.queue) + self._state.budgets.waiting >= self._queue_max:
            error = f"the queue is full ({self._queue_max} jobs wait); try again later"
            yield m.Answer(token, job.id, error, "exhausted")
            return
        refusal = dependencies.refusal(job, self._state.phase_of) or self._hauling.refusal(job)
        if refusal:
            yield m.Answer(token, job.id, refusal, "conflict")
            return
        if job.secrets:
            yield r.SecretsKept(job.id, job.secrets)
        bare = replace(job, secrets={}) if job.secrets else job
        yield r.FederatedJobAccepted(bare, self._state.next_order, now_ms)
        awaits = dependencies.awaited(job, self._state.phase_of)
        reason = dependencies.not_yet(job, awaits, 0)
        if reason:
            known = self._state.jobs[job.id]
            yield self._moves.moved(known, now_ms, awaits=awaits, reason=reason)
        yield m.Answer(token, job.id)

    def release(self, ended: JobId, now_ms: int) -> _Decisions:
        """Jobs that waited for this one's end may be placed, or never can be."""
        phase = self._state.jobs[ended].status.phase
        if phase is P.SUCCEEDED:
            yield from self._hauling.written(self._state.jobs[ended].job, now_ms)
        for job_id in self._state.dependents(ended):
            known = self._state.jobs[job_id]
            awaits = tuple(other for other in known.status.awaits if other != ended)
            if dependencies.met(known.job, ended, phase):
                waited_ms = now_ms - known.submitted_at_ms
                reason = dependencies.not_yet(known.job, awaits, waited_ms)
                yield self._moves.moved(known, now_ms, awaits=awaits, reason=reason)
            else:
                reason = dependencies.unmet(ended, phase)
                yield self._moves.moved(
                    known, now_ms, phase=P.CANCELLED, awaits=(), reason=reason, ended_at_ms=now_ms
                )

    def cancel(self, job_id: JobId, by: str, token: int, now_ms: int) -> _Decisions:
        known = self._state.jobs.get(job_id)
        if known is None:
            yield m.Answer(token, job_id, f"no job {job_id}", "not_found")
            return
        reason = f"cancelled by {by}" if by else "cancelled"
        yield from self._end(known, P.CANCELLED, reason, now_ms)
        yield m.Answer(token, job_id)
