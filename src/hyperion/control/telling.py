"""The orders of a federation to a cluster, made from what is kept of a job. Pure."""

from hyperion.control import messages as m
from hyperion.control.records import FederatedJob
from hyperion.model.job import Job
from hyperion.placement import deadline


def newest_order(known: FederatedJob, whole: Job) -> m.ClusterOrder:
    """What the job's cluster is to do about it; ``whole`` is the job with its secrets."""
    status = known.status
    if status.wanted is not None:
        return m.StopJob(
            job=known.job.id,
            generation=status.generation,
            phase=status.wanted,
            reason=status.reason,
            comes_back=status.comes_back,
        )
    bound = not status.spot and deadline.is_governed(whole)
    return m.PlaceJob(
        job=deadline.off_spot(whole) if bound else whole,
        generation=status.generation,
        submitted_at_ms=known.submitted_at_ms,
        known=status.answered >= status.placed,
        tasks=status.tasks,
        checkpoints=status.checkpoints,
    )
