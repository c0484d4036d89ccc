"""What a job would cost at home on demand: the price that bills are compared with. Pure."""

from collections.abc import Iterable

from msgspec.structs import replace

from hyperion.model.job import Job
from hyperion.model.market import Market, MarketView
from hyperion.placement import catalogue, choice
from hyperion.placement.choice import FleetCluster
from hyperion.placement.objective import Price
from hyperion.placement.ranking import Cheapest

FREE_OF_WISHES = 1
"""How many offers are asked for: the cheapest one is the answer."""


def home_region(job: Job, wanted: str, fleet: Iterable[FleetCluster]) -> str:
    """Where the job is at home: where the user says, else where most of its data lie, else where
    the first cluster by name stands; empty where nobody can say."""
    if wanted:
        return wanted
    largest = max(job.data, key=lambda d: d.size_gib, default=None)
    if largest is not None and largest.region:
        return largest.region
    return min(((c.cluster.id, c.cluster.region) for c in fleet), default=("", ""))[1]


def home_price(
    job: Job, region: str, market: MarketView, fleet: Iterable[FleetCluster] = ()
) -> Price | None:
    """The cheapest on-demand offer of that region which fits, whole instances; where the market
    has none there, the cheapest machines of its joined clusters that are not spot. None: unknown.

    The job's own wishes about place, market and budget do not count: at home it had no choice.
    """
    if not region:
        return None
    at_home = replace(
        job,
        alternatives=tuple(
            replace(request, infra=region, use_spot=False) for request in job.alternatives
        ),
        budget=type(job.budget)(),
    )
    cheapest = Cheapest()
    for place in catalogue.catalogue(at_home, market, cheapest, FREE_OF_WISHES):
        if place.price is not None and place.refusal is None:
            return place.price
    own = (replace(c, reachable=True, backlog_jobs=0) for c in fleet if c.cluster.region == region)
    prices = [
        place.price
        for place in choice.rank(at_home, own, market, cheapest)
        if place.price is not None and place.market is not Market.SPOT
    ]
    return min(prices, key=lambda price: price.usd, default=None)
