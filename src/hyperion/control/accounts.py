"""What a job's placement costs as it goes, and the states in which a placement ends. Pure."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from msgspec.structs import replace

from hyperion.control.messages import JobReport
from hyperion.control.records import FederatedJob, FederatedStatus
from hyperion.model.ids import ClusterId
from hyperion.model.job import Job, JobPhase
from hyperion.model.market import Market
from hyperion.placement import objective
from hyperion.placement.choice import Place


class Ran(NamedTuple):
    """What an attempt took: all replicas together, without what moving its data took."""

    hours: float
    usd: float
    gco2e: float


NOTHING = Ran(0.0, 0.0, 0.0)


def spent(status: FederatedStatus, now_ms: int) -> tuple[float, float]:
    """(USD, g CO2e) that the job has cost until now, or until its end; egress included."""
    now = NOTHING if status.phase.is_terminal else ran(status, now_ms)
    return status.spent_usd + now.usd, status.spent_gco2e + now.gco2e


def placed(status: FederatedStatus, place: Place, now_ms: int) -> FederatedStatus:
    """Ordered to a cluster. Egress is booked now: the data move whatever becomes of the run."""
    generation = status.generation + 1
    return replace(
        status,
        phase=JobPhase.ASSIGNED,
        generation=generation,
        placed=generation,
        version=0,
        cluster=ClusterId(place.cluster),
        region=place.region,
        place=f"{place.instance_type} {place.market.value}".strip(),
        price=place.price,
        spot=place.market is Market.SPOT,
        left=ClusterId(""),
        spent_usd=status.spent_usd + (place.price.egress_usd if place.price else 0.0),
        spent_gco2e=status.spent_gco2e + (place.price.move_gco2e if place.price else 0.0),
        reason="",
        started_at_ms=0,
        placed_at_ms=now_ms,
    )


def ended(
    status: FederatedStatus, phase: JobPhase, reason: str, now_ms: int, facts: dict[str, Any]
) -> FederatedStatus:
    over = ran(status, now_ms, facts.get("started_at_ms", 0))
    return replace(
        status,
        phase=phase,
        reason=reason,
        wanted=None,
        held="",
        leaving="",
        ended_at_ms=now_ms,
        **booked(status, over),
        **facts,
    )


def run_on(
    status: FederatedStatus, phase: JobPhase, started_at_ms: int, now_ms: int
) -> dict[str, Any]:
    """What a report changes of start and cost: an attempt that is over stays on the bill when its
    cluster starts the next one."""
    until_ms = 0
    if phase is JobPhase.RUNNING:
        if status.started_at_ms and started_at_ms > status.started_at_ms:
            until_ms = started_at_ms
    elif phase in (JobPhase.QUEUED, JobPhase.STARTING):
        until_ms, started_at_ms = now_ms, 0
    else:
        started_at_ms = status.started_at_ms
    over = ran(status, until_ms) if until_ms else NOTHING
    return {"started_at_ms": started_at_ms, **booked(status, over)}


def requeued(
    status: FederatedStatus, reason: str, now_ms: int, changes: dict[str, Any]
) -> FederatedStatus:
    """It has left its cluster and waits for another; what it cost there stays on the bill."""
    over = ran(status, now_ms)
    return replace(
        status,
        phase=JobPhase.QUEUED,
        cluster=ClusterId(""),
        region="",
        place="",
        price=None,
        reason=reason,
        wanted=None,
        leaving="",
        started_at_ms=0,
        replicas=(),
        tasks_running=0,
        width=0,
        **booked(status, over),
        **changes,
    )


def given_back(status: FederatedStatus, report: JobReport) -> dict[str, Any]:
    """What stays known of a placement that a cluster gave up, was refused or told to stop."""
    refuser = (status.cluster,) if report.refused else ()
    return {
        "version": max(report.version, status.version) + 1,
        "excluded": tuple(dict.fromkeys((*status.excluded, *refuser))),
        "losses": status.losses + (report.lost and not status.comes_back),
        "tasks": report.tasks or status.tasks,
        "checkpoints": report.checkpoints or status.checkpoints,
    }


def never_left(status: FederatedStatus, report: JobReport) -> bool:
    """A cluster given up for lost is back with the very placement that waits to be made anew:
    going on is better than starting again. (It had not fenced itself, or had finished.)"""
    return (
        status.phase is JobPhase.QUEUED
        and report.generation == status.generation
        and report.version >= status.version  # else it is older than the giving back
        and not report.lost
        and not report.refused
        and report.phase not in (JobPhase.STOPPING, JobPhase.CANCELLED)
    )


def run_out(known: FederatedJob, now_ms: int) -> str:
    """Which limit of its own a job has come to, in words; empty while it has come to none."""
    job, status = known.job, known.status
    if status.phase.is_terminal:
        return ""
    if job.deadline_s and now_ms >= known.submitted_at_ms + int(1000 * job.deadline_s):
        return f"deadline of {job.deadline_s:g} s after submission has passed"
    if job.budget.max_usd and status.started_at_ms and status.price:
        usd, _ = spent(status, now_ms)
        if usd >= job.budget.max_usd - 1e-9:
            return f"budget of {objective.dollars(job.budget.max_usd, 2)} is spent"
    if job.budget.max_kg_co2e and status.started_at_ms and status.price:
        _, gco2e = spent(status, now_ms)
        if gco2e >= job.budget.max_kg_co2e * objective.G_PER_KG - 1e-6:
            return f"budget of {job.budget.max_kg_co2e:g} kg CO2e is spent"
    return ""


def dues(job: Job, status: FederatedStatus) -> Iterator[int]:
    """When the run that has begun will have used up each of the job's budgets, ms since 1970."""
    if status.price is None or not status.started_at_ms:
        return
    for most, spent_before, per_hour in (
        (job.budget.max_usd, status.spent_usd, status.price.usd_per_hour),
        (
            job.budget.max_kg_co2e * objective.G_PER_KG,
            status.spent_gco2e,
            status.price.gco2e_per_hour,
        ),
    ):
        if most and per_hour > 0:
            left = max(most - spent_before, 0.0)
            yield status.started_at_ms + 1 + int(objective.MS_PER_HOUR * left / per_hour)


def ran(status: FederatedStatus, now_ms: int, started_at_ms: int = 0) -> Ran:
    """What this attempt has cost so far in time, compute and carbon."""
    started_at_ms = started_at_ms or status.started_at_ms
    if not started_at_ms or status.price is None:
        return NOTHING
    usd, gco2e = objective.spent(status.price, started_at_ms, now_ms)
    hours = max(0, now_ms - started_at_ms) / objective.MS_PER_HOUR
    return Ran(hours, usd - status.price.egress_usd, gco2e - status.price.move_gco2e)


def booked(status: FederatedStatus, over: Ran) -> dict[str, Any]:
    """What an attempt that is over changes of the status."""
    return {
        "spent_usd": status.spent_usd + over.usd,
        "spent_gco2e": status.spent_gco2e + over.gco2e,
        "spent_hours": status.spent_hours + over.hours,
    }
