"""What the machines hold, as the rows and pages that the API shows. Pure; never with a secret."""

from collections.abc import Callable, Iterable, Mapping

import msgspec

from hyperion.control import accounts
from hyperion.control.federation import Federation
from hyperion.control.liveness import Peer
from hyperion.control.records import Decided, FederatedJob, NodeEntry
from hyperion.daemon.plugins import Broken
from hyperion.model.cluster import Cluster, ClusterLoad, Shape
from hyperion.model.job import JobPhase, TaskProgress
from hyperion.model.market import MarketView, Offer
from hyperion.model.queue import DEFAULT_QUEUE
from hyperion.model.resources import ResourceRequest
from hyperion.placement.explain import Planned, Row
from hyperion.placement.offers import node_usd_per_hour
from hyperion.placement.ranking import Guarded
from hyperion.placement.snapshot import Free
from hyperion.ports import Reading
from hyperion.wire.api import (
    ClusterView,
    JobView,
    NodeView,
    OfferView,
    OutlookView,
    PlanRow,
    PlanView,
    PolicyView,
    TasksView,
    WhyView,
)


def job_view(known: FederatedJob, now_ms: int) -> JobView:
    job, status = known.job, known.status
    usd, gco2e = accounts.spent(status, now_ms)
    nodes = tuple(dict.fromkeys(x.node for x in status.replicas))
    return JobView(
        id=job.id,
        name=job.name,
        user=job.user,
        phase=status.phase.value,
        reason=status.reason,
        priority=job.priority.name,
        framework=job.framework.value,
        replicas=job.replicas,
        resources=" | ".join(resources(x) for x in job.alternatives),
        cluster=status.cluster,
        region=status.region,
        nodes=nodes,
        exit_code=status.exit_code,
        restarts=status.restarts + status.losses,
        generation=status.generation,
        submitted_at_ms=known.submitted_at_ms,
        started_at_ms=status.started_at_ms,
        ended_at_ms=status.ended_at_ms,
        usd_per_hour=status.price.usd_per_hour if status.price else 0.0,
        usd=usd,
        gco2e=gco2e,
        ranks=status.replicas,
        queue=job.queue or DEFAULT_QUEUE,
        nice=job.nice,
        width=_width(known),
        roles={role.name: role.replicas for role in job.roles},
        preemptions=status.preemptions,
        awaits=status.awaits,
        tasks=_tasks(known),
        checkpoints=status.checkpoints,
        held=status.held,
    )


def _width(known: FederatedJob) -> int:
    """Replicas of an elastic job that is there."""
    if known.job.elastic is None or not known.status.started_at_ms:
        return 0
    return known.status.width or known.job.replicas


def _tasks(known: FederatedJob) -> TasksView | None:
    array, status = known.job.array, known.status
    if array is None:
        return None
    tasks = status.tasks or TaskProgress()
    over = status.phase.is_terminal
    ended = tasks.succeeded + tasks.failed
    running = 0 if over else min(status.tasks_running, array.size - ended)
    return TasksView(
        size=array.size,
        limit=array.limit,
        waiting=0 if over else array.size - ended - running,
        running=running,
        succeeded=tasks.succeeded,
        failed=tasks.failed,
        failures=tasks.failures,
    )


def resources(request: ResourceRequest) -> str:
    """A request in words, as short as it can be."""
    words = []
    if request.gpus_milli:
        words.append(f"{request.gpu_type or 'GPU'}:{request.gpus_milli / 1000:g}")
    words.append(f"cpus:{request.cpus_milli / 1000:g}")
    if request.memory_mib:
        words.append(f"mem:{request.memory_mib / 1024:g}GiB")
    if request.disk_mib:
        words.append(f"disk:{request.disk_mib / 1024:g}GiB")
    if request.infra:
        words.append(request.infra)
    return " ".join(words)


def plan_view(job: str, planned: Planned, more: Iterable[Row], market_as_of: str) -> PlanView:
    """The joined places first, then ``more``: offers where nobody has joined yet."""
    return PlanView(
        job=job,
        policy=planned.policy,
        feasible=planned.chosen is not None,
        chosen=planned.chosen.cluster if planned.chosen else "",
        sentence=planned.sentence,
        rows=_numbered((*planned.rows, *more)),
        market_as_of=market_as_of,
        arithmetic=planned.arithmetic,
    )


def _numbered(rows: Iterable[Row]) -> tuple[PlanRow, ...]:
    plain = (msgspec.to_builtins(row) | {"rank": n} for n, row in enumerate(rows, 1))
    return tuple(msgspec.convert(row, PlanRow) for row in plain)


def why_view(machine: Federation, known: FederatedJob, decided: Decided | None) -> WhyView:
    """The decision with its arithmetic, then what has become of it."""
    status = known.status
    sentences: list[str] = []
    plan = None
    if decided is not None:
        sentences += [decided.sentence, *decided.arithmetic]
        chosen = next((row.cluster for row in decided.rows if row.chosen), "")
        plan = PlanView(
            job=known.job.id,
            policy=decided.policy,
            feasible=True,
            chosen=chosen,
            sentence=decided.sentence,
            rows=_numbered(decided.rows),
            market_as_of=decided.market_as_of,
        )
    if status.phase is JobPhase.QUEUED:
        position = machine.position(known.job.id)
        sentences.append(_sentence(status.reason) or "It waits for the next round of placement.")
    else:
        position = None
        sentences.append(_what_became(known))
    return WhyView(
        id=known.job.id,
        phase=status.phase.value,
        sentences=tuple(s for s in sentences if s),
        plan=plan,
        refusals={},
        queue_position=position,
        outlook=_awaiting(known) if status.awaits else None,
        held=status.held,
    )


def _awaiting(known: FederatedJob) -> OutlookView:
    """Of a job that other jobs keep from being placed anywhere."""
    job = known.job
    return OutlookView(
        cluster="",
        queue=job.queue or DEFAULT_QUEUE,
        awaits=known.status.awaits,
        replicas=job.replicas,
    )


def _sentence(reason: str) -> str:
    return f"It {reason}." if reason.startswith("waits ") else reason


def _what_became(known: FederatedJob) -> str:
    status = known.status
    where = f" in {status.cluster}" if status.cluster else ""
    again = status.restarts + status.losses
    times = f" It was started again {again} time{'s' * (again != 1)}." if again else ""
    reason = f": {status.reason}" if status.reason else ""
    return f"Now it is {status.phase.value}{where}{reason}.{times}".replace("..", ".")


def policy_view(watched: Guarded, where: str, in_force: bool = True) -> PolicyView:
    return PolicyView(
        name=watched.name,
        where=where,
        in_force=in_force,
        origin=watched.origin,
        rounds_replaced=watched.replaced,
        fault=watched.fault,
    )


def broken_policies(broken: Iterable[Broken], where: str) -> list[PolicyView]:
    """Entry points that gave no policy, in the same table."""
    return [
        PolicyView(name=b.name, where=where, in_force=False, origin=b.origin, fault=b.fault)
        for b in broken
    ]


def cluster_view(
    cluster: Cluster,
    load: ClusterLoad,
    peer: Peer | None,
    lost: bool,
    market: MarketView,
    now_ms: int,
) -> ClusterView:
    shapes = load.shapes
    state = "lost" if lost else "ready" if peer and peer.attached else "silent"
    return ClusterView(
        id=cluster.id,
        region=cluster.region,
        state=state,
        nodes=sum(s.nodes for s in shapes),
        gpus=_gpus(shapes, lambda s: 1000 * s.capacity.gpus * s.nodes),
        gpus_free=_gpus(shapes, lambda s: s.free_gpus_milli),
        cpus=sum(s.capacity.cpus_milli * s.nodes for s in shapes) / 1000,
        cpus_free=sum(s.free_cpus_milli for s in shapes) / 1000,
        waiting=load.waiting_jobs,
        running=load.running_jobs,
        usd_per_hour=sum(node_usd_per_hour(s, cluster.region, market) * s.nodes for s in shapes),
        gco2e_per_kwh=market.carbon_g_per_kwh(cluster.region),
        declared=any(s.declared for s in shapes),
        version=cluster.version,
        heard_ms_ago=now_ms - peer.heard_ms if peer else -1,
    )


def _gpus(shapes: Iterable[Shape], milli: Callable[[Shape], int]) -> str:
    amounts: dict[str, int] = {}
    for s in shapes:
        if s.capacity.gpus:
            amounts[s.capacity.gpu_type] = amounts.get(s.capacity.gpu_type, 0) + milli(s)
    return " ".join(f"{kind}:{amount / 1000:g}" for kind, amount in sorted(amounts.items())) or "-"


def offer_view(offer: Offer, market: MarketView) -> OfferView:
    return OfferView(
        region=offer.region,
        instance_type=offer.instance_type,
        accelerators=f"{offer.gpu_type}:{offer.gpus}" if offer.gpus else "-",
        cpus=offer.cpus_milli / 1000,
        memory_gib=offer.memory_mib / 1024,
        market=offer.market.value,
        usd_per_hour=offer.usd_per_hour,
        usd_per_gpu_hour=offer.usd_per_hour / offer.gpus if offer.gpus else None,
        gco2e_per_kwh=market.carbon_g_per_kwh(offer.region),
        as_of=offer.as_of,
        source=offer.source,
    )


def node_view(
    cluster: Cluster,
    entry: NodeEntry,
    free: Free | None,
    replicas: int,
    peer: Peer | None,
    reading: Reading | None,
    now_ms: int,
) -> NodeView:
    node, size = entry.node, entry.node.capacity
    return NodeView(
        id=node.id,
        cluster=cluster.id,
        region=cluster.region,
        state=_node_state(entry, peer),
        gpu_type=size.gpu_type,
        gpus=size.gpus,
        gpus_free=free.gpus_milli / 1000 if free else 0.0,
        cpus=size.cpus_milli / 1000,
        cpus_free=free.cpus_milli / 1000 if free else 0.0,
        memory_mib=size.memory_mib,
        memory_free_mib=free.memory_mib if free else 0,
        replicas=replicas,
        declared=node.declared,
        instance_type=node.instance_type,
        market=node.market.value,
        usd_per_hour=node.usd_per_hour,
        labels=node.labels,
        taints=tuple(f"{t.key}={t.value}" if t.value else t.key for t in node.taints),
        abilities=node.abilities,
        version=node.version,
        address=node.address,
        heard_ms_ago=now_ms - peer.heard_ms if peer else -1,
        metrics=metrics(reading) if reading else {},
    )


def _node_state(entry: NodeEntry, peer: Peer | None) -> str:
    if entry.lost:
        return "lost"
    if peer is None or not peer.attached:
        return "silent"
    return "draining" if entry.draining else "cordoned" if entry.cordoned else "ready"


def metrics(reading: Reading) -> dict[str, float]:
    """A reading, flat; what was not measured is absent."""
    out = {
        "cpu_percent": reading.cpu_utilization_percent,
        "memory_used_mb": reading.memory_used_mb,
        "memory_total_mb": reading.memory_total_mb,
        "network_tx_gbps": reading.network_tx_gbps,
        "network_rx_gbps": reading.network_rx_gbps,
        "disk_free_mb": reading.disk_free_mb,
        "load_1m": reading.load_1m,
    }
    for gpu in reading.gpus:
        values: Mapping[str, float | None] = {
            "percent": gpu.utilization_percent,
            "memory_used_mb": gpu.memory_used_mb,
            "memory_bandwidth_percent": gpu.memory_bandwidth_percent,
            "celsius": gpu.temperature_celsius,
            "watts": gpu.power_watts,
            "ecc_uncorrected": gpu.ecc_errors_uncorrected,
        }
        for name, value in values.items():
            if value is not None:
                out[f"gpu{gpu.index}_{name}"] = float(value)
    return out
