"""Plans of jobs whose deadline has a say in where they may go, and when. Pure."""

from collections.abc import Callable, Iterable

from msgspec.structs import replace

from hyperion.model.job import Job
from hyperion.model.market import MarketView
from hyperion.placement import deadline, later
from hyperion.placement.balanced import BALANCED
from hyperion.placement.choice import Place
from hyperion.placement.deadline import Slack
from hyperion.placement.explain import Planned
from hyperion.placement.feasibility import Reason
from hyperion.placement.optimal import Optimal

BY_SCORE = frozenset({BALANCED.name, Optimal().name})
"""Policies that take who costs least by the objective; only they know what waiting is worth."""


def is_short(job: Job, slack: Slack) -> bool:
    """Whether spot machines would put its deadline at risk: then it is planned by itself, since
    others of its shape may have the time."""
    return deadline.is_governed(job) and not deadline.may_begin_on_spot(job, slack)


def plan(
    job: Job,
    slack: Slack,
    market: MarketView,
    now_ms: int,
    unbound: Callable[[Job], Planned],
    gone: Callable[[Job], Iterable[tuple[Place, int]]] | None = None,
) -> Planned:
    """As ``unbound`` plans it, within what its deadline admits, and later where that pays.
    ``gone``: where it could go if spot machines that have gone were there, and since when."""
    found = _within(job, slack, unbound)
    if found.chosen is None:
        return found
    start = None
    if _may_wait(job, market, found.policy):
        start = later.best_start(job, found.places, market, now_ms, slack)
    if start is None and gone is not None and _may_wait_for_spot(job, slack, found.policy):
        start = later.until_spot(job, found.chosen, gone(job), now_ms, slack)
    if start is None:
        return found
    return replace(
        found, later=start, sentence=f"{start.words}; by what is known now {found.sentence}"
    )


def is_alone(job: Job, slack: Slack, market: MarketView, policy: str, some_gone: bool) -> bool:
    """Whether it is planned by itself, since its own clock decides. ``policy``: that ranks it."""
    if is_short(job, slack) or _may_wait(job, market, policy):
        return True
    return some_gone and _may_wait_for_spot(job, slack, policy)


def _may_wait(job: Job, market: MarketView, policy: str) -> bool:
    """A later start is weighed by the objective: only where that ranks the places too."""
    return policy == BALANCED.name and later.may_wait(job, market)


def _may_wait_for_spot(job: Job, slack: Slack, policy: str) -> bool:
    return policy in BY_SCORE and later.may_wait_for_spot(job, slack)


def _within(job: Job, slack: Slack, unbound: Callable[[Job], Planned]) -> Planned:
    """Off spot machines where there is no time for them.

    Where only those would take it now, it goes there all the same: better than nothing.
    """
    if not is_short(job, slack):
        return unbound(job)
    bound, any_ = unbound(deadline.off_spot(job)), unbound(job)
    if not _is_sooner(bound.chosen, any_.chosen):
        return any_
    lines = (*bound.arithmetic, deadline.why_off_spot(job, slack))
    barred = {p.cluster for p in bound.places if p.refusal is Reason.MARKET}
    barred -= {p.cluster for p in any_.places if p.refusal is Reason.MARKET}
    rows = tuple(
        replace(row, reason=_BARRED) if row.cluster in barred else row for row in bound.rows
    )
    places = tuple(
        replace(p, refusal_text=_BARRED) if p.cluster in barred else p for p in bound.places
    )
    return replace(bound, arithmetic=lines, rows=rows, places=places, off_spot=True)


_BARRED = "only spot machines, for which its deadline leaves no time"


def _is_sooner(place: Place | None, other: Place | None) -> bool:
    """Whether a job starts there as soon as at the other one, as far as is known."""
    return place is not None and (place.has_room or other is None or not other.has_room)
