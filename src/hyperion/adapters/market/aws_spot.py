"""AWS spot prices now: ``DescribeSpotPriceHistory`` of the EC2 query API (XML, signed)."""

import time
from collections.abc import Iterable, Iterator
from xml.etree import ElementTree

from msgspec.structs import replace

from hyperion.adapters.market.aws_signing import AwsKey, signed
from hyperion.adapters.market.fetch import FeedError, Fetcher
from hyperion.adapters.market.gathering import gathered, number
from hyperion.adapters.market.moments import DAY_MS, iso, ms_of
from hyperion.model.quotes import Fetched, Kind, Quote, Wanted

BASE_URL = "https://ec2.{region}.amazonaws.com"
TTL_MS = 2 * DAY_MS
"""The answer says when a price last changed. Amazon states each about once a day even if it did
not, so that one of over two days is not kept up any more."""
CONFIDENCE = 0.95
MOST_PAGES = 20
TYPES_AT_ONCE = 100


class AwsSpot:
    """A price per region and machine: that of the cheapest zone, as in the catalogue."""

    name = "aws-spot"

    def __init__(self, key: AwsKey, base_url: str = BASE_URL) -> None:
        self._key, self._base_url = key, base_url
        self._fetchers: dict[str, Fetcher] = {}

    async def fetch(self, wanted: Wanted, now_ms: int) -> Fetched:
        types = sorted(name for name, m in wanted.machines.items() if m.cloud == "aws")
        batches = [types[n : n + TYPES_AT_ONCE] for n in range(0, len(types), TYPES_AT_ONCE)]

        async def of_region(region: str) -> list[Quote]:
            found: list[Quote] = []
            for batch in batches:
                found += await self._region(region, batch, now_ms)
            return _cheapest(found)

        return await gathered(wanted.regions("aws"), of_region, self.name)

    async def close(self) -> None:
        for fetcher in self._fetchers.values():
            await fetcher.close()

    async def _region(self, region: str, types: list[str], now_ms: int) -> list[Quote]:
        fetcher = self._fetchers.get(region)
        if fetcher is None:
            url = self._base_url.replace("{region}", region)
            fetcher = self._fetchers[region] = Fetcher(self.name, url)
        # Without an end this gives what is in force; a whole minute lets an answer be reused.
        query = {
            "Action": "DescribeSpotPriceHistory",
            "Version": "2016-11-15",
            "StartTime": iso(now_ms - now_ms % 60_000),
            "ProductDescription.1": "Linux/UNIX",
            "MaxResults": "1000",
        }
        query |= {f"InstanceType.{n}": name for n, name in enumerate(types, 1)}
        found: list[Quote] = []
        for _ in range(MOST_PAGES):
            body = await fetcher.get("/", query, lambda url: self._headers(url, region))
            try:
                root = _parsed(body)
            except (ElementTree.ParseError, ValueError) as wrong:
                fetcher.forget()
                raise fetcher.error(
                    "/", f"{region}: the answer is not as documented: {wrong}"
                ) from None
            quotes = list(self._quotes(root, region))
            strange = next((q.subject for q in quotes if q.subject not in types), None)
            if strange is not None:  # then none of its prices can be trusted to be a machine's
                fetcher.forget()
                raise fetcher.error("/", f"{region}: told of {strange[:60]!r}, not asked for")
            found += quotes
            token = root.findtext("{*}nextToken")
            if not token:
                return found
            query["NextToken"] = token
        raise FeedError(f"{self.name}: {region}: more than {MOST_PAGES} pages")

    def _headers(self, url: str, region: str) -> dict[str, str]:
        return signed(url, self._key, region, "ec2", time.time())  # noqa: TID251 - AWS checks it

    def _quotes(self, root: ElementTree.Element, region: str) -> Iterator[Quote]:
        for item in root.iterfind("{*}spotPriceHistorySet/{*}item"):
            said = {e.tag.rpartition("}")[2]: e.text or "" for e in item}
            if said.get("productDescription", "Linux/UNIX") != "Linux/UNIX":
                continue
            yield Quote(
                kind=Kind.SPOT,
                place=f"aws/{region}",
                subject=said.get("instanceType", ""),
                value=number(said.get("spotPrice", "")),
                unit="USD/h",
                as_of_ms=_moment(said.get("timestamp", "")),
                ttl_ms=TTL_MS,
                source=self.name,
                confidence=CONFIDENCE,
                note=said.get("availabilityZone", ""),
            )


def _cheapest(zones: Iterable[Quote]) -> list[Quote]:
    """Of each machine the cheapest zone's price, as of the last change in any zone: were it that of
    the cheapest zone's last change, it would go back in time when another becomes the cheapest."""
    found: dict[str, Quote] = {}
    for quote in zones:
        held = found.get(quote.subject, quote)
        # NaN is kept only where nothing better is: it shall be seen, not win.
        better = quote.value < held.value or held.value != held.value
        newest_ms = max(held.as_of_ms, quote.as_of_ms)
        found[quote.subject] = replace(quote if better else held, as_of_ms=newest_ms)
    return list(found.values())


def _parsed(body: bytes) -> ElementTree.Element:
    if b"<!DOCTYPE" in body[:4096] or b"<!ENTITY" in body:
        raise ValueError("it declares entities")
    return ElementTree.fromstring(body)  # noqa: S314 - no entities, a bounded size


def _moment(text: str) -> int:
    try:
        return ms_of(text)
    except ValueError:
        return 0  # which is stale, and says so
