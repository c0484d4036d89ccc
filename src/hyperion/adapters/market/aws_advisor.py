"""How often AWS takes spot machines back: the JSON behind the Spot Instance Advisor."""

from msgspec import Struct

from hyperion.adapters.market.fetch import Fetcher, Limits
from hyperion.adapters.market.moments import DAY_MS
from hyperion.model.quotes import Fetched, Kind, Quote, Wanted

BASE_URL = "https://spot-bid-advisor.s3.amazonaws.com"
TTL_MS = 7 * DAY_MS
KEPT = (0.975, 0.925, 0.875, 0.825, 0.7)
"""By band of interruptions in the past month (<5 %, 5-10, 10-15, 15-20, >20): the share that was
left alone, from the middle of the band; of the last, which has no end, 30 % is taken."""


class _Advice(Struct):
    s: int
    r: int


class _Advisor(Struct):
    spot_advisor: dict[str, dict[str, dict[str, _Advice]]]


class AwsAdvisor:
    """Obtainability by region and machine. It states no date: that of the fetch stands for it."""

    name = "aws-advisor"

    def __init__(self, base_url: str = BASE_URL) -> None:
        self._fetcher = Fetcher(self.name, base_url, Limits(reuse_s=600))

    async def fetch(self, wanted: Wanted, now_ms: int) -> Fetched:
        advisor = await self._fetcher.json("/spot-advisor-data.json", _Advisor)
        quotes = [
            Quote(
                kind=Kind.OBTAINABILITY,
                place=f"aws/{region}",
                subject=machine,
                value=KEPT[advice.r] if 0 <= advice.r < len(KEPT) else float("nan"),
                unit="share",
                as_of_ms=now_ms,
                ttl_ms=TTL_MS,
                source=self.name,
                confidence=0.6,  # a band, of a month, of a whole region
                note=f"band {advice.r}, {advice.s} % below on-demand",
            )
            for region, systems in advisor.spot_advisor.items()
            if f"aws/{region}" in wanted.places
            for machine, advice in systems.get("Linux", {}).items()
            if machine in wanted.machines
        ]
        return Fetched(tuple(quotes))

    async def close(self) -> None:
        await self._fetcher.close()
