"""Prices of machines in many clouds: the CSV files of SkyPilot's public catalogue."""

import asyncio
import csv
import io
from collections.abc import Iterator

from hyperion.adapters.market.fetch import Fetcher, Limits
from hyperion.adapters.market.gathering import gathered, number
from hyperion.adapters.market.moments import DAY_MS
from hyperion.model.quotes import Fetched, Kind, MachineShape, Quote, Wanted

BASE_URL = "https://raw.githubusercontent.com/skypilot-org/skypilot-catalog/master/catalogs/v8"
TTL_MS = 2 * DAY_MS
COLUMNS = frozenset({"InstanceType", "AcceleratorName", "Price", "SpotPrice", "Region"})


class SkyPilot:
    """Second hand and undated, so believed less than a cloud's own word; the fetch dates it.

    Google's machines with GPUs are left out: there the host and its GPUs are rows of their own.
    """

    name = "skypilot"

    def __init__(self, base_url: str = BASE_URL) -> None:
        self._fetcher = Fetcher(self.name, base_url, Limits(reuse_s=600))

    async def fetch(self, wanted: Wanted, now_ms: int) -> Fetched:
        clouds = sorted({m.cloud for m in wanted.machines.values()} - {"edge"})

        async def of_cloud(cloud: str) -> list[Quote]:
            path = f"/{cloud}/vms.csv"
            text = (await self._fetcher.get(path)).decode("utf-8", "replace")
            rows = csv.DictReader(io.StringIO(text))
            missing = COLUMNS - set(rows.fieldnames or ())
            if missing or not text.endswith("\n"):
                self._fetcher.forget()
                lacks = f"no column {', '.join(sorted(missing))}" if missing else "it is cut off"
                raise self._fetcher.error(path, f"the answer is not as documented: {lacks}")
            # Some hundred thousand rows: not on the loop that everything else waits for.
            return await asyncio.to_thread(lambda: list(_cheapest(rows, cloud, wanted, now_ms)))

        return await gathered(clouds, of_cloud, self.name)

    async def close(self) -> None:
        await self._fetcher.close()


def _cheapest(
    rows: "csv.DictReader[str]", cloud: str, wanted: Wanted, now_ms: int
) -> Iterator[Quote]:
    found: dict[tuple[Kind, str, str], float] = {}
    for row in rows:
        machine, place = row["InstanceType"] or "", f"{cloud}/{row['Region']}"
        shape = wanted.machines.get(machine)
        if shape is None or place not in wanted.places or not _is_whole(shape, row):
            continue
        for kind, column in ((Kind.ON_DEMAND, "Price"), (Kind.SPOT, "SpotPrice")):
            if row[column]:
                key, usd = (kind, place, machine), number(row[column])
                found[key] = min(usd, found.get(key, usd))
    for (kind, place, machine), usd in found.items():
        yield Quote(
            kind=kind,
            place=place,
            subject=machine,
            value=usd,
            unit="USD/h",
            as_of_ms=now_ms,
            ttl_ms=TTL_MS,
            source=SkyPilot.name,
            confidence=0.7,
        )


def _is_whole(shape: MachineShape, row: dict[str, str]) -> bool:
    return not (shape.cloud == "gcp" and shape.gpus) and bool(shape.gpus) == bool(
        row["AcceleratorName"]
    )
