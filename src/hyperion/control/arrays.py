"""Arrays: one job, many tasks that come and go by themselves. Which start next, what ends say."""

from typing import Any

from msgspec.structs import replace

from hyperion.control.records import ClusterJob, JobStatus
from hyperion.model.allocation import Allocation, AllocationState
from hyperion.model.job import JobPhase, Restart, TaskFailure, TaskProgress, TaskRetry

FAILURES_SHOWN = 16
LOSSES_MAX = 16
"""A task whose node was lost this often has probably killed them."""
RETRIES_MAX = 1000
"""Tasks of one array that may wait for a retry, or run as one, at once; more have failed."""
BACKOFF_MAX_S = 600.0
ACTIVE = (JobPhase.QUEUED, JobPhase.RUNNING)


def progress(status: JobStatus) -> TaskProgress:
    return status.tasks or TaskProgress()


def startable(known: ClusterJob, now_ms: int) -> int:
    """How many tasks may be placed now: those that wait, up to the limit of the array."""
    array = known.job.array
    assert array is not None, f"{known.job.id} is no array"
    tasks = progress(known.status)
    ripe = sum(retry.not_before_ms <= now_ms for retry in tasks.again)
    waiting = array.size - tasks.next + ripe
    return min(waiting, array.limit - tasks.running()) if array.limit else waiting


def wants_place(known: ClusterJob) -> bool:
    """Whether any task could be placed, now or later, if there were room."""
    array = known.job.array
    if array is None or known.status.phase not in ACTIVE:
        return False
    tasks = progress(known.status)
    if array.limit and tasks.running() >= array.limit:
        return False
    return tasks.waiting(array.size) > 0


def next_due_ms(tasks: TaskProgress, size: int) -> int:
    """From when on one of those that wait may start; 0: at once."""
    if tasks.next < size:
        return 0
    return min((retry.not_before_ms for retry in tasks.again), default=0)


def take(tasks: TaskProgress, count: int, now_ms: int) -> tuple[list[int], TaskProgress]:
    """The ranks of the next tasks, those to be started again first, and the progress after that."""
    again = [retry for retry in tasks.again if retry.not_before_ms <= now_ms][:count]
    chosen = {retry.rank for retry in again}
    fresh = range(tasks.next, tasks.next + count - len(again))
    failed_before = tuple(retry for retry in again if retry.failures or retry.losses)
    return [*(retry.rank for retry in again), *fresh], replace(
        tasks,
        next=tasks.next + len(fresh),
        again=tuple(retry for retry in tasks.again if retry.rank not in chosen),
        retried=tasks.retried + failed_before,
    )


def trial(tasks: TaskProgress, rank: int) -> int:
    """Which run of the task this is, counting its own failures: 1 is the first."""
    return 1 + next((retry.failures for retry in tasks.retried if retry.rank == rank), 0)


def after_end(
    tasks: TaskProgress, a: Allocation, restart: Restart, now_ms: int, *, ending: bool = False
) -> TaskProgress:
    """The progress once a task has ended, by itself or otherwise."""
    before = next((retry for retry in tasks.retried if retry.rank == a.rank), TaskRetry(a.rank))
    failures = before.failures
    rest = tuple(retry for retry in tasks.retried if retry.rank != a.rank)
    if a.state is AllocationState.SUCCEEDED:
        return replace(tasks, succeeded=tasks.succeeded + 1, retried=rest)
    if ending:
        return replace(tasks, dropped=tasks.dropped + 1, retried=rest)
    losses = before.losses + (a.state is AllocationState.LOST)
    if a.state is not AllocationState.FAILED and losses <= LOSSES_MAX:  # no fault of its own
        return replace(
            tasks,
            again=(*tasks.again, TaskRetry(a.rank, failures, losses=losses)),
            retried=rest,
            starts=tasks.starts + 1,
        )
    shown = tasks.failures
    if len(shown) < FAILURES_SHOWN:
        shown = (*shown, TaskFailure(a.rank, a.exit_code, a.reason))
    crowd = sum(retry.failures > 0 for retry in (*tasks.again, *tasks.retried))
    if losses > LOSSES_MAX or failures >= restart.max or crowd >= RETRIES_MAX:
        return replace(tasks, failed=tasks.failed + 1, retried=rest, failures=shown)
    wait_s = min(restart.backoff_s * 2 ** min(failures, 30), BACKOFF_MAX_S)
    retry = TaskRetry(a.rank, failures + 1, now_ms + int(1000 * wait_s), losses)
    return replace(
        tasks,
        again=(*tasks.again, retry),
        retried=rest,
        starts=tasks.starts + 1,
        failures=shown,
    )


def remaining(tasks: TaskProgress, running: list[int]) -> TaskProgress:
    """The progress as another cluster would have to take it up if this one were lost now."""
    known = {retry.rank: retry for retry in tasks.retried}
    again = tuple(known.get(rank, TaskRetry(rank)) for rank in sorted(running))
    return replace(tasks, again=(*tasks.again, *again), retried=())


def end(known: ClusterJob) -> tuple[JobPhase, str, dict[str, Any]] | None:
    """How the array has ended, once each of its tasks has; else None."""
    array, tasks = known.job.array, progress(known.status)
    assert array is not None, f"{known.job.id} is no array"
    if tasks.succeeded + tasks.failed < array.size:
        return None
    if not tasks.failed:
        return JobPhase.SUCCEEDED, "", {"exit_code": 0}
    first = tasks.failures[0]
    what = first.reason or f"exit code {first.exit_code}"
    reason = f"{tasks.failed} of {array.size} tasks failed; task {array.index(first.rank)}: {what}"
    return JobPhase.FAILED, reason, {"exit_code": first.exit_code}
