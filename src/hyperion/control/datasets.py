"""The datasets that a federation knows: where they lie, who names them. A fold of records."""

from typing import Any

import msgspec
from msgspec.structs import replace

from hyperion.control import dataset_records as d
from hyperion.control.machine import key
from hyperion.model.dataset import Copy, Dataset
from hyperion.model.job import Job
from hyperion.placement.gravity import DataView

MINUTE_MS = 60_000
"""Sizes and times on the way are as of the minute, so that prices can be remembered so long."""


class Datasets:
    def __init__(self) -> None:
        self.entries: dict[str, d.DatasetEntry] = {}
        self.coming: dict[tuple[str, str], Copy] = {}
        """By dataset and region."""
        self.named: dict[str, int] = {}
        """How many jobs that have not ended name each."""
        self.waiting: dict[str, int] = {}
        """How many of them wait for a cluster."""
        self._known: dict[str, Dataset] = {}
        self._dirty: set[str] = set()

    # -- the fold -------------------------------------------------------------------------------

    def apply(self, record: Any) -> None:
        match record:
            case d.DatasetKept(dataset):
                known = self.entries.get(dataset.name)
                self._put(
                    replace(known, dataset=dataset) if known else d.DatasetEntry(dataset=dataset)
                )
            case d.DatasetDropped(name):
                for copy in self.entries.pop(name).dataset.copies:
                    self.coming.pop((name, copy.region), None)
                del self._known[name]
                self._dirty.add(key("dataset", name))
            case d.CopyStarted(name, copy):
                self._with_copies(name, (*self._known[name].copies, copy))
                entry = self.entries[name]
                lies = {one.region for one in entry.dataset.copies}
                kept = tuple(one for one in entry.worth if one.region in lies)
                self._put(replace(entry, worth=kept))
            case d.CopyArrived(name, region, at_ms):
                self._with_copy(name, region, present=True, ready_at_ms=at_ms)
            case d.CopyGoing(name, region, going):
                self._with_copy(name, region, present=not going, going=going)
            case d.CopyDropped(name, region):
                left = tuple(c for c in self._known[name].copies if c.region != region)
                self._with_copies(name, left)
            case d.CopyFailed(name, region, at_ms):
                entry = self.entries[name]
                others = tuple(pair for pair in entry.failed if pair[0] != region)
                self._put(replace(entry, failed=(*others, (region, at_ms))[-_MOST_FAILED:]))
            case d.DatasetUsed(name, worth):
                entry = self.entries[name]
                regions = {one.region for one in worth}
                rest = tuple(one for one in entry.worth if one.region not in regions)
                self._put(replace(entry, worth=(*rest, *worth)[-_MOST_WORTH:]))
            case _:
                raise TypeError(record)

    def _with_copy(self, name: str, region: str, **changes: object) -> None:
        copies = self._known[name].copies
        self._with_copies(
            name, tuple(replace(c, **changes) if c.region == region else c for c in copies)
        )

    def _with_copies(self, name: str, copies: tuple[Copy, ...]) -> None:
        entry = self.entries[name]
        self._put(replace(entry, dataset=replace(entry.dataset, copies=copies)))

    def _put(self, entry: d.DatasetEntry) -> None:
        name = entry.dataset.name
        before = self._known.get(name)
        for copy in before.copies if before else ():
            self.coming.pop((name, copy.region), None)
        for copy in entry.dataset.copies:
            if not copy.present and not copy.going:
                self.coming[name, copy.region] = copy
        self.entries[name] = entry
        self._known[name] = entry.dataset
        self._dirty.add(key("dataset", name))

    def note_job(self, job: Job, before: tuple[bool, bool], after: tuple[bool, bool]) -> None:
        """A job that names datasets came, went, or waits now. Of both moments: whether it has not
        ended, and whether it waits for a cluster."""
        for name in dict.fromkeys(job.datasets):
            _count(self.named, name, after[0] - before[0])
            _count(self.waiting, name, after[1] - before[1])

    def restore(self, value: bytes) -> None:
        self._put(_ENTRY.decode(value))
        self._dirty.clear()

    def take_dirty(self) -> set[str]:
        """The keys of what has changed since the last call."""
        taken, self._dirty = self._dirty, set()
        return taken

    # -- questions ------------------------------------------------------------------------------

    def view(self, now_ms: int) -> DataView:
        """As the prices see them."""
        return DataView(self._known, now_ms // MINUTE_MS * MINUTE_MS)

    def check(self) -> None:
        """Every law that must hold after every step; raises AssertionError."""
        for name, entry in self.entries.items():
            regions = [copy.region for copy in entry.dataset.copies]
            assert len(regions) == len(set(regions)), f"{name} lies in a region twice: {regions}"
            assert entry.dataset.present, f"{name} lies nowhere"


def _count(counts: dict[str, int], name: str, by: int) -> None:
    if by:
        counts[name] = counts.get(name, 0) + by
        if not counts[name]:
            del counts[name]


_MOST_WORTH = 64
_MOST_FAILED = 16
_ENTRY = msgspec.json.Decoder(d.DatasetEntry)
