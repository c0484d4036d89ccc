"""The decisions about datasets: who brings which copy, when it is there, and what it is worth."""

from collections.abc import Iterator
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from hyperion.control import dataset_records as d
from hyperion.control import messages as m
from hyperion.control.datasets import Datasets
from hyperion.model.bounds import MAX_COPIES
from hyperion.model.dataset import Copy, Dataset
from hyperion.model.job import Job
from hyperion.model.market import MarketView
from hyperion.placement import gravity, replication
from hyperion.placement.choice import Place
from hyperion.placement.gravity import DataView, Haul, Load, Way
from hyperion.placement.objective import MS_PER_HOUR, expected_hours
from hyperion.placement.replication import Advice, Demand

MAX_DATASETS = 10_000
RETRY_MS = 3_600_000
"""A copy that could not be brought is not tried again before."""
MOST_AT_ONCE = 4
"""Copies that the advisor has on their way at a time."""
BETTER_PLACES = 3
"""Of the places that a job would have preferred had its data been there, so many are noted."""
ADVISOR = "advisor"
_Decisions = Iterator[Any]


class Hauling:
    def __init__(self, datasets: Datasets, advise_ms: int, *, acts: bool) -> None:
        self._datasets = datasets
        self._advise_ms = advise_ms
        self._acts = acts
        """The advisor may start copies and drops itself, through the daemon's hook."""
        self._looked_ms = 0

    # -- what callers ask -----------------------------------------------------------------------

    def decide(self, event: Struct, now_ms: int) -> _Decisions:
        match event:
            case m.DatasetApplied(dataset, token):
                yield from self._applied(dataset, token, now_ms)
            case m.DatasetDropAsked(name, region, token):
                yield from self._dropped(name, region, token, now_ms)
            case m.CopyReported(name, region, wanted, error):
                yield from self._reported(name, region, wanted, error, now_ms)
            case _:
                raise TypeError(event)

    def refusal(self, job: Job) -> str:
        """Why a job cannot come in: a dataset that nobody knows; empty when it can."""
        missing = gravity.unknown(job, self._datasets.entries)
        if not missing:
            return ""
        known = ", ".join(sorted(self._datasets.entries)[:_NAMED]) or "none"
        return (
            f"there is no dataset {missing} (known: {known}); add it with hyperion datasets add"
            f" {missing} --size SIZE --in REGION"
        )

    def _applied(self, dataset: Dataset, token: int, now_ms: int) -> _Decisions:
        entries = self._datasets.entries
        known = entries.get(dataset.name)
        if known is None and len(entries) >= MAX_DATASETS:
            error = f"there are {MAX_DATASETS} datasets already; hyperion datasets rm drops one"
            yield m.Answer(token, error=error, code="exhausted")
            return
        there = {copy.region: replace(copy, present=True) for copy in dataset.copies}
        for copy in known.dataset.copies if known else ():
            if copy.region not in there or copy.present or copy.going:
                there[copy.region] = copy
        old = [copy.region for copy in known.dataset.copies] if known else []
        order = dict.fromkeys((*old, *there))
        if len(order) > MAX_COPIES:
            error = f"{dataset.name} would lie in {len(order)} regions; at most {MAX_COPIES} may be"
            yield m.Answer(token, error=error, code="conflict")
            return
        copies = tuple(there[region] for region in order)
        if not any(copy.present for copy in copies):
            error = (
                f"say where {dataset.name} lies: hyperion datasets add {dataset.name} --in REGION"
            )
            yield m.Answer(token, error=error, code="conflict")
            return
        yield d.DatasetKept(replace(dataset, copies=copies, sized_at_ms=now_ms), now_ms)
        yield m.Answer(token)

    def _dropped(self, name: str, region: str, token: int, now_ms: int) -> _Decisions:
        entry = self._datasets.entries.get(name)
        copy = entry.dataset.copy(region) if entry and region else None
        if entry is None or (region and copy is None):
            where = f" in {region}" if entry is not None else ""
            error = f"no dataset {name}{where}; hyperion datasets lists them"
            yield m.Answer(token, error=error, code="not_found")
        elif copy is not None and copy.going:  # else a job could bring it anew meanwhile
            told = f"hyperion datasets show {name}"
            error = f"the hook is dropping {name} in {region} already; {told}"
            yield m.Answer(token, error=error, code="conflict")
        elif region and entry.dataset.present == [copy]:
            error = (
                f"{region} has the last copy of {name}; name another region with hyperion datasets"
                f" add {name} --in REGION first, or drop it whole with hyperion datasets rm {name}"
            )
            yield m.Answer(token, error=error, code="conflict")
        elif not region and (jobs := self._datasets.named.get(name, 0)):
            error = f"{jobs} jobs that have not ended read or write {name}"
            yield m.Answer(token, error=error, code="conflict")
        else:
            yield d.CopyDropped(name, region, now_ms) if region else d.DatasetDropped(name, now_ms)
            yield m.Answer(token)

    # -- jobs -----------------------------------------------------------------------------------

    def brought(
        self, job: Job, place: Place, places: tuple[Place, ...], market: MarketView, now_ms: int
    ) -> _Decisions:
        """A job is placed there: what it moves is on its way, and what would have been better is
        noted."""
        if not job.reads:
            return
        view, hours = self._datasets.view(now_ms), expected_hours(job)
        there = gravity.load(job, place.region, market, view, hours)
        ready_h = 0.0
        for haul in there.hauls:
            if haul.way is Way.MOVED:
                ready_h += haul.delay_h
                ready_ms = now_ms + int(MS_PER_HOUR * ready_h)
                copy = Copy(place.region, False, ready_ms, haul.source, f"job {job.id}")
                yield d.CopyStarted(haul.dataset, copy, now_ms)
        yield from self._worths(job, place, places, market, view, there, now_ms)

    def written(self, job: Job, now_ms: int) -> _Decisions:
        """It has succeeded: what it writes is part of the datasets."""
        for write in job.writes:
            entry = self._datasets.entries.get(write.dataset)
            if entry is not None and write.size_gib:
                size_gib = entry.dataset.gib(now_ms) + write.size_gib
                grown = replace(entry.dataset, size_gib=size_gib, sized_at_ms=now_ms)
                yield d.DatasetKept(grown, now_ms)

    def _worths(
        self,
        job: Job,
        place: Place,
        places: tuple[Place, ...],
        market: MarketView,
        view: DataView,
        there: Load,
        now_ms: int,
    ) -> _Decisions:
        more: dict[str, dict[str, float]] = {}
        for haul in there.hauls:
            if haul.way is not Way.BACK:
                usd = haul.usd or _saved(haul, view, place.region, market)
                if usd > 0:
                    more.setdefault(haul.dataset, {})[place.region] = usd
        for region, gain in _better(job, place, places, market):
            hauls = gravity.load(job, region, market, view, expected_hours(job)).hauls
            paid = [haul for haul in hauls if haul.way is not Way.BACK and haul.usd > 0]
            total = sum(haul.usd for haul in paid)
            for haul in paid:
                more.setdefault(haul.dataset, {})[region] = gain * haul.usd / total
        for name, worth in more.items():
            yield d.DatasetUsed(name, self._added(name, worth, now_ms), now_ms)

    def _added(self, name: str, more: dict[str, float], now_ms: int) -> tuple[d.Worth, ...]:
        known = {one.region: one for one in self._datasets.entries[name].worth}
        out = []
        for region, usd in more.items():
            old = known.get(region, d.Worth(region, 0.0, 0.0, now_ms))
            faded_usd = replication.faded(old.usd, old.at_ms, now_ms)
            uses = replication.faded(old.uses, old.at_ms, now_ms)
            out.append(d.Worth(region, faded_usd + usd, uses + 1.0, now_ms))
        return tuple(out)

    # -- time -----------------------------------------------------------------------------------

    def tick(self, market: MarketView, now_ms: int) -> _Decisions:
        for (name, region), copy in list(self._datasets.coming.items()):
            if copy.by != ADVISOR and copy.ready_at_ms <= now_ms:
                yield d.CopyArrived(name, region, now_ms)
        if self._acts and now_ms - self._looked_ms >= self._advise_ms:
            self._looked_ms = now_ms
            yield from self._act(market, now_ms)

    def advice(self, market: MarketView, now_ms: int) -> list[Advice]:
        """What would pay, the largest gain first."""
        return replication.of_all(
            replication.advise(
                entry.dataset,
                _demand(entry, now_ms),
                self._datasets.waiting.get(name, 0),
                market,
                now_ms,
            )
            for name, entry in self._datasets.entries.items()
        )

    def unfinished(self, market: MarketView, now_ms: int) -> _Decisions:
        """After a restart: the hook is asked again for what it may not have heard of. Where there
        is none any more, nobody will bring or drop those copies, and they are forgotten."""
        for name, entry in list(self._datasets.entries.items()):
            for copy in entry.dataset.copies:
                if not copy.going and (copy.present or copy.by != ADVISOR):
                    continue
                if not self._acts:
                    yield d.CopyDropped(name, copy.region, now_ms)
                    continue
                wanted = "drop" if copy.going else "copy"
                nearest = replication.nearest(entry.dataset, copy.region, market)
                source = nearest if copy.going else copy.source
                gib = entry.dataset.gib(now_ms if copy.going else copy.ready_at_ms)
                yield m.HaulCopy(name, wanted, source, copy.region, gib)

    def _act(self, market: MarketView, now_ms: int) -> _Decisions:
        coming = sum(copy.by == ADVISOR for copy in self._datasets.coming.values())
        for advice in self.advice(market, now_ms):
            name, region = advice.dataset, advice.region
            failed = dict(self._datasets.entries[name].failed).get(region, -RETRY_MS)
            if now_ms - failed < RETRY_MS or not advice.source:
                continue
            if advice.action == "drop":
                if name in self._datasets.named:
                    continue  # a job may be reading it there
                yield d.CopyGoing(name, region, True, now_ms)
                yield m.HaulCopy(name, "drop", advice.source, region, advice.gib)
            elif coming < MOST_AT_ONCE:
                coming += 1
                takes_ms = int(MS_PER_HOUR * advice.gib / gravity.MOVE_GIB_PER_H)
                copy = Copy(region, False, now_ms + takes_ms, advice.source, ADVISOR)
                yield d.CopyStarted(name, copy, now_ms)
                yield m.HaulCopy(name, "copy", advice.source, region, advice.gib)

    def _reported(self, name: str, region: str, wanted: str, error: str, now_ms: int) -> _Decisions:
        """What has become of what the hook was asked for."""
        entry = self._datasets.entries.get(name)
        copy = entry.dataset.copy(region) if entry else None
        if entry is None or copy is None:
            return
        if error:
            yield d.CopyFailed(name, region, now_ms)
        if wanted == "drop":
            if copy.going and error:
                yield d.CopyGoing(name, region, False, now_ms)
            elif copy.going:
                yield d.CopyDropped(name, region, now_ms)
        elif not copy.present and copy.by == ADVISOR:
            yield (d.CopyDropped if error else d.CopyArrived)(name, region, now_ms)


def _saved(haul: Haul, view: DataView, region: str, market: MarketView) -> float:
    """What reading from the nearest other copy, or moving it, would have cost."""
    source = replication.nearest(view.datasets[haul.dataset], region, market)
    gib = haul.gib * min(1.0, haul.passes)
    return gib * market.egress_usd_per_gib(source, region) if source else 0.0


def _better(
    job: Job, place: Place, places: tuple[Place, ...], market: MarketView
) -> list[tuple[str, float]]:
    """(region, USD) that the job would have saved there with its datasets at hand, most first."""
    if place.price is None:
        return []
    gains: dict[str, float] = {}
    for other in places:
        if other.price is None or other.refusal is not None or not other.has_room:
            continue
        listed = (d.size_gib * market.egress_usd_per_gib(d.region, other.region) for d in job.data)
        brought_usd = other.price.egress_usd - sum(listed)  # what it lists it would bring anyway
        free = other.price.score - job.objective.egress * brought_usd
        gain = place.price.score - free
        if other.region != place.region and gain > 0:
            gains[other.region] = max(gain, gains.get(other.region, 0.0))
    return sorted(gains.items(), key=lambda one: -one[1])[:BETTER_PLACES]


def _demand(entry: d.DatasetEntry, now_ms: int) -> dict[str, Demand]:
    return {
        one.region: Demand(
            replication.faded(one.usd, one.at_ms, now_ms),
            replication.faded(one.uses, one.at_ms, now_ms),
        )
        for one in entry.worth
    }


_NAMED = 8
"""Datasets named in a refusal."""
