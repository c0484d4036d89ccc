"""What a job pays for its datasets in every region at once; ``gravity.load`` says it of one."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hyperion.model.bounds import MAX_COPIES
from hyperion.model.dataset import Copy, Dataset
from hyperion.model.job import DatasetRead, DatasetWrite, Job, Objective
from hyperion.model.market import MarketView
from hyperion.placement.gravity import (
    AFAR_GIB_PER_H,
    G_PER_TONNE,
    HOURS_PER_MONTH,
    KWH_PER_GIB,
    MOVE_GIB_PER_H,
    MS_PER_HOUR,
    DataView,
    storage_usd,
)
from hyperion.placement.ranking import Column

_MOST_SOURCES = 2000
"""Regions in which datasets lie, of which prices are remembered; then all are asked anew."""


class Roads:
    """The ways of data between regions, one entry a region."""

    def __init__(self, regions: Sequence[str], carbon: Column, market: MarketView) -> None:
        self._regions = regions
        self._at = {region: n for n, region in enumerate(regions)}
        self._market = market
        self._carbon = carbon
        self._rate = np.array([storage_usd(1.0, r, HOURS_PER_MONTH) for r in regions], np.float64)
        self._out: dict[str, Column] = {}
        self._back: dict[str, Column] = {}

    def loads(self, job: Job, data: DataView, hours: float) -> tuple[Column, Column, Column]:
        """(USD, hours to wait, g CO2e) of all that the job reads and writes."""
        usd, own, others, grams = np.zeros((4, len(self._regions)))
        for read in job.reads:
            dataset = data.datasets.get(read.dataset)
            if dataset is not None:
                best = self._read(dataset, read, job.objective, data.now_ms, hours)
                usd += best.usd
                grams += best.grams
                own += np.where(best.shared, 0.0, best.delay_h)
                np.maximum(others, np.where(best.shared, best.delay_h, 0.0), out=others)
        for write in job.writes:
            dataset = data.datasets.get(write.dataset)
            if dataset is not None and dataset.present:
                best = self._write(dataset, write, job.objective)
                usd += best.usd
                grams += best.grams
        return usd, np.maximum(own, others), grams

    def _read(
        self, dataset: Dataset, read: DatasetRead, weights: Objective, now_ms: int, hours: float
    ) -> "_Best":
        best, gib = _Best(len(self._regions), weights), dataset.gib(now_ms)
        free = np.full(len(self._regions), len(dataset.copies) < MAX_COPIES)
        here = [self._at[c.region] for c in dataset.copies if c.present and c.region in self._at]
        for copy in dataset.copies:
            at = self._at.get(copy.region)
            if at is not None:
                free[at] = False
                if not copy.present and not copy.going:
                    best.share(at, max(0, copy.ready_at_ms - now_ms) / MS_PER_HOUR)
        storage = gib * self._rate * max(hours, dataset.keep_h) / HOURS_PER_MONTH
        crossing = gib * read.fraction
        slower_h = max(0.0, crossing / AFAR_GIB_PER_H - hours)
        for copy in dataset.present:
            out = self._from(copy)
            moved_usd = gib * out + storage
            best.take(moved_usd, gib / MOVE_GIB_PER_H, self._grams(gib, copy), free)
            best.take(crossing * out, slower_h, self._grams(crossing, copy))
        best.nothing_at(here)
        return best

    def _write(self, dataset: Dataset, write: DatasetWrite, weights: Objective) -> "_Best":
        best = _Best(len(self._regions), weights)
        for copy in dataset.present:
            best.take(write.size_gib * self._to(copy), 0.0, self._grams(write.size_gib, copy))
        return best

    def _grams(self, gib: float, copy: Copy) -> Column:
        """Of carrying so much to or from there."""
        each = self._market.carbon_g_per_kwh(copy.region) + self._carbon
        grams: Column = gib * KWH_PER_GIB * each / 2
        at = self._at.get(copy.region)
        if at is not None:
            grams[at] = 0.0
        return grams

    def _from(self, copy: Copy) -> Column:
        return self._known(self._out, copy.region, outward=True)

    def _to(self, copy: Copy) -> Column:
        return self._known(self._back, copy.region, outward=False)

    def _known(self, kept: dict[str, Column], place: str, *, outward: bool) -> Column:
        """USD per GiB out of a place to every region, or from them to it."""
        found = kept.get(place)
        if found is None:
            if len(kept) >= _MOST_SOURCES:
                kept.clear()
            ways = [(place, r) if outward else (r, place) for r in self._regions]
            rates = [self._market.egress_usd_per_gib(*way) for way in ways]
            found = kept[place] = np.array(rates, np.float64)
        return found


class _Best:
    """The best way found so far, by region; of equal ones the first counts."""

    def __init__(self, regions: int, weights: Objective) -> None:
        self._weights = weights
        self._weighed = np.full(regions, np.inf)
        self.usd, self.delay_h, self.grams = np.zeros((3, regions))
        self.shared = np.zeros(regions, np.bool_)

    def share(self, at: int, wait_h: float) -> None:
        self._weighed[at] = self._weights.waiting_usd_per_hour * wait_h
        self.delay_h[at], self.shared[at] = wait_h, True

    def take(
        self, usd: Column, delay_h: float, grams: Column, where: NDArray[np.bool_] | None = None
    ) -> None:
        w = self._weights
        priced = w.carbon * w.carbon_usd_per_tonne * grams / G_PER_TONNE
        weighed = w.egress * usd + w.waiting_usd_per_hour * delay_h + priced
        better = weighed < self._weighed
        if where is not None:
            better &= where
        for kept, new in (
            (self._weighed, weighed), (self.usd, usd), (self.delay_h, delay_h), (self.grams, grams)
        ):  # fmt: skip
            np.copyto(kept, new, where=better)
        self.shared &= ~better

    def nothing_at(self, places: list[int]) -> None:
        """It lies there."""
        for kept in (self.usd, self.delay_h, self.grams):
            kept[places] = 0.0
        self.shared[places] = False
