"""AWS on-demand prices: the bulk Price List of EC2, one JSON file per region."""

import asyncio
from collections.abc import Iterator, Mapping

from msgspec import Struct

from hyperion.adapters.market.fetch import Fetcher, Limits
from hyperion.adapters.market.gathering import gathered, number
from hyperion.adapters.market.moments import DAY_MS, ms_of
from hyperion.model.quotes import Fetched, Kind, Quote, Wanted

BASE_URL = "https://pricing.us-east-1.amazonaws.com"
TTL_MS = 60 * DAY_MS
"""The list is published anew when any price of the service changes, which is every few days."""
LARGEST_BYTES = 768 << 20
"""A region's file was some hundreds of MB; only what is asked for is kept of it."""


class _Attributes(Struct, frozen=True):
    instanceType: str = ""  # noqa: N815 - as on the wire, here and below
    operatingSystem: str = ""  # noqa: N815
    tenancy: str = ""
    preInstalledSw: str = ""  # noqa: N815
    capacitystatus: str = ""
    marketoption: str = "OnDemand"


class _Product(Struct):
    attributes: _Attributes = _Attributes()
    productFamily: str = ""  # noqa: N815


class _Dimension(Struct):
    unit: str
    pricePerUnit: dict[str, str]  # noqa: N815


class _Term(Struct):
    priceDimensions: dict[str, _Dimension]  # noqa: N815


class _Terms(Struct, frozen=True):
    OnDemand: dict[str, dict[str, _Term]] = {}


class _List(Struct):
    publicationDate: str  # noqa: N815
    products: dict[str, _Product]
    terms: _Terms


class AwsPrices:
    """Linux, shared tenancy, nothing installed; what others call the list price."""

    name = "aws-prices"

    def __init__(self, base_url: str = BASE_URL) -> None:
        limits = Limits(requests_per_s=1, answer_bytes=LARGEST_BYTES, total_s=900, reuse_s=3600)
        self._fetcher = Fetcher(self.name, base_url, limits)

    async def fetch(self, wanted: Wanted, now_ms: int) -> Fetched:  # noqa: ARG002 - it is dated
        async def of_region(region: str) -> list[Quote]:
            path = f"/offers/v1.0/aws/AmazonEC2/current/{region}/index.json"
            body = await self._fetcher.get(path)
            return await asyncio.to_thread(self._read, path, body, region, wanted)

        return await gathered(wanted.regions("aws"), of_region, self.name, together=1)

    async def close(self) -> None:
        await self._fetcher.close()

    def _read(self, path: str, body: bytes, region: str, wanted: Wanted) -> list[Quote]:
        listed = self._fetcher.decoded(path, body, _List)
        try:
            as_of_ms = ms_of(listed.publicationDate)
        except ValueError:
            as_of_ms = 0
        return list(_quotes(listed, region, wanted, as_of_ms))


def _quotes(listed: _List, region: str, wanted: Wanted, as_of_ms: int) -> Iterator[Quote]:
    for sku, product in listed.products.items():
        asked = product.attributes
        if asked.instanceType not in wanted.machines or not _is_plain(asked):
            continue
        for usd, unit in _prices(listed.terms.OnDemand.get(sku, {})):
            yield Quote(
                kind=Kind.ON_DEMAND,
                place=f"aws/{region}",
                subject=asked.instanceType,
                value=usd,
                unit="USD/h" if unit == "Hrs" else f"USD/{unit}",
                as_of_ms=as_of_ms,
                ttl_ms=TTL_MS,
                source=AwsPrices.name,
                confidence=0.99,
                note=sku,
            )


def _is_plain(asked: _Attributes) -> bool:
    if asked.marketoption != "OnDemand":
        return False  # blocks of capacity are listed beside, at a price of 0
    return (asked.operatingSystem, asked.tenancy, asked.preInstalledSw, asked.capacitystatus) == (
        "Linux", "Shared", "NA", "Used",
    )  # fmt: skip


def _prices(terms: Mapping[str, _Term]) -> Iterator[tuple[float, str]]:
    for term in terms.values():
        for dimension in term.priceDimensions.values():
            if "USD" in dimension.pricePerUnit:
                yield number(dimension.pricePerUnit["USD"]), dimension.unit
