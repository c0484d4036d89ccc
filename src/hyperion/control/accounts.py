"""What a job's placement costs as it goes, and the states in which a placement ends. Pure."""

from typing import Any

from msgspec.structs import replace

from hyperion.control.records import FederatedStatus
from hyperion.model.ids import ClusterId
from hyperion.model.job import JobPhase
from hyperion.placement import objective
from hyperion.placement.choice import Place


def spent(status: FederatedStatus, now_ms: int) -> tuple[float, float]:
    """(USD, g CO2e) that the job has cost until now, or until its end; egress included."""
    usd, gco2e = (0.0, 0.0) if status.phase.is_terminal else _ran(status, now_ms, 0)
    return status.spent_usd + usd, status.spent_gco2e + gco2e


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
        spent_usd=status.spent_usd + (place.price.egress_usd if place.price else 0.0),
        reason="",
        started_at_ms=0,
        placed_at_ms=now_ms,
    )


def ended(
    status: FederatedStatus, phase: JobPhase, reason: str, now_ms: int, facts: dict[str, Any]
) -> FederatedStatus:
    usd, gco2e = _ran(status, now_ms, facts.get("started_at_ms", 0))
    return replace(
        status,
        phase=phase,
        reason=reason,
        wanted=None,
        ended_at_ms=now_ms,
        spent_usd=status.spent_usd + usd,
        spent_gco2e=status.spent_gco2e + gco2e,
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
    usd, gco2e = _ran(status, until_ms, 0) if until_ms else (0.0, 0.0)
    return {
        "started_at_ms": started_at_ms,
        "spent_usd": status.spent_usd + usd,
        "spent_gco2e": status.spent_gco2e + gco2e,
    }


def requeued(
    status: FederatedStatus, reason: str, now_ms: int, changes: dict[str, Any]
) -> FederatedStatus:
    """It has left its cluster and waits for another; what it cost there stays on the bill."""
    usd, gco2e = _ran(status, now_ms, 0)
    return replace(
        status,
        phase=JobPhase.QUEUED,
        cluster=ClusterId(""),
        region="",
        place="",
        price=None,
        reason=reason,
        started_at_ms=0,
        replicas=(),
        spent_usd=status.spent_usd + usd,
        spent_gco2e=status.spent_gco2e + gco2e,
        **changes,
    )


def _ran(status: FederatedStatus, now_ms: int, started_at_ms: int) -> tuple[float, float]:
    """What this placement has cost so far in compute and carbon."""
    started_at_ms = started_at_ms or status.started_at_ms
    if not started_at_ms or status.price is None:
        return 0.0, 0.0
    usd, gco2e = objective.spent(status.price, started_at_ms, now_ms)
    return usd - status.price.egress_usd, gco2e
