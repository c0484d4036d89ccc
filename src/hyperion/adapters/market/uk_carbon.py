"""Great Britain's grid by region, now and two days ahead: the Carbon Intensity API, without a key.

By its operator, NESO: direct emissions of what is consumed, g CO2/kWh, by the half hour.
"""

from collections.abc import Mapping

from msgspec import Struct

from hyperion.adapters.market.fetch import Fetcher
from hyperion.adapters.market.gathering import gathered
from hyperion.adapters.market.moments import HOUR_MS, iso, ms_of
from hyperion.model.quotes import MOST_POINTS, Fetched, Kind, Point, Quote, Wanted

BASE_URL = "https://api.carbonintensity.org.uk"
TTL_MS = 2 * HOUR_MS
REGIONS: Mapping[str, int] = {
    "aws/eu-west-2": 13,
    "azure/uksouth": 13,
    "gcp/europe-west2": 13,
    "edge/home": 13,
    "azure/ukwest": 7,
}
"""Place → region of the API: 13 is London, 7 South Wales."""


class _Intensity(Struct):
    forecast: float


class _HalfHour(Struct, rename={"from_": "from"}):
    from_: str
    intensity: _Intensity


class _Region(Struct):
    regionid: int
    data: list[_HalfHour]


class _Now(Struct):
    data: list[_Region]


class _Ahead(Struct):
    data: _Region


class UkCarbon:
    name = "uk-carbon"

    def __init__(self, base_url: str = BASE_URL) -> None:
        self._fetcher = Fetcher(self.name, base_url)

    async def fetch(self, wanted: Wanted, now_ms: int) -> Fetched:
        regions = sorted({id for place, id in REGIONS.items() if place in wanted.places})

        async def of_region(region: int) -> list[Quote]:
            places = [p for p, id in REGIONS.items() if id == region and p in wanted.places]
            return await self._region(region, places, now_ms)

        return await gathered(regions, of_region, self.name)

    async def close(self) -> None:
        await self._fetcher.close()

    async def _region(self, region: int, places: list[str], now_ms: int) -> list[Quote]:
        path = f"/regional/regionid/{region}"
        now = await self._fetcher.json(path, _Now)
        half_hour = iso(now_ms - now_ms % (HOUR_MS // 2)).replace(":00Z", "Z")
        ahead = await self._fetcher.json(
            f"/regional/intensity/{half_hour}/fw48h/regionid/{region}", _Ahead
        )
        if not now.data or now.data[0].regionid != region or not now.data[0].data:
            raise self._fetcher.error(path, f"no half hour of region {region} in the answer")
        present = now.data[0].data[0]
        try:
            as_of_ms = ms_of(present.from_)
            points = [Point(ms_of(h.from_), h.intensity.forecast) for h in ahead.data.data]
        except ValueError as wrong:
            raise self._fetcher.error(path, str(wrong)) from None
        return [
            Quote(
                kind=Kind.CARBON,
                place=place,
                value=present.intensity.forecast,
                unit="gCO2e/kWh",
                as_of_ms=as_of_ms,
                ttl_ms=TTL_MS,
                source=self.name,
                confidence=0.85,
                forecast=tuple(points[:MOST_POINTS]),
                note=f"region {region}, direct, average",
            )
            for place in places
        ]
