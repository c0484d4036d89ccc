"""What the market was at a moment: a made-up but steady world, recordings over it, and orders.

The made-up world has the catalogue's means: spot prices swing by a quarter within hours, grids by
a third within a day, list prices stand. It is the same at each start.
"""

import math
import zlib
from collections.abc import Mapping
from typing import Protocol

from hyperion.adapters.market.catalogue import read_catalogue
from hyperion.adapters.market.feeds import grid_zones
from hyperion.adapters.market.moments import DAY_MS, HOUR_MS
from hyperion.model.market import Market, MarketView
from hyperion.model.quotes import MARKETS, Kind, MachineShape, Slot
from hyperion.placement.quotes import wanted

SPOT_SWING, CARBON_SWING = 0.25, 0.33


class Recording(Protocol):
    """Values that were measured; None where it has none for that moment."""

    def value(self, slot: Slot, at_ms: int) -> tuple[float, int] | None:
        """The value and since when it held; the place of carbon is a grid zone."""


class Series:
    """Values by kind, place and machine at any moment."""

    def __init__(self, recordings: tuple[Recording, ...] = ()) -> None:
        self.view: MarketView = read_catalogue()
        self.zones: Mapping[str, str] = grid_zones()
        self.machines: Mapping[str, MachineShape] = wanted(self.view, self.zones).machines
        self.orders: dict[Slot, float] = {}
        """What somebody wants a value to be from now on."""
        self._recordings = recordings
        self._listed = {
            (kind, o.region, o.instance_type): o.usd_per_hour
            for o in self.view.offers
            for kind, market in MARKETS.items()
            if market is o.market
        }
        self._means = {
            self.zones[r.name]: r.carbon_g_per_kwh
            for r in self.view.regions.values()
            if r.name in self.zones
        }

    def regions(self, cloud: str) -> list[str]:
        prefix = f"{cloud}/"
        return sorted({p.removeprefix(prefix) for _, p, _ in self._listed if p.startswith(prefix)})

    def sold(self, cloud: str, region: str = "") -> list[Slot]:
        """The prices there are, in a region or in all of a cloud."""
        place = f"{cloud}/{region}"
        return sorted(
            (s for s in self._listed if (s[1] == place if region else s[1].startswith(place))),
            key=lambda s: (s[1], s[2], s[0].value),
        )

    def price(self, slot: Slot, at_ms: int) -> tuple[float, int]:
        """USD per hour, and the moment since when it is so."""
        ordered = self.orders.get(slot)
        if ordered is not None:
            return ordered, at_ms
        for recording in self._recordings:
            found = recording.value(slot, at_ms)
            if found is not None:
                return found
        usd = self._listed[slot]
        hour_ms = at_ms - at_ms % HOUR_MS
        if slot[0] is Kind.SPOT:
            usd *= 1 + SPOT_SWING * _swing(slot[1] + slot[2], hour_ms, 7 * HOUR_MS)
        return round(usd, 4), hour_ms

    def carbon(self, zone: str, at_ms: int) -> float | None:
        """g CO2e/kWh of a grid zone; None for one that nobody knows."""
        ordered = self.orders.get((Kind.CARBON, zone, ""))
        if ordered is not None:
            return ordered
        for recording in self._recordings:
            found = recording.value((Kind.CARBON, zone, ""), at_ms)
            if found is not None:
                return found[0]
        mean = self._means.get(zone)
        if mean is None:
            return None
        return round(mean * (1 + CARBON_SWING * _swing(zone, at_ms, DAY_MS)), 1)

    def zone_near(self, latitude: float, longitude: float) -> str:
        """The grid zone of the region whose coordinates these are; empty where none is."""
        for region in self.view.regions.values():
            off = abs(region.latitude - latitude) + abs(region.longitude - longitude)
            if off < 0.01 and region.name in self.zones:
                return self.zones[region.name]
        return ""

    def order(self, slot: Slot, value: float) -> None:
        """From now on this is the value; ``ValueError`` for what does not exist."""
        kind, place, machine = slot
        market = MARKETS.get(kind)
        if market in {Market.ON_DEMAND, Market.SPOT} and slot not in self._listed:
            raise ValueError(f"nobody sells {machine or 'that'} {kind.value} in {place}")
        if kind is Kind.CARBON:
            slot = (kind, self.zones.get(place, place), "")
            if slot[1] not in self._means:
                raise ValueError(f"no grid of {place} is known")
        self.orders[slot] = value


def _swing(name: str, at_ms: int, period_ms: int) -> float:
    """-1 to 1: a wave whose phase hangs on the name."""
    phase = zlib.crc32(name.encode()) / 2**32
    return math.sin(2 * math.pi * (at_ms / period_ms + phase))
