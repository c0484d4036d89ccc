"""Jobs that wait for the end of others: what they await, and what an end means for them."""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from hyperion.model.ids import JobId
from hyperion.model.job import Condition, Job, JobPhase

PhaseOf = Callable[[JobId], JobPhase | None]
"""The phase of a job; None for one that is not known (any more)."""


def met(job: Job, other: JobId, phase: JobPhase) -> bool:
    """Whether this end of the other job is one that the job has waited for."""
    ok = phase is JobPhase.SUCCEEDED
    wanted = (d.condition for d in job.after if d.job == other)
    return all(c is Condition.ANY or ok == (c is Condition.OK) for c in wanted)


def refusal(job: Job, phase_of: PhaseOf) -> str:
    """Why the job's dependencies can never be met; empty when they may be."""
    for dependency in job.after:
        phase = phase_of(dependency.job)
        if phase is None:
            return (
                f"it depends on job {dependency.job}, which is not known here (any more);"
                " hyperion ps --all lists the jobs"
            )
        if phase.is_terminal and not met(job, dependency.job, phase):
            condition = dependency.condition.value
            return f"it depends on job {dependency.job} ({condition}), which has {phase.value}"
    return ""


def awaited(job: Job, phase_of: PhaseOf) -> tuple[JobId, ...]:
    """The jobs whose end is still to come."""
    phases = {d.job: phase_of(d.job) for d in job.after}
    return tuple(id for id, phase in phases.items() if phase is not None and not phase.is_terminal)


def waits_for(awaits: tuple[JobId, ...]) -> str:
    return f"waits for the end of {', '.join(awaits)}" if awaits else ""


def begins_later(job: Job) -> str:
    """The reason of a job whose own time has not come."""
    return f"is not to begin before {job.begin_s:g} s after its submission" if job.begin_s else ""


def not_yet(job: Job, awaits: tuple[JobId, ...], waited_ms: int) -> str:
    """Why a job that has waited for so long is not placed yet: others, or its own begin."""
    return waits_for(awaits) or (begins_later(job) if waited_ms < 1000 * job.begin_s else "")


def unmet(other: JobId, phase: JobPhase) -> str:
    return f"job {other} has {phase.value}, which the dependency on it does not admit"


def following(
    decisions: Iterator[Any],
    ended: Callable[[Any], JobId | None],
    release: Callable[[JobId], Iterator[Any]],
) -> Iterator[Any]:
    """The decisions, each one that ends a job followed by what that means for its dependents.

    A loop and no recursion: one failure may end a chain of thousands.
    """
    over: deque[JobId] = deque()
    for decision in decisions:
        yield decision
        job = ended(decision)
        if job is not None:
            over.append(job)
        while over:
            for further in release(over.popleft()):
                yield further
                job = ended(further)
                if job is not None:
                    over.append(job)
