"""What a job would cost at home on demand: the price that bills are compared with. Pure."""

from collections.abc import Iterable

from msgspec.structs import replace

from hyperion.model.job import Job
from hyperion.model.market import Market, MarketView
from hyperion.placement import catalogue, choice
from hyperion.placement.choice import FleetCluster
from hyperion.placement.gravity import NO_DATASETS, DataView
from hyperion.placement.objective import Price
from hyperion.placement.ranking import Cheapest

MAX_HOMES = 8


def homes(
    job: Job, wanted: str, fleet: Iterable[FleetCluster], data: DataView = NO_DATASETS
) -> tuple[str, ...]:
    """Where the job may be at home: where the user says, else where its data lie, most of them
    first, and then where the clusters stand, by their names. The first with a price counts."""
    if wanted:
        return (wanted,)
    lies = [(d.size_gib, d.region) for d in job.data]
    for read in job.reads:
        dataset = data.datasets.get(read.dataset)
        if dataset is not None and dataset.present:
            lies.append((dataset.gib(data.now_ms), dataset.present[0].region))
    lies.sort(key=lambda one: -one[0])
    clusters = sorted((c.cluster.id, c.cluster.region) for c in fleet)
    found = [*(region for _, region in lies), *(region for _, region in clusters)]
    return tuple(dict.fromkeys(region for region in found if region))[:MAX_HOMES]


def home_price(
    job: Job,
    region: str,
    market: MarketView,
    fleet: Iterable[FleetCluster] = (),
    data: DataView = NO_DATASETS,
) -> Price | None:
    """The cheapest on-demand offer of that region which fits, whole instances; where the market
    has none there, the cheapest machines of its joined clusters that are not spot. None: unknown.

    The job's wishes about place, market and budget do not count: at home it had no choice. Its
    ``regions`` do: where it may not be it is not at home.
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
    for place in catalogue.catalogue(at_home, market, cheapest, limit=1, data=data):
        if place.price is not None and place.refusal is None:
            return place.price
    own = (replace(c, reachable=True, backlog_jobs=0) for c in fleet if c.cluster.region == region)
    prices = [
        place.price
        for place in choice.rank(at_home, own, market, cheapest, data)
        if place.price is not None and place.market is not Market.SPOT
    ]
    return min(prices, key=lambda price: price.usd, default=None)
