"""Where copies of a dataset pay for themselves, and which do not: the advisor's arithmetic. Pure.

A copy is worth what it saves the jobs: reading from afar, moving, or running at a dearer place only
since the data lie there. What was saved of late is taken to go on, a week's half-life, and for a
month; against it stand the move now, keeping up with the dataset's growth, and storage.
"""

from collections.abc import Iterable, Iterator, Mapping

from msgspec import Struct

from hyperion.model.bounds import MAX_COPIES
from hyperion.model.dataset import MS_PER_DAY, Dataset
from hyperion.model.market import MarketView
from hyperion.placement.gravity import storage_usd

HALF_LIFE_MS = 7 * MS_PER_DAY
MEAN_LIFE_DAYS = 7 / 0.6931471805599453
"""By which a faded sum is divided for a rate a day: the half-life by the logarithm of 2."""
HORIZON_DAYS = 30.0
"""Within which a copy has to pay for itself."""
MARGIN = 1.1
"""A copy must be worth so many times what it costs."""
DROP_BELOW = 0.5
"""One that is worth less than this part of what keeping it costs is dropped: far enough from
``MARGIN`` that none comes and goes."""
MIN_STAY_MS = 7 * MS_PER_DAY
"""A copy that came is not dropped before; nobody can know its worth earlier."""
MOST_ADVICE = 100


class Demand(Struct, frozen=True):
    """What a copy in a region has saved, or would have, as a faded sum."""

    usd: float
    uses: float


class Advice(Struct, frozen=True):
    dataset: str
    action: str
    """``copy`` or ``drop``."""
    region: str
    source: str
    """Where a copy comes from; of a drop where the nearest other one lies."""
    gib: float
    cost_usd: float
    """Of a copy: the move, the growth and the storage for the horizon. Of a drop: what keeping it
    costs."""
    worth_usd: float
    """What it saves within the horizon."""

    @property
    def gain_usd(self) -> float:
        gain = self.worth_usd - self.cost_usd
        return gain if self.action == "copy" else -gain


def faded(amount: float, from_ms: int, now_ms: int) -> float:
    """What is left of it by now."""
    return float(amount * 0.5 ** (max(0, now_ms - from_ms) / HALF_LIFE_MS))


def advise(
    dataset: Dataset,
    demand: Mapping[str, Demand],
    waiting: int,
    market: MarketView,
    now_ms: int,
) -> list[Advice]:
    """The copy that pays for itself best, and copies that do not pay; never the last one.

    One copy at a time: what a second is worth, nobody knows before the first is there.

    ``demand`` by region as of now; ``waiting`` jobs name the dataset and will use it as others did.
    """
    copies = _copies(dataset, demand, waiting, market, now_ms)
    best = max(copies, key=lambda advice: advice.gain_usd, default=None)
    drops = _drops(dataset, demand, market, now_ms)
    return [*([best] if best else ()), *drops]


def expected_usd(demand: Demand | None, waiting: int) -> float:
    """What a copy will save within the horizon, if it goes on like this."""
    if demand is None:
        return 0.0
    each = demand.usd / demand.uses if demand.uses > 0 else 0.0
    return demand.usd / MEAN_LIFE_DAYS * HORIZON_DAYS + waiting * each


def _copies(
    dataset: Dataset,
    demand: Mapping[str, Demand],
    waiting: int,
    market: MarketView,
    now_ms: int,
) -> Iterator[Advice]:
    gib = dataset.gib(now_ms)
    for region, known in sorted(demand.items()):
        if dataset.copy(region) is not None or len(dataset.copies) >= MAX_COPIES:
            continue
        source = nearest(dataset, region, market)
        if not source:
            continue
        moved = gib + dataset.growth_gib_per_day * HORIZON_DAYS
        cost = moved * market.egress_usd_per_gib(source, region) + _kept_usd(dataset, region, gib)
        worth = expected_usd(known, waiting)
        if worth > MARGIN * cost:
            yield Advice(dataset.name, "copy", region, source, gib, cost, worth)


def _drops(
    dataset: Dataset, demand: Mapping[str, Demand], market: MarketView, now_ms: int
) -> list[Advice]:
    gib = dataset.gib(now_ms)
    found = []
    for copy in dataset.present[1:]:  # what was there first stays
        since_ms = copy.ready_at_ms or dataset.sized_at_ms  # or since it was told of
        if now_ms - since_ms < MIN_STAY_MS:
            continue
        source = nearest(dataset, copy.region, market)
        growth = dataset.growth_gib_per_day * HORIZON_DAYS
        cost = growth * market.egress_usd_per_gib(source, copy.region)
        cost += _kept_usd(dataset, copy.region, gib)
        worth = expected_usd(demand.get(copy.region), 0)
        if source and worth < DROP_BELOW * cost:
            found.append(Advice(dataset.name, "drop", copy.region, source, gib, cost, worth))
    return found


def nearest(dataset: Dataset, region: str, market: MarketView) -> str:
    """The region of the present copy from which bringing it costs least; empty: there is none."""
    others = [copy.region for copy in dataset.present if copy.region != region]
    return min(others, key=lambda source: market.egress_usd_per_gib(source, region), default="")


def _kept_usd(dataset: Dataset, region: str, gib: float) -> float:
    """Storage for the horizon, half of the growth in it included."""
    mean_gib = gib + dataset.growth_gib_per_day * HORIZON_DAYS / 2
    return storage_usd(mean_gib, region, 24 * HORIZON_DAYS)


def of_all(found: Iterable[list[Advice]]) -> list[Advice]:
    """Of several datasets, the largest gain first."""
    everything = [advice for part in found for advice in part]
    return sorted(everything, key=lambda advice: (-advice.gain_usd, advice.dataset))[:MOST_ADVICE]
