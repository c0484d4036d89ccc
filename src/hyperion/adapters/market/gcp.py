"""Google's prices, on-demand and spot: ``skus.list`` of the Cloud Billing Catalog API.

Google lists no machines but their parts (a core, a GiB of memory, a GPU); a machine is their sum.
Families whose parts' names are not known here for sure are left out: A3 Mega, A3 Ultra and A4.
"""

import re
from collections.abc import Iterator, Mapping

from msgspec import Struct

from hyperion.adapters.market.fetch import FeedError, Fetcher, Limits
from hyperion.adapters.market.gathering import number
from hyperion.adapters.market.moments import DAY_MS
from hyperion.model.job import Secret
from hyperion.model.quotes import Fetched, Kind, MachineShape, Quote, Wanted

BASE_URL = "https://cloudbilling.googleapis.com"
COMPUTE_ENGINE = "6F81-5844-456A"
TTL_MS = {Kind.ON_DEMAND: 30 * DAY_MS, Kind.SPOT: 3 * DAY_MS}
"""Spot prices may change up to once a day, and did so about once a month."""
MOST_PAGES = 40
FAMILIES: Mapping[str, tuple[str, str]] = {
    "n1": ("N1 Predefined Instance Core", "N1 Predefined Instance Ram"),
    "n2": ("N2 Instance Core", "N2 Instance Ram"),
    "e2": ("E2 Instance Core", "E2 Instance Ram"),
    "g2": ("G2 Instance Core", "G2 Instance Ram"),
    "a2": ("A2 Instance Core", "A2 Instance Ram"),
    "a3-highgpu": ("A3 Instance Core", "A3 Instance Ram"),
}
"""Machine family → descriptions of a core and of a GiB, up to " running in"."""
GPUS: Mapping[str, str] = {
    "T4": "Nvidia Tesla T4 GPU",
    "P100": "Nvidia Tesla P100 GPU",
    "V100": "Nvidia Tesla V100 GPU",
    "A100": "Nvidia Tesla A100 GPU",
    "A100-80GB": "Nvidia Tesla A100 80GB GPU",
    "L4": "Nvidia L4 GPU",
    "H100": "Nvidia H100 80GB GPU",
}
_PART = re.compile(r"(?:Spot Preemptible )?(?P<part>[A-Za-z0-9 ]+?) running in .+")
_USAGE = {"OnDemand": Kind.ON_DEMAND, "Preemptible": Kind.SPOT}
_UNITS = {"h": 1.0, "GiBy.h": 1.0}


class _Money(Struct):
    currencyCode: str = "USD"  # noqa: N815 - as on the wire, here and below
    units: str = "0"
    nanos: int = 0


class _Rate(Struct):
    unitPrice: _Money  # noqa: N815
    startUsageAmount: float = 0.0  # noqa: N815


class _Expression(Struct):
    usageUnit: str  # noqa: N815
    tieredRates: list[_Rate]  # noqa: N815


class _Pricing(Struct):
    pricingExpression: _Expression  # noqa: N815


class _Category(Struct, frozen=True):
    usageType: str = ""  # noqa: N815
    resourceFamily: str = ""  # noqa: N815


class _Sku(Struct):
    description: str
    category: _Category = _Category()
    serviceRegions: list[str] = []  # noqa: N815
    pricingInfo: list[_Pricing] = []  # noqa: N815


class _Page(Struct):
    skus: list[_Sku] = []
    nextPageToken: str = ""  # noqa: N815


_Part = tuple[str, Kind, str]
"""Region, usage, description."""


class GcpPrices:
    """The answer says since when a price holds, not when it was looked up: the fetch dates it."""

    name = "gcp"

    def __init__(self, key: Secret, base_url: str = BASE_URL) -> None:
        self._key = key
        self._fetcher = Fetcher(self.name, base_url, Limits(total_s=120, reuse_s=300))

    async def fetch(self, wanted: Wanted, now_ms: int) -> Fetched:
        path = f"/v1/services/{COMPUTE_ENGINE}/skus"
        query = {"currencyCode": "USD", "pageSize": "5000"}
        parts: dict[_Part, tuple[float, str]] = {}
        for _ in range(MOST_PAGES):
            page = await self._fetcher.json(path, _Page, query, self._headers)
            for sku in page.skus:
                parts |= _parts(sku)
            if not page.nextPageToken:
                return Fetched(tuple(_quotes(parts, wanted, now_ms)))
            query["pageToken"] = page.nextPageToken
        raise FeedError(f"{self.name}: more than {MOST_PAGES} pages of SKUs")

    async def close(self) -> None:
        await self._fetcher.close()

    def _headers(self, url: str) -> dict[str, str]:  # noqa: ARG002 - the same for each
        return {"x-goog-api-key": self._key.value}


def _parts(sku: _Sku) -> dict[_Part, tuple[float, str]]:
    """Price and unit of what the SKU is, in each region that it is for."""
    named = _PART.fullmatch(sku.description)
    kind = _USAGE.get(sku.category.usageType)
    if named is None or kind is None or sku.category.resourceFamily != "Compute":
        return {}
    if (kind is Kind.SPOT) != sku.description.startswith("Spot Preemptible "):
        return {}
    if not sku.pricingInfo or not sku.pricingInfo[-1].pricingExpression.tieredRates:
        return {}
    expression = sku.pricingInfo[-1].pricingExpression
    money = expression.tieredRates[-1].unitPrice
    known = expression.usageUnit in _UNITS and money.currencyCode == "USD"
    unit = "USD/h" if known else f"{money.currencyCode}/{expression.usageUnit}"
    usd = number(money.units) + money.nanos / 1e9
    return {(region, kind, named["part"]): (usd, unit) for region in sku.serviceRegions}


def _quotes(
    parts: Mapping[_Part, tuple[float, str]], wanted: Wanted, now_ms: int
) -> Iterator[Quote]:
    for machine, shape in sorted(wanted.machines.items()):
        needs = _needs(machine, shape)
        if shape.cloud != "gcp" or not needs:
            continue
        for region in wanted.regions("gcp"):
            for kind, ttl_ms in TTL_MS.items():
                found = [(parts.get((region, kind, name)), count) for name, count in needs]
                priced = [(part, count) for part, count in found if part is not None]
                if len(priced) < len(found):
                    continue  # it cannot be had there
                units = {unit for (_, unit), _ in priced}
                yield Quote(
                    kind=kind,
                    place=f"gcp/{region}",
                    subject=machine,
                    value=sum(usd * count for (usd, _), count in priced),
                    unit=units.pop() if len(units) == 1 else "mixed units",
                    as_of_ms=now_ms,
                    ttl_ms=ttl_ms,
                    source=GcpPrices.name,
                    confidence=0.95,
                    note=f"sum of {len(priced)} parts",
                )


def _needs(machine: str, shape: MachineShape) -> list[tuple[str, float]]:
    """Descriptions of a machine's parts, and how many of each; nothing where they are unknown."""
    family = next((f for f in FAMILIES if machine.startswith(f"{f}-")), None)
    if family is None or (shape.gpus and shape.gpu_type not in GPUS):
        return []
    core, ram = FAMILIES[family]
    needs = [(core, shape.cpus_milli / 1000), (ram, shape.memory_mib / 1024)]
    return [*needs, (GPUS[shape.gpu_type], float(shape.gpus))] if shape.gpus else needs
