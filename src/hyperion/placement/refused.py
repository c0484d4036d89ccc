"""Why a job fits nowhere: every node counted once, under the reason that was nearest to fitting."""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from hyperion.model.ids import JobId
from hyperion.model.job import Job
from hyperion.model.resources import MILLI, ResourceRequest
from hyperion.placement import feasibility
from hyperion.placement.feasibility import Reason
from hyperion.placement.snapshot import ABSENT, SILENT, Snapshot
from hyperion.placement.trial import Amounts, TrialRow

Codes = NDArray[np.int8]
REASONS = tuple(Reason)
CODE = {reason: code for code, reason in enumerate(REASONS, start=1)}
"""0 is no objection. Of several reasons the highest code was nearest to fitting."""


class Unplaceable(Struct, frozen=True):
    """No place for a job now, and why."""

    job: JobId
    rejected: dict[Reason, int]
    """Nodes by reason; they add up to ``nodes``."""
    nodes: int
    ever: bool
    """False: it would not fit even if the whole cluster were empty and open."""
    details: dict[Reason, str] = msgspec.field(default_factory=dict)
    """In numbers, where the reason has some: ``only 6 of 8 GPUs free``."""


def rejections(
    snapshot: Snapshot,
    trial: Mapping[int, TrialRow],
    columns: Amounts,
    job: Job,
    demands: Sequence[tuple[ResourceRequest, Codes]],
) -> Unplaceable:
    """Count the nodes by reason; ``demands`` are the alternatives with their codes by group."""
    present = snapshot.shut[: snapshot.rows] != ABSENT
    columns.part_from(trial)
    each = [_codes(snapshot, columns, request, codes) for request, codes in demands]
    nearest = np.maximum.reduce(each) if snapshot.rows else np.zeros(0, np.int8)
    counts = np.bincount(nearest[present], minlength=len(REASONS) + 1)
    rejected = {reason: int(counts[CODE[reason]]) for reason in REASONS if counts[CODE[reason]]}
    details: dict[Reason, str] = {}
    for reason in rejected:
        for (request, _), codes in zip(demands, each, strict=True):
            rows = np.flatnonzero((codes == CODE[reason]) & (snapshot.shut[: snapshot.rows] == 0))
            if len(rows):
                text = _detail(reason, request, columns, rows)
                if reason is Reason.GANG:
                    text = _gang_detail(snapshot, trial, request, rows, job.replicas)
                if text:
                    details[reason] = text
                break
    return Unplaceable(job.id, rejected, int(present.sum()), _ever(snapshot, job, demands), details)


def _codes(
    snapshot: Snapshot, columns: Amounts, request: ResourceRequest, by_group: Codes
) -> Codes:
    n = snapshot.rows
    codes = by_group[snapshot.group[:n]]
    shut = snapshot.shut[:n]
    checks: list[tuple[Reason, NDArray[np.bool_]]] = [
        (Reason.SILENT, shut & SILENT != 0),
        (Reason.CORDONED, shut != 0),
    ]
    if request.gpus_milli >= MILLI:
        checks.append((Reason.GPU_COUNT, columns.whole < request.whole_gpus))
    elif request.gpus_milli:
        none = (columns.part < request.gpus_milli) & (columns.whole < 1)
        checks.append((Reason.GPU_FRACTION, none))
    checks += [
        (Reason.CPU, columns.cpus < request.cpus_milli),
        (Reason.MEMORY, columns.memory < request.memory_mib),
        (Reason.DISK, columns.disk < request.disk_mib),
    ]
    for reason, fails in checks:
        codes[(codes == 0) & fails] = CODE[reason]
    codes[codes == 0] = CODE[Reason.GANG]
    return codes


def _detail(
    reason: Reason, request: ResourceRequest, columns: Amounts, rows: NDArray[np.intp]
) -> str:
    match reason:
        case Reason.GPU_COUNT:
            best = int(columns.whole[rows].max())
            return f"only {best} of {request.whole_gpus} GPUs free" if request.whole_gpus else ""
        case Reason.GPU_FRACTION:
            best = max(0, int(columns.part[rows].max()))
            return f"at most {best / MILLI:g} of one GPU free, {request.gpus_milli / MILLI:g} asked"
        case Reason.CPU:
            best = max(0, int(columns.cpus[rows].max()))
            return f"only {best / MILLI:g} of {request.cpus_milli / MILLI:g} CPUs free"
        case Reason.MEMORY:
            best = max(0, int(columns.memory[rows].max()))
            return f"only {best / 1024:.4g} of {request.memory_mib / 1024:.4g} GiB memory free"
        case Reason.DISK:
            best = max(0, int(columns.disk[rows].max()))
            return f"only {best / 1024:.4g} of {request.disk_mib / 1024:.4g} GiB disk free"
    return ""


def _gang_detail(
    snapshot: Snapshot,
    trial: Mapping[int, TrialRow],
    request: ResourceRequest,
    rows: NDArray[np.intp],
    replicas: int,
) -> str:
    room = 0
    for row in rows.tolist():
        room += (trial.get(row) or TrialRow(snapshot, row)).slots(request, replicas)
    return f"together only room for {room} of {replicas} replicas"


def _ever(snapshot: Snapshot, job: Job, demands: Sequence[tuple[ResourceRequest, Codes]]) -> bool:
    """Whether any alternative would fit were every node empty, heard and open."""
    for request, codes in demands:
        room = sum(
            group.nodes * feasibility.slots(request, group.kind.capacity)
            for group, code in zip(snapshot.groups, codes.tolist(), strict=True)
            if code == 0
        )
        if room >= job.replicas:
            return True
    return False
