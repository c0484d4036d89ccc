"""Cheap jobs moved together, when one that waits would fit in what is free were it in one piece."""

from collections.abc import Iterator
from typing import Any

from hyperion.control import records as r
from hyperion.control import turns
from hyperion.control.cluster_state import ClusterState
from hyperion.control.occupancy import queue_of
from hyperion.control.preempting import Preempting
from hyperion.control.seating import Seating
from hyperion.control.uplink import ClusterTimes
from hyperion.model.ids import JobId
from hyperion.model.job import Job
from hyperion.placement.consolidation import MoveBudget, consolidation
from hyperion.placement.ranking import Policy
from hyperion.placement.regret import USD_PER_CPU_HOUR, USD_PER_GPU_HOUR
from hyperion.placement.rights import Rights

LOOKED_AT = 4
"""Of the first blocked jobs, for one that may be helped so."""
EVERY_MS = 5000
"""A search costs tens of milliseconds in a large cluster."""
AGAIN_MS = 60_000
"""A job for which nobody could be moved is looked at again after this long."""
UNKNOWN_WAIT_H = 1.0
GAIN_SHARE = 0.25
"""Of what the waiting costs: work thrown away is certain, the wait is an estimate."""
_Decisions = Iterator[Any]


class Consolidating:
    def __init__(
        self,
        policy: Policy,
        times: ClusterTimes,
        state: ClusterState,
        seating: Seating,
        preempting: Preempting,
    ) -> None:
        self._policy = policy
        self._times = times
        self._state = state
        self._seating = seating
        self._preempting = preempting
        self._looked_ms = 0
        self._tried: dict[JobId, int] = {}

    def each_second(self, now_ms: int) -> _Decisions:
        """Move jobs for one that waits, if that costs less than its waiting."""
        if now_ms - self._looked_ms < EVERY_MS:
            return
        self._looked_ms = now_ms
        self._tried = {j: at for j, at in self._tried.items() if now_ms - at < AGAIN_MS}
        for job_id in turns.first_blocked(self._state, LOOKED_AT):
            known = self._state.jobs[job_id]
            if job_id not in self._tried and self._may_be_helped(known, now_ms):
                self._tried[job_id] = now_ms
                yield from self._move_for(known, now_ms)
                return

    def _may_be_helped(self, known: r.ClusterJob, now_ms: int) -> bool:
        job = known.job
        in_pieces = (
            job.least_replicas > 1 or job.packing is not None or job.alternatives[0].whole_gpus > 1
        )
        waited_ms = now_ms - known.submitted_at_ms
        ripe = waited_ms >= self._times.consolidate_after_ms
        return in_pieces and ripe and self._state.occupancy.admits(job)

    def _move_for(self, known: r.ClusterJob, now_ms: int) -> _Decisions:
        state, job = self._state, known.job
        found = consolidation(
            state.snapshot,
            state.running,
            self._seating.wish(known, 1, now_ms),
            self._policy,
            Rights.of(job, queue_of(job)),
            state.calendar,
            now_ms,
            MoveBudget(gain_usd=GAIN_SHARE * _hourly_usd(job) * self._wait_h(known, now_ms)),
            self._job,
        )
        if found is not None:
            reason = f"moved elsewhere to make room for job {job.id}"
            yield from self._preempting.evict(known, found, now_ms, reason)

    def _wait_h(self, known: r.ClusterJob, now_ms: int) -> float:
        promise = self._state.calendar.promises.get(known.job.id)
        if promise is None:
            return UNKNOWN_WAIT_H
        return max(0, promise.at_ms - now_ms) / 3_600_000

    def _job(self, id: JobId) -> Job | None:
        known = self._state.jobs.get(id)
        return None if known is None else known.job


def _hourly_usd(job: Job) -> float:
    """As regret counts it, so that the two sides compare."""
    usd = 0.0
    for rank in range(job.least_replicas):
        request = job.request(rank, 0)
        usd += request.gpus_milli * USD_PER_GPU_HOUR + request.cpus_milli * USD_PER_CPU_HOUR
    return usd / 1000
