"""What compute, traffic and power cost, and how far regions are apart: facts with a date."""

import math
from collections.abc import Mapping
from enum import Enum

from msgspec import Struct


class Market(Enum):
    """How a machine is paid for."""

    ON_DEMAND = "on-demand"
    SPOT = "spot"
    OWNED = "owned"


class Source(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Where facts come from; offers, regions and links name it by its key."""

    key: str
    title: str
    as_of: str
    """An ISO 8601 date, to the day, month or year that the source itself states."""
    url: str = ""
    licence: str = ""
    note: str = ""


class Region(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A place with machines, a network and a power grid."""

    name: str
    """``cloud/region``, such as ``aws/us-east-1``."""
    cloud: str
    location: str = ""
    latitude: float = 0.0
    longitude: float = 0.0
    carbon_g_per_kwh: float = 0.0
    """Annual mean of the grid, life-cycle, g CO2e/kWh."""
    carbon_as_of: str = ""
    carbon_source: str = ""
    pue: float = 1.2
    pue_source: str = ""
    location_source: str = ""

    @property
    def has_place(self) -> bool:
        """Whether its coordinates are known: nobody keeps machines in the sea at 0, 0."""
        return (self.latitude, self.longitude) != (0.0, 0.0)


class Offer(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A kind of machine that can be had in a region, on one market."""

    region: str
    instance_type: str
    market: Market
    usd_per_hour: float
    gpu_type: str = ""
    gpus: int = 0
    cpus_milli: int = 0
    memory_mib: int = 0
    as_of: str = ""
    source: str = ""


Forecast = tuple[tuple[int, float], ...]
"""(from when, ms since 1970; what holds from then on), in order of time."""


class MarketView(Struct, frozen=True, kw_only=True):
    """One immutable picture of the market. Look-ups answer for unknown regions too, by distance.

    ``egress`` is USD per GiB from one region to another, ``latency`` a round trip in ms.
    """

    as_of: str
    regions: Mapping[str, Region]
    offers: tuple[Offer, ...] = ()
    egress: Mapping[tuple[str, str], float] = {}
    internet_egress: Mapping[str, float] = {}
    """USD per GiB out of a region or a cloud (the region counts first) to anywhere that is not in
    ``egress``."""
    latency: Mapping[tuple[str, str], float] = {}
    sources: Mapping[str, Source] = {}
    """By key. ``egress_origin``, ``internet_origin`` and ``latency_origin`` hold such keys."""
    egress_origin: Mapping[tuple[str, str], str] = {}
    internet_origin: Mapping[str, str] = {}
    latency_origin: Mapping[tuple[str, str], str] = {}
    left_alone: Mapping[tuple[str, str], float] = {}
    """By region and machine type: the share of spot machines that ran a month undisturbed."""
    carbon_forecast: Mapping[str, Forecast] = {}
    """By region, g CO2e/kWh."""
    price_forecast: Mapping[tuple[str, str, Market], Forecast] = {}
    """By region, machine type and market, USD per hour."""

    def egress_usd_per_gib(self, source: str, target: str) -> float:
        """What moving a GiB costs; within a region nothing, out of owned places nothing."""
        if source == target or not source:
            return 0.0
        known = self.egress.get((source, target))
        if known is not None:
            return known
        return self.internet_egress.get(source, self.internet_egress.get(_cloud(source), 0.0))

    def egress_source(self, source: str, target: str) -> Source | None:
        """Where ``egress_usd_per_gib`` has its answer from; None where it is a default."""
        key = self.egress_origin.get((source, target), "")
        if not key and (source, target) not in self.egress and source != target:
            key = self.internet_origin.get(source, self.internet_origin.get(_cloud(source), ""))
        return self.sources.get(key)

    def latency_ms(self, source: str, target: str) -> float:
        """A round trip: measured where known, else light in fibre, 1.5 times the great circle."""
        if source == target:
            return 1.0
        known = self.latency.get((source, target), self.latency.get((target, source)))
        if known is not None:
            return known
        a, b = self.regions.get(source), self.regions.get(target)
        if a is None or b is None or not (a.has_place and b.has_place):
            return UNKNOWN_LATENCY_MS
        return 1.0 + 1.5 * 2 * great_circle_km(a, b) / FIBRE_KM_PER_MS

    def latency_source(self, source: str, target: str) -> Source | None:
        """Where ``latency_ms`` has its answer from; None where it is computed or a default."""
        origin = self.latency_origin
        return self.sources.get(origin.get((source, target), origin.get((target, source), "")))

    def carbon_g_per_kwh(self, region: str) -> float:
        known = self.regions.get(region)
        return known.carbon_g_per_kwh if known else UNKNOWN_CARBON_G_PER_KWH

    def pue(self, region: str) -> float:
        known = self.regions.get(region)
        return known.pue if known else UNKNOWN_PUE


def _cloud(region: str) -> str:
    return region.partition("/")[0]


UNKNOWN_LATENCY_MS = 100.0
UNKNOWN_CARBON_G_PER_KWH = 480.0
"""About the world's mean (Ember, Global Electricity Review 2024: 480 g CO2e/kWh in 2023)."""
UNKNOWN_PUE = 1.5
FIBRE_KM_PER_MS = 204.0
EARTH_RADIUS_KM = 6371.0


def great_circle_km(a: Region, b: Region) -> float:
    """The haversine distance between two regions."""
    p, q = math.radians(a.latitude), math.radians(b.latitude)
    d = math.radians(b.longitude - a.longitude)
    h = math.sin((q - p) / 2) ** 2 + math.cos(p) * math.cos(q) * math.sin(d / 2) ** 2
    return 2 * EARTH_RADIUS_KM * math.asin(math.sqrt(h))
