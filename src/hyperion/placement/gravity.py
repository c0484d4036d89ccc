"""What a job pays for its data in a region: brought once, read from afar, or there already. Pure.

Every dataset that a job reads is had in the way that adds least to the job's score, USD, grams and
the hours that it waits for it together:

- it lies in the region: nothing to pay;
- somebody else is bringing it: nothing to pay, but the rest of its way to wait;
- it is moved there: egress once, and storage there for the job's time, or for as long as the
  dataset's ``keep`` says. The copy is there for others then;
- it is read from where it lies: egress for every pass, more slowly, and nothing stays.

What a job writes is brought to the copy that costs least.
"""

from collections.abc import Container, Iterator, Mapping
from enum import Enum

from msgspec import Struct

from hyperion.model.bounds import MAX_COPIES
from hyperion.model.dataset import Copy, Dataset
from hyperion.model.job import DatasetRead, DatasetWrite, Job, Objective
from hyperion.model.market import MarketView

MOVE_GIB_PER_H = 420.0
"""1 Gbit/s (0.125 GB/s) kept up by parallel streams: 419 GiB in an hour. A choice of ours."""
AFAR_GIB_PER_H = MOVE_GIB_PER_H / 4
"""Reading from afar, a file at a time, waits for every round trip. A choice of ours."""
KWH_PER_GIB = 0.001
"""For carrying data between data centres: the coefficient of the Cloud Carbon Footprint project
(methodology, 2023: 0.001 kWh/GB)."""
STORAGE_USD_PER_GIB_MONTH = {"aws": 0.023, "azure": 0.018, "gcp": 0.02}
"""Of standard object storage in US regions by the clouds' lists of 2026: S3 Standard, Blob Storage
hot LRS, Cloud Storage standard. Elsewhere 0: the disks are paid for."""
HOURS_PER_MONTH = 730.0
MS_PER_HOUR = 3_600_000
G_PER_TONNE = 1e6


class DataView(Struct, frozen=True):
    """The datasets as of a moment."""

    datasets: Mapping[str, Dataset] = {}
    now_ms: int = 0


NO_DATASETS = DataView()


class Way(Enum):
    """How a job comes to its data in a region."""

    HERE = "here"
    COMING = "coming"
    MOVED = "moved"
    AFAR = "afar"
    BACK = "back"
    """Written, and brought to where the dataset lies."""


class Haul(Struct, frozen=True, gc=False):
    """One dataset of a job, as it is had in one region."""

    dataset: str
    way: Way
    gib: float
    """That cross a border between regions; where none do, that are read."""
    source: str
    """Where it lies; of what is written, where it goes."""
    egress_usd: float = 0.0
    storage_usd: float = 0.0
    delay_h: float = 0.0
    """What the job waits for it, or is slower for it."""
    gco2e: float = 0.0
    by: str = ""
    """Who brings it, where somebody else does."""
    passes: float = 1.0

    @property
    def usd(self) -> float:
        return self.egress_usd + self.storage_usd

    def weighed_usd(self, weights: Objective) -> float:
        """What it adds to the job's score."""
        grams = weights.carbon * weights.carbon_usd_per_tonne * self.gco2e / G_PER_TONNE
        return weights.egress * self.usd + weights.waiting_usd_per_hour * self.delay_h + grams


class Load(Struct, frozen=True, gc=False):
    """All that a job reads and writes, in one region."""

    hauls: tuple[Haul, ...] = ()
    usd: float = 0.0
    move_h: float = 0.0
    """Moves follow one another, what others bring comes beside them."""
    gco2e: float = 0.0


NO_LOAD = Load()


def load(job: Job, region: str, market: MarketView, data: DataView, hours: float) -> Load:
    """What the job's datasets cost it there; ``hours`` is how long it runs."""
    if not job.reads and not job.writes:
        return NO_LOAD
    hauls = (*_reads(job, region, market, data, hours), *_writes(job, region, market, data))
    usd = own = others = gco2e = 0.0
    for haul in hauls:  # in this order, which gravity_columns has too
        usd += haul.usd
        gco2e += haul.gco2e
        if haul.way is Way.COMING:
            others = max(others, haul.delay_h)
        else:
            own += haul.delay_h
    return Load(hauls, usd, max(own, others), gco2e)


def unknown(job: Job, known: Container[str]) -> str:
    """The first dataset that the job names and nobody has added; empty: all are known."""
    return next((name for name in job.datasets if name not in known), "")


def _reads(
    job: Job, region: str, market: MarketView, data: DataView, hours: float
) -> Iterator[Haul]:
    for read in job.reads:
        dataset = data.datasets.get(read.dataset)
        if dataset is not None:
            ways = ways_to(dataset, read, region, market, data.now_ms, hours)
            yield min(ways, key=lambda haul: haul.weighed_usd(job.objective))


def ways_to(
    dataset: Dataset, read: DatasetRead, region: str, market: MarketView, now_ms: int, hours: float
) -> list[Haul]:
    """Every way in which a job that runs in the region can have the dataset, in no order of cost.

    Of ways that cost the same the first counts: what stays for others stands before what does not.
    """
    name, gib = dataset.name, dataset.gib(now_ms)
    there = dataset.copy(region)
    if there is not None and there.present:
        return [Haul(name, Way.HERE, gib, region, passes=read.fraction)]
    found: list[Haul] = []
    if there is not None and not there.going:
        wait_h = max(0, there.ready_at_ms - now_ms) / MS_PER_HOUR
        found.append(Haul(name, Way.COMING, gib, there.source, delay_h=wait_h, by=there.by))
    for copy in dataset.present:
        if there is None and len(dataset.copies) < MAX_COPIES:
            found.append(_moved(dataset, copy, gib, region, market, hours))
        found.append(_afar(dataset, copy, gib, read, region, market, hours))
    return found


def _moved(
    dataset: Dataset, copy: Copy, gib: float, region: str, market: MarketView, hours: float
) -> Haul:
    return Haul(
        dataset.name,
        Way.MOVED,
        gib,
        copy.region,
        egress_usd=gib * market.egress_usd_per_gib(copy.region, region),
        storage_usd=storage_usd(gib, region, max(hours, dataset.keep_h)),
        delay_h=gib / MOVE_GIB_PER_H,
        gco2e=_gco2e(gib, copy.region, region, market),
    )


def _afar(
    dataset: Dataset,
    copy: Copy,
    gib: float,
    read: DatasetRead,
    region: str,
    market: MarketView,
    hours: float,
) -> Haul:
    crossing = gib * read.fraction
    return Haul(
        dataset.name,
        Way.AFAR,
        crossing,
        copy.region,
        egress_usd=crossing * market.egress_usd_per_gib(copy.region, region),
        delay_h=max(0.0, crossing / AFAR_GIB_PER_H - hours),  # the rest is read as it runs
        gco2e=_gco2e(crossing, copy.region, region, market),
        passes=read.fraction,
    )


def _writes(job: Job, region: str, market: MarketView, data: DataView) -> Iterator[Haul]:
    for write in job.writes:
        dataset = data.datasets.get(write.dataset)
        ways = [] if dataset is None else [
            _back(write, copy, region, market) for copy in dataset.present
        ]  # fmt: skip
        if ways:
            yield min(ways, key=lambda haul: haul.weighed_usd(job.objective))


def _back(write: DatasetWrite, copy: Copy, region: str, market: MarketView) -> Haul:
    gib = write.size_gib
    return Haul(
        write.dataset,
        Way.BACK,
        gib,
        copy.region,
        egress_usd=gib * market.egress_usd_per_gib(region, copy.region),
        gco2e=_gco2e(gib, region, copy.region, market),
    )


def storage_usd(gib: float, region: str, hours: float) -> float:
    """Of a copy in that region for so long."""
    rate = STORAGE_USD_PER_GIB_MONTH.get(region.partition("/")[0], 0.0)
    return gib * rate * hours / HOURS_PER_MONTH


def _gco2e(gib: float, source: str, target: str, market: MarketView) -> float:
    if source == target:
        return 0.0
    each = market.carbon_g_per_kwh(source) + market.carbon_g_per_kwh(target)
    return gib * KWH_PER_GIB * each / 2
