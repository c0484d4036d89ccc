"""The replicas of a job between their placement and its end: ordered, heard, stopped together."""

from collections.abc import Iterator
from typing import Any

from msgspec.structs import replace

from hyperion.control import arrays, dependencies, gang, saved
from hyperion.control import messages as m
from hyperion.control import records as r
from hyperion.control.cluster_state import ClusterState
from hyperion.control.orders import Orders
from hyperion.control.uplink import Uplink
from hyperion.model.allocation import Allocation
from hyperion.model.allocation import AllocationState as S
from hyperion.model.ids import AllocationId, JobId
from hyperion.model.job import JobPhase

_Decisions = Iterator[Any]
_STANDING_STILL = (S.PAUSING, S.PAUSED)


class Attempts:
    def __init__(self, state: ClusterState, uplink: Uplink, orders: Orders[AllocationId]) -> None:
        self._state = state
        self._uplink = uplink
        self._orders = orders

    def tell_later(self, job: JobId, now_ms: int) -> None:
        """Something changed but its phase: the federation is to know soon."""
        self._uplink.tell_later(job, now_ms)

    def stop(
        self,
        known: r.ClusterJob,
        after: JobPhase,
        reason: str,
        now_ms: int,
        **more: Any,
    ) -> _Decisions:
        """End all replicas; ``after`` is where the job goes once the last of them is gone."""
        live = self._state.live_of(known.job.id)
        for a in live:
            if a.state is not S.STOPPING:
                yield from self.order_stop(a, known, now_ms)
        if live:
            yield self._state.moved(
                known,
                now_ms,
                phase=JobPhase.STOPPING,
                after_stop=after,
                reason=reason,
                claim=(),
                **more,
            )
            yield from self._uplink.tell(known.job.id, now_ms)
        else:
            yield from self.arrive(known, after, reason, now_ms, **more)

    def clear(self, a: Allocation, reason: str, now_ms: int, **more: Any) -> _Decisions:
        """Make this replica leave its node, to go on elsewhere: its whole gang has to, or only
        itself if it is a task of an array."""
        known = self._state.jobs[a.job]
        if known.status.phase is JobPhase.STOPPING or a.state is S.STOPPING:
            return
        if known.job.array is not None:
            yield from self.order_stop(a, known, now_ms)
        else:
            yield from self.stop(known, JobPhase.QUEUED, reason, now_ms, **more)

    def order_stop(self, a: Allocation, known: r.ClusterJob, now_ms: int) -> _Decisions:
        stopping = replace(a, state=S.STOPPING, generation=a.generation + 1)
        yield r.AllocationMoved(stopping)
        self._orders.sent(a.id, now_ms)
        yield m.SendToNode(a.node, gang.stop_order(stopping, known))

    def arrive(
        self,
        known: r.ClusterJob,
        phase: JobPhase,
        reason: str,
        now_ms: int,
        **more: Any,
    ) -> _Decisions:
        """No replica is left: the job ends, or waits for its next attempt."""
        status = known.status
        ended_at_ms = now_ms if phase.is_terminal else 0
        if phase.is_terminal:
            more["awaits"] = ()
        else:
            if status.started_at_ms:
                more["attained_ms"] = status.attained_ms + now_ms - status.started_at_ms
            more["started_at_ms"] = 0  # the attempt that is over is told of and paid for
            more["width"] = 0
        if status.paused_for:
            more["paused_for"] = JobId("")
        if status.paused_ms:
            more["paused_ms"] = 0
        yield self._state.moved(
            known,
            now_ms,
            phase=phase,
            reason=reason,
            after_stop=None,
            ended_at_ms=ended_at_ms,
            claim=(),
            **more,
        )
        yield from self._uplink.tell(known.job.id, now_ms)

    def advance(self, job_id: JobId, now_ms: int) -> _Decisions:
        """One replica has moved: see what that means for its gang."""
        known = self._state.jobs[job_id]
        allocations = self._state.attempt_of(job_id)
        verdict = gang.judge(known, allocations, now_ms)
        match verdict:
            case gang.Wait():
                pass
            case gang.GoAhead(ready):
                yield from self._go_ahead(known, ready, now_ms)
            case gang.Started(started_at_ms):
                yield self._state.moved(
                    known, now_ms, phase=JobPhase.RUNNING, reason="", started_at_ms=started_at_ms
                )
                yield from self._uplink.tell(job_id, now_ms)
            case gang.StopRest(after, reason, changes):
                yield from self.stop(known, after, reason, now_ms, **changes)
            case gang.Ended(phase, reason, changes):
                yield from self.arrive(known, phase, reason, now_ms, **changes)

    def _go_ahead(
        self, known: r.ClusterJob, ready: tuple[Allocation, ...], now_ms: int
    ) -> _Decisions:
        for a in ready:
            yield r.AllocationMoved(replace(a, generation=a.generation + 1))
            self._orders.sent(a.id, now_ms)
        job = self._state.whole(known.job)
        allocations = gang.members(known, self._state.attempt_of(known.job.id))
        peers = gang.peers(allocations)
        ordered = {a.id for a in ready}
        attempt, resume_from = known.status.attempt, gang.resumes_from(known)
        for a in allocations:
            if a.id in ordered:
                order = gang.run_order(a, job, attempt, peers, resume_from)
                yield m.SendToNode(a.node, order)

    def end_task(self, ended: Allocation, now_ms: int) -> _Decisions:
        """A task of an array is over."""
        known = self._state.jobs[ended.job]
        tasks = arrays.after_end(
            arrays.progress(known.status),
            ended,
            known.job.restart,
            now_ms,
            ending=self._is_ending(known),
        )
        status = replace(known.status, tasks=tasks, version=known.status.version + 1)
        yield r.TaskEnded(ended, status, now_ms)
        known = self._state.jobs[ended.job]
        if known.status.phase is JobPhase.STOPPING:
            if ended.job in self._state.running.occupants:
                return  # others of it still have their places
            after = known.status.after_stop or JobPhase.QUEUED
            if after is not JobPhase.QUEUED or arrays.end(known) is None:
                yield from self.arrive(known, after, known.status.reason, now_ms)
                return
        over = arrays.end(known)
        if over is None:
            self._uplink.tell_progress(ended.job, now_ms)
        else:
            phase, reason, changes = over
            yield from self.arrive(known, phase, reason, now_ms, **changes)

    @staticmethod
    def _is_ending(known: r.ClusterJob) -> bool:
        """Its tasks are not started again, here or anywhere."""
        after = known.status.after_stop
        stays = not known.status.fenced and not known.status.comes_back
        return after is not None and after.is_terminal and stays

    def order_again(self, a: Allocation, now_ms: int) -> _Decisions:
        """The newest order about it has not been answered, or its agent did not mention it."""
        self._orders.sent(a.id, now_ms)
        known = self._state.jobs[a.job]
        if a.state is S.STOPPING:
            yield m.SendToNode(a.node, gang.stop_order(a, known))
            return
        if a.state in _STANDING_STILL:
            winner = self._state.jobs.get(known.status.paused_for)
            at_once = winner is not None and winner.job.standby is not None
            yield m.SendToNode(a.node, gang.pause_order(a, known.job, at_once=at_once))
            return
        if a.state is S.RESUMING:
            yield m.SendToNode(a.node, m.Resume(a.id, a.generation))
            return
        job = self._state.whole(known.job)
        if job.array is not None:
            trial = arrays.trial(arrays.progress(known.status), a.rank)
            yield m.SendToNode(a.node, gang.run_order(a, job, trial, (), ""))
            return
        allocations = gang.members(known, self._state.attempt_of(a.job))
        yield m.SendToNode(a.node, gang.order_again(a, known, job, allocations))

    def saved(self, a: Allocation, report: m.AllocationReport, now_ms: int) -> _Decisions:
        """A replica has written checkpoints; of a task of an array nobody else need know."""
        known = self._state.jobs[a.job]
        written = saved.news(a.checkpoints, report.checkpoints)
        if written is None or known.job.array is not None:
            return
        yield r.AllocationMoved(replace(a, checkpoints=written))
        gang_of_it = gang.members(known, self._state.attempt_of(a.job))
        whole = saved.whole(known.status.checkpoints, report.checkpoints, gang_of_it)
        if whole != known.status.checkpoints:
            yield self._state.moved(known, now_ms, checkpoints=whole, saved_at_ms=now_ms)
            self._uplink.tell_progress(a.job, now_ms)

    def release(self, ended: JobId, now_ms: int) -> _Decisions:
        """Jobs that waited for this one's end may go on, or never can."""
        phase = self._state.jobs[ended].status.phase
        for job_id in self._state.noted.dependents(ended):
            known = self._state.jobs[job_id]
            if known.status.phase.is_terminal:
                continue
            if dependencies.met(known.job, ended, phase):
                awaits = tuple(other for other in known.status.awaits if other != ended)
                reason = dependencies.waits_for(awaits)
                yield self._state.moved(known, now_ms, reason=reason, awaits=awaits)
            else:
                reason = dependencies.unmet(ended, phase)
                yield from self.arrive(known, JobPhase.CANCELLED, reason, now_ms)
