"""Marginal emissions of grids: WattTime's API v3.

A marginal rate says what one more kWh causes, an average what a kWh carries: they differ by far,
so this source is believed less than one of averages, which is how the catalogue and bills count.
"""

import base64
import time
from collections import defaultdict

from msgspec import Struct

from hyperion.adapters.market.fetch import FeedError, Fetcher, Limits
from hyperion.adapters.market.gathering import gathered
from hyperion.adapters.market.moments import HOUR_MS, ms_of
from hyperion.model.job import Secret
from hyperion.model.quotes import MOST_POINTS, Fetched, Kind, Point, Quote, Wanted

BASE_URL = "https://api.watttime.org"
SIGNAL = "co2_moer"
G_PER_KWH = {"lbs_co2_per_mwh": 0.45359237}
"""A pound is 453.59237 g, a MWh 1000 kWh."""
TTL_MS = HOUR_MS
TOKEN_S = 25 * 60
"""A token is good for 30 minutes."""


class _Token(Struct):
    token: str


class _Region(Struct):
    region: str


class _Moment(Struct):
    point_time: str
    value: float


class _Meta(Struct):
    region: str
    units: str
    generated_at: str


class _Forecast(Struct):
    data: list[_Moment]
    meta: _Meta


class WattTime:
    name = "watttime"

    def __init__(self, user: str, password: Secret, base_url: str = BASE_URL) -> None:
        self._user, self._password = user, password
        self._fetcher = Fetcher(self.name, base_url, Limits(requests_per_s=8, burst=20))
        self._token, self._token_at_s = Secret(""), float("-inf")
        self._regions: dict[str, str] = {}
        """Place → WattTime's region, asked for once; empty where it knows none."""

    async def fetch(self, wanted: Wanted, now_ms: int) -> Fetched:  # noqa: ARG002 - it is dated
        await self._log_in()
        places: defaultdict[str, list[str]] = defaultdict(list)
        for place, (latitude, longitude) in sorted(wanted.places.items()):
            if (latitude, longitude) != (0.0, 0.0):
                region = await self._region(place, latitude, longitude)
                if region:
                    places[region].append(place)

        async def of_region(region: str) -> list[Quote]:
            return await self._forecast(region, places[region])

        return await gathered(sorted(places), of_region, self.name)

    async def close(self) -> None:
        await self._fetcher.close()

    async def _log_in(self) -> None:
        if time.monotonic() - self._token_at_s < TOKEN_S:
            return
        pair = f"{self._user}:{self._password.value}".encode()
        basic = {"authorization": "Basic " + base64.b64encode(pair).decode()}
        answer = await self._fetcher.json("/login", _Token, None, lambda _: basic)
        self._fetcher.forget()  # a token in a cache could outlive itself
        self._token, self._token_at_s = Secret(answer.token), time.monotonic()

    async def _region(self, place: str, latitude: float, longitude: float) -> str:
        known = self._regions.get(place)
        if known is None:
            query = {
                "latitude": f"{latitude:.4f}",
                "longitude": f"{longitude:.4f}",
                "signal_type": SIGNAL,
            }
            path = "/v3/region-from-loc"
            try:
                known = (await self._fetcher.json(path, _Region, query, self._headers)).region
            except FeedError as error:
                if "status 4" not in str(error) or "status 429" in str(error):
                    raise
                known = ""  # no grid of theirs is there
            self._regions[place] = known
        return known

    async def _forecast(self, region: str, places: list[str]) -> list[Quote]:
        query, path = {"region": region, "signal_type": SIGNAL}, "/v3/forecast"
        said = await self._fetcher.json(path, _Forecast, query, self._headers)
        if said.meta.region != region or not said.data:
            found = f"{len(said.data)} points of {said.meta.region[:60]!r}"
            raise self._fetcher.error(path, f"asked for {region}, told {found}")
        factor = G_PER_KWH.get(said.meta.units, 1.0)
        try:
            points = [Point(ms_of(m.point_time), m.value * factor) for m in said.data[:MOST_POINTS]]
            as_of_ms = ms_of(said.meta.generated_at)
        except ValueError as wrong:
            raise self._fetcher.error(path, f"region {region}: {wrong}") from None
        return [
            Quote(
                kind=Kind.CARBON,
                place=place,
                value=points[0].value,
                unit="gCO2e/kWh" if said.meta.units in G_PER_KWH else said.meta.units,
                as_of_ms=as_of_ms,
                ttl_ms=TTL_MS,
                source=self.name,
                confidence=0.6,
                forecast=tuple(points),
                note=f"region {region}, marginal",
            )
            for place in places
        ]

    def _headers(self, url: str) -> dict[str, str]:  # noqa: ARG002 - the same for each
        return {"authorization": f"Bearer {self._token.value}"}
