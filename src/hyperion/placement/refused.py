"""Why a job fits nowhere: every node counted once, under the reason that was nearest to fitting."""

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from hyperion.model.ids import JobId
from hyperion.model.resources import MILLI
from hyperion.placement import feasibility
from hyperion.placement.demand import CODE, REASONS, Codes, Demand, row_codes
from hyperion.placement.feasibility import Reason
from hyperion.placement.forms import Form, Forms
from hyperion.placement.kernels import CPUS, DISK, FIXED, MEMORY, NEVER, PART, WHOLE, room
from hyperion.placement.nearness import Nearness
from hyperion.placement.snapshot import ABSENT, SILENT, Snapshot
from hyperion.placement.wishes import Wish

Rows = NDArray[np.bool_]
_OF_DIMENSION = {
    WHOLE: Reason.GPU_COUNT,
    PART: Reason.GPU_FRACTION,
    CPUS: Reason.CPU,
    MEMORY: Reason.MEMORY,
    DISK: Reason.DISK,
}


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


class Tried(Struct):
    """What came out of trying to seat all replicas together."""

    packed: dict[str, int] = msgspec.field(default_factory=dict)
    """By level of the topology, the most replicas that one part would take."""
    seated: int = -1
    """The most that found seats one after the other; -1 where they were only counted."""


def for_job(known: Unplaceable, job: JobId) -> Unplaceable:
    """The same refusal for another job of the same demand."""
    return Unplaceable(job, known.rejected, known.nodes, known.ever, known.details)


def rejections(
    forms: Forms, wish: Wish, tried_forms: list[Form], near: Nearness, tried: Tried
) -> Unplaceable:
    """Count the nodes by reason; the forms are of the alternatives or the roles."""
    snapshot = forms.snapshot
    present = snapshot.shut[: snapshot.rows] != ABSENT
    told = _hardest_role(forms, wish, tried_forms) if wish.job.roles else tried_forms
    each = [_codes(forms, form, near, tried) for form in told]
    nearest = np.maximum.reduce(each) if snapshot.rows else np.zeros(0, np.int8)
    counts = np.bincount(nearest[present], minlength=len(REASONS) + 1)
    rejected = {reason: int(counts[CODE[reason]]) for reason in REASONS if counts[CODE[reason]]}
    details: dict[Reason, str] = {}
    for reason in rejected:
        for form, codes in zip(told, each, strict=True):
            rows = np.flatnonzero((codes == CODE[reason]) & (snapshot.shut[: snapshot.rows] == 0))
            if len(rows):
                text = _detail(reason, forms, form, rows, wish, tried)
                if text:
                    details[reason] = text
                break
    ever = _ever(snapshot, wish, [f.demand for f in tried_forms])
    return Unplaceable(wish.job.id, rejected, int(present.sum()), ever, details)


def _hardest_role(forms: Forms, wish: Wish, by_role: list[Form]) -> list[Form]:
    """The first role that has too little room by itself; all of them if each would fit alone."""
    for form, role in zip(by_role, wish.job.roles, strict=True):
        if forms.slots(form, role.replicas, None).sum() < role.replicas:
            return [form]
    return by_role


def _codes(forms: Forms, form: Form, near: Nearness, tried: Tried) -> Codes:
    snapshot, s = forms.snapshot, form.seating
    n = snapshot.rows
    codes = row_codes(snapshot, form.demand)
    shut = snapshot.shut[:n]
    checks: list[tuple[Reason, Rows]] = [
        (Reason.SILENT, shut & SILENT != 0),
        (Reason.CORDONED, shut != 0),
    ]
    if form.closed is not None:
        checks.append((Reason.WINDOW, form.closed))
    checks += _amounts(form, n)
    for reason, fails in checks:
        codes[(codes == 0) & fails] = CODE[reason]
    if len(s.kept):
        codes[(codes == 0) & ~room(s, slice(0, n))[0]] = CODE[Reason.RESERVED]
    for reason, fails in near.objections(codes == 0):
        codes[(codes == 0) & fails] = CODE[reason]
    codes[codes == 0] = CODE[Reason.TOPOLOGY if tried.packed else Reason.GANG]
    return codes


def _amounts(form: Form, n: int) -> list[tuple[Reason, Rows]]:
    """What is too little, whatever must stay free."""
    s = form.seating
    need = s.need[1].tolist()
    checks: list[tuple[Reason, Rows]] = []
    if need[WHOLE] != NEVER:
        checks.append((Reason.GPU_COUNT, s.amounts[WHOLE, :n] < need[WHOLE]))
    if need[PART] != NEVER:
        none = (s.amounts[PART, :n] < need[PART]) & (s.amounts[WHOLE, :n] < 1)
        checks.append((Reason.GPU_FRACTION, none))
    checks += [(_OF_DIMENSION[d], s.amounts[d, :n] < need[d]) for d in (CPUS, MEMORY, DISK)]
    for d in range(FIXED, len(need)):
        checks += [(Reason.CUSTOM, s.custom[d - FIXED, :n] < need[d])]
    return checks


def _detail(
    reason: Reason, forms: Forms, form: Form, rows: NDArray[np.intp], wish: Wish, tried: Tried
) -> str:
    text = ""
    if reason in _ALL_TOGETHER:
        text = _together(reason, forms, form, rows, wish, tried)
    elif reason is Reason.CUSTOM:
        text = _custom_detail(forms.snapshot, form, rows)
    elif reason in _LINE:
        line, unit, words = _LINE[reason]
        best = max(0, int(form.seating.amounts[line, rows].max()))
        asked = form.demand.request.gpus_milli if line == PART else int(form.seating.need[0, line])
        text = words.format(f"{best / unit:.4g}", f"{asked / unit:.4g}") if asked else ""
    return text


_ALL_TOGETHER = (Reason.TOPOLOGY, Reason.GANG)
_LINE = {
    Reason.GPU_COUNT: (WHOLE, 1, "only {} of {} GPUs free"),
    Reason.GPU_FRACTION: (PART, MILLI, "at most {} of one GPU free, {} asked"),
    Reason.CPU: (CPUS, MILLI, "only {} of {} CPUs free"),
    Reason.MEMORY: (MEMORY, 1024, "only {} of {} GiB memory free"),
    Reason.DISK: (DISK, 1024, "only {} of {} GiB disk free"),
}
"""Which line of the amounts, by what it is divided to be read, and the sentence."""


def _together(
    reason: Reason, forms: Forms, form: Form, rows: NDArray[np.intp], wish: Wish, tried: Tried
) -> str:
    if reason is Reason.TOPOLOGY:
        level, most = next(iter(tried.packed.items()))
        return f"the largest {level} has room for {most} of {_count(wish.least)}"
    seats = tried.seated
    if seats < 0:
        seats = int(forms.slots(form, wish.least, None)[rows].sum())
    return f"together only room for {seats} of {_count(wish.least)}"


def _custom_detail(snapshot: Snapshot, form: Form, rows: NDArray[np.intp]) -> str:
    for name, need in form.demand.request.custom:
        line = snapshot.custom_row.get(name)
        best = 0 if line is None else max(0, int(form.seating.custom[line, rows].max()))
        if best < need:
            return f"only {best} of {need} {name} free"
    return ""


def _count(replicas: int) -> str:
    return f"{replicas} replica" if replicas == 1 else f"{replicas} replicas"


def _ever(snapshot: Snapshot, wish: Wish, demands: list[Demand]) -> bool:
    """Whether any alternative, or else every role, would fit were every node empty and open."""
    job = wish.job
    if job.roles:
        wanted = [min(role.replicas, wish.least) for role in job.roles]
        return all(_most(snapshot, wish, d) >= n for d, n in zip(demands, wanted, strict=True))
    return any(_most(snapshot, wish, d) >= wish.least for d in demands)


def _most(snapshot: Snapshot, wish: Wish, demand: Demand) -> int:
    """How many replicas an empty cluster takes; where they must be packed, its roomiest part."""
    by_group = np.array(
        [
            feasibility.slots(demand.request, g.kind.capacity) if g.nodes else 0
            for g in snapshot.groups
        ],
        np.int64,
    )
    n = snapshot.rows
    if not n:
        return 0
    by_row = np.where(demand.open, by_group[snapshot.group[:n]], 0)
    packing = wish.job.packing
    if packing is None or not packing.required:
        return int(by_row.sum())
    parts, count = snapshot.labels.parts(packing.level, n)
    return int(np.bincount(parts, weights=by_row, minlength=count).max())
