"""What a job asks of nodes as they are built, whatever is free on them: worked out once a shape."""

from typing import Any

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from hyperion.model.job import Job
from hyperion.model.market import MarketView
from hyperion.model.resources import MILLI, ResourceRequest
from hyperion.placement import feasibility
from hyperion.placement.feasibility import Reason, request_key
from hyperion.placement.interruption import per_hour, struck
from hyperion.placement.kernels import FIXED, NEVER, WHOLE
from hyperion.placement.objective import Outlook, over_budget, price
from hyperion.placement.ranking import Column
from hyperion.placement.snapshot import MOST, MOST_CUSTOM, Snapshot

Codes = NDArray[np.int8]
REASONS = tuple(Reason)
CODE = {reason: code for code, reason in enumerate(REASONS, start=1)}
"""0 is no objection. Of several reasons the highest code was nearest to fitting."""
_NOWHERE = MarketView(as_of="", regions={})
"""Inside a cluster, prices differ by node and power only; carbon is taken as the world's mean."""
_MEMO_BYTES = 96 * 1024 * 1024
"""About how much a round, and the snapshot's memo, may keep for demands seen before."""


class Demand(Struct, frozen=True):
    """One request of a job against the nodes of a snapshot."""

    request: ResourceRequest
    need: NDArray[np.int64]
    """See ``kernels``."""
    codes: Codes
    """By group, labels left out: 0 where an empty node would do, else the code of the reason."""
    open: NDArray[np.bool_]
    """By row: an empty node would do."""
    unmet: Column
    """By row, the weights (1 is 100) of the preferred terms that it does not meet; of no rows
    where there are none."""
    usd_per_hour: Column
    """By group, as the next two."""
    gco2e_per_hour: Column
    score: Column
    with_gpus: Column
    """By group: 1 where the request makes GPUs useless by taking the rest of their node."""
    derived: dict[Any, Any] = msgspec.field(default_factory=dict)
    """What others have worked out from it and keep with it."""


def demand_key(job: Job) -> tuple[object, ...]:
    """Equal for jobs that a cluster's planner cannot tell apart."""
    a = job.alternatives
    key = (
        request_key(a[0]) if len(a) == 1 else tuple(request_key(r) for r in a),
        job.replicas,
        job.tolerations,
        bool(job.image),
        job.objective,
        job.budget,
        job.expected_s,
        job.checkpoint.every_s,
        job.checkpoint.restore_s,
    )
    if job.replica_affinity or job.spread or job.packing or job.roles or job.elastic or job.array:
        return (*key, *_rarely(job))
    return (*key, job.reservation) if job.reservation else key


def _rarely(job: Job) -> tuple[object, ...]:
    """The rest of the key, of jobs that ask for what most do not."""
    return (
        job.reservation,
        job.packing,
        job.replica_affinity,
        job.spread,
        tuple(sorted(job.metadata.items())) if job.replica_affinity else (),
        tuple((role.replicas, request_key(role.resources)) for role in job.roles),
        job.elastic,
        job.array is not None,
    )


def demands(snapshot: Snapshot, key: object, job: Job) -> list[Demand]:
    """Of each alternative, or of each role; remembered while no node comes or goes."""
    found: list[Demand] | None = snapshot.memo.get(key)
    if found is None:
        asked = [r.resources for r in job.roles] if job.roles else job.alternatives
        found = [_demand(snapshot, job, request) for request in asked]
        if len(snapshot.memo) >= most_kept(snapshot.rows, len(found)):
            del snapshot.memo[next(iter(snapshot.memo))]
        snapshot.memo[key] = found
    return found


def most_kept(rows: int, alternatives: int) -> int:
    """How many keys may be remembered."""
    return max(4, min(1024, _MEMO_BYTES // (16 * max(1, rows * alternatives))))


def need_of(request: ResourceRequest, custom_row: dict[str, int]) -> NDArray[np.int64]:
    """In the kernels' form. A countable that no node has is left out: no node is open to it."""
    need = np.zeros((2, FIXED + len(custom_row)), np.int64)
    whole = request.gpus_milli >= MILLI
    need[0, :FIXED] = (
        request.cpus_milli,
        request.memory_mib,
        request.disk_mib,
        request.whole_gpus if whole else 0,
        0 if whole else request.gpus_milli,
    )
    need[0, :WHOLE] = np.minimum(need[0, :WHOLE], MOST)
    for name, amount in request.custom:
        if name in custom_row:
            need[0, FIXED + custom_row[name]] = min(amount, MOST_CUSTOM)
    need[1] = np.where(need[0] > 0, need[0], NEVER)
    return need


def _demand(snapshot: Snapshot, job: Job, request: ResourceRequest) -> Demand:
    groups = snapshot.groups
    codes = np.zeros(len(groups), np.int8)
    usd, gco2e, score, gpus = (np.zeros(len(groups)) for _ in range(4))
    for i, group in enumerate(groups):
        if not group.nodes:
            codes[i] = CODE[Reason.FULL]
            continue
        kind = group.kind
        share = feasibility.dominant_share(request, kind.capacity)
        cost = share * kind.usd_per_hour
        often = per_hour(snapshot.region, kind.instance_type, kind.market, _NOWHERE)
        slots = max(1, feasibility.slots(request, kind.capacity)) if often else 1
        outlook = Outlook(often * struck(job, -(-job.replicas // slots)))
        gpu_type = kind.capacity.gpu_type
        p = price(job, request, snapshot.region, cost, _NOWHERE, gpu_type, outlook=outlook)
        usd[i], gco2e[i], score[i] = p.usd_per_hour, p.gco2e_per_hour, p.score
        reason = feasibility.refusal(job, request, kind)
        if reason is None and over_budget(job, p.usd_per_hour, p.egress_usd):
            reason = Reason.BUDGET
        codes[i] = CODE[reason] if reason else 0
        gpus[i] = float(kind.capacity.gpus > 0 and not request.gpus_milli)
    if not _in_place(snapshot, request):
        codes[:] = CODE[Reason.INFRA]
    room = (codes == 0).take(snapshot.group[: snapshot.rows])
    for _, holds in _label_checks(snapshot, request):
        room &= holds
    need = need_of(request, snapshot.custom_row)
    return Demand(request, need, codes, room, _unmet(snapshot, request), usd, gco2e, score, gpus)


def row_codes(snapshot: Snapshot, demand: Demand) -> Codes:
    """By row, why an empty node would not do; 0 where it would."""
    codes = demand.codes[snapshot.group[: snapshot.rows]]
    for reason, holds in _label_checks(snapshot, demand.request):
        # A check that comes later in the order was not reached.
        codes[~holds & ((codes == 0) | (codes > CODE[reason]))] = CODE[reason]
    return codes


def _label_checks(
    snapshot: Snapshot, request: ResourceRequest
) -> list[tuple[Reason, NDArray[np.bool_]]]:
    labels, nodes = snapshot.labels, snapshot.nodes
    checks = [(Reason.LABEL, labels.equal(k, v, nodes)) for k, v in request.labels.items()]
    required = [t for t in request.affinity if not t.weight]
    return checks + [(Reason.AFFINITY, labels.holds(t, nodes)) for t in required]


def _unmet(snapshot: Snapshot, request: ResourceRequest) -> Column:
    unmet: Column = np.zeros(0)
    for term in request.affinity:
        if term.weight:
            misses = ~snapshot.labels.holds(term, snapshot.nodes)
            weight = misses.astype(np.float64) * (term.weight / 100)
            unmet = unmet + weight if len(unmet) else weight
    return unmet


def _in_place(snapshot: Snapshot, request: ResourceRequest) -> bool:
    if not snapshot.cluster and not snapshot.region:
        return True
    return feasibility.in_place(request.infra, snapshot.cluster, snapshot.region)
