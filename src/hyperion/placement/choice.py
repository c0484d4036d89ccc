"""Which cluster a job goes to: places with their price, ranked, and one chosen.

The federation calls this; inside a cluster the planner then finds the nodes.
"""

from collections.abc import Hashable, Iterable, Sequence
from itertools import repeat

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from hyperion.model.cluster import Cluster, ClusterLoad, Shape
from hyperion.model.job import Job
from hyperion.model.market import Market, MarketView
from hyperion.model.resources import Capacity, ResourceRequest
from hyperion.placement import feasibility, offers, vacancy
from hyperion.placement.choice_words import why_over, why_too_small
from hyperion.placement.feasibility import Reason, request_key
from hyperion.placement.gravity import NO_DATASETS, DataView
from hyperion.placement.interruption import per_hour, struck
from hyperion.placement.objective import (
    UNDISTURBED,
    Extent,
    Outlook,
    Price,
    Terms,
    expected_hours,
    extent,
    over_budget,
    price_from,
    region_terms,
    widened,
)
from hyperion.placement.ranking import Candidates, Policy, guarded
from hyperion.placement.snapshot import fullness
from hyperion.placement.vacancy import room_of

MAX_BACKLOG = 256
"""A cluster without room is given a job only while fewer than this wait there. Enough to keep a
cluster busy between two of its reports; the rest wait at the federation, which can still choose."""


class FleetCluster(Struct, frozen=True, kw_only=True):
    """A joined cluster: what it reported, and what the federation has placed there."""

    cluster: Cluster
    load: ClusterLoad
    reachable: bool = True
    committed_cpus_milli: int = 0
    """Asked for by all jobs placed there that have not ended, whether its load counts them yet or
    not: whatever it reports as used is taken off first."""
    committed_gpus_milli: int = 0
    committed_memory_mib: int = 0
    backlog_jobs: int = 0
    """How many those are."""


class Ask(Struct, frozen=True):
    """Replicas of a job that are alike, and the shapes of a cluster that suit them."""

    request: ResourceRequest
    replicas: int
    shapes: tuple[Shape, ...]


class Place(Struct, frozen=True, kw_only=True):
    """Somewhere a job could go, or why it could not."""

    cluster: str
    """Empty where nobody has joined."""
    region: str
    alternative: int
    shape: Shape | None
    """The nodes it would run on; None when none are suitable."""
    market: Market
    instance_type: str
    price: Price | None
    """None when refused for more than its price."""
    declared: bool = False
    joined: bool = True
    refusal: Reason | None = None
    refusal_text: str = ""
    has_room: bool = False
    """By what is known of it now; only the cluster itself can tell for sure."""
    backlog: int = 0
    cost: float = 0.0
    """By the policy that ranked it; lower is better."""
    fullness: float = 0.0
    waste: float = 0.0
    asks: tuple[Ask, ...] = ()
    """All of which need room there at the same time; none where it is refused."""
    yielded: bool = False
    """Left to jobs that wait with this one and would lose more elsewhere."""


def rank(
    job: Job,
    fleet: Iterable[FleetCluster],
    market: MarketView,
    policy: Policy,
    data: DataView = NO_DATASETS,
) -> tuple[Place, ...]:
    """Every joined cluster, best place first, those that cannot take the job last.

    One row per cluster, kind of machine and market, with the best alternative for it.
    """
    terms = _TermsByRegion(job, market, data)
    possible: list[Place] = []
    refused: list[Place] = []
    for member in fleet:
        found, why = _places(job, member, terms)
        possible += found
        if why is not None:
            refused.append(why)
    best: dict[Hashable, Place] = {}
    for place in _by_cost(job, possible, policy):
        shape = place.shape
        assert shape is not None
        gpu = (shape.capacity.gpu_type, shape.capacity.gpus)
        best.setdefault((place.cluster, place.instance_type, place.market, gpu), place)
    refused.sort(key=lambda p: (p.price is None, p.cluster))
    return (*best.values(), *refused)


def choose(places: Sequence[Place]) -> Place | None:
    """The best joined place with room; else the shortest queue below the bound; else none."""
    open_to = [p for p in places if p.joined and p.refusal is None]
    for place in open_to:
        if place.has_room:
            return place
    shortest = min(open_to, key=lambda p: p.backlog, default=None)
    return shortest if shortest is not None and shortest.backlog < MAX_BACKLOG else None


def shape_key(job: Job) -> Hashable:
    """Equal for jobs that no ranking and no planner can tell apart, so that what one is told holds
    for all.

    Of the metadata only that of jobs with ``near`` or ``away_from``; whose running replicas keep
    others away, the caller knows.
    """
    requests = job.alternatives
    return (
        request_key(requests[0])
        if len(requests) == 1
        else tuple(request_key(request) for request in requests),
        job.replicas,
        job.queue,
        job.policy,
        job.objective,
        job.budget,
        job.regions,
        job.expected_s,
        job.start_now,
        job.checkpoint.every_s,
        job.checkpoint.restore_s,
        job.users_in,
        job.latency_target_s,
        bool(job.image),
        tuple((d.region, d.size_gib) for d in job.data) if job.data else (),
        (job.reads, job.writes) if job.reads or job.writes else (),
        job.tolerations,
        _form_key(job) if _is_formed(job) else (),
    )


def _is_formed(job: Job) -> bool:
    """Whether it says anything of what few jobs say."""
    return bool(
        job.roles
        or job.packing is not None
        or job.spread
        or job.replica_affinity
        or job.reservation
        or job.elastic is not None
        or job.array is not None
    )


def _form_key(job: Job) -> Hashable:
    return (
        tuple((role.replicas, request_key(role.resources)) for role in job.roles),
        job.elastic,
        job.array,
        job.packing,
        job.spread,
        job.replica_affinity,
        tuple(sorted(job.metadata.items())) if job.replica_affinity else (),
        job.reservation,
    )


def asked_in_all(job: Job) -> Capacity:
    """What all its replicas take together (``gpus`` in thousandths); of an array one task."""
    gpus = cpus = memory = 0
    each = [(role.replicas, role.resources) for role in job.roles]
    for replicas, request in each or [(job.replicas, job.alternatives[0])]:
        gpus += replicas * request.gpus_milli
        cpus += replicas * request.cpus_milli
        memory += replicas * request.memory_mib
    return Capacity(gpus=gpus, cpus_milli=cpus, memory_mib=memory)


class _TermsByRegion:
    """The regional terms of one job, computed once for each region, alternative and GPU type."""

    def __init__(self, job: Job, market: MarketView, data: DataView) -> None:
        self.job = job
        self.market = market
        self.data = data
        self._known: dict[tuple[str, int, str], Terms] = {}

    def of(self, region: str, alternative: int, gpu_type: str) -> Terms:
        request = self.job.alternatives[alternative]
        key = (region, alternative, gpu_type if request.gpus_milli else "")
        terms = self._known.get(key)
        if terms is None:
            terms = region_terms(self.job, request, region, self.market, gpu_type, self.data)
            self._known[key] = terms
        return terms


class _Part(Struct, frozen=True):
    """Replicas that are alike and must find places: all of an alternative, or those of a role."""

    alternative: int
    request: ResourceRequest
    replicas: int
    role: str = ""


class _Suitable(Struct, frozen=True):
    """The shapes of a cluster that a part could run on."""

    shapes: list[Shape]
    seats: int
    """Replicas that they would take if they were empty."""
    room: int
    """Replicas that they may have room for now."""


def _places(
    job: Job, member: FleetCluster, terms: _TermsByRegion
) -> tuple[list[Place], Place | None]:
    """The places of one cluster; or one refused place when it has none."""
    nearest: Place | None = None
    found: list[Place] = []
    promised = vacancy.promised(member)
    for parts in _ways(job):
        suitable: list[_Suitable] = []
        place: Place | None = None
        for part in parts:
            place, fit = _refusal(job, member, part, promised)
            if fit is None:
                break
            suitable.append(fit)
        if place is None:
            priced = _priced_all(job, member, parts, suitable, terms)
            found += [p for p in priced if p.refusal is None]
            place = next((p for p in priced if p.refusal is not None), None)
        if place is not None and (nearest is None or _nearness(place) > _nearness(nearest)):
            nearest = place
    return found, None if found else nearest


def _ways(job: Job) -> Iterable[list[_Part]]:
    """What must find places together, for each way in which the job could run."""
    if job.roles:
        yield [_Part(0, role.resources, role.replicas, role.name) for role in job.roles]
        return
    for alternative, request in enumerate(job.alternatives):
        yield [_Part(alternative, request, job.least_replicas)]


def _refusal(
    job: Job, member: FleetCluster, part: _Part, promised: Capacity
) -> tuple[Place | None, _Suitable | None]:
    """Why a cluster cannot run a part of the job at all; else the shapes that suit it."""
    request, cluster = part.request, member.cluster
    if not feasibility.in_place(request.infra, cluster.id, cluster.region):
        return _refused(member, part, Reason.INFRA, f"not {request.infra}"), None
    elsewhere = feasibility.residence_refusal(job, cluster.id, cluster.region)
    if elsewhere:
        return _refused(member, part, Reason.RESIDENCY, elsewhere), None
    if not member.reachable:
        return _refused(member, part, Reason.SILENT, Reason.SILENT.value), None
    suitable: list[Shape] = []
    worst: tuple[int, Reason] | None = None
    for shape in member.load.shapes:
        kind = feasibility.kind_of_shape(shape)
        reason = feasibility.refusal(job, request, kind)
        if reason is None:
            suitable.append(shape)
        elif worst is None or _ORDER[reason] > worst[0]:
            worst = (_ORDER[reason], reason)
    if not suitable:
        reason = worst[1] if worst else Reason.FULL
        text = (
            why_too_small(reason, request, [s.capacity for s in member.load.shapes])
            if worst
            else "no usable nodes"
        )
        return _refused(member, part, reason, text), None
    empty = [s.nodes * feasibility.slots(request, s.capacity) for s in suitable]
    seats = sum(empty)
    if seats < part.replicas:
        text = f"even when empty, room for {seats} of {part.replicas} replicas"
        return _refused(member, part, Reason.GANG, text), None
    room = sum(map(room_of, repeat(request), suitable, repeat(promised), empty))
    return None, _Suitable(suitable, seats, room)


def _priced_all(
    job: Job,
    member: FleetCluster,
    parts: list[_Part],
    suitable: list[_Suitable],
    terms: _TermsByRegion,
) -> list[Place]:
    """One place for each shape that suits the first part; the other roles take their cheapest."""
    has_room = all(s.room >= part.replicas for part, s in zip(parts, suitable, strict=True))
    region = member.cluster.region
    first, widest = parts[0], extent(job, suitable[0].seats)
    others = 0.0
    for part, fit in zip(parts[1:], suitable[1:], strict=True):
        each = (_replica_usd(part.request, s, region, terms.market) for s in fit.shapes)
        others += part.replicas * min(each)
    width = first.replicas if job.roles else widest.width
    asks = tuple(
        Ask(part.request, part.replicas, tuple(fit.shapes))
        for part, fit in zip(parts, suitable, strict=True)
    )
    found = []
    for shape in suitable[0].shapes:
        usd = width * _replica_usd(first.request, shape, region, terms.market) + others
        found.append(_priced(job, member, first, shape, terms, usd, widest, has_room, asks))
    return found


def _replica_usd(request: ResourceRequest, shape: Shape, region: str, market: MarketView) -> float:
    """USD per hour of one replica on such a node: of the node's price the part it takes."""
    share = feasibility.dominant_share(request, shape.capacity)
    return share * offers.node_usd_per_hour(shape, region, market)


def _priced(
    job: Job,
    member: FleetCluster,
    part: _Part,
    shape: Shape,
    terms: _TermsByRegion,
    usd_per_hour: float,
    widest: Extent,
    has_room: bool,
    asks: tuple[Ask, ...],
) -> Place:
    region = member.cluster.region
    regional = terms.of(region, part.alternative, shape.capacity.gpu_type)
    outlook = _outlook(job, member, part, shape, terms.market, widest, has_room)
    price = price_from(
        job, widened(regional, job, widest.width), usd_per_hour, widest.hours, outlook
    )
    over = over_budget(
        job,
        price.usd_per_hour,
        price.egress_usd,
        price.gco2e_per_hour,
        widest.known_hours,
        price.move_gco2e,
    )
    refusal = Reason.BUDGET if over else None
    return Place(
        cluster=member.cluster.id,
        region=region,
        alternative=part.alternative,
        shape=shape,
        market=shape.market,
        instance_type=shape.instance_type,
        price=price,
        declared=shape.declared,
        refusal=refusal,
        refusal_text=why_over(job, price, widest.known_hours) if refusal else "",
        has_room=refusal is None and has_room,
        backlog=_backlog(member),
        fullness=_fullness(shape),
        waste=float(shape.capacity.gpus > 0 and not part.request.gpus_milli),
        asks=asks,
    )


def _outlook(
    job: Job,
    member: FleetCluster,
    part: _Part,
    shape: Shape,
    market: MarketView,
    widest: Extent,
    has_room: bool,
) -> Outlook:
    """How often it would be interrupted there, and how long it would wait."""
    wait_h = 0.0 if has_room else _wait_h(job, member)
    each = per_hour(member.cluster.region, shape.instance_type, shape.market, market)
    if not each:
        return Outlook(0.0, wait_h) if wait_h else UNDISTURBED
    slots = max(1, feasibility.slots(part.request, shape.capacity))
    machines = -(-widest.width // slots) if not job.roles else job.replicas
    return Outlook(each * struck(job, machines), wait_h)


def _wait_h(job: Job, member: FleetCluster) -> float:
    """Until those before it have made room, when all run as long as this one and as many at once
    as run now."""
    return (_backlog(member) + 1) * expected_hours(job) / max(1, member.load.running_jobs)


def _backlog(member: FleetCluster) -> int:
    """Jobs that wait there, by its own count or by ours, whichever is more."""
    return max(member.load.waiting_jobs, member.backlog_jobs - member.load.running_jobs)


def _by_cost(job: Job, places: list[Place], policy: Policy) -> list[Place]:
    """In the policy's order; among equals those with room first, then by name."""
    if not places:
        return []
    prices = [p.price for p in places if p.price is not None]
    assert len(prices) == len(places), "a possible place has a price"
    candidates = Candidates(
        usd_per_hour=np.array([p.usd_per_hour for p in prices]),
        egress_usd=np.array([p.egress_usd for p in prices]),
        gco2e_per_hour=np.array([p.gco2e_per_hour for p in prices]),
        latency_ms=np.array([p.latency_ms for p in prices]),
        score=np.array([p.score for p in prices]),
        fullness=np.array([p.fullness for p in places]),
        waste=np.array([p.waste for p in places]),
    )
    costs = guarded(policy).cost(job, candidates).tolist()
    order = sorted(
        range(len(places)),
        key=lambda i: (costs[i], not places[i].has_room, places[i].cluster, places[i].alternative),
    )
    return [replace(places[i], cost=costs[i]) for i in order]


def _refused(member: FleetCluster, part: _Part, reason: Reason, text: str) -> Place:
    shapes = member.load.shapes
    return Place(
        cluster=member.cluster.id,
        region=member.cluster.region,
        alternative=part.alternative,
        shape=None,
        market=shapes[0].market if shapes else Market.OWNED,
        instance_type=shapes[0].instance_type if shapes else "",
        price=None,
        declared=any(s.declared for s in shapes),
        refusal=reason,
        refusal_text=f"role {part.role}: {text}" if part.role else text,
        backlog=_backlog(member),
    )


def _fullness(shape: Shape) -> float:
    if not shape.nodes:
        return 1.0
    n = shape.nodes
    per_node = (shape.free_gpus_milli // n, shape.free_cpus_milli // n, shape.free_memory_mib // n)
    return fullness(shape.capacity, *per_node)


def _nearness(place: Place) -> int:
    return _ORDER[place.refusal] if place.refusal is not None else 0


_ORDER = {reason: i for i, reason in enumerate(Reason)}
