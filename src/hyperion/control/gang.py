"""What becomes of a gang when one of its replicas moves, and the orders that make it so. Pure."""

from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from hyperion.control import arrays
from hyperion.control import messages as m
from hyperion.control import records as r
from hyperion.model.allocation import Allocation
from hyperion.model.allocation import AllocationState as S
from hyperion.model.job import Job, JobPhase, ReplicaStatus
from hyperion.placement import explain
from hyperion.placement.planner import Unplaceable

LOSSES_MAX = 16
"""A job whose nodes were lost this often has probably killed them."""
BACKOFF_MAX_S = 600.0
FENCE_GRACE_MS = 1000
HOLD_EXTRA_MS = 5000
REPLICAS_REPORTED = 64
"""Larger gangs report the first so many ranks, failed ones first."""


class Wait(Struct, frozen=True):
    """Nothing follows."""


class GoAhead(Struct, frozen=True):
    """These hold what they need: run them. All of a gang, or those that have joined a live one."""

    ready: tuple[Allocation, ...]


class Started(Struct, frozen=True):
    at_ms: int


class StopRest(Struct, frozen=True):
    after: JobPhase
    reason: str
    changes: dict[str, Any]


class Ended(Struct, frozen=True):
    phase: JobPhase
    reason: str
    changes: dict[str, Any]


Verdict = Wait | GoAhead | Started | StopRest | Ended


def judge(known: r.ClusterJob, allocations: Sequence[Allocation], now_ms: int) -> Verdict:
    """What the states of all replicas together mean for the job."""
    status = known.status
    over = all(a.state.is_terminal for a in allocations)
    allocations = members(known, allocations)
    states = {a.state for a in allocations}
    if states == {S.SUCCEEDED} and not status.phase.is_terminal:
        return Ended(JobPhase.SUCCEEDED, "", {"exit_code": 0}) if over else Wait()
    if status.phase is JobPhase.STOPPING:
        return Ended(status.after_stop or JobPhase.QUEUED, status.reason, {}) if over else Wait()
    if status.phase not in (JobPhase.STARTING, JobPhase.RUNNING):
        return Wait()
    if states & {S.FAILED, S.LOST, S.STOPPED}:
        verdict = Ended if over else StopRest
        return verdict(*_misfortune(known, allocations, now_ms))
    return _progress(known, allocations, states, now_ms)


def _progress(
    known: r.ClusterJob, allocations: Sequence[Allocation], states: set[S], now_ms: int
) -> Verdict:
    """All is well so far: is the gang ready, or running?"""
    if states <= {S.RUNNING, S.WARM, S.SUCCEEDED} and known.status.phase is JobPhase.STARTING:
        return Started(max(a.started_at_ms for a in allocations) or now_ms)
    ready = tuple(a for a in allocations if a.state is S.READY and a.generation == 1)
    if ready and (len(ready) == len(allocations) or known.status.phase is JobPhase.RUNNING):
        return GoAhead(ready)
    return Wait()


def width(known: r.ClusterJob) -> int:
    """How many replicas this attempt has."""
    return known.status.width or known.job.replicas


def members(known: r.ClusterJob, allocations: Sequence[Allocation]) -> Sequence[Allocation]:
    """Without those that an elastic job has given up, and which may still be ending."""
    if known.job.elastic is None:
        return allocations
    return [a for a in allocations if a.rank < width(known)]


def _misfortune(
    known: r.ClusterJob, allocations: Sequence[Allocation], now_ms: int
) -> tuple[JobPhase, str, dict[str, Any]]:
    status, restart = known.status, known.job.restart
    failed = [a for a in allocations if a.state is S.FAILED]
    if failed:
        first = min(failed, key=lambda a: (a.ended_at_ms, a.rank))
        what = first.reason or f"exit code {first.exit_code}"
        failures = status.failures + 1
        changes: dict[str, Any] = {"failures": failures, "exit_code": first.exit_code}
        where = f"rank {first.rank} on {first.node}: {what}"
        if failures > restart.max:
            return JobPhase.FAILED, where, changes
        wait_s = min(restart.backoff_s * 2 ** min(failures - 1, 30), BACKOFF_MAX_S)
        changes["not_before_ms"] = now_ms + int(1000 * wait_s)
        return JobPhase.QUEUED, f"{where}; retry {failures} of {restart.max}", changes
    lost = next(a for a in allocations if a.state in (S.LOST, S.STOPPED))
    losses = status.losses + 1
    where = f"rank {lost.rank}: {lost.reason or 'stopped on its node'}"
    if losses > LOSSES_MAX:
        return JobPhase.FAILED, f"{where}; lost {losses} times", {"losses": losses}
    return JobPhase.QUEUED, where, {"losses": losses}


def is_void(status: r.JobStatus) -> bool:
    """Whether it ended only because it was ordered away, so that a new order may run it."""
    return status.refused or status.fenced or status.phase is JobPhase.CANCELLED


def first_order(
    a: Allocation, job: Job, attempt: int, width: int, resume_from: str
) -> m.Run | m.Prepare:
    """A gang gets ready first and runs together; a single replica runs at once."""
    if width == 1:
        return run_order(a, job, attempt, (), resume_from)
    return m.Prepare(
        allocation=a.id,
        generation=a.generation,
        job=job,
        rank=a.rank,
        attempt=attempt,
        request=a.request,
        devices=a.devices,
        known=a.answered > 0,
    )


def run_order(
    a: Allocation, job: Job, attempt: int, peers: tuple[m.Peer, ...], resume_from: str
) -> m.Run:
    return m.Run(
        allocation=a.id,
        generation=a.generation,
        job=job,
        rank=a.rank,
        attempt=attempt,
        request=a.request,
        devices=a.devices,
        peers=peers,
        known=a.answered > 0,
        resume_from=resume_from,
    )


def order_again(
    a: Allocation, known: r.ClusterJob, job: Job, allocations: Sequence[Allocation]
) -> m.Run | m.Prepare:
    """The newest order about a living replica, to be sent once more."""
    attempt, resume_from = known.status.attempt, resumes_from(known)
    job_width = width(known)
    if job_width > 1 and a.generation > 1:
        return run_order(a, job, attempt, peers(allocations), resume_from)
    return first_order(a, job, attempt, job_width, resume_from)


def resumes_from(known: r.ClusterJob) -> str:
    """The newest checkpoint that is whole. A task of an array finds its own by itself."""
    checkpoints = known.status.checkpoints
    return checkpoints[-1].path if checkpoints else ""


def stop_order(a: Allocation, known: r.ClusterJob) -> m.Stop:
    """The grace is the job's own, unless the lease is ending: then it must be gone by that."""
    grace_ms = int(1000 * known.job.checkpoint.grace_s)
    if known.status.fenced:
        grace_ms = min(grace_ms, FENCE_GRACE_MS)
    return m.Stop(allocation=a.id, generation=a.generation, grace_ms=grace_ms)


def pause_order(a: Allocation, job: Job, *, at_once: bool = False) -> m.Pause:
    return m.Pause(
        allocation=a.id,
        generation=a.generation,
        hold_ms=hold_ms(job),
        at_once=at_once,
        on_disk=a.on_disk,
    )


def hold_ms(job: Job) -> int:
    """The node lets it go on by itself a while after its hold, if it is told nothing by then."""
    return int(1000 * job.pausing.hold_s) + HOLD_EXTRA_MS


def peers(allocations: Iterable[Allocation]) -> tuple[m.Peer, ...]:
    return tuple(
        m.Peer(
            rank=a.rank,
            node=a.node,
            address=a.address,
            port=a.port,
            gpus=-(-a.request.gpus_milli // 1000),
        )
        for a in sorted(allocations, key=lambda a: a.rank)
    )


def reported(a: Allocation, report: m.AllocationReport) -> Allocation:
    return replace(
        a,
        state=report.state,
        answered=report.generation,
        turn=report.turn,
        address=report.address or a.address,
        port=report.port or a.port,
        exit_code=report.exit_code,
        reason=report.reason,
        started_at_ms=report.started_at_ms or a.started_at_ms,
        ended_at_ms=report.ended_at_ms,
        on_disk=a.on_disk and report.state is not S.RUNNING,
    )


def job_report(known: r.ClusterJob, allocations: Sequence[Allocation]) -> m.JobReport:
    status = known.status
    shown = sorted(allocations, key=lambda a: (a.state is not S.FAILED, a.rank))
    return m.JobReport(
        job=known.job.id,
        generation=status.generation,
        version=status.version,
        phase=status.phase,
        reason=status.reason,
        refused=status.refused,
        lost=(status.fenced and status.phase.is_terminal)
        or (status.comes_back and status.phase is JobPhase.CANCELLED),
        exit_code=status.exit_code,
        restarts=max(0, status.attempt - 1),
        started_at_ms=status.started_at_ms,
        ended_at_ms=status.ended_at_ms,
        replicas=tuple(replica_status(a) for a in shown[:REPLICAS_REPORTED]),
        width=status.width,
        preemptions=status.preemptions,
        tasks=None
        if status.tasks is None
        else arrays.remaining(status.tasks, [a.rank for a in allocations]),
        tasks_running=0 if status.tasks is None else len(allocations),
        checkpoints=status.checkpoints,
    )


def replica_status(a: Allocation) -> ReplicaStatus:
    return ReplicaStatus(
        rank=a.rank,
        allocation=a.id,
        node=a.node,
        state=a.state.value,
        exit_code=a.exit_code,
        reason=a.reason,
        devices=a.devices,
    )


def refusal_text(refusal: Unplaceable) -> str:
    return explain.refusal(refusal)
