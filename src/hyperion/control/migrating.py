"""Running jobs that have asked for it go on where the rest of their work costs less.

Who is watched is kept in memory only, and so is what each has paid too much: after a restart that
begins at nothing, and a move comes later.
"""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from msgspec import Struct

from hyperion.control.federation_state import FederationState
from hyperion.control.moves import Moves
from hyperion.control.progress import saved_s, slack_of
from hyperion.control.records import FederatedJob
from hyperion.model.ids import JobId
from hyperion.model.job import JobPhase
from hyperion.model.market import MarketView
from hyperion.placement import deadline, migration
from hyperion.placement.choice import Place
from hyperion.placement.explain import Planned

LOOKED_AT_ONCE = 100
"""Jobs weighed in one step; the others are next."""
_Decisions = Iterator[Any]


class Stay(Struct):
    """What is known of a job's stay where it is."""

    placed: int
    """The generation of the placement."""
    seen_ms: int
    regret_usd: float = 0.0


class Migrations:
    def __init__(
        self,
        state: FederationState,
        plan: Callable[[FederatedJob, int], Planned],
        end: Callable[[FederatedJob, JobPhase, str, int], _Decisions],
        every_ms: int,
        least_stay_ms: int,
    ) -> None:
        self._state = state
        self._plan = plan
        """Where it would go if it waited."""
        self._end = end
        """How a job is stopped wherever it is."""
        self._moves = Moves(state)
        self._every_ms = every_ms
        self._least_stay_ms = least_stay_ms
        self._stays: dict[JobId, Stay] = {}
        """Those that may move, who was looked at longest ago first."""

    def note(self, known: FederatedJob, now_ms: int) -> None:
        """It has been placed, or is found placed after a restart."""
        self._stays.pop(known.job.id, None)  # else it would stand before those seen longer ago
        if known.job.migrate and known.status.cluster:
            self._stays[known.job.id] = Stay(known.status.placed, now_ms)

    def tick(self, market: MarketView, now_ms: int) -> _Decisions:
        for job_id, stay in list(islice(self._stays.items(), LOOKED_AT_ONCE)):
            if now_ms - stay.seen_ms < self._every_ms:
                break
            del self._stays[job_id]
            known = self._state.jobs.get(job_id)
            if (
                known is None
                or known.status.phase.is_terminal
                or known.status.placed != stay.placed
            ):
                continue
            self._stays[job_id] = stay  # at the end: it has been looked at
            yield from self._look(known, stay, market, now_ms)

    def _look(self, known: FederatedJob, stay: Stay, market: MarketView, now_ms: int) -> _Decisions:
        seen_ms, stay.seen_ms = stay.seen_ms, now_ms
        status = known.status
        if status.phase is not JobPhase.RUNNING or status.wanted is not None:
            return
        found = _two_places(known, self._plan(known, now_ms).places)
        if found is None:
            return
        here, there = found
        worth = _worth(known, here, there, market, now_ms)
        hours = migration.hours(now_ms - seen_ms)
        stay.regret_usd = migration.regret(stay.regret_usd, worth, hours)
        stayed_ms = now_ms - status.started_at_ms
        may = migration.may_move(status.moves, stayed_ms, self._least_stay_ms)
        if not (may and worth.pays(stay.regret_usd) and _in_time(known, there, now_ms)):
            return
        reason = migration.words(worth, f"{there.cluster} ({there.region})")
        yield self._moves.moved(
            known, now_ms, leaving=reason, left=status.cluster, moves=status.moves + 1
        )
        yield from self._end(self._state.jobs[known.job.id], JobPhase.CANCELLED, reason, now_ms)


def _two_places(known: FederatedJob, places: tuple[Place, ...]) -> tuple[Place, Place] | None:
    """Where it is, and the best other cluster that has room; None where either is not known."""
    status = known.status
    open_to = [p for p in places if p.joined and p.refusal is None and p.price is not None]
    mine = [p for p in open_to if p.cluster == status.cluster]
    same = [p for p in mine if f"{p.instance_type} {p.market.value}".strip() == status.place]
    others = [p for p in open_to if p.cluster != status.cluster and p.has_room]
    return ((same or mine)[0], others[0]) if mine and others else None


def _worth(
    known: FederatedJob, here: Place, there: Place, market: MarketView, now_ms: int
) -> migration.Worth:
    assert here.price is not None, "a place that can take a job has a price"
    assert there.price is not None, "a place that can take a job has a price"
    job, status = known.job, known.status
    kept_s = saved_s(known, now_ms)
    ran_s = max(0.0, (now_ms - status.started_at_ms) / 1000.0)
    left_h = max(0.0, job.expected_s - kept_s) / 3600.0
    unsaved_h = min(left_h, max(0.0, ran_s - (kept_s - status.saved_s)) / 3600.0)
    newest = status.checkpoints[-1].size_bytes if status.checkpoints else 0
    carried = migration.carry_usd(newest, here.region, there.region, market)
    return migration.weigh(job, here.price, there.price, left_h, unsaved_h, carried)


def _in_time(known: FederatedJob, there: Place, now_ms: int) -> bool:
    """Whether its deadline, if it has one, leaves the time to move."""
    if not known.job.deadline_s:
        return True
    return deadline.spare_s(known.job, slack_of(known, now_ms), there.market) > 0
