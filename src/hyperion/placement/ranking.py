"""How candidates are ranked: a policy gives one cost for each; the planner keeps the guarantees."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hyperion.model.job import Job
from hyperion.placement.objective import expected_hours

Column = NDArray[np.float64]


@dataclass(slots=True)
class Candidates:
    """What a policy sees: one array a term, one entry a candidate (a node, or a place)."""

    usd_per_hour: Column
    """For all replicas of the job."""
    egress_usd: Column
    gco2e_per_hour: Column
    latency_ms: Column
    score: Column
    """The objective, in USD for the expected run."""
    fullness: Column
    """The fullest dimension's share in use, 0 to 1."""
    waste: Column
    """1 where the job would make GPUs useless to others: it needs none, or breaks a whole one."""

    def __len__(self) -> int:
        return len(self.score)


class Policy(Protocol):
    """Ranks candidates. An entry point or a test may supply its own."""

    @property
    def name(self) -> str: ...

    def cost(self, job: Job, candidates: Candidates) -> Column:
        """One finite number per candidate, lower is better.

        A candidate's cost must depend on the job and on its own entries only: the planner asks
        again for just those candidates that changed.
        """


@dataclass(frozen=True, slots=True)
class Balanced:
    """The objective itself; among equals the node that wastes no GPUs, then the fullest."""

    name: str = "balanced"

    def cost(self, job: Job, candidates: Candidates) -> Column:  # noqa: ARG002
        c = candidates
        return c.score + WASTE_USD * c.waste - FULLNESS_USD * c.fullness


WASTE_USD = 1e-4
FULLNESS_USD = 1e-5
"""Small against any price difference that matters: they decide between equals."""
SECOND = 1e-6
"""Weight of the balanced cost in the other policies, where their own term is equal."""
BALANCED = Balanced()


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


BUILT_IN: dict[str, Policy] = {
    p.name: p
    for p in (BALANCED, Cheapest(), Greenest(), NearestData(), LowestLatency(), Pack(), Spread())
}


def policy(name: str) -> Policy:
    """The built-in policy of this name; empty is ``balanced``. ValueError names the nearest one."""
    found = BUILT_IN.get(name or BALANCED.name)
    if found is None:
        from difflib import get_close_matches

        known = ", ".join(sorted(BUILT_IN))
        near = get_close_matches(name, BUILT_IN, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"no policy is called {name!r}{hint} (known: {known})")
    return found


class Guarded:
    """A policy under watch: one that raises or returns nonsense is replaced until ``begin``.

    ``replaced`` counts the rounds in which that happened; ``fault`` says what was wrong last.
    """

    __slots__ = ("_fallen", "era", "fault", "policy", "replaced")

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.replaced = 0
        self.fault = ""
        self.era = 0
        """Changes when costs given before no longer compare with costs given now."""
        self._fallen = False

    @property
    def name(self) -> str:
        return self.policy.name

    def begin(self) -> None:
        """A new round: the policy gets its chance again."""
        if self._fallen:
            self._fallen = False
            self.era += 1

    def cost(self, job: Job, candidates: Candidates) -> Column:
        if not self._fallen:
            try:
                costs = np.asarray(self.policy.cost(job, candidates), dtype=np.float64)
                self.fault = _fault(costs, len(candidates))
            except Exception as error:  # whatever a plug-in does, the round goes on
                self.fault = f"raised {type(error).__name__}: {error}"[:200]
            if not self.fault:
                return costs
            self._fallen = True
            self.replaced += 1
            self.era += 1
        return BALANCED.cost(job, candidates)


def _fault(costs: Column, candidates: int) -> str:
    if costs.shape != (candidates,):
        return f"returned shape {costs.shape} for {candidates} candidates"
    return "" if np.isfinite(costs.sum()) else "returned a cost that is not a finite number"


def guarded(policy: Policy) -> Guarded:
    """The policy under watch, ready for a round."""
    watched = policy if isinstance(policy, Guarded) else Guarded(policy)
    watched.begin()
    return watched
