"""How jobs come into a cluster and are called off: by its federation, or by its own callers."""

from collections.abc import Iterator
from typing import Any

from msgspec.structs import replace

from hyperion.control import arrays, dependencies, gang
from hyperion.control import messages as m
from hyperion.control import records as r
from hyperion.control.attempts import Attempts
from hyperion.control.cluster_state import ClusterState
from hyperion.control.occupancy import need_of_job, queue_of
from hyperion.control.uplink import Uplink
from hyperion.model.cluster import Cluster
from hyperion.model.ids import JobId
from hyperion.model.job import Job, JobPhase
from hyperion.model.queue import DEFAULT_QUEUE, Queue, check_queues

_Decisions = Iterator[Any]


class Intake:
    def __init__(
        self, cluster: Cluster, state: ClusterState, uplink: Uplink, attempts: Attempts
    ) -> None:
        self._cluster = cluster
        self._state = state
        self._uplink = uplink
        self._attempts = attempts

    # -- the federation's orders ----------------------------------------------------------------

    def place(self, order: m.PlaceJob, now_ms: int) -> _Decisions:
        job = order.job
        known = self._state.jobs.get(job.id)
        if known is None:
            yield from self._place_new(order, now_ms)
        elif not known.federated:
            reason = f"cluster {self._cluster.id} has a job of that id of its own"
            yield self._refused(order, reason)
        elif order.generation <= known.status.generation:
            yield from self._uplink.tell(job.id, now_ms)
        elif known.status.phase.is_terminal and gang.is_void(known.status):
            if self._uplink.lease.is_valid(now_ms):  # it ended here only since it was ordered away
                version = known.status.version + 1
                yield from self._accept(job, version, now_ms, order)
        else:  # it never left: the new order finds it as it is
            yield self._state.moved(known, now_ms, generation=order.generation)
            yield from self._uplink.tell(job.id, now_ms)

    def _place_new(self, order: m.PlaceJob, now_ms: int) -> _Decisions:
        job = order.job
        mark = self._state.marks.get(job.id)
        overtaken = mark is not None and order.generation <= mark.generation
        if order.known or overtaken:
            yield m.SendToFederation(
                m.JobReport(
                    job=job.id,
                    generation=order.generation,
                    version=0,
                    phase=JobPhase.QUEUED,
                    lost=True,
                    reason=f"cluster {self._cluster.id} no longer knows it",
                )
            )
            return
        closed = self.closed_to(job)
        if closed:
            yield self._refused(order, closed)
        elif self._uplink.lease.is_valid(now_ms):
            yield from self._accept(job, 1, now_ms, order)

    def stop_ordered(self, order: m.StopJob, now_ms: int) -> _Decisions:
        known = self._state.jobs.get(order.job)
        if known is None:
            # A PlaceJob may still be on its way: it must find that its time has passed.
            mark = self._state.marks.get(order.job)
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
        if not known.federated:
            yield m.SendToFederation(
                m.JobReport(
                    job=order.job,
                    generation=order.generation,
                    version=0,
                    phase=order.phase,
                    reason=f"cluster {self._cluster.id} has a job of that id of its own",
                )
            )
            return
        if order.generation > known.status.generation:
            yield self._state.moved(known, now_ms, generation=order.generation)
            known = self._state.jobs[order.job]
            if not known.status.phase.is_terminal and known.status.after_stop != order.phase:
                yield from self._attempts.stop(
                    known, order.phase, order.reason, now_ms, comes_back=order.comes_back
                )
        yield from self._uplink.tell(order.job, now_ms)

    # -- the cluster's own callers --------------------------------------------------------------

    def submit(self, job: Job, token: int, now_ms: int) -> _Decisions:
        state = self._state
        if job.id not in state.jobs and job.id not in state.marks:
            refusal = self.closed_to(job) or dependencies.refusal(job, self._phase_of)
            if refusal:
                yield m.Answer(token, job.id, refusal, "conflict")
                return
            yield from self._accept(job, 1, now_ms)
        yield m.Answer(token, job.id)

    def cancel(self, job_id: JobId, by: str, token: int, now_ms: int) -> _Decisions:
        known = self._state.jobs.get(job_id)
        if known is None:
            yield m.Answer(token, job_id, f"no job {job_id}", "not_found")
            return
        if not known.status.phase.is_terminal:
            reason = f"cancelled by {by}" if by else "cancelled"
            yield from self._attempts.stop(known, JobPhase.CANCELLED, reason, now_ms)
        yield m.Answer(token, job_id)

    # -- both -----------------------------------------------------------------------------------

    def closed_to(self, job: Job) -> str:
        """Why the queue that the job names does not take it; empty when it does."""
        if job.reservation and job.reservation not in self._state.windows:
            return f"cluster {self._cluster.id} has no window {job.reservation}"
        tree, name = self._state.occupancy.tree, queue_of(job)
        objection = tree.objection(name, job.user)
        if objection:
            return objection
        branch = tree.branch(name)
        if (branch.stopped or True in branch.named) and not tree.ever(name, need_of_job(job)):
            return f'it asks for more than queue "{name}" may ever hold; see hyperion queues'
        return ""

    def apply_queues(self, queues: tuple[Queue, ...], token: int, now_ms: int) -> _Decisions:
        faults = [f"{fault.pointer}: {fault.message}" for fault in check_queues(queues)]
        names = {DEFAULT_QUEUE, *(queue.name for queue in queues)}
        in_use = {
            queue_of(known.job)
            for known in self._state.jobs.values()
            if not known.status.phase.is_terminal
        }
        faults += [
            f'/queues: queue "{name}" has jobs; let them end or cancel them first'
            for name in sorted(in_use - names)
        ]
        if faults:
            yield m.Answer(token, error="; ".join(faults[:10]), code="conflict")
            return
        yield r.QueuesKept(queues, now_ms)
        yield m.Answer(token)
        yield from self._give_back(now_ms)

    def _give_back(self, now_ms: int) -> _Decisions:
        """What waits here for more than its queue may hold from now on can run elsewhere."""
        for job_id in list(self._state.jobs):
            known = self._state.jobs[job_id]
            if not known.federated or known.status.phase is not JobPhase.QUEUED:
                continue
            reason = self.closed_to(known.job)
            if reason:
                yield from self._attempts.arrive(
                    known, JobPhase.CANCELLED, reason, now_ms, refused=True
                )

    def _phase_of(self, job: JobId) -> JobPhase | None:
        known = self._state.jobs.get(job)
        return None if known is None else known.status.phase

    def _accept(
        self, job: Job, version: int, now_ms: int, placed: m.PlaceJob | None = None
    ) -> _Decisions:
        """``placed`` by the federation, or the cluster's own."""
        federated = placed is not None
        if job.secrets:
            yield r.SecretsKept(job.id, job.secrets)
            job = replace(job, secrets={})
        yield r.JobAccepted(
            job,
            federated,
            placed.generation if placed else 0,
            version,
            placed.submitted_at_ms if placed else now_ms,
            self._state.next_order,
            now_ms,
            placed.tasks if placed else None,
            placed.checkpoints if placed else (),
        )
        known = self._state.jobs[job.id]
        over = arrays.end(known) if job.array is not None else None
        if over is not None:  # all of its tasks had ended before it came here
            phase, reason, changes = over
            yield from self._attempts.arrive(known, phase, reason, now_ms, **changes)
            return
        if job.begin_s or (job.after and not federated):
            yield from self._put_off(self._state.jobs[job.id], now_ms)
        if federated:
            self._uplink.tell_later(job.id, now_ms)

    def _put_off(self, known: r.ClusterJob, now_ms: int) -> _Decisions:
        """It may not start yet: other jobs have to end first, or its time has not come. (The
        federation sees to the dependencies of its own jobs, which may lie in other clusters.)"""
        job = known.job
        awaits = () if known.federated else dependencies.awaited(job, self._phase_of)
        due_ms = known.submitted_at_ms + int(1000 * job.begin_s) if job.begin_s else 0
        if awaits or due_ms > now_ms:
            reason = dependencies.waits_for(awaits)
            yield self._state.moved(
                known, now_ms, not_before_ms=due_ms, awaits=awaits, reason=reason
            )

    def _refused(self, order: m.PlaceJob, reason: str) -> m.SendToFederation:
        return m.SendToFederation(
            m.JobReport(
                job=order.job.id,
                generation=order.generation,
                version=0,
                phase=JobPhase.CANCELLED,
                refused=True,
                reason=reason,
            )
        )
