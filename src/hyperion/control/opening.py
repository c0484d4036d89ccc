"""What a new line of a bill begins with: how much the job draws, and what home would cost. Pure."""

from collections.abc import Hashable, Iterable

from hyperion.control.bills import Opening
from hyperion.control.records import FederatedStatus
from hyperion.model.job import Job
from hyperion.model.market import MarketView
from hyperion.model.power import replica_watts
from hyperion.placement.choice import FleetCluster, shape_key
from hyperion.placement.gravity import NO_DATASETS, DataView
from hyperion.placement.home import home_price, homes
from hyperion.placement.objective import Price

MEMO = 4096
"""Kinds of jobs whose price at home is remembered, by the same market."""


class HomePrices:
    """Answers what a job would cost at home; jobs that nobody can tell apart are asked once."""

    def __init__(self, home: str = "") -> None:
        self.home = home
        self._market: MarketView | None = None
        self._known: dict[Hashable, Price | None] = {}

    def opening(
        self,
        job: Job,
        status: FederatedStatus,
        market: MarketView,
        fleet: Iterable[FleetCluster],
        data: DataView = NO_DATASETS,
    ) -> Opening:
        fleet = tuple(fleet)
        regions = homes(job, self.home, fleet, data)
        region, price = regions[0] if regions else "", None
        for place in regions:
            price = self._price(job, place, market, fleet, data)
            if price is not None:
                region = place
                break
        per_hour = None
        if price is not None and status.price is not None:
            per_hour = price.usd_per_hour
            if job.array is not None:  # it may run wider here than there: the whole is compared
                per_hour *= price.hours / (status.price.hours or price.hours)
        egress = price.egress_usd if price is not None and status.placed <= 1 else 0.0
        return Opening(kilowatts(job, status, market), region, per_hour, egress)

    def _price(
        self,
        job: Job,
        region: str,
        market: MarketView,
        fleet: tuple[FleetCluster, ...],
        data: DataView,
    ) -> Price | None:
        if market is not self._market or len(self._known) >= MEMO:
            self._market, self._known = market, {}
        lies = tuple(data.datasets.get(name) for name in job.datasets)
        wish = (region, shape_key(job), job.expected_s, lies, data.now_ms if lies else 0)
        if wish not in self._known:
            price = home_price(job, region, market, fleet, data)
            if price is None and not any(
                c.cluster.region == region and c.load.shapes for c in fleet
            ):
                return None  # who has not joined yet may know it later
            self._known[wish] = price
        return self._known[wish]


def kilowatts(job: Job, status: FederatedStatus, market: MarketView) -> float:
    """What all replicas draw from the wall, by the price that placed them."""
    g_per_kwh = market.carbon_g_per_kwh(status.region)
    if status.price is not None and g_per_kwh > 0:
        return status.price.gco2e_per_hour / g_per_kwh
    watts = job.replicas * replica_watts(job.alternatives[0])
    return watts / 1000.0 * market.pue(status.region)
