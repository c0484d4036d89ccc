"""Which cluster a job goes to: places with their price, ranked, and one chosen.

The federation calls this; inside a cluster the planner then finds the nodes.
"""

from collections.abc import Collection, Hashable, Iterable, Sequence

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from hyperion.model.cluster import Cluster, ClusterLoad, Shape
from hyperion.model.job import Job
from hyperion.model.market import Market, MarketView
from hyperion.model.resources import MILLI, Capacity, ResourceRequest
from hyperion.placement import feasibility, offers
from hyperion.placement.feasibility import Reason, request_key
from hyperion.placement.objective import (
    Price,
    Terms,
    dollars,
    known_hours,
    over_budget,
    price_from,
    region_terms,
)
from hyperion.placement.ranking import Candidates, Policy, guarded
from hyperion.placement.snapshot import fullness

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


def rank(
    job: Job, fleet: Iterable[FleetCluster], market: MarketView, policy: Policy
) -> tuple[Place, ...]:
    """Every joined cluster, best place first, those that cannot take the job last.

    One row per cluster, kind of machine and market, with the best alternative for it.
    """
    terms = _TermsByRegion(job, market)
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


def catalogue(
    job: Job,
    market: MarketView,
    policy: Policy,
    limit: int,
    joined_regions: Collection[str] = (),
) -> tuple[Place, ...]:
    """Offers where nobody has joined, best first: whole instances, one row per region and market.

    Labels are not asked for (who joins sets them). Offers over the budget come last, refused.
    """
    if limit <= 0 or not market.offers:
        return ()
    columns = offers.columns(market)
    found: list[Place] = []
    for alternative, request in enumerate(job.alternatives):
        found += _offered(job, alternative, request, columns, policy, limit, joined_regions)
    best: dict[Hashable, Place] = {}
    for place in sorted(found, key=_refused_last):
        best.setdefault((place.region, place.market), place)
    return tuple(best.values())[:limit]


def shape_key(job: Job) -> Hashable:
    """Equal for jobs that no ranking can tell apart, so that one ranking serves them all."""
    return (
        request_key(job.alternatives[0])
        if len(job.alternatives) == 1
        else tuple(request_key(r) for r in job.alternatives),
        job.replicas,
        job.policy,
        job.objective,
        job.budget,
        job.expected_s,
        job.users_in,
        bool(job.image),
        tuple((d.region, d.size_gib) for d in job.data),
        job.tolerations,
    )


class _TermsByRegion:
    """The regional terms of one job, computed once for each region, alternative and GPU type."""

    def __init__(self, job: Job, market: MarketView) -> None:
        self.job = job
        self.market = market
        self._known: dict[tuple[str, int, str], Terms] = {}

    def of(self, region: str, alternative: int, gpu_type: str) -> Terms:
        request = self.job.alternatives[alternative]
        key = (region, alternative, gpu_type if request.gpus_milli else "")
        terms = self._known.get(key)
        if terms is None:
            terms = region_terms(self.job, request, region, self.market, gpu_type)
            self._known[key] = terms
        return terms


def _places(
    job: Job, member: FleetCluster, terms: _TermsByRegion
) -> tuple[list[Place], Place | None]:
    """The places of one cluster; or one refused place when it has none."""
    nearest: Place | None = None
    found: list[Place] = []
    promised = _promised(member)
    for alternative, request in enumerate(job.alternatives):
        place, suitable = _refusal(job, member, alternative)
        if place is None:
            room = sum(_room(request, shape, promised) for shape in suitable)
            priced = [_priced(job, member, alternative, s, terms, room) for s in suitable]
            found += [p for p in priced if p.refusal is None]
            place = next((p for p in priced if p.refusal is not None), None)
        if place is not None and (nearest is None or _nearness(place) > _nearness(nearest)):
            nearest = place
    return found, None if found else nearest


def _refusal(job: Job, member: FleetCluster, alternative: int) -> tuple[Place | None, list[Shape]]:
    """Why a cluster cannot run an alternative at all; else the shapes that suit it."""
    request = job.alternatives[alternative]
    cluster = member.cluster
    if not feasibility.in_place(request.infra, cluster.id, cluster.region):
        return _refused(member, alternative, Reason.INFRA, f"not {request.infra}"), []
    if not member.reachable:
        return _refused(member, alternative, Reason.SILENT, Reason.SILENT.value), []
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
        text = _why_too_small(reason, request, member) if worst else "no usable nodes"
        return _refused(member, alternative, reason, text), []
    seats = sum(s.nodes * feasibility.slots(request, s.capacity) for s in suitable)
    if seats < job.replicas:
        text = f"even when empty, room for {seats} of {job.replicas} replicas"
        return _refused(member, alternative, Reason.GANG, text), []
    return None, suitable


def _priced(
    job: Job,
    member: FleetCluster,
    alternative: int,
    shape: Shape,
    terms: _TermsByRegion,
    room: int,
) -> Place:
    request = job.alternatives[alternative]
    region = member.cluster.region
    usd = offers.node_usd_per_hour(shape, region, terms.market)
    share = feasibility.dominant_share(request, shape.capacity)
    regional = terms.of(region, alternative, shape.capacity.gpu_type)
    price = price_from(job, regional, share * usd * job.replicas)
    refusal = Reason.BUDGET if over_budget(job, price.usd_per_hour, price.egress_usd) else None
    return Place(
        cluster=member.cluster.id,
        region=region,
        alternative=alternative,
        shape=shape,
        market=shape.market,
        instance_type=shape.instance_type,
        price=price,
        declared=shape.declared,
        refusal=refusal,
        refusal_text=_over(job, price) if refusal else "",
        has_room=refusal is None and room >= job.replicas,
        backlog=_backlog(member),
        fullness=_fullness(shape),
        waste=float(shape.capacity.gpus > 0 and not request.gpus_milli),
    )


def _room(request: ResourceRequest, shape: Shape, promised: Capacity) -> int:
    """Replicas that the free sums of a shape admit: an upper bound, as fragments count too."""
    room = shape.nodes * feasibility.slots(request, shape.capacity)
    for need, free, gone in (
        (request.gpus_milli, shape.free_gpus_milli, promised.gpus),
        (request.cpus_milli, shape.free_cpus_milli, promised.cpus_milli),
        (request.memory_mib, shape.free_memory_mib, promised.memory_mib),
    ):
        if need:
            room = min(room, max(0, free - gone) // need)
    return room


def _promised(member: FleetCluster) -> Capacity:
    """What jobs placed there will take and its load does not count yet (``gpus`` in thousandths).

    It is taken off every shape, for nobody knows yet which nodes they will get.
    """
    gpus = cpus = memory = 0
    for shape in member.load.shapes:
        gpus += shape.nodes * shape.capacity.gpus * MILLI - shape.free_gpus_milli
        cpus += shape.nodes * shape.capacity.cpus_milli - shape.free_cpus_milli
        memory += shape.nodes * shape.capacity.memory_mib - shape.free_memory_mib
    return Capacity(
        gpus=max(0, member.committed_gpus_milli - gpus),
        cpus_milli=max(0, member.committed_cpus_milli - cpus),
        memory_mib=max(0, member.committed_memory_mib - memory),
    )


def _backlog(member: FleetCluster) -> int:
    """Jobs that wait there, by its own count or by ours, whichever is more."""
    return max(member.load.waiting_jobs, member.backlog_jobs - member.load.running_jobs)


def _offered(
    job: Job,
    alternative: int,
    request: ResourceRequest,
    columns: offers.Columns,
    policy: Policy,
    limit: int,
    joined_regions: Collection[str],
) -> list[Place]:
    """The best offers for one alternative, by region and market."""
    rows, per_instance = columns.suitable(request, joined_regions)
    if not len(rows):
        return []
    instances = -(-job.replicas // per_instance)
    usd_per_hour = instances * columns.usd_per_hour[rows]
    terms = columns.terms(job, request, rows)
    candidates = Candidates(
        usd_per_hour=usd_per_hour,
        egress_usd=terms.egress_usd,
        gco2e_per_hour=terms.gco2e_per_hour,
        latency_ms=terms.latency_ms,
        score=terms.score(job, usd_per_hour),
        fullness=np.zeros(len(rows)),
        waste=((columns.gpus[rows] > 0) & (request.gpus_milli == 0)).astype(np.float64),
    )
    costs = guarded(policy).cost(job, candidates)
    over = terms.over_budget(job, usd_per_hour)
    order = np.lexsort((costs, over))
    picked = columns.first_of_each_place(rows[order], limit)
    return [
        _offer_place(job, alternative, columns, int(rows[i]), float(usd_per_hour[i]), costs[i])
        for i in order[picked].tolist()
    ]


def _offer_place(
    job: Job,
    alternative: int,
    columns: offers.Columns,
    row: int,
    usd_per_hour: float,
    cost: float,
) -> Place:
    offer = columns.market.offers[row]
    request = job.alternatives[alternative]
    regional = region_terms(job, request, offer.region, columns.market, offer.gpu_type)
    price = price_from(job, regional, usd_per_hour)
    over = over_budget(job, price.usd_per_hour, price.egress_usd)
    return Place(
        cluster="",
        region=offer.region,
        alternative=alternative,
        shape=offers.as_shape(offer),
        market=offer.market,
        instance_type=offer.instance_type,
        price=price,
        joined=False,
        refusal=Reason.BUDGET if over else None,
        refusal_text=_over(job, price) if over else "",
        cost=float(cost),
    )


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


def _refused(member: FleetCluster, alternative: int, reason: Reason, text: str) -> Place:
    shapes = member.load.shapes
    return Place(
        cluster=member.cluster.id,
        region=member.cluster.region,
        alternative=alternative,
        shape=None,
        market=shapes[0].market if shapes else Market.OWNED,
        instance_type=shapes[0].instance_type if shapes else "",
        price=None,
        declared=any(s.declared for s in shapes),
        refusal=reason,
        refusal_text=text,
        backlog=_backlog(member),
    )


def _why_too_small(reason: Reason, request: ResourceRequest, member: FleetCluster) -> str:
    """The refusal in numbers: what was asked, and the most that a node of the cluster has."""
    capacities = [s.capacity for s in member.load.shapes]
    match reason:
        case Reason.GPU_TYPE:
            types = sorted({c.gpu_type for c in capacities if c.gpus})
            return f"no {request.gpu_type} (has {', '.join(types[:4]) or 'no GPUs'})"
        case Reason.GPU_COUNT:
            most = max(c.gpus for c in capacities)
            return f"{request.gpus_milli / MILLI:g} GPUs on one node asked, at most {most} there"
        case Reason.CPU:
            most = max(c.cpus_milli for c in capacities)
            return f"{request.cpus_milli / MILLI:g} CPUs asked, at most {most / MILLI:g} on a node"
        case Reason.MEMORY:
            most = max(c.memory_mib for c in capacities)
            asked = request.memory_mib / 1024
            return f"{asked:.4g} GiB memory asked, at most {most / 1024:.4g} on a node"
        case Reason.DISK:
            most = max(c.disk_mib for c in capacities)
            asked = request.disk_mib / 1024
            return f"{asked:.4g} GiB disk asked, at most {most / 1024:.4g} on a node"
    return str(reason.value)


def _over(job: Job, price: Price) -> str:
    limit = job.budget.max_usd_per_hour
    if 0 < limit < price.usd_per_hour:
        return f"{dollars(price.usd_per_hour, 2)}/h is over the budget of {dollars(limit, 2)}/h"
    usd = price.usd_per_hour * known_hours(job) + price.egress_usd
    return f"{dollars(usd, 2)} is over the budget of {dollars(job.budget.max_usd, 2)}"


def _fullness(shape: Shape) -> float:
    if not shape.nodes:
        return 1.0
    n = shape.nodes
    per_node = (shape.free_gpus_milli // n, shape.free_cpus_milli // n, shape.free_memory_mib // n)
    return fullness(shape.capacity, *per_node)


def _nearness(place: Place) -> int:
    return _ORDER[place.refusal] if place.refusal is not None else 0


def _refused_last(place: Place) -> tuple[bool, float]:
    return place.refusal is not None, place.cost


_ORDER = {reason: i for i, reason in enumerate(Reason)}
