"""The policies by name: each gives one cost per candidate; the planner keeps the guarantees."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from hyperion.model import bounds, checks
from hyperion.model.job import Job
from hyperion.placement.balanced import BALANCED, SECOND, Balanced
from hyperion.placement.candidates import Candidates, Column, Policy, Room, Waiting
from hyperion.placement.fragmentation import Fragmentation
from hyperion.placement.objective import UNKNOWN_DURATION_HOURS, expected_hours
from hyperion.placement.optimal import Optimal, solver
from hyperion.placement.watched import Budget, Guarded, TooLate, guarded

__all__ = [
    "BALANCED",
    "BUILT_IN",
    "BUILT_IN_ORIGIN",
    "Budget",
    "Candidates",
    "Column",
    "Guarded",
    "Policy",
    "Rankers",
    "Room",
    "TooLate",
    "Waiting",
    "guarded",
    "known",
    "origin",
    "policy",
    "register",
    "unregister",
]


@dataclass(frozen=True, slots=True)
class Cheapest:
    """The smallest bill for the expected run, egress included."""

    name: str = "cheapest"

    def cost(self, job: Job, candidates: Candidates) -> Column:
        c = candidates
        usd = c.usd_per_hour * expected_hours(job) + c.egress_usd
        return usd + SECOND * BALANCED.cost(job, c)


@dataclass(frozen=True, slots=True)
class Greenest:
    """The least CO2e per hour."""

    name: str = "greenest"

    def cost(self, job: Job, candidates: Candidates) -> Column:
        return candidates.gco2e_per_hour + SECOND * BALANCED.cost(job, candidates)


@dataclass(frozen=True, slots=True)
class NearestData:
    """The least paid for moving data."""

    name: str = "nearest-data"

    def cost(self, job: Job, candidates: Candidates) -> Column:
        return candidates.egress_usd + SECOND * BALANCED.cost(job, candidates)


@dataclass(frozen=True, slots=True)
class LowestLatency:
    """The shortest mean round trip to the job's users."""

    name: str = "lowest-latency"

    def cost(self, job: Job, candidates: Candidates) -> Column:
        return candidates.latency_ms + SECOND * BALANCED.cost(job, candidates)


@dataclass(frozen=True, slots=True)
class Pack:
    """The fullest candidate that still has room, so that big gaps stay whole."""

    name: str = "pack"

    def cost(self, job: Job, candidates: Candidates) -> Column:
        c = candidates
        return c.waste - c.fullness + SECOND * BALANCED.cost(job, c)


@dataclass(frozen=True, slots=True)
class Spread:
    """The emptiest candidate, so that jobs disturb each other least."""

    name: str = "spread"

    def cost(self, job: Job, candidates: Candidates) -> Column:
        return candidates.fullness + SECOND * BALANCED.cost(job, candidates)


@dataclass(frozen=True, slots=True)
class LeastAttained:
    """Who has had the least GPU time comes first: the job, then its user. Nodes as ``balanced``.

    Gu et al., Tiresias, NSDI 2019 (its 2D-LAS): what a job has had tells how long it will still
    run when nobody has estimated it.
    """

    name: str = "least-attained-service"

    def cost(self, job: Job, candidates: Candidates) -> Column:
        return BALANCED.cost(job, candidates)

    def order(self, waiting: Waiting) -> float:
        """Whole GPU seconds of the job; the fraction ranks users among jobs with as many."""
        share = max(0.0, waiting.user_share)
        return waiting.attained_gpu_ms // 1000 + share / (1.0 + share)


@dataclass(frozen=True, slots=True)
class ShortestFirst:
    """The least GPU time expected comes first; unknown counts as an hour. Nodes as ``balanced``."""

    name: str = "shortest-first"

    def cost(self, job: Job, candidates: Candidates) -> Column:
        return BALANCED.cost(job, candidates)

    def order(self, waiting: Waiting) -> float:
        """Expected GPU seconds; of jobs without GPUs a millionth of their seconds."""
        unknown_ms = UNKNOWN_DURATION_HOURS * 3_600_000
        expected_s = (waiting.expected_ms or unknown_ms) / 1000.0
        return expected_s * (waiting.gpus_milli / 1000.0 if waiting.gpus_milli else 1e-6)


@dataclass(frozen=True, slots=True)
class Fair:
    """The users of a queue take turns, whoever has had least first. Nodes as ``balanced``."""

    name: str = "fair"
    per_user: bool = True

    def cost(self, job: Job, candidates: Candidates) -> Column:
        return BALANCED.cost(job, candidates)


_MAKERS: dict[str, Callable[[], Policy]] = {
    "balanced": Balanced,
    "cheapest": Cheapest,
    "fair": Fair,
    "fragmentation": Fragmentation,
    "greenest": Greenest,
    "least-attained-service": LeastAttained,
    "lowest-latency": LowestLatency,
    "nearest-data": NearestData,
    "optimal": Optimal,
    "pack": Pack,
    "shortest-first": ShortestFirst,
    "spread": Spread,
}
BUILT_IN: dict[str, Policy] = {name: make() for name, make in _MAKERS.items()}
BUILT_IN_ORIGIN = "built in"
_ORIGINS: dict[str, str] = {}
"""Of policies that are not built in: where each comes from."""


def register(make: Callable[[], Policy], origin: str) -> str:
    """Take in a policy that is not built in; gives its name. To be called before any round.

    ``make`` is called once to try it, and once by each ``policy(name)``: a policy that learns is
    not shared. ``origin`` says where it comes from. Registering a name again from the same origin
    replaces it. Raises ValueError, which says what the plug-in must do otherwise.
    """
    made = make()
    name = getattr(made, "name", None)
    if not isinstance(name, str) or not re.fullmatch(bounds.NAME_PATTERN, name):
        raise ValueError(f"its name is {name!r:.80}; give letters, digits, '.', '_' and '-'")
    if not callable(getattr(made, "cost", None)):
        raise ValueError(f"{name} has no method cost(job, candidates)")
    taken = BUILT_IN_ORIGIN if name in BUILT_IN else _ORIGINS.get(name, origin)
    if taken != origin:
        raise ValueError(f"a policy called {name} is there already ({taken}); give it another name")
    _MAKERS[name] = make
    _ORIGINS[name] = origin
    checks.KNOWN_POLICIES.add(name)
    return name


def unregister(name: str) -> None:
    """Forget a registered policy; built-in ones stay."""
    if _ORIGINS.pop(name, None) is not None:
        del _MAKERS[name]
        checks.KNOWN_POLICIES.discard(name)


def known() -> dict[str, str]:
    """Every policy by name, with its origin."""
    return {name: origin(name) for name in sorted(_MAKERS)}


def origin(name: str) -> str:
    """Where the policy of this name comes from."""
    return _ORIGINS.get(name, BUILT_IN_ORIGIN)


def policy(name: str) -> Policy:
    """The policy of this name, new; empty is ``balanced``. ValueError names the nearest one, or
    what it needs."""
    make = _MAKERS.get(name or BALANCED.name)
    if make is None:
        from difflib import get_close_matches

        names = ", ".join(sorted(_MAKERS))
        near = get_close_matches(name, _MAKERS, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"no policy is called {name!r}{hint} (known: {names})")
    if make is Optimal:
        solver()
    return make()


class Rankers:
    """Policies by name, each under watch from the first time that it is asked for."""

    def __init__(self, watched: Callable[[str], Guarded] | None = None) -> None:
        """``watched`` makes one, or raises ValueError; without it, with no limit of time."""
        self.watched: dict[str, Guarded] = {}
        self._make = watched or (lambda name: Guarded(policy(name), origin=origin(name)))

    def of(self, name: str) -> Guarded:
        """The policy of this name; one that is always replaced where none is here (any more)."""
        found = self.watched.get(name)
        if found is None:
            try:
                found = self._make(name)
            except ValueError as error:
                found = Guarded(_Absent(name, str(error)), origin="not here")
            self.watched[name] = found
        return found


@dataclass(frozen=True, slots=True)
class _Absent:
    name: str
    fault: str

    def cost(self, job: Job, candidates: Candidates) -> Column:  # noqa: ARG002
        raise LookupError(self.fault)
