"""Azure's prices, on-demand and spot: the Retail Prices API. It asks for no key."""

from collections.abc import Iterator

from msgspec import Struct

from hyperion.adapters.market.fetch import FeedError, Fetcher
from hyperion.adapters.market.gathering import gathered
from hyperion.adapters.market.moments import DAY_MS, ms_of
from hyperion.model.quotes import Fetched, Kind, Quote, Wanted

BASE_URL = "https://prices.azure.com"
PATH = "/api/retail/prices"
VERSION = "2023-01-01-preview"
TTL_MS = {Kind.ON_DEMAND: 30 * DAY_MS, Kind.SPOT: DAY_MS}
CONFIDENCE = {Kind.ON_DEMAND: 0.99, Kind.SPOT: 0.9}
MOST_PAGES = 50


class _Item(Struct):
    currencyCode: str  # noqa: N815 - as on the wire, here and below
    retailPrice: float  # noqa: N815
    armRegionName: str  # noqa: N815
    armSkuName: str  # noqa: N815
    skuName: str  # noqa: N815
    productName: str  # noqa: N815
    unitOfMeasure: str  # noqa: N815
    type: str
    effectiveStartDate: str  # noqa: N815


class _Page(Struct):
    Items: list[_Item]
    NextPageLink: str | None = None


class AzurePrices:
    """The answer says since when a price holds, not when it was looked up: the fetch dates it."""

    name = "azure"

    def __init__(self, base_url: str = BASE_URL) -> None:
        self._fetcher = Fetcher(self.name, base_url)

    async def fetch(self, wanted: Wanted, now_ms: int) -> Fetched:
        types = sorted(name for name, m in wanted.machines.items() if m.cloud == "azure")

        async def of_machine(machine: str) -> list[Quote]:
            return list(self._quotes(await self._items(machine), machine, wanted, now_ms))

        return await gathered(types, of_machine, self.name)

    async def close(self) -> None:
        await self._fetcher.close()

    async def _items(self, machine: str) -> list[_Item]:
        chosen = (
            "serviceName eq 'Virtual Machines' and priceType eq 'Consumption'"
            f" and armSkuName eq '{machine}'"
        )
        path, query = PATH, {"api-version": VERSION, "$filter": chosen}
        found: list[_Item] = []
        for _ in range(MOST_PAGES):
            page = await self._fetcher.json(path, _Page, query or None)
            strange = next((i.armSkuName for i in page.Items if i.armSkuName != machine), None)
            if strange is not None:  # then none of its prices can be trusted to be this machine's
                self._fetcher.forget()
                raise self._fetcher.error(PATH, f"asked for {machine}, told of {strange[:60]!r}")
            found += page.Items
            if not page.NextPageLink:
                return found
            path, query = page.NextPageLink, {}
        raise FeedError(f"{self.name}: {machine}: more than {MOST_PAGES} pages")

    def _quotes(
        self, items: list[_Item], machine: str, wanted: Wanted, now_ms: int
    ) -> Iterator[Quote]:
        for item in items:
            place = f"azure/{item.armRegionName}"
            kind = _kind(item)
            if kind is None or place not in wanted.places:
                continue
            try:
                if ms_of(item.effectiveStartDate) > now_ms:
                    continue  # announced, not in force
            except ValueError:
                pass
            hourly = item.unitOfMeasure == "1 Hour" and item.currencyCode == "USD"
            yield Quote(
                kind=kind,
                place=place,
                subject=machine,
                value=item.retailPrice,
                unit="USD/h" if hourly else f"{item.currencyCode}/{item.unitOfMeasure}",
                as_of_ms=now_ms,
                ttl_ms=TTL_MS[kind],
                source=self.name,
                confidence=CONFIDENCE[kind],
                note=item.skuName,
            )


def _kind(item: _Item) -> Kind | None:
    """None for Windows, for Cloud Services, for the older Low Priority, for what is reserved."""
    product = item.productName.replace(" ", "")
    if item.type != "Consumption" or product.endswith(("Windows", "CloudServices")):
        return None
    if item.skuName.endswith("Low Priority"):
        return None
    return Kind.SPOT if item.skuName.endswith(" Spot") else Kind.ON_DEMAND
