"""Carbon intensity of grids, now and forecast: Electricity Maps' API v3 (life-cycle, average)."""

from collections import defaultdict

from msgspec import Struct

from hyperion.adapters.market.fetch import FeedError, Fetcher
from hyperion.adapters.market.gathering import gathered
from hyperion.adapters.market.moments import HOUR_MS, ms_of
from hyperion.model.job import Secret
from hyperion.model.quotes import MOST_POINTS, Fetched, Kind, Point, Quote, Wanted

BASE_URL = "https://api.electricitymaps.com"
TTL_MS = 3 * HOUR_MS
"""Values are by the hour, and come an hour or two late."""


class _Latest(Struct):
    zone: str
    carbonIntensity: float  # noqa: N815 - as on the wire, here and below
    datetime: str
    isEstimated: bool = False  # noqa: N815
    emissionFactorType: str = "lifecycle"  # noqa: N815


class _Ahead(Struct):
    carbonIntensity: float  # noqa: N815
    datetime: str


class _Forecast(Struct):
    forecast: list[_Ahead]


class ElectricityMaps:
    name = "electricity-maps"

    def __init__(self, key: Secret, base_url: str = BASE_URL) -> None:
        self._key = key
        self._fetcher = Fetcher(self.name, base_url)

    async def fetch(self, wanted: Wanted, now_ms: int) -> Fetched:
        places: defaultdict[str, list[str]] = defaultdict(list)
        for place, zone in wanted.zones.items():
            if place in wanted.places:
                places[zone].append(place)

        async def of_zone(zone: str) -> list[Quote]:
            return await self._zone(zone, places[zone], now_ms)

        return await gathered(sorted(places), of_zone, self.name)

    async def close(self) -> None:
        await self._fetcher.close()

    async def _zone(self, zone: str, places: list[str], now_ms: int) -> list[Quote]:
        query, path = {"zone": zone}, "/v3/carbon-intensity"
        latest = await self._fetcher.json(f"{path}/latest", _Latest, query, self._headers)
        if latest.zone != zone:
            raise self._fetcher.error(path, f"asked for zone {zone}, told of {latest.zone[:60]!r}")
        try:
            as_of_ms = ms_of(latest.datetime)
            if now_ms < as_of_ms <= now_ms + HOUR_MS:
                as_of_ms = now_ms  # the estimate of the hour that is about to begin
            forecast = await self._forecast(query)
        except ValueError as wrong:
            raise self._fetcher.error(path, f"zone {zone}: {wrong}") from None
        return [
            Quote(
                kind=Kind.CARBON,
                place=place,
                value=latest.carbonIntensity,
                unit="gCO2e/kWh",
                as_of_ms=as_of_ms,
                ttl_ms=TTL_MS,
                source=self.name,
                confidence=0.8 if latest.isEstimated else 0.95,
                forecast=forecast,
                note=f"zone {zone}, {latest.emissionFactorType}, average",
            )
            for place in places
        ]

    async def _forecast(self, query: dict[str, str]) -> tuple[Point, ...]:
        """Not every plan covers it; without one the present value is still worth having."""
        path = "/v3/carbon-intensity/forecast"
        try:
            ahead = await self._fetcher.json(path, _Forecast, query, self._headers)
        except FeedError:
            return ()
        points = [Point(ms_of(p.datetime), p.carbonIntensity) for p in ahead.forecast]
        return tuple(points[:MOST_POINTS])

    def _headers(self, url: str) -> dict[str, str]:  # noqa: ARG002 - the same for each
        return {"auth-token": self._key.value}
