"""How far a federated job has come: the work that stays whatever becomes of its machines. Pure."""

from msgspec.structs import replace

from hyperion.control.records import FederatedJob
from hyperion.model.job import Job
from hyperion.placement.deadline import Slack, slack

LEAST_LEFT_S = 60.0
"""Of a job that has run for longer than it said, so much is taken to be left."""


def saved_s(known: FederatedJob, until_ms: int) -> float:
    """Seconds of the job's ``expected`` time that checkpoints hold by then, of all attempts.

    What is reported counts. Where a job has reported none and says how often it writes one, it is
    believed. Nodes' clocks date checkpoints: none is taken for newer than the run.
    """
    job, status = known.job, known.status
    if not status.started_at_ms:
        return status.saved_s
    run_s = max(0.0, (until_ms - status.started_at_ms) / 1000.0)
    newest_ms = max((c.at_ms for c in status.checkpoints), default=0)
    kept_s = 0.0
    if newest_ms:
        kept_s = min(run_s, (newest_ms - status.started_at_ms) / 1000.0)
    elif job.checkpoint.every_s > 0:
        kept_s = run_s - job.checkpoint.every_s
    if status.saved_s:  # this attempt began with the way back
        kept_s -= job.checkpoint.restore_s
    return status.saved_s + max(0.0, kept_s)


def rest_of(known: FederatedJob, now_ms: int) -> Job:
    """The job as places are ranked for it: as long as what is left of it takes, with the way back.

    Not one that reads or writes datasets, whose copies are kept for the time of the whole job.
    """
    job, done_s = known.job, saved_s(known, now_ms)
    if done_s <= 0 or job.expected_s <= 0 or job.array is not None or job.datasets:
        return job
    left_s = max(LEAST_LEFT_S, job.expected_s - done_s) + job.checkpoint.restore_s
    return replace(job, expected_s=min(job.expected_s, left_s))


def slack_of(known: FederatedJob, now_ms: int) -> Slack:
    return slack(known.job, known.submitted_at_ms, now_ms, saved_s(known, now_ms))
