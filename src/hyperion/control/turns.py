"""Whose turn it is: the policy's key of a job, and who goes before whom among those blocked."""

from typing import TYPE_CHECKING

from hyperion.control import records as r
from hyperion.control.occupancy import queue_of
from hyperion.model.ids import JobId
from hyperion.placement.candidates import Waiting

if TYPE_CHECKING:
    from hyperion.control.cluster_state import ClusterState


def key_of(state: "ClusterState", known: r.ClusterJob) -> float:
    """The policy's key for the job's turn among those of its queue."""
    if not state.policy.orders:
        return 0.0
    job, status = known.job, known.status
    gpus_milli = job.alternatives[0].gpus_milli * job.replicas
    return state.policy.order(
        Waiting(
            job=job,
            submitted_at_ms=known.submitted_at_ms,
            expected_ms=int(1000 * job.expected_s) or state.forecast.expected(job)[0],
            attained_gpu_ms=status.attained_ms * gpus_milli // 1000,
            gpus_milli=gpus_milli,
            user_share=state.occupancy.tree.user(queue_of(job), job.user).share,
        )
    )


def first_blocked(state: "ClusterState", limit: int) -> list[JobId]:
    """The first jobs, in the order of their turn, that found no room lately."""
    blocked = state.queue.blocked
    first = [
        jobs[0]
        for shape, jobs in state.queue.shapes_blocked()
        if jobs and not blocked.get(shape)  # a reason is given to those that never fit
    ]
    first.sort(key=lambda id: _turn(state.jobs[id]))
    return [job for job in first if job not in state.claims][:limit]


def goes_before(state: "ClusterState", id: JobId, other: r.ClusterJob) -> bool:
    """By class, niceness and submission, as far as one can tell without dealing out turns."""
    order = other.order or state.next_order
    theirs = (-other.job.priority, other.job.nice, order)
    return id != other.job.id and _turn(state.jobs[id]) < theirs


def _turn(known: r.ClusterJob) -> tuple[int, int, int]:
    return -known.job.priority, known.job.nice, known.order
