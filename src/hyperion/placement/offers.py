"""The market's offers in columns, and what a node costs whose owner does not say."""

from collections.abc import Callable, Collection

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from hyperion.model.cluster import Shape
from hyperion.model.job import Job, Residency
from hyperion.model.market import Market, MarketView, Offer
from hyperion.model.resources import MILLI, Capacity, ResourceRequest
from hyperion.placement.feasibility import in_place, on_market, place_matches
from hyperion.placement.gravity import NO_DATASETS, DataView
from hyperion.placement.gravity_columns import Roads
from hyperion.placement.interruption import lost_hours, per_hour, struck
from hyperion.placement.objective import (
    G_PER_KG,
    Extent,
    Outlook,
    Terms,
    expected_hours,
    fixed_of,
    job_watts,
    machine_score,
)
from hyperion.placement.ranking import Column

MARKETS = tuple(Market)
_MARKET_CODE = {market: code for code, market in enumerate(MARKETS)}


class OfferTerms(Struct, frozen=True):
    """The regional terms of a job, one entry an offer."""

    egress_usd: Column
    gco2e_per_hour: Column
    latency_ms: Column
    late_ms: Column
    fixed: Column
    """All of the score that the region alone decides."""
    interruptions_per_hour: Column
    """Of all machines that matter to the job."""
    lost_h: float
    """By each of them."""
    move_h: Column
    move_gco2e: Column

    def of(self, row: int) -> Terms:
        """As plain numbers, of the row in this place."""
        return Terms(
            float(self.egress_usd[row]),
            float(self.gco2e_per_hour[row]),
            float(self.latency_ms[row]),
            float(self.late_ms[row]),
            float(self.move_h[row]),
            float(self.move_gco2e[row]),
        )

    def outlook(self, row: int) -> Outlook:
        return Outlook(float(self.interruptions_per_hour[row]))

    def score(self, job: Job, usd_per_hour: Column, hours: float) -> Column:
        machines: Column = machine_score(
            job.objective, usd_per_hour, hours, self.interruptions_per_hour, self.lost_h
        )
        return machines + self.fixed

    def over_budget(self, job: Job, usd_per_hour: Column, known_hours: float) -> NDArray[np.bool_]:
        over = np.zeros(len(usd_per_hour), np.bool_)
        b = job.budget
        if b.max_usd_per_hour > 0:
            over |= usd_per_hour > b.max_usd_per_hour
        if b.max_usd > 0:
            over |= usd_per_hour * known_hours + self.egress_usd > b.max_usd
        if b.max_kg_co2e > 0:
            grams = self.gco2e_per_hour * known_hours + self.move_gco2e
            over |= grams > b.max_kg_co2e * G_PER_KG
        return over


class Columns:
    """One market's offers, one row each, in the market's own order."""

    def __init__(self, market: MarketView) -> None:
        self.market = market
        all_offers = market.offers
        self.regions = sorted({o.region for o in all_offers})
        self.gpu_types = sorted({o.gpu_type for o in all_offers})
        region_code = {name: code for code, name in enumerate(self.regions)}
        type_code = {name: code for code, name in enumerate(self.gpu_types)}
        self.region = np.array([region_code[o.region] for o in all_offers], np.int32)
        self.gpu_type = np.array([type_code[o.gpu_type] for o in all_offers], np.int32)
        self.bought = np.array([_MARKET_CODE[o.market] for o in all_offers], np.int8)
        self.usd_per_hour = np.array([o.usd_per_hour for o in all_offers], np.float64)
        self.gpus = np.array([o.gpus for o in all_offers], np.int64)
        self.cpus_milli = np.array([o.cpus_milli for o in all_offers], np.int64)
        self.memory_mib = np.array([o.memory_mib for o in all_offers], np.int64)
        self._pue = np.array([market.pue(name) for name in self.regions], np.float64)
        self._carbon = np.array([market.carbon_g_per_kwh(n) for n in self.regions], np.float64)
        self.interruptions_per_hour = np.array(
            [per_hour(o.region, o.instance_type, o.market, market) for o in all_offers], np.float64
        )
        """Of one machine."""
        self._known: dict[tuple[str, str], Column] = {}
        self._roads = Roads(self.regions, self._carbon, market)
        self._nothing = np.zeros((3, len(self.regions)))
        self.best = self._cheapest_of_alike()
        """Rows that count: of offers with the same region, market, size and rate of interruptions
        the cheapest, the first of equals. Jobs can tell the others from it by their price only."""
        self._by_type: dict[tuple[str, str, Market], float] | None = None
        self._rates: dict[tuple[str, str, Market], float] | None = None

    def suitable(
        self, request: ResourceRequest, joined_regions: Collection[str]
    ) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
        """(rows of the offers that fit at least one replica, replicas on one instance of each); of
        alike ones only the cheapest."""
        rows = self.best
        if request.custom or (request.gpus_milli > MILLI and request.gpus_milli % MILLI):
            rows = rows[:0]  # nobody knows the countables of a machine before it has joined
        if request.gpus_milli and request.gpu_type:
            wanted = request.gpu_type.casefold()
            types = np.array([t.casefold() == wanted for t in self.gpu_types], np.bool_)
            rows = rows[types[self.gpu_type[rows]]]
        fits = self._allowed_regions(request, joined_regions)[self.region[rows]]
        fits &= self._allowed_markets(request)[self.bought[rows]]
        if request.gpus_milli:
            fits &= self.gpus[rows] * MILLI >= request.gpus_milli
        fits &= self.cpus_milli[rows] >= request.cpus_milli
        fits &= self.memory_mib[rows] >= request.memory_mib
        rows = rows[fits]
        return rows, self._replicas(request, rows)

    def terms(
        self,
        job: Job,
        request: ResourceRequest,
        rows: NDArray[np.intp],
        extent: Extent,
        machines: NDArray[np.int64],
        data: DataView = NO_DATASETS,
    ) -> OfferTerms:
        """The same as ``region_terms`` says of each row's region and GPU type, all at once;
        ``machines`` are how many of a row run together."""
        at = self.region[rows]
        egress, latency = np.zeros(len(self.regions)), np.zeros(len(self.regions))
        late, target_ms = np.zeros(len(self.regions)), 1000.0 * job.latency_target_s
        for source in job.data:
            egress += source.size_gib * self._facts("from", source.region, self._egress)
        for user in job.users_in:
            trips = self._facts("to", user, self._latency)
            latency += trips
            late += np.maximum(0.0, trips - target_ms) if target_ms else trips
        latency /= max(1, len(job.users_in))
        late /= max(1, len(job.users_in))
        if request.gpus_milli and not request.gpu_type:
            each = np.array([job_watts(job, request, gpu_type) for gpu_type in self.gpu_types])
            watts = each[self.gpu_type[rows]]
        else:
            watts = np.full(len(rows), job_watts(job, request, request.gpu_type))
        grams = watts / 1000.0 * self._pue[at] * self._carbon[at]
        if job.array is not None:
            grams = grams * extent.width
        brought_usd, waits_h, carried_g = self._nothing
        if job.reads or job.writes:
            brought_usd, waits_h, carried_g = self._roads.loads(job, data, expected_hours(job))
        usd, move_h, move_gco2e = (egress + brought_usd)[at], waits_h[at], carried_g[at]
        return OfferTerms(
            egress_usd=usd,
            gco2e_per_hour=grams,
            latency_ms=latency[at],
            late_ms=late[at],
            fixed=fixed_of(job.objective, usd, grams, late[at], extent.hours, move_gco2e, move_h),
            interruptions_per_hour=self.interruptions_per_hour[rows] * struck(job, machines),
            lost_h=lost_hours(job, expected_hours(job)),
            move_h=move_h,
            move_gco2e=move_gco2e,
        )

    def may_be(self, where: Residency) -> NDArray[np.bool_]:
        """By region: whether a job with these ``regions`` may be there."""
        allowed = np.ones(len(self.regions), np.bool_)
        if where.allow:
            allowed = np.any([self._facts("is", p, self._matches) for p in where.allow], axis=0)
        for pattern in where.deny:
            allowed = allowed & (self._facts("is", pattern, self._matches) == 0)
        return allowed

    def _facts(self, what: str, name: str, compute: Callable[[str, str], float]) -> Column:
        """One number a region, computed once for each name that jobs come with."""
        known = self._known.get((what, name))
        if known is None:
            if len(self._known) >= _MOST_FACTS:
                self._known.clear()
            known = np.array([compute(name, region) for region in self.regions], np.float64)
            self._known[what, name] = known
        return known

    def _egress(self, source: str, region: str) -> float:
        return self.market.egress_usd_per_gib(source, region)

    def _latency(self, user: str, region: str) -> float:
        return self.market.latency_ms(region, user)

    def _matches(self, pattern: str, region: str) -> float:
        return float(place_matches(pattern, "", region))

    def first_of_each_place(self, rows: NDArray[np.intp], limit: int) -> NDArray[np.intp]:
        """Positions in ``rows`` of the first of each region and market; at most ``limit``."""
        place = self.region[rows] * len(MARKETS) + self.bought[rows]
        return np.sort(np.unique(place, return_index=True)[1])[:limit]

    def instance_usd(self, region: str, instance_type: str, market: Market) -> float | None:
        if self._by_type is None:
            self._by_type = {
                (o.region, o.instance_type, o.market): o.usd_per_hour for o in self.market.offers
            }
        return self._by_type.get((region, instance_type, market))

    def rate(self, region: str, gpu_type: str, market: Market) -> float | None:
        """The cheapest USD per hour for one GPU of a type, or for one CPU (``gpu_type`` empty).

        For CPUs only machines without GPUs count.
        """
        if self._rates is None:
            self._rates = {}
            for o in self.market.offers:
                units = o.gpus if o.gpus else o.cpus_milli / MILLI
                if units <= 0:
                    continue
                key = (o.region, o.gpu_type.casefold() if o.gpus else "", o.market)
                rate = o.usd_per_hour / units
                self._rates[key] = min(rate, self._rates.get(key, rate))
        return self._rates.get((region, gpu_type.casefold(), market))

    def _cheapest_of_alike(self) -> NDArray[np.intp]:
        size = (
            self.memory_mib, self.cpus_milli, self.gpus, self.gpu_type, self.interruptions_per_hour
        )  # fmt: skip
        order = np.lexsort((self.usd_per_hour, *size, self.bought, self.region))
        first = np.zeros(len(order), np.bool_)
        first[:1] = True
        for column in (*size, self.bought, self.region):
            first[1:] |= np.diff(column[order]) != 0
        return np.sort(order[first])

    def _allowed_regions(
        self, request: ResourceRequest, joined_regions: Collection[str]
    ) -> NDArray[np.bool_]:
        return np.array(
            [r not in joined_regions and in_place(request.infra, "", r) for r in self.regions],
            np.bool_,
        )

    def _allowed_markets(self, request: ResourceRequest) -> NDArray[np.bool_]:
        return np.array(
            [m is not Market.OWNED and on_market(request.use_spot, m) for m in MARKETS], np.bool_
        )

    def _replicas(self, request: ResourceRequest, rows: NDArray[np.intp]) -> NDArray[np.int64]:
        most = np.full(len(rows), _MANY, np.int64)
        if request.gpus_milli >= MILLI:
            np.minimum(most, self.gpus[rows] // request.whole_gpus, out=most)
        elif request.gpus_milli:
            np.minimum(most, self.gpus[rows] * (MILLI // request.gpus_milli), out=most)
        if request.cpus_milli:
            np.minimum(most, self.cpus_milli[rows] // request.cpus_milli, out=most)
        if request.memory_mib:
            np.minimum(most, self.memory_mib[rows] // request.memory_mib, out=most)
        return most


_MANY = 1_000_000
_MOST_FACTS = 2000
"""Names of regions and patterns that jobs came with; then all are computed anew."""
_kept: list[Columns] = []
"""Columns of the last markets seen: a memo of a pure function, by the market's identity."""
_MOST_KEPT = 4


def columns(market: MarketView) -> Columns:
    for found in _kept:
        if found.market is market:
            return found
    made = Columns(market)
    _kept.insert(0, made)
    del _kept[_MOST_KEPT:]
    return made


def node_usd_per_hour(shape: Shape, region: str, market: MarketView) -> float:
    """The price of one node: what its owner says, or its instance type's offer in the region, or
    the region's cheapest price per GPU (or CPU) of its kind; 0 where the market knows none.

    Owned nodes in a cloud's region are priced as on-demand ones: what they would cost there.
    """
    if shape.usd_per_hour > 0:
        return shape.usd_per_hour
    if not market.offers:
        return 0.0
    known = columns(market)
    if shape.instance_type:
        exact = known.instance_usd(region, shape.instance_type, shape.market)
        if exact is not None:
            return exact
    capacity = shape.capacity
    bought = Market.ON_DEMAND if shape.market is Market.OWNED else shape.market
    rate = known.rate(region, capacity.gpu_type if capacity.gpus else "", bought)
    units = capacity.gpus if capacity.gpus else capacity.cpus_milli / MILLI
    return rate * units if rate is not None else 0.0


def as_shape(offer: Offer) -> Shape:
    """One instance as a shape, so that joined and offered places read alike."""
    capacity = Capacity(
        gpus=offer.gpus,
        gpu_type=offer.gpu_type,
        cpus_milli=offer.cpus_milli,
        memory_mib=offer.memory_mib,
    )
    return Shape(
        capacity=capacity,
        nodes=1,
        instance_type=offer.instance_type,
        market=offer.market,
        usd_per_hour=offer.usd_per_hour,
    )
