"""The clouds' wire formats: EC2's XML, the Price List, the Spot Advisor, Azure, Google, SkyPilot.

Each follows what the cloud documents, as far as a reader of prices sees it.
"""

import zlib
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import escape

from hyperion.adapters.market.gcp import COMPUTE_ENGINE, FAMILIES, GPUS
from hyperion.adapters.market.moments import DAY_MS, iso
from hyperion.daemon.market_replay.faults import Tampering
from hyperion.daemon.market_replay.series import Series
from hyperion.model.quotes import Kind, Slot

PAGE = 100
ZONES = "abc"
DEARER = 0.02
"""Each further zone costs so much more than the cheapest."""


class Asked:
    """A request as the makers see it: where in replay time, where in real time, what for."""

    def __init__(
        self,
        path: str,
        query: Mapping[str, list[str]],
        base: str,
        at_ms: int,
        real_ms: int,
        speed: float,
        wrong: Tampering,
    ) -> None:
        self.path, self.query, self.base = path, query, base
        self.at_ms, self.real_ms, self.wrong = at_ms, real_ms, wrong
        self._speed = max(1.0, speed)

    def one(self, name: str, default: str = "") -> str:
        return self.query.get(name, [default])[0]

    def said(self, since_ms: int) -> int:
        """A moment of the replay as one of real time, so that a later one is never said earlier.

        At most a day ago: the clouds state their prices anew about so often.
        """
        age_ms = min(max(0, self.at_ms - since_ms) / self._speed, DAY_MS)
        return self.real_ms - int(age_ms) - self.wrong.old_ms

    def machine(self, name: str) -> str:
        return "x1e.nobody-asked" if self.wrong.wrong_sku else name


def aws_spot(series: Series, asked: Asked, region: str) -> str:
    """``DescribeSpotPriceHistory`` with the prices in force, a page at a time."""
    types = {v[0] for k, v in asked.query.items() if k.startswith("InstanceType.")}
    slots = [
        (slot, zone)
        for slot in series.sold("aws", region)
        if slot[0] is Kind.SPOT and (not types or slot[2] in types)
        for zone in ZONES
    ]
    begin = int(asked.one("NextToken", "0") or 0)
    most = min(1000, int(asked.one("MaxResults", "1000")))
    items = "".join(_spot_item(series, asked, slot, z) for slot, z in slots[begin : begin + most])
    more = str(begin + most) if begin + most < len(slots) else ""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<DescribeSpotPriceHistoryResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">'
        "<requestId>59dbff89-35bd-4eac-99ed-be587EXAMPLE</requestId>"
        f"<spotPriceHistorySet>{items}</spotPriceHistorySet>"
        f"<nextToken>{more}</nextToken></DescribeSpotPriceHistoryResponse>"
    )


def _spot_item(series: Series, asked: Asked, slot: Slot, zone: str) -> str:
    usd, since_ms = series.price(slot, asked.at_ms)
    usd *= (
        asked.wrong.factor
        * (1 + DEARER * ZONES.index(zone))
        / (720 if asked.wrong.wrong_unit else 1)
    )
    region = slot[1].partition("/")[2]
    return (
        f"<item><instanceType>{escape(asked.machine(slot[2]))}</instanceType>"
        "<productDescription>Linux/UNIX</productDescription>"
        f"<spotPrice>{usd:.6f}</spotPrice>"
        f"<timestamp>{iso(asked.said(since_ms)).replace('Z', '.000Z')}</timestamp>"
        f"<availabilityZone>{region}{zone}</availabilityZone></item>"
    )


def aws_prices(series: Series, asked: Asked, region: str) -> dict[str, Any]:
    """The bulk Price List of EC2 in a region, as far as Linux machines go."""
    products: dict[str, Any] = {}
    terms: dict[str, Any] = {}
    for slot in series.sold("aws", region):
        if slot[0] is not Kind.ON_DEMAND:
            continue
        for system in ("Linux", "Windows"):
            sku = f"{zlib.crc32(f'{slot}{system}'.encode()):08X}HYPERX"
            usd = series.price(slot, asked.at_ms)[0] * (1 if system == "Linux" else 1.8)
            products[sku] = _product(sku, asked.machine(slot[2]), region, system)
            terms[sku] = _term(sku, usd * asked.wrong.factor, asked)
        block = f"BLOCK{sku}"  # capacity blocks stand beside the machines, and cost 0 there
        products[block] = _product(block, asked.machine(slot[2]), region, "Linux")
        products[block]["attributes"]["marketoption"] = "CapacityBlock"
        terms[block] = _term(block, 0.0, asked)
    published = asked.said(asked.at_ms - asked.at_ms % DAY_MS)
    return {
        "formatVersion": "v1.0",
        "offerCode": "AmazonEC2",
        "version": iso(published - published % DAY_MS).replace("-", "").replace(":", ""),
        "publicationDate": iso(published),
        "products": products,
        "terms": {"OnDemand": terms},
    }


def _product(sku: str, machine: str, region: str, system: str) -> dict[str, Any]:
    return {
        "sku": sku,
        "productFamily": "Compute Instance",
        "attributes": {
            "servicecode": "AmazonEC2",
            "instanceType": machine,
            "tenancy": "Shared",
            "operatingSystem": system,
            "preInstalledSw": "NA",
            "capacitystatus": "Used",
            "regionCode": region,
            "usagetype": f"BoxUsage:{machine}",
            "operation": "RunInstances",
        },
    }


def _term(sku: str, usd: float, asked: Asked) -> dict[str, Any]:
    term, rate = f"{sku}.JRTCKXETXF", f"{sku}.JRTCKXETXF.6YS6EN2CT7"
    dimension = {
        "rateCode": rate,
        "beginRange": "0",
        "endRange": "Inf",
        "unit": "Quantity" if asked.wrong.wrong_unit else "Hrs",
        "pricePerUnit": {"USD": f"{usd:.10f}"},
    }
    return {term: {"offerTermCode": "JRTCKXETXF", "sku": sku, "priceDimensions": {rate: dimension}}}


def aws_advisor(series: Series, asked: Asked) -> dict[str, Any]:
    """``spot-advisor-data.json``; bands of interruption hang on the names of region and machine."""
    ranges = [
        {"index": n, "label": label, "dots": n, "max": top}
        for n, (label, top) in enumerate(
            [("<5%", 5), ("5-10%", 11), ("10-15%", 16), ("15-20%", 22), (">20%", 100)]
        )
    ]
    advice: dict[str, Any] = {}
    for kind, place, machine in series.sold("aws"):
        if kind is Kind.SPOT:
            band = zlib.crc32(f"{place}{machine}".encode()) % 5
            systems = advice.setdefault(place.partition("/")[2], {"Linux": {}, "Windows": {}})
            band = 9 if asked.wrong.factor != 1 else band
            systems["Linux"][asked.machine(machine)] = {"s": 60, "r": band}
    return {"global_rate": "<10%", "ranges": ranges, "instance_types": {}, "spot_advisor": advice}


def azure(series: Series, asked: Asked) -> dict[str, Any]:
    """Retail Prices: the machine of the ``$filter`` in all regions, a page at a time."""
    chosen = asked.one("$filter")
    wanted = chosen.partition("armSkuName eq '")[2].partition("'")[0]
    items = [
        item
        for slot in series.sold("azure")
        if not wanted or slot[2] == wanted
        for item in _azure_items(series, asked, slot)
    ]
    begin = int(asked.one("$skip", "0"))
    more = begin + PAGE < len(items)
    link = f"{asked.base}{asked.path}?$filter={quote(chosen)}&$skip={begin + PAGE}"
    return {
        "BillingCurrency": "USD",
        "CustomerEntityId": "Default",
        "CustomerEntityType": "Retail",
        "Items": items[begin : begin + PAGE],
        "NextPageLink": link if more else None,
        "Count": len(items[begin : begin + PAGE]),
    }


def _azure_items(series: Series, asked: Asked, slot: Slot) -> Iterator[dict[str, Any]]:
    usd = series.price(slot, asked.at_ms)[0] * asked.wrong.factor
    short = slot[2].removeprefix("Standard_").replace("_", " ")
    sku = short + " Spot" * (slot[0] is Kind.SPOT)
    others = ((" CloudServices", "", 1.5), (" Windows", "", 1.9), ("", " Low Priority", 0.1))
    for system, more, factor in (("", "", 1.0), *others):
        yield {
            "currencyCode": "USD",
            "tierMinimumUnits": 0.0,
            "retailPrice": round(usd * factor, 6),
            "unitPrice": round(usd * factor, 6),
            "armRegionName": slot[1].partition("/")[2],
            "effectiveStartDate": "2023-01-01T00:00:00Z",
            "meterName": sku + more,
            "productName": f"Virtual Machines {short.split(' ')[0]} Series{system}",
            "skuName": sku + more,
            "serviceName": "Virtual Machines",
            "serviceFamily": "Compute",
            "unitOfMeasure": "1/Month" if asked.wrong.wrong_unit else "1 Hour",
            "type": "Consumption",
            "isPrimaryMeterRegion": True,
            "armSkuName": asked.machine(slot[2]),
        }


def gcp(series: Series, asked: Asked) -> dict[str, Any]:
    """``skus.list`` of Compute Engine: cores, memory and GPUs by region."""
    skus = list(_gcp_skus(series, asked))
    begin = int(asked.one("pageToken", "0") or 0)
    size = min(5000, int(asked.one("pageSize", "5000")), 400)  # small, so that pages are rehearsed
    more = str(begin + size) if begin + size < len(skus) else ""
    return {"skus": skus[begin : begin + size], "nextPageToken": more}


def _gcp_skus(series: Series, asked: Asked) -> Iterator[dict[str, Any]]:
    """Parts whose sums are the prices of the smallest machine of each family or GPU."""
    done: set[tuple[str, str, Kind]] = set()
    for slot in sorted(series.sold("gcp"), key=lambda s: (s[1], series.machines[s[2]].cpus_milli)):
        kind, place, machine = slot
        shape = series.machines[machine]
        family = next((f for f in FAMILIES if machine.startswith(f"{f}-")), None)
        if family is None or (shape.gpus and shape.gpu_type not in GPUS):
            continue
        usd = series.price(slot, asked.at_ms)[0]
        cpus, gib = shape.cpus_milli / 1000, shape.memory_mib / 1024
        host = usd if not shape.gpus else usd * 0.2
        core, ram = FAMILIES[family]
        parts = [(core, host * 0.7 / cpus, "h"), (ram, host * 0.3 / gib, "GiBy.h")]
        if shape.gpus:
            parts.append((GPUS[shape.gpu_type], (usd - host) / shape.gpus, "h"))
        for name, value, unit in parts:
            if (name, place, kind) not in done:
                done.add((name, place, kind))
                yield _gcp_sku(name, place.partition("/")[2], kind, value, unit, asked)


def _gcp_sku(
    name: str, region: str, kind: Kind, usd: float, unit: str, asked: Asked
) -> dict[str, Any]:
    nanos = round(usd * asked.wrong.factor * 1e9)
    spot = kind is Kind.SPOT
    said = f"{'Spot Preemptible ' if spot else ''}{name} running in {region}"
    sku = f"{zlib.crc32(said.encode()):08X}"
    price = {"currencyCode": "USD", "units": str(int(nanos / 1e9)), "nanos": nanos % 1_000_000_000}
    if nanos < 0:
        price |= {"units": str(-(-nanos // 1_000_000_000)), "nanos": -(-nanos % 1_000_000_000)}
    expression = {
        "usageUnit": "mo" if asked.wrong.wrong_unit else unit,
        "displayQuantity": 1,
        "tieredRates": [{"startUsageAmount": 0, "unitPrice": price}],
    }
    return {
        "name": f"services/{COMPUTE_ENGINE}/skus/{sku}",
        "skuId": sku,
        "description": said.replace("Instance", "Reserved") if asked.wrong.wrong_sku else said,
        "category": {
            "serviceDisplayName": "Compute Engine",
            "resourceFamily": "Compute",
            "resourceGroup": "GPU" if "GPU" in name else "CPU" if unit == "h" else "RAM",
            "usageType": "Preemptible" if spot else "OnDemand",
        },
        "serviceRegions": [region],
        "pricingInfo": [{"effectiveTime": "2023-01-01T00:00:00Z", "pricingExpression": expression}],
        "serviceProviderName": "Google",
    }


def skypilot(series: Series, asked: Asked, cloud: str) -> str:
    """``vms.csv`` of a cloud."""
    titles = (
        "InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,GpuInfo,Price,SpotPrice,"
        "Region,AvailabilityZone"
    )
    if asked.wrong.wrong_sku:
        titles = titles.replace("InstanceType", "Flavour")
    lines = [titles]
    prices: dict[tuple[str, str], dict[Kind, float]] = {}
    for slot in series.sold(cloud):
        usd = series.price(slot, asked.at_ms)[0] * asked.wrong.factor
        prices.setdefault((slot[2], slot[1]), {})[slot[0]] = usd
    for (machine, place), known in prices.items():
        shape, region = series.machines[machine], place.partition("/")[2]
        lines.append(
            f"{machine},{shape.gpu_type},{float(shape.gpus) if shape.gpus else ''},"
            f"{shape.cpus_milli / 1000},{shape.memory_mib / 1024},,"
            f"{known.get(Kind.ON_DEMAND, '')},{known.get(Kind.SPOT, '')},{region},{region}-a"
        )
    return "\n".join(lines) + "\n"
