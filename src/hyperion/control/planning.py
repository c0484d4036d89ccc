"""Where a job would go as things stand: asked before it is submitted, in rounds, and as it runs."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import NamedTuple

from msgspec.structs import replace

from hyperion.control import timed
from hyperion.control.progress import rest_of, slack_of
from hyperion.control.records import FederatedJob
from hyperion.control.returning import Returning
from hyperion.control.together import planned
from hyperion.model.ids import ClusterId
from hyperion.model.job import Job
from hyperion.model.market import Market, MarketView
from hyperion.placement import choice
from hyperion.placement.choice import FleetCluster, Place
from hyperion.placement.deadline import Slack
from hyperion.placement.explain import Planned
from hyperion.placement.gravity import DataView
from hyperion.placement.objective import Price
from hyperion.placement.ranking import Rankers


class Standing(NamedTuple):
    """What a plan is made from."""

    fleet: tuple[FleetCluster, ...]
    market: MarketView
    data: DataView
    now_ms: int
    returning: Returning
    """Spot machines that have gone."""


class Planning:
    def __init__(
        self,
        policy: str,
        rankers: Rankers,
        reconsider_ms: int,
        standing: Callable[[], Standing],
    ) -> None:
        self._policy = policy
        self._rankers = rankers
        self._reconsider_ms = reconsider_ms
        self._standing = standing

    def plan(
        self,
        job: Job,
        without: Iterable[ClusterId] = (),
        slack: Slack | None = None,
        rest_s: float | None = None,
    ) -> Planned:
        """Where the job would go now if it waited alone. Changes nothing; a round does the same.

        ``slack`` until its deadline; that of a job submitted now where none is given. ``rest_s``
        where it is priced by what is left of it.
        """
        now = self._standing()
        unbound = partial(self._unbound, now, set(without), rest_s)
        gone = partial(self._gone, now, rest_s) if now.returning else None
        slack = slack or Slack(job.deadline_s)
        return timed.plan(job, slack, now.market, now.now_ms, unbound, gone)

    def anew(self, known: FederatedJob, now_ms: int) -> Planned:
        """Where it would go now if it waited; not back to where it was moved from, if it can."""
        without, slack = self.refused_lately(known, now_ms), slack_of(known, now_ms)
        rest_s = rest_of(known, now_ms).expected_s
        if known.status.left:
            elsewhere = self.plan(known.job, (*without, known.status.left), slack, rest_s)
            if elsewhere.chosen is not None and elsewhere.chosen.has_room:
                return elsewhere
        return self.plan(known.job, without, slack, rest_s)

    def refuge(self, known: FederatedJob, now_ms: int) -> Place | None:
        """Where a job would go that leaves spot machines; None where only such would take it."""
        chosen = self.anew(known, now_ms).chosen
        return None if chosen is None or chosen.market is Market.SPOT else chosen

    def price_there(self, job: Job, cluster: ClusterId) -> Price | None:
        """None where it could not go."""
        places = (p for p in self.plan(job).places if p.cluster == cluster and p.price)
        place = next(places, None)
        return place.price if place else None

    def refused_lately(self, known: FederatedJob, now_ms: int) -> tuple[ClusterId, ...]:
        lately = now_ms - known.status.placed_at_ms < self._reconsider_ms
        return known.status.excluded if lately else ()

    def _gone(self, now: Standing, rest_s: float | None, job: Job) -> Iterator[tuple[Place, int]]:
        """Where it could go if spot machines that have gone were there, and since when."""
        job = job if rest_s is None else replace(job, expected_s=rest_s)
        ranker = self._rankers.of(job.policy or self._policy)
        for member, gone_ms in now.returning.fleet(now.fleet):
            for place in choice.rank(job, (member,), now.market, ranker, now.data):
                yield place, gone_ms

    def _unbound(
        self, now: Standing, without: set[ClusterId], rest_s: float | None, job: Job
    ) -> Planned:
        """By price and room alone, whatever its deadline says."""
        job = job if rest_s is None else replace(job, expected_s=rest_s)
        policy = job.policy or self._policy
        fleet = tuple(c for c in now.fleet if c.cluster.id not in without)
        ranker = self._rankers.of(policy)
        places = choice.rank(job, fleet, now.market, ranker, now.data)
        chosen = choice.choose(places)
        return planned(job, places, chosen, policy, ranker.excuse, now.market, now.data)
