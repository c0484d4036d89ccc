"""Why a cluster cannot take a job, in numbers: what was asked, and the most that is there."""

from collections.abc import Sequence

from hyperion.model.job import Job
from hyperion.model.resources import MILLI, Capacity, ResourceRequest
from hyperion.placement.feasibility import Reason
from hyperion.placement.objective import G_PER_KG, Price, dollars


def why_too_small(reason: Reason, request: ResourceRequest, nodes: Sequence[Capacity]) -> str:
    """The refusal in numbers; ``nodes`` are those of the cluster, at least one."""
    match reason:
        case Reason.GPU_TYPE:
            types = sorted({c.gpu_type for c in nodes if c.gpus})
            return f"no {request.gpu_type} (has {', '.join(types[:4]) or 'no GPUs'})"
        case Reason.GPU_COUNT:
            most = max(c.gpus for c in nodes)
            return f"{request.gpus_milli / MILLI:g} GPUs on one node asked, at most {most} there"
        case Reason.CPU:
            most = max(c.cpus_milli for c in nodes)
            return f"{request.cpus_milli / MILLI:g} CPUs asked, at most {most / MILLI:g} on a node"
        case Reason.MEMORY:
            return _gibibytes("memory", request.memory_mib, max(c.memory_mib for c in nodes))
        case Reason.DISK:
            return _gibibytes("disk", request.disk_mib, max(c.disk_mib for c in nodes))
    return _countables(request, nodes) if reason is Reason.CUSTOM else str(reason.value)


def _gibibytes(what: str, asked_mib: int, most_mib: int) -> str:
    return f"{asked_mib / 1024:.4g} GiB {what} asked, at most {most_mib / 1024:.4g} on a node"


def _countables(request: ResourceRequest, nodes: Sequence[Capacity]) -> str:
    for name, amount in request.custom:
        most = max(dict(c.custom).get(name, 0) for c in nodes)
        if amount > most:
            return f"{amount} {name} asked, at most {most} on a node"
    return "no node has all of the countables asked"


def why_over(job: Job, price: Price, hours: float) -> str:
    """Which of the job's limits a place would break; ``hours`` as promised, 0 unknown."""
    limit = job.budget.max_usd_per_hour
    if 0 < limit < price.usd_per_hour:
        return f"{dollars(price.usd_per_hour, 2)}/h is over the budget of {dollars(limit, 2)}/h"
    usd = price.usd_per_hour * hours + price.egress_usd
    kg, most_kg = price.gco2e_per_hour * hours / G_PER_KG, job.budget.max_kg_co2e
    if 0 < most_kg < kg and not 0 < job.budget.max_usd < usd:
        return f"{kg:,.3g} kg CO2e is over the budget of {most_kg:g} kg"
    return f"{dollars(usd, 2)} is over the budget of {dollars(job.budget.max_usd, 2)}"
