"""Reads the market catalogue that ships with the package; docs/catalogue.md says what it holds."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from hyperion.model.market import Market, MarketView, Offer, Region, Source

SHIPPED = Path(__file__).parent / "catalogue"

Pair = tuple[str, str]
_T = TypeVar("_T")


def read_catalogue(directory: Path = SHIPPED) -> MarketView:
    """The catalogue as a view; ``OSError`` when a file is missing, ``msgspec`` errors when bad."""
    sources = {s.key: s for s in _read(directory, "sources.json", list[Source])}
    regions = {
        region.name: _dated(region, sources)
        for region in _read(directory, "regions.json", list[_RegionRow])
    }
    types = {t.name: t for t in _read(directory, "instance_types.json", list[_InstanceType])}
    prices = _read(directory, "prices.json", list[_Price])
    offers = tuple(_offers(prices, types, sources))
    rules = _read(directory, "egress.json", _EgressRules)
    egress, egress_origin = _egress(rules, regions)
    internet, internet_origin = _internet(rules)
    latency, latency_origin = _latency(_read(directory, "latency.json", list[_LatencyBlock]))
    return MarketView(
        as_of=max(offer.as_of for offer in offers),
        regions=regions,
        offers=offers,
        egress=egress,
        internet_egress=internet,
        latency=latency,
        sources=sources,
        egress_origin=egress_origin,
        internet_origin=internet_origin,
        latency_origin=latency_origin,
    )


class _RegionRow(Struct):
    name: str
    location: str
    latitude: float
    longitude: float
    location_source: str
    carbon_g_per_kwh: float
    carbon_source: str
    pue: float
    pue_source: str


class _InstanceType(Struct, array_like=True):
    name: str
    gpu_type: str
    gpus: int
    cpus_milli: int
    memory_mib: int


class _Price(Struct, array_like=True):
    region: str
    instance_type: str
    on_demand_usd: float | None
    on_demand_source: str
    spot_usd: float | None
    spot_source: str


class _Across(Struct):
    regions: frozenset[str]
    usd: float


class _EgressRules(Struct):
    """Prices by zone inside a cloud, by region of origin to anywhere else; ``pairs`` win."""

    source: str
    extended_source: str
    listed: frozenset[str]
    """The regions that the source lists; prices of others are inferred by the same rules."""
    zones: dict[str, str]
    within: dict[str, dict[str, float]]
    across: dict[str, float]
    across_to: dict[str, _Across]
    pairs: tuple[tuple[str, str, float], ...]
    internet: dict[str, float]


class _LatencyBlock(Struct):
    """Round trips of one source: the row of a region holds those to the regions before it."""

    source: str
    regions: tuple[str, ...]
    ms: tuple[tuple[float | None, ...], ...]


def _read(directory: Path, name: str, kind: type[_T]) -> _T:
    return msgspec.json.decode((directory / name).read_bytes(), type=kind)


def _dated(row: _RegionRow, sources: Mapping[str, Source]) -> Region:
    return Region(
        name=row.name,
        cloud=row.name.partition("/")[0],
        location=row.location,
        latitude=row.latitude,
        longitude=row.longitude,
        location_source=row.location_source,
        carbon_g_per_kwh=row.carbon_g_per_kwh,
        carbon_as_of=sources[row.carbon_source].as_of,
        carbon_source=row.carbon_source,
        pue=row.pue,
        pue_source=row.pue_source,
    )


def _offers(
    prices: list[_Price], types: Mapping[str, _InstanceType], sources: Mapping[str, Source]
) -> Iterator[Offer]:
    names: dict[str, str] = {}
    for price in prices:
        kind = types[price.instance_type]
        offer = partial(
            Offer,
            region=names.setdefault(price.region, price.region),  # one string per name in memory
            instance_type=kind.name,
            gpu_type=kind.gpu_type,
            gpus=kind.gpus,
            cpus_milli=kind.cpus_milli,
            memory_mib=kind.memory_mib,
        )
        if price.on_demand_usd is not None:
            yield _quoted(
                offer, Market.ON_DEMAND, price.on_demand_usd, price.on_demand_source, sources
            )
        if price.spot_usd is not None:
            yield _quoted(offer, Market.SPOT, price.spot_usd, price.spot_source, sources)


def _quoted(
    offer: Callable[..., Offer], market: Market, usd: float, key: str, sources: Mapping[str, Source]
) -> Offer:
    source = sources[key]
    return offer(market=market, usd_per_hour=usd, as_of=source.as_of, source=source.key)


def _egress(
    rules: _EgressRules, regions: Mapping[str, Region]
) -> tuple[dict[Pair, float], dict[Pair, str]]:
    """Every pair whose price is not simply the price of its origin to the internet."""
    prices: dict[Pair, float] = {}
    origins: dict[Pair, str] = {}
    for a, region in regions.items():
        row = rules.within.get(rules.zones.get(a, ""), {})
        across = rules.across_to.get(region.cloud)
        for b, target in regions.items():
            if a == b:
                continue
            if target.cloud == region.cloud:
                usd = row.get(rules.zones.get(b, ""), row.get("*"))
            else:
                usd = across.usd if across and b in across.regions else None
            if usd is not None:
                listed = a in rules.listed and b in rules.listed
                prices[a, b] = usd
                origins[a, b] = rules.source if listed else rules.extended_source
    prices.update({(a, b): usd for a, b, usd in rules.pairs})
    return prices, origins


def _internet(rules: _EgressRules) -> tuple[dict[str, float], dict[str, str]]:
    prices = rules.internet | rules.across
    origins = {
        name: rules.source if name in rules.listed else rules.extended_source for name in prices
    }
    return prices, origins


def _latency(blocks: list[_LatencyBlock]) -> tuple[dict[Pair, float], dict[Pair, str]]:
    measured: dict[Pair, float] = {}
    origins: dict[Pair, str] = {}
    for block in reversed(blocks):  # the first block is the better source, so it is written last
        for a, row in zip(block.regions, block.ms, strict=True):
            for b, ms in zip(block.regions, row, strict=False):  # the row of a triangle is short
                if ms is not None:
                    pair = (max(a, b), min(a, b))
                    measured[pair] = ms
                    origins[pair] = block.source
    return measured, origins
