"""What the API says of datasets: where they lie, what is on its way, and which copies would pay."""

from collections.abc import Iterator

from msgspec import Struct

from hyperion.model.bounds import MAX_COPIES, MAX_DATA_GIB, MAX_SECONDS
from hyperion.model.checks_datasets import name_faults
from hyperion.model.faults import Fault, number_faults, region_faults


class CopyView(Struct, frozen=True, kw_only=True):
    """One region in which a dataset lies, or to which it is on its way."""

    region: str
    state: str
    """``present``, ``coming``, or ``going``: the advisor's hook is dropping it."""
    ready_at_ms: int
    """When it came, or is expected; 0: it was there when the dataset was added."""
    source: str
    """The region that it comes from; empty where it was from the beginning."""
    by: str
    """Who brings it, such as ``job train-7f3a`` or ``advisor``."""


class DatasetView(Struct, frozen=True, kw_only=True):
    """A row of ``hyperion datasets``."""

    name: str
    size_gib: float
    """By now."""
    growth_gib_per_day: float
    keep_h: float
    """For how long who moves it pays for its storage; 0: for the time that the job runs."""
    copies: tuple[CopyView, ...]
    jobs: int
    """Jobs that have not ended and read or write it."""
    storage_usd_per_month: float
    """Of all copies, by the clouds' lists."""


class DatasetRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A dataset lies in these regions; of one that is known, in these too."""

    name: str
    size_gib: float | None = None
    """None: as it is known."""
    growth_gib_per_day: float | None = None
    """None: as it is known, or 0."""
    keep_h: float | None = None
    """None: as it is known, or 0."""
    regions: tuple[str, ...] = ()


class AdviceView(Struct, frozen=True, kw_only=True):
    """A row of ``hyperion datasets advise``; money is for the next 30 days."""

    dataset: str
    action: str
    """``copy`` or ``drop``."""
    region: str
    source: str
    """The nearest other copy."""
    size_gib: float
    cost_usd: float
    """Of a copy with its storage; of a drop, what keeping it would cost."""
    worth_usd: float
    """What the copy saves jobs."""
    gain_usd: float


def faults_of(asked: DatasetRequest) -> tuple[Fault, ...]:
    """What is wrong with a request, whatever the federation knows."""
    return tuple(_faults(asked))


def _faults(asked: DatasetRequest) -> Iterator[Fault]:
    yield from name_faults("/name", asked.name)
    for field, value, most in (
        ("size_gib", asked.size_gib, MAX_DATA_GIB),
        ("growth_gib_per_day", asked.growth_gib_per_day, MAX_DATA_GIB),
        ("keep_h", asked.keep_h, MAX_SECONDS / 3600),
    ):
        yield from number_faults(f"/{field}", value or 0.0, most)
    if len(asked.regions) > MAX_COPIES:
        yield Fault("/regions", f"found {len(asked.regions)}, expected at most {MAX_COPIES}")
    for index, region in enumerate(asked.regions[:MAX_COPIES]):
        yield from region_faults(f"/regions/{index}", region)
