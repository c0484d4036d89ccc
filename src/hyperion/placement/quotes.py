"""Which quotes may be believed, how far, and the market that follows from them. Pure functions."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import median

import msgspec
from msgspec import Struct

from hyperion.model.market import Forecast, Market, MarketView, Offer, Region, Source
from hyperion.model.quotes import (
    MARKETS,
    MOST_POINTS,
    UNITS,
    Key,
    Kind,
    MachineShape,
    Quarantined,
    Quote,
    Slot,
    Wanted,
)
from hyperion.placement.dates import day_of

ABSURD = 100.0
"""So many times above or below its region's median, a quote is taken for an error."""
FUTURE_MS = 5 * 60_000
"""A source's clock may be ahead of ours by so much."""
GIVEN_UP = 0.95
"""From this uncertainty on a quote no longer counts, and the catalogue's figure does again."""
RANGES: Mapping[Kind, tuple[float, float]] = {
    Kind.ON_DEMAND: (1e-6, 100_000.0),
    Kind.SPOT: (1e-6, 100_000.0),
    Kind.EGRESS: (0.0, 100.0),
    Kind.CARBON: (0.0, 3_000.0),
    Kind.OBTAINABILITY: (0.0, 1.0),
}
"""What is possible at all, in ``UNITS``."""
FEW = 3
"""With fewer known values a place has no median of its own; that of all places counts then."""

Yardsticks = Mapping[tuple[Kind, str, str], tuple[float, ...]]
"""(kind, place, sort) → values known before, per unit of size; place ``""`` for all together.

Machines are compared with those of the same GPU, per GPU, or without GPUs, per CPU."""
Book = Mapping[Key, Quote]
"""The last good quote of each source about each thing."""


class Judged(Struct, frozen=True):
    """What became of a batch of quotes."""

    book: Book
    """The last good ones, those of the batch among them."""
    accepted: tuple[Quote, ...]
    quarantined: tuple[Quarantined, ...]


def judge(
    fetched: Iterable[Quote],
    last_good: Book,
    now_ms: int,
    yardsticks: Yardsticks,
    machines: Mapping[str, MachineShape],
) -> Judged:
    """Take in the good ones of a batch; the last good one stays where there is no better.

    The medians are of what was known before the batch, so that a batch whose unit is wrong
    throughout cannot vouch for itself.
    """
    book = dict(last_good)
    accepted: list[Quote] = []
    quarantined: list[Quarantined] = []
    medians: dict[tuple[Kind, str, str], float | None] = {}
    for quote in fetched:
        fault = _fault(quote, book.get(quote.key), now_ms)
        if fault is None:
            sort, size = _sort_and_size(quote.subject, machines)
            peers = (quote.kind, quote.place, sort)
            if peers not in medians:
                medians[peers] = _median(yardsticks, *peers)
            fault = _off_median(quote, medians[peers], size)
        if fault is not None:
            reason, why = fault
            quarantined.append(Quarantined(quote=quote, reason=reason, why=why, at_ms=now_ms))
        else:
            book[quote.key] = quote
            accepted.append(quote)
    return Judged(book, tuple(accepted), tuple(quarantined))


def uncertainty(quote: Quote, now_ms: int) -> float:
    """0 to 1: what its source is not believed, and more with each moment past its time to live.

    Past that, what is still believed halves with each further time to live (of at least an hour).
    """
    overdue_ms = max(0, now_ms - quote.as_of_ms - quote.ttl_ms)
    half_life_ms = max(quote.ttl_ms, 3_600_000)
    return 1.0 - quote.confidence * math.exp2(-overdue_ms / half_life_ms)


def best(book: Book, now_ms: int) -> dict[Slot, Quote]:
    """For each thing the quote that is least uncertain now, as far as it still counts."""
    found: dict[Slot, tuple[float, str, Quote]] = {}
    for quote in book.values():
        rank = (uncertainty(quote, now_ms), quote.source)
        if rank[0] >= GIVEN_UP:
            continue
        held = found.get(quote.slot)
        if held is None or rank < held[:2]:
            found[quote.slot] = (*rank, quote)
    return {slot: quote for slot, (_, _, quote) in found.items()}


def wanted(view: MarketView, zones: Mapping[str, str]) -> Wanted:
    """What to ask feeds for: the regions and machine types of a view."""
    return Wanted(
        places={r.name: (r.latitude, r.longitude) for r in view.regions.values()},
        machines={
            o.instance_type: MachineShape(
                cloud=o.region.partition("/")[0],
                gpu_type=o.gpu_type,
                gpus=o.gpus,
                cpus_milli=o.cpus_milli,
                memory_mib=o.memory_mib,
            )
            for o in view.offers
            if o.market is not Market.OWNED
        },
        zones=zones,
    )


def yardsticks(view: MarketView, machines: Mapping[str, MachineShape]) -> Yardsticks:
    """What is known before any quote: prices per CPU and egress by place, the mean of each grid."""
    found: defaultdict[tuple[Kind, str, str], list[float]] = defaultdict(list)
    kinds = {market: kind for kind, market in MARKETS.items()}
    for offer in view.offers:
        kind = kinds.get(offer.market)
        if kind is not None:
            sort, size = _sort_and_size(offer.instance_type, machines)
            found[kind, offer.region, sort].append(offer.usd_per_hour / size)
            found[kind, "", sort].append(offer.usd_per_hour / size)
    for region in view.regions.values():
        # A grid has one figure, which is itself a mean over many: it counts as enough of them.
        found[Kind.CARBON, region.name, ""] += [region.carbon_g_per_kwh] * FEW
        found[Kind.CARBON, "", ""].append(region.carbon_g_per_kwh)
    for (origin, _), usd in view.egress.items():
        if usd > 0:
            found[Kind.EGRESS, origin, ""].append(usd)
            found[Kind.EGRESS, "", ""].append(usd)
    return {place: tuple(values) for place, values in found.items()}


def lay_quotes(view: MarketView, quotes: Mapping[Slot, Quote], shapes: Wanted) -> MarketView:
    """The view with these quotes in place of what it says; the rest stays as it is."""
    offers = {(o.region, o.instance_type, o.market): o for o in view.offers}
    regions = dict(view.regions)
    egress, internet = dict(view.egress), dict(view.internet_egress)
    egress_origin, internet_origin = dict(view.egress_origin), dict(view.internet_origin)
    left_alone = dict(view.left_alone)
    carbon_ahead, prices_ahead = dict(view.carbon_forecast), dict(view.price_forecast)
    newest: dict[str, int] = {}
    for (kind, place, subject), quote in sorted(quotes.items(), key=_slot_order):
        key = f"quote-{quote.source}"
        newest[key] = max(newest.get(key, 0), quote.as_of_ms)
        if kind.is_price:
            offer = _offer(quote, offers.get((place, subject, MARKETS[kind])), shapes, key)
            if offer is not None:
                offers[place, subject, offer.market] = offer
                prices_ahead[place, subject, offer.market] = _ahead(quote)
        elif kind is Kind.CARBON and place in regions:
            regions[place] = _region(regions[place], quote, key)
            carbon_ahead[place] = _ahead(quote)
        elif kind is Kind.EGRESS and subject:
            egress[place, subject], egress_origin[place, subject] = quote.value, key
        elif kind is Kind.EGRESS:
            internet[place], internet_origin[place] = quote.value, key
        elif kind is Kind.OBTAINABILITY:
            left_alone[place, subject] = quote.value
    sources = {
        key: Source(key=key, title=f"Quotes of {key.removeprefix('quote-')}", as_of=day_of(at_ms))
        for key, at_ms in newest.items()
    }
    return msgspec.structs.replace(
        view,
        as_of=max([view.as_of, *(s.as_of for s in sources.values())]),
        regions=regions,
        offers=tuple(offers.values()),
        egress=egress,
        internet_egress=internet,
        egress_origin=egress_origin,
        internet_origin=internet_origin,
        left_alone=left_alone,
        carbon_forecast={place: line for place, line in carbon_ahead.items() if line},
        price_forecast={place: line for place, line in prices_ahead.items() if line},
        sources={**view.sources, **sources},
    )


def _ahead(quote: Quote) -> Forecast:
    return tuple((point.at_ms, point.value) for point in quote.forecast)


def figures(quotes: Mapping[Slot, Quote]) -> dict[Slot, tuple[float, Forecast]]:
    """What of the quotes moves a decision: two batches with the same figures make one market."""
    return {s: (q.value, _ahead(q)) for s, q in quotes.items()}


def _fault(quote: Quote, held: Quote | None, now_ms: int) -> tuple[str, str] | None:
    """What is wrong with a quote taken by itself, and beside the one that is held."""
    unit = UNITS[quote.kind]
    low, high = RANGES[quote.kind]
    values = [quote.value, *(point.value for point in quote.forecast)]
    if quote.unit != unit:
        return "unit", f"found {quote.unit!r}, expected {unit}"
    if not all(map(math.isfinite, values)) or not 0 <= quote.confidence <= 1:
        return "not-a-number", f"found {quote.value} at confidence {quote.confidence}"
    if len(quote.forecast) > MOST_POINTS or not all(low <= v <= high for v in values):
        found = min(values) if min(values) < low else max(values)
        return "out-of-range", f"found {found:g} {unit}, expected {low:g} to {high:g}"
    return _stale(quote, held, now_ms)


def _stale(quote: Quote, held: Quote | None, now_ms: int) -> tuple[str, str] | None:
    if quote.as_of_ms > now_ms + FUTURE_MS:
        return "future", f"as of {_ago(quote.as_of_ms - now_ms)} from now; is a clock wrong?"
    if now_ms > quote.as_of_ms + quote.ttl_ms:
        age = _ago(now_ms - quote.as_of_ms)
        return "stale", f"as of {age} ago, and good for {_ago(quote.ttl_ms)}"
    if held is not None and quote.as_of_ms < held.as_of_ms:
        return "stale", f"{_ago(held.as_of_ms - quote.as_of_ms)} older than the one that is held"
    return None


def _off_median(quote: Quote, middle: float | None, size: float) -> tuple[str, str] | None:
    if quote.kind is Kind.OBTAINABILITY or not middle:
        return None
    if quote.kind is Kind.EGRESS and quote.value == 0:
        return None  # free traffic is an offer, not an error
    ratio = quote.value / size / middle
    if 1 / ABSURD < ratio < ABSURD:
        return None
    usual = f"{middle * size:.3g} {UNITS[quote.kind]} would be usual in {quote.place}"
    return "off-median", f"found {quote.value:g}, {usual}; wrong by {ABSURD:g} times or more"


def _median(known: Yardsticks, kind: Kind, place: str, sort: str) -> float | None:
    values: Sequence[float] = known.get((kind, place, sort), ())
    if len(values) < FEW:
        values = known.get((kind, "", sort), ())
    return median(values) if values else None


def _sort_and_size(machine: str, machines: Mapping[str, MachineShape]) -> tuple[str, float]:
    """What a machine is compared with, and by how much its price is divided for that."""
    shape = machines.get(machine)
    if shape is None:
        return "", 1.0
    if shape.gpus:
        return shape.gpu_type, float(shape.gpus)
    return "", max(1.0, shape.cpus_milli / 1000)


def _offer(quote: Quote, held: Offer | None, shapes: Wanted, key: str) -> Offer | None:
    """None for a machine whose shape nobody knows: it could not be compared with any other."""
    fresh = {"usd_per_hour": quote.value, "as_of": day_of(quote.as_of_ms), "source": key}
    if held is not None:
        return msgspec.structs.replace(held, **fresh)
    shape = shapes.machines.get(quote.subject)
    if shape is None or quote.place not in shapes.places:
        return None
    return Offer(
        region=quote.place,
        instance_type=quote.subject,
        market=MARKETS[quote.kind],
        gpu_type=shape.gpu_type,
        gpus=shape.gpus,
        cpus_milli=shape.cpus_milli,
        memory_mib=shape.memory_mib,
        usd_per_hour=quote.value,
        as_of=day_of(quote.as_of_ms),
        source=key,
    )


def _region(region: Region, quote: Quote, key: str) -> Region:
    return msgspec.structs.replace(
        region,
        carbon_g_per_kwh=quote.value,
        carbon_as_of=day_of(quote.as_of_ms),
        carbon_source=key,
    )


def _slot_order(entry: tuple[Slot, Quote]) -> tuple[str, str, str]:
    (kind, place, subject), _ = entry
    return kind.value, place, subject


def _ago(ms: int) -> str:
    seconds = ms / 1000
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s"
