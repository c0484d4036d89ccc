"""Waiting jobs with equal rights, drawn for one round: ranked once a shape, placed together."""

from collections.abc import Collection, Hashable, Iterator, Sequence
from typing import NamedTuple

from hyperion.model.ids import ClusterId, JobId
from hyperion.model.job import Job
from hyperion.model.market import MarketView
from hyperion.placement import choice, explain, gravity
from hyperion.placement.assignment import Batch
from hyperion.placement.choice import FleetCluster, Place
from hyperion.placement.explain import Planned
from hyperion.placement.gravity import DataView
from hyperion.placement.objective import expected_hours
from hyperion.placement.ranking import Guarded


class Rights(NamedTuple):
    """Jobs that differ in these are never weighed against each other: whose priority is higher, or
    who is less nice, chooses first, and the costs of two policies do not compare."""

    priority: int
    nice: int
    policy: str


class Together:
    def __init__(
        self,
        rights: Rights,
        fleet: Sequence[FleetCluster],
        market: MarketView,
        ranker: Guarded,
        data: DataView,
    ) -> None:
        self.rights = rights
        self._data = data
        self._fleet = fleet
        self._market = market
        self._ranker = ranker
        self._batch = Batch(fleet)
        self._jobs: list[Job] = []
        self._excuses: dict[int, tuple[str, ...]] = {}
        """By identity of the places as they were ranked."""
        self._told: dict[tuple[int, int], Planned] = {}
        self._datasets: set[str] = set()
        self._late: tuple[str, ...] = ()
        """What was wrong with the policy's own answer, if it gives one."""

    def __len__(self) -> int:
        return len(self._jobs)

    def shares(self, job: Job) -> bool:
        """Whether it names a dataset that one drawn before it names: what that one moves it does
        not have to, which only a new ranking knows."""
        return not self._datasets.isdisjoint(job.datasets)

    def take(self, job: Job, without: Collection[ClusterId]) -> bool:
        """Draw it too; False if there is no room for it beside those drawn before."""
        key = _key(job, without)
        if not self._batch.knows(key):
            fleet = [c for c in self._fleet if c.cluster.id not in without]
            places = choice.rank(job, fleet, self._market, self._ranker, self._data)
            self._excuses[id(places)] = self._ranker.excuse
            self._batch.meet(key, job, places)
        if not self._batch.take(key):
            return False
        self._jobs.append(job)
        self._datasets.update(job.datasets)
        return True

    def alone(self, job: Job, without: Collection[ClusterId]) -> Planned:
        """What becomes of one that was refused while nobody had been drawn: it queues or waits."""
        places = self._batch.places(_key(job, without))
        return self._planned(job, places, places, choice.choose(places))

    def settled(self) -> Iterator[tuple[JobId, Planned]]:
        """Where each goes that was drawn, in the order of their turns."""
        assign = self._ranker.assign if self._ranker.assigns else None
        seats = list(self._batch.settle(assign))
        self._late = self._ranker.excuse
        for job, seat in zip(self._jobs, seats, strict=True):
            key = (id(seat.places), id(seat.chosen))
            told = self._told.get(key)
            if told is None:
                told = self._planned(job, seat.ranked, seat.places, seat.chosen)
                self._told[key] = told
            yield job.id, told

    def _planned(
        self, job: Job, ranked: tuple[Place, ...], places: tuple[Place, ...], chosen: Place | None
    ) -> Planned:
        excuse = self._excuses[id(ranked)] or self._late
        return planned(job, places, chosen, self.rights.policy, excuse, self._market, self._data)


def planned(
    job: Job,
    places: tuple[Place, ...],
    chosen: Place | None,
    policy: str,
    excuse: tuple[str, ...],
    market: MarketView,
    data: DataView,
) -> Planned:
    """The choice with its reasons."""
    sentence, rows = explain.decision(job, places, chosen, policy)
    arithmetic: tuple[str, ...] = ()
    if chosen is not None:
        there = gravity.load(job, chosen.region, market, data, expected_hours(job))
        arithmetic = explain.arithmetic(job, chosen, there)
    return Planned(policy, chosen, places, sentence, rows, arithmetic + excuse)


def _key(job: Job, without: Collection[ClusterId]) -> Hashable:
    return choice.shape_key(job), tuple(without)
