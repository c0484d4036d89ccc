"""What may run where at all: typed refusals, and the checks that do not depend on what is free."""

from enum import Enum

from msgspec import Struct

from hyperion.model.cluster import Shape
from hyperion.model.job import Job, Toleration
from hyperion.model.market import Market
from hyperion.model.node import Node
from hyperion.model.resources import MILLI, Capacity, ResourceRequest


class Reason(Enum):
    """Why a node or a cluster was refused; the value completes ``18 of 40 nodes: …``.

    In the order of checking: of several reasons the last one that was reached is reported, since it
    is the nearest to fitting.
    """

    INFRA = "other cloud, region or cluster"
    MARKET = "other market (use_spot)"
    GPU_TYPE = "GPU type"
    LABEL = "labels do not match"
    TAINT = "a taint that the job does not tolerate"
    RUNTIME = "no container runtime for its image"
    BUDGET = "over the job's budget"
    SILENT = "not heard from"
    CORDONED = "cordoned"
    GPU_COUNT = "not enough GPUs free"
    GPU_FRACTION = "no single GPU with that share free"
    CPU = "not enough CPUs free"
    MEMORY = "not enough memory free"
    DISK = "not enough disk free"
    FULL = "no room now"
    GANG = "room for some replicas but not for all"


class Kind(Struct, frozen=True, kw_only=True):
    """Everything about a node that does not change while it runs jobs; many nodes share one."""

    capacity: Capacity
    labels: dict[str, str]
    taints: tuple[tuple[str, str], ...]
    market: Market
    instance_type: str = ""
    usd_per_hour: float = 0.0
    declared: bool = False
    runtimes: tuple[str, ...] = ()
    """Empty: not known, so not checked."""


def kind_of_node(node: Node) -> Kind:
    return Kind(
        capacity=node.capacity,
        labels=node.labels,
        taints=tuple(sorted((t.key, t.value) for t in node.taints)),
        market=node.market,
        instance_type=node.instance_type,
        usd_per_hour=node.usd_per_hour,
        declared=bool(node.declared),
        runtimes=tuple(sorted(node.runtimes)),
    )


def kind_of_shape(shape: Shape) -> Kind:
    return Kind(
        capacity=shape.capacity,
        labels=shape.labels,
        taints=shape.taints,
        market=shape.market,
        instance_type=shape.instance_type,
        usd_per_hour=shape.usd_per_hour,
        declared=shape.declared,
    )


def refusal(job: Job, request: ResourceRequest, kind: Kind) -> Reason | None:
    """Why no replica could run on an empty node of this kind; None when one could."""
    if not on_market(request.use_spot, kind.market):
        return Reason.MARKET
    if not gpu_type_fits(request, kind.capacity):
        return Reason.GPU_TYPE
    if any(kind.labels.get(key) != value for key, value in request.labels.items()):
        return Reason.LABEL
    if kind.taints and not all(_tolerated(t, job.tolerations) for t in kind.taints):
        return Reason.TAINT
    if job.image and kind.runtimes and not any(r != PLAIN_RUNTIME for r in kind.runtimes):
        return Reason.RUNTIME
    return size_refusal(request, kind.capacity)


PLAIN_RUNTIME = "process"
"""Runs commands on the host itself, hence no images."""


def size_refusal(request: ResourceRequest, capacity: Capacity) -> Reason | None:
    """Which dimension of an empty node is too small for one replica."""
    if request.gpus_milli > MILLI and request.gpus_milli % MILLI:
        return Reason.GPU_FRACTION
    if request.gpus_milli > capacity.gpus * MILLI:
        return Reason.GPU_COUNT
    if request.cpus_milli > capacity.cpus_milli:
        return Reason.CPU
    if request.memory_mib > capacity.memory_mib:
        return Reason.MEMORY
    if request.disk_mib > capacity.disk_mib:
        return Reason.DISK
    return None


def on_market(use_spot: bool | None, market: Market) -> bool:
    return use_spot is None or use_spot == (market is Market.SPOT)


def gpu_type_fits(request: ResourceRequest, capacity: Capacity) -> bool:
    """A type is asked for by its exact name, in any case; a node without GPUs has no type."""
    if not request.gpus_milli or not request.gpu_type:
        return True
    return capacity.gpus > 0 and request.gpu_type.casefold() == capacity.gpu_type.casefold()


def in_place(infra: str, cluster: str, region: str) -> bool:
    """Whether ``infra`` (a cloud, ``cloud/region``, or a cluster's name) admits this cluster."""
    return not infra or infra in (cluster, region, region.partition("/")[0])


def slots(request: ResourceRequest, capacity: Capacity) -> int:
    """How many replicas an empty node takes."""
    if size_refusal(request, capacity) is not None:
        return 0
    most = UNBOUNDED
    if request.gpus_milli >= MILLI:
        most = capacity.gpus // request.whole_gpus
    elif request.gpus_milli:
        most = capacity.gpus * (MILLI // request.gpus_milli)
    for need, has in (
        (request.cpus_milli, capacity.cpus_milli),
        (request.memory_mib, capacity.memory_mib),
        (request.disk_mib, capacity.disk_mib),
    ):
        if need:
            most = min(most, has // need)
    return most


UNBOUNDED = 1_000_000
"""Replicas that ask for nothing at all fit this often."""


def dominant_share(request: ResourceRequest, capacity: Capacity) -> float:
    """The largest part of any dimension that a replica takes; what it pays of the node's price."""
    share = 0.0
    if request.gpus_milli and capacity.gpus:
        share = request.gpus_milli / (capacity.gpus * MILLI)
    if request.cpus_milli and capacity.cpus_milli:
        share = max(share, request.cpus_milli / capacity.cpus_milli)
    if request.memory_mib and capacity.memory_mib:
        share = max(share, request.memory_mib / capacity.memory_mib)
    return min(share, 1.0)


def request_key(r: ResourceRequest) -> tuple[object, ...]:
    """A hashable equal of a request (its labels are a dict)."""
    return (
        r.gpus_milli,
        r.gpu_type,
        r.cpus_milli,
        r.memory_mib,
        r.disk_mib,
        tuple(sorted(r.labels.items())) if r.labels else (),
        r.infra,
        r.use_spot,
    )


def _tolerated(taint: tuple[str, str], tolerations: tuple[Toleration, ...]) -> bool:
    return any(t.key == taint[0] and t.value in ("", taint[1]) for t in tolerations)
