"""What can be told somebody who waits: when it would start, why then, how sure that is, and with
how many replicas it would start at once."""

from collections.abc import Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from hyperion.model.ids import JobId
from hyperion.model.job import Job
from hyperion.placement.calendar import Calendar
from hyperion.placement.earliest import earliest
from hyperion.placement.forecast import Forecast
from hyperion.placement.planner import Plan, Wish, plan
from hyperion.placement.ranking import Policy
from hyperion.placement.running import Running
from hyperion.placement.snapshot import Snapshot

MOST_AHEAD = 16
"""Jobs waiting before it that are given places first, one by one; of more, only the number
counts."""
STRANGERS = 8
"""So many more jobs before it, or that find no place themselves, halve the confidence."""


class Outlook(Struct, frozen=True):
    starts_at_ms: int | None
    """None: never, as things are; or not before those ahead of it, of whom too little is known."""
    confidence: float
    """How likely it is to start by then: 0 to 1. The product of the probabilities that each job
    whose place it waits for has ended, and of the confidence in each start that was promised to
    others before it on its places; times ``STRANGERS / (STRANGERS + n)`` with n jobs ahead of it
    that are not accounted for."""
    because: tuple[JobId, ...]
    """Whose ends it waits for last; none if it waits for a window, or for nobody."""
    replicas_now: int
    """How many of its replicas would find places at once; all: it could start."""


def outlook(
    snapshot: Snapshot,
    running: Running,
    calendar: Calendar,
    forecast: Forecast,
    wish: Job | Wish,
    policy: Policy,
    now_ms: int,
    *,
    ahead: Sequence[Job | Wish] = (),
    jobs: Mapping[JobId, Job] | None = None,
) -> Outlook:
    """Nothing is changed: those ahead get their places on a trial copy of the calendar.

    ``ahead`` are the jobs that wait before it, the next one first. ``jobs`` are the running ones,
    by whose names and users their ends are forecast; without, it is by their queues.
    """
    if isinstance(wish, Job):
        wish = Wish(wish)
    wish = _with_end(wish, forecast, now_ms)
    chances = forecast.of(jobs or {})
    now = _replicas_now(snapshot, calendar, wish, policy, now_ms)
    trial = calendar.copy()
    unplaced = max(0, len(ahead) - MOST_AHEAD)
    for other in ahead[:MOST_AHEAD]:
        before = Wish(other) if isinstance(other, Job) else other
        if before.job.id in trial.promises or before.job.id == wish.job.id:
            continue
        before = _with_end(before, forecast, now_ms)
        found = earliest(snapshot, running, trial, before, policy, now_ms)
        if found is None or not trial.promise(found):
            unplaced += 1
    start = earliest(snapshot, running, trial, wish, policy, now_ms, chances)
    if start is None:
        return Outlook(None, 0.0, (), now)
    confidence = start.confidence * STRANGERS / (STRANGERS + unplaced)
    return Outlook(start.at_ms, confidence, start.because, now)


def _with_end(wish: Wish, forecast: Forecast, now_ms: int) -> Wish:
    if wish.ends_at_ms:
        return wish
    expected_ms, _ = forecast.expected(wish.job)
    return replace(wish, ends_at_ms=now_ms + expected_ms)


def _replicas_now(
    snapshot: Snapshot, calendar: Calendar, wish: Wish, policy: Policy, now_ms: int
) -> int:
    """Most of what is wanted: at least one, and no gang is asked for."""
    most = max(wish.at_most, wish.at_least, wish.job.replicas)
    if not wish.job.roles:
        few = replace(wish, at_least=1, at_most=most)
        found = plan(snapshot, few, policy, calendar, now_ms)
        return len(found.seats) if isinstance(found, Plan) else 0
    low, high = 0, most  # of a gang with roles, the first ranks
    while low < high:
        middle = (low + high + 1) // 2
        few = replace(wish, at_least=middle, at_most=0)
        fits = isinstance(plan(snapshot, few, policy, calendar, now_ms), Plan)
        low, high = (middle, high) if fits else (low, middle - 1)
    return low
