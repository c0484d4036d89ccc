"""What may run where at all: typed refusals, and the checks that do not depend on what is free."""

from collections.abc import Iterator, Mapping
from enum import Enum
from fnmatch import fnmatchcase

from msgspec import Struct

from hyperion.model.cluster import Shape
from hyperion.model.constraints import NodeTerm, Operator
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
    RESIDENCY = "a region where the job may not be"
    MARKET = "other market (use_spot)"
    GPU_TYPE = "GPU type"
    LABEL = "labels do not match"
    AFFINITY = "node affinity does not match"
    TAINT = "a taint that the job does not tolerate"
    RUNTIME = "no container runtime for its image"
    BUDGET = "over the job's budget"
    SILENT = "not heard from"
    CORDONED = "cordoned"
    WINDOW = "kept free by a window"
    GPU_COUNT = "not enough GPUs free"
    GPU_FRACTION = "no single GPU with that share free"
    CPU = "not enough CPUs free"
    MEMORY = "not enough memory free"
    DISK = "not enough disk free"
    CUSTOM = "not enough of a countable of the site free"
    RESERVED = "reserved for another job"
    REPLICA_AFFINITY = "not near the replicas that it must be near to"
    ANTI_AFFINITY = "near to replicas that it must be away from"
    SPREAD = "its replicas would be spread unevenly"
    FULL = "no room now"
    TOPOLOGY = "no part of the topology has room for all replicas"
    GANG = "room for some replicas but not for all"


class Kind(Struct, frozen=True, kw_only=True):
    """Everything about a node that does not change while it runs jobs; many nodes share one."""

    capacity: Capacity
    labels: dict[str, str]
    """``VARIOUS`` where its nodes differ."""
    taints: tuple[tuple[str, str], ...]
    market: Market
    instance_type: str = ""
    usd_per_hour: float = 0.0
    declared: bool = False
    runtimes: tuple[str, ...] = ()
    """Empty: not known, so not checked."""


VARIOUS = "*"
"""The label of a kind, or of a shape, whose nodes each have a value of their own, such as their
rack. A question about it is answered by the nodes alone; of a kind it counts as met."""


def kind_of_node(node: Node, labels: dict[str, str]) -> Kind:
    """``labels`` are the node's as far as they tell kinds apart."""
    return Kind(
        capacity=node.capacity,
        labels=labels,
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
    first = next(_objections(job, request, kind), None)
    return size_refusal(request, kind.capacity) if first is None else first


def _objections(job: Job, request: ResourceRequest, kind: Kind) -> Iterator[Reason]:
    """What speaks against a kind but its size, one check after the other."""
    if not on_market(request.use_spot, kind.market):
        yield Reason.MARKET
    if not gpu_type_fits(request, kind.capacity):
        yield Reason.GPU_TYPE
    if any(kind.labels.get(k) not in (v, VARIOUS) for k, v in request.labels.items()):
        yield Reason.LABEL
    if not all(t.weight or term_holds(t, kind.labels) for t in request.affinity):
        yield Reason.AFFINITY
    if not all(_tolerated(t, job.tolerations) for t in kind.taints):
        yield Reason.TAINT
    if job.image and kind.runtimes and all(r == PLAIN_RUNTIME for r in kind.runtimes):
        yield Reason.RUNTIME


PLAIN_RUNTIME = "process"
"""Runs commands on the host itself, hence no images."""


def size_refusal(  # noqa: PLR0911 - one a dimension, in order; this is asked most of all
    request: ResourceRequest, capacity: Capacity
) -> Reason | None:
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
    if request.custom and missing_custom(request, capacity):
        return Reason.CUSTOM
    return None


def missing_custom(request: ResourceRequest, capacity: Capacity) -> str:
    """The first countable of which an empty node has too few; empty when it has enough of all."""
    has = dict(capacity.custom)
    return next((n for n, need in request.custom if need > has.get(n, 0)), "")


def term_holds(term: NodeTerm, labels: Mapping[str, str]) -> bool:
    """Whether these labels are as the term wants them; ``VARIOUS`` is."""
    has = labels.get(term.key)
    if has == VARIOUS:
        return True
    match term.operator:
        case Operator.IN | Operator.NOT_IN:
            return (has in term.values) == (term.operator is Operator.IN)
        case Operator.EXISTS | Operator.ABSENT:
            return (has is None) == (term.operator is Operator.ABSENT)
        case _:
            return has is not None and beyond(has, term)


def beyond(text: str, term: NodeTerm) -> bool:
    """Whether a label is a whole number greater, or less, than the term's."""
    number = whole_number(text)
    bound = whole_number(term.values[0]) if term.values else None
    if number is None or bound is None:
        return False
    return number > bound if term.operator is Operator.GREATER else number < bound


def whole_number(text: str) -> int | None:
    """None for what is not written as one, of at most 18 digits."""
    digits = text.removeprefix("-")
    return int(text) if digits.isascii() and digits.isdigit() and len(digits) <= 18 else None


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


def residence_refusal(job: Job, cluster: str, region: str) -> str:
    """Why the job may not be there by its ``regions``, in a phrase; empty where it may."""
    where = job.regions
    if not where.allow and not where.deny:
        return ""
    for pattern in where.deny:
        if place_matches(pattern, cluster, region):
            return f"regions.deny has {pattern}"
    if where.allow and not any(place_matches(p, cluster, region) for p in where.allow):
        return f"not in regions.allow ({', '.join(where.allow[:3])})"
    return ""


def place_matches(pattern: str, cluster: str, region: str) -> bool:
    """Whether a pattern of ``regions`` means this cluster; empty where nobody has joined."""
    here = (region, region.partition("/")[0], cluster)
    return any(name and fnmatchcase(name, pattern) for name in here)


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
    if request.custom:
        amounts = dict(capacity.custom)
        for name, need in request.custom:
            if need:
                most = min(most, amounts.get(name, 0) // need)
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
        r.custom,
        r.affinity,
    )


def _tolerated(taint: tuple[str, str], tolerations: tuple[Toleration, ...]) -> bool:
    return any(t.key == taint[0] and t.value in ("", taint[1]) for t in tolerations)
