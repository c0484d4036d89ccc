"""The part of the federation's API that is about datasets."""

from functools import partial

from hyperion.control.datasets import Datasets
from hyperion.control.federation import Federation
from hyperion.control.messages import DatasetApplied, DatasetDropAsked
from hyperion.daemon.application import NotFound
from hyperion.daemon.billing import raise_refusal
from hyperion.daemon.driver import Driver
from hyperion.model.dataset import Copy, Dataset
from hyperion.placement.gravity import HOURS_PER_MONTH, storage_usd
from hyperion.placement.replication import Advice
from hyperion.ports import Clock
from hyperion.wire.datasets_api import AdviceView, CopyView, DatasetRequest, DatasetView


class DatasetCalls:
    """What ``FederationApplication`` has of it, over the same machine."""

    _machine: Federation
    _driver: Driver
    _clock: Clock

    async def datasets(self) -> list[DatasetView]:
        return dataset_views(self._machine.state.datasets, self._clock.now_ms())

    async def apply_dataset(self, asked: DatasetRequest) -> DatasetView:
        """One of the same name gets what is said anew, and keeps the rest."""
        kept = self._machine.state.datasets
        dataset = dataset_of(asked, kept, self._clock.now_ms())
        raise_refusal(await self._driver.ask(lambda token: DatasetApplied(dataset, token)))
        found = [view for view in await self.datasets() if view.name == asked.name]
        if not found:
            raise NotFound(f"dataset {asked.name} was dropped at once by somebody else")
        return found[0]

    async def drop_dataset(self, name: str, region: str) -> list[DatasetView]:
        asked = partial(DatasetDropAsked, name, region)
        raise_refusal(await self._driver.ask(asked))
        return await self.datasets()

    async def dataset_advice(self) -> list[AdviceView]:
        machine = self._machine
        found = machine.hauling.advice(machine.market, self._clock.now_ms())
        return [_advice_view(advice) for advice in found]


def dataset_of(asked: DatasetRequest, kept: Datasets, now_ms: int) -> Dataset:
    """The dataset that is asked for, with what is known of it. NotFound: a new one has no size."""
    entry = kept.entries.get(asked.name)
    known = entry.dataset if entry else None
    size_gib = asked.size_gib
    if size_gib is None:
        if known is None:
            raise NotFound(f"dataset {asked.name} is new: say how large it is, with --size")
        size_gib = known.gib(now_ms)
    growth, keep_h = asked.growth_gib_per_day, asked.keep_h
    if growth is None:
        growth = known.growth_gib_per_day if known else 0.0
    if keep_h is None:
        keep_h = known.keep_h if known else 0.0
    return Dataset(
        name=asked.name,
        size_gib=size_gib,
        growth_gib_per_day=growth,
        keep_h=keep_h,
        copies=tuple(Copy(region) for region in dict.fromkeys(asked.regions)),
    )


def dataset_views(kept: Datasets, now_ms: int) -> list[DatasetView]:
    """Every dataset as of now, by name."""
    return [
        _dataset_view(entry.dataset, kept.named.get(name, 0), now_ms)
        for name, entry in sorted(kept.entries.items())
    ]


def _dataset_view(dataset: Dataset, jobs: int, now_ms: int) -> DatasetView:
    gib = dataset.gib(now_ms)
    return DatasetView(
        name=dataset.name,
        size_gib=gib,
        growth_gib_per_day=dataset.growth_gib_per_day,
        keep_h=dataset.keep_h,
        copies=tuple(
            CopyView(
                region=copy.region,
                state="present" if copy.present else "going" if copy.going else "coming",
                ready_at_ms=copy.ready_at_ms,
                source=copy.source,
                by=copy.by,
            )
            for copy in dataset.copies
        ),
        jobs=jobs,
        storage_usd_per_month=sum(
            storage_usd(gib, copy.region, HOURS_PER_MONTH) for copy in dataset.copies
        ),
    )


def _advice_view(advice: Advice) -> AdviceView:
    return AdviceView(
        dataset=advice.dataset,
        action=advice.action,
        region=advice.region,
        source=advice.source,
        size_gib=advice.gib,
        cost_usd=advice.cost_usd,
        worth_usd=advice.worth_usd,
        gain_usd=advice.gain_usd,
    )
