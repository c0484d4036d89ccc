"""From a plan to orders: a job, some tasks of an array, or more replicas of one that runs."""

from collections.abc import Iterator
from typing import Any

from msgspec.structs import replace

from hyperion.control import arrays, gang
from hyperion.control import messages as m
from hyperion.control import records as r
from hyperion.control.attempts import Attempts
from hyperion.control.cluster_state import ClusterState
from hyperion.control.orders import Orders
from hyperion.control.uplink import ClusterTimes, Uplink
from hyperion.model.allocation import Allocation
from hyperion.model.ids import AllocationId, JobId, allocation_id
from hyperion.model.job import JobPhase
from hyperion.placement import planner
from hyperion.placement.planner import Plan, Wish
from hyperion.placement.ranking import Policy

_Decisions = Iterator[Any]
RESIZES_REMEMBERED = 10_000
OVERRUNS_REMEMBERED = 10_000
MOST_DOUBLINGS = 20
GROWN_AT_ONCE = 8
"""Elastic jobs that are looked at in one step."""


class Seating:
    def __init__(
        self,
        policy: Policy,
        times: ClusterTimes,
        state: ClusterState,
        uplink: Uplink,
        orders: Orders[AllocationId],
        attempts: Attempts,
    ) -> None:
        self._policy = policy
        self._times = times
        self._state = state
        self._uplink = uplink
        self._orders = orders
        self._attempts = attempts
        self._resized_ms: dict[JobId, int] = {}
        self._overran: dict[JobId, int] = {}
        """How often a job was stopped as it ran longer than expected on promised places."""

    def overran(self, job: JobId) -> None:
        """Its estimate is believed less each time: half. Else it would be let in, and stopped for
        whom it keeps waiting, for ever."""
        times = self._overran.pop(job, 0)
        self._overran[job] = min(times + 1, MOST_DOUBLINGS)
        if len(self._overran) > OVERRUNS_REMEMBERED:
            del self._overran[next(iter(self._overran))]

    def _ends_at_ms(self, known: r.ClusterJob, now_ms: int) -> int:
        """When it has to be reckoned to end if it starts now; 0 where nothing tells."""
        ends_ms = self._state.ends_at_ms(known, now_ms) if known.job.expected_s else 0
        times = self._overran.get(known.job.id, 0)
        if not times:
            return ends_ms
        lasts_ms = ends_ms - now_ms if ends_ms else self._state.calendar.unknown_ms
        return now_ms + (lasts_ms << times)

    def wish(self, known: r.ClusterJob, room: int, now_ms: int) -> Wish:
        """What the planner is to find a place for, at most ``room`` replicas of an array."""
        job = known.job
        ends_at_ms = self._ends_at_ms(known, now_ms)
        if job.array is not None:
            most = self._state.quota_room(known, min(arrays.startable(known, now_ms), room))
            return Wish(job, at_least=1, at_most=max(1, most), ends_at_ms=ends_at_ms)
        if job.elastic is not None:
            most = self._state.quota_room(known, job.replicas)
            least = job.elastic.min
            return Wish(job, at_least=least, at_most=max(least, most), ends_at_ms=ends_at_ms)
        return Wish(job, ends_at_ms=ends_at_ms)

    def start(self, known: r.ClusterJob, plan: Plan, now_ms: int) -> _Decisions:
        if known.job.array is not None:
            yield from self._start_tasks(known, plan, now_ms)
            return
        status, width = known.status, len(plan.seats)
        starting = replace(  # in so many words, for this is done for every job
            status,
            version=status.version + 1,
            phase=JobPhase.STARTING,
            attempt=status.attempt + 1,
            alternative=plan.alternative,
            width=0 if width == known.job.replicas else width,
            claim=(),
            claimed_until_ms=0,
            reason="",
        )
        yield r.JobMoved(known.job.id, starting, now_ms)
        yield from self._seat(known.job.id, plan, 0, now_ms)
        if known.federated:
            self._uplink.tell_later(known.job.id, now_ms)

    def grow(self, now_ms: int) -> _Decisions:
        """Give elastic jobs more replicas where nobody waits who could use the room."""
        if self._state.queue.next_due_ms(now_ms):
            return
        for job_id in self._state.noted.growable(
            self._state.jobs, now_ms - self._times.grow_after_ms, GROWN_AT_ONCE
        ):
            known = self._state.jobs[job_id]
            if not self._may_grow(known, now_ms):
                continue
            width = gang.width(known)
            most = self._state.quota_room(known, known.job.replicas - width)
            if most <= 0:
                continue
            wish = Wish(
                known.job,
                at_least=1,
                at_most=most,
                first_rank=width,
                ends_at_ms=self._state.ends_at_ms(known, now_ms),
            )
            plan = planner.plan(
                self._state.snapshot, wish, self._policy, self._state.calendar, now_ms
            )
            if isinstance(plan, Plan) and plan.alternative == known.status.alternative:
                yield from self._grow(known, width, plan, now_ms)

    def _may_grow(self, known: r.ClusterJob, now_ms: int) -> bool:
        """Not while ranks that it has given up are still ending, nor once any has ended; and not
        by a restart that would cost what no checkpoint has saved."""
        elastic, status, checkpoint = known.job.elastic, known.status, known.job.checkpoint
        resized_ms = self._resized_ms.get(known.job.id, 0)
        if elastic is None or now_ms - resized_ms < self._times.grow_after_ms:
            return False
        if any(
            a.state.is_terminal if a.rank < gang.width(known) else not a.state.is_terminal
            for a in self._state.attempt_of(known.job.id)
        ):
            return False
        ran_ms = now_ms - status.started_at_ms
        saves = bool(checkpoint.dir) or checkpoint.every_s > 0
        return not elastic.restart or (saves and ran_ms >= 1000 * known.job.min_runtime_s)

    def resized(self, job: JobId, now_ms: int) -> None:
        """It has grown or shrunk: it is left alone for a while."""
        if len(self._resized_ms) >= RESIZES_REMEMBERED:
            del self._resized_ms[next(iter(self._resized_ms))]
        self._resized_ms[job] = now_ms

    def _grow(self, known: r.ClusterJob, width: int, plan: Plan, now_ms: int) -> _Decisions:
        wider = width + len(plan.seats)
        assert known.job.elastic is not None, f"{known.job.id} is not elastic"
        if known.job.elastic.restart:
            reason = f"starts anew with {wider} instead of {width} replicas"
            yield from self._attempts.stop(known, JobPhase.QUEUED, reason, now_ms)
            return
        resizes = known.status.resizes + 1
        self.resized(known.job.id, now_ms)
        yield self._state.moved(known, now_ms, width=wider, resizes=resizes)
        self._uplink.tell_later(known.job.id, now_ms)
        yield from self._seat(known.job.id, plan, width, now_ms)

    def _seat(self, job_id: JobId, plan: Plan, first_rank: int, now_ms: int) -> _Decisions:
        known = self._state.jobs[job_id]
        status, job = known.status, self._state.whole(known.job)
        width, resume_from = gang.width(known), gang.resumes_from(known)
        for rank, seat in enumerate(plan.seats, first_rank):
            a = Allocation(
                id=allocation_id(job.id, status.generation, status.attempt, rank, status.resizes),
                job=job.id,
                rank=rank,
                node=seat.node,
                request=job.request(rank, plan.alternative),
                devices=seat.devices,
                placed_at_ms=now_ms,
            )
            yield r.AllocationPlaced(a)
            self._orders.sent(a.id, now_ms)
            order = gang.first_order(a, job, status.attempt, width, resume_from)
            yield m.SendToNode(a.node, order)

    def _start_tasks(self, known: r.ClusterJob, plan: Plan, now_ms: int) -> _Decisions:
        """The next tasks of an array, each by itself."""
        before = arrays.progress(known.status)
        ranks, tasks = arrays.take(before, len(plan.seats), now_ms)
        yield self._state.moved(
            known,
            now_ms,
            phase=JobPhase.RUNNING,
            alternative=plan.alternative,
            started_at_ms=known.status.started_at_ms or now_ms,
            tasks=tasks,
            claim=(),
            claimed_until_ms=0,
            reason="",
        )
        job = self._state.whole(known.job)
        for rank, seat in zip(ranks, plan.seats, strict=True):
            a = Allocation(
                id=allocation_id(job.id, known.status.generation, tasks.starts + 1, rank),
                job=job.id,
                rank=rank,
                node=seat.node,
                request=job.alternatives[plan.alternative],
                devices=seat.devices,
                placed_at_ms=now_ms,
            )
            yield r.AllocationPlaced(a)
            self._orders.sent(a.id, now_ms)
            yield m.SendToNode(a.node, gang.run_order(a, job, arrays.trial(tasks, rank), (), ""))
        self._uplink.tell_progress(job.id, now_ms)
