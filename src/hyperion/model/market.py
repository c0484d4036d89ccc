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


class MarketView(Struct, frozen=True, kw_only=True):
    """One immutable picture of the market. Look-ups answer for unknown regions too, by distance.

    ``egress`` is USD per GiB from one region to another, ``latency`` a round trip in ms.
    """

    as_of: str
    regions: Mapping[str, Region]
    offers: tuple[Offer, ...] = ()
    egress: Mapping[tuple[str, str], float] = {}
    internet_egress: Mapping[str, float] = {}
    """USD per GiB out of a cloud to anywhere that is not in ``egress``."""
    latency: Mapping[tuple[str, str], float] = {}

    def egress_usd_per_gib(self, source: str, target: str) -> float:
        """What moving a GiB costs; within a region nothing, out of owned places nothing."""
        if source == target or not source:
            return 0.0
        known = self.egress.get((source, target))
        if known is not None:
            return known
        return self.internet_egress.get(source.partition("/")[0], 0.0)

    def latency_ms(self, source: str, target: str) -> float:
        """A round trip: measured where known, else light in fibre along 1.5 × the great circle."""
        if source == target:
            return 1.0
        known = self.latency.get((source, target), self.latency.get((target, source)))
        if known is not None:
            return known
        a, b = self.regions.get(source), self.regions.get(target)
        if a is None or b is None:
            return UNKNOWN_LATENCY_MS
        return 1.0 + 1.5 * 2 * great_circle_km(a, b) / FIBRE_KM_PER_MS

    def carbon_g_per_kwh(self, region: str) -> float:
        known = self.regions.get(region)
        return known.carbon_g_per_kwh if known else UNKNOWN_CARBON_G_PER_KWH

    def pue(self, region: str) -> float:
        known = self.regions.get(region)
        return known.pue if known else UNKNOWN_PUE


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
