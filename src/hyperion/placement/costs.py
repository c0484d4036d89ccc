"""What a policy says of nodes: once for each kind where its cost is linear, else for each node."""

from collections.abc import Callable, Sequence

import numpy as np

from hyperion.model.job import Job
from hyperion.model.resources import Capacity
from hyperion.placement.demand import Demand
from hyperion.placement.kernels import CPUS, MEMORY, PART, WHOLE, Int, Long, Seating, room
from hyperion.placement.ranking import BUILT_IN, Candidates, Column, Guarded, Room

_LINEAR = frozenset(
    type(BUILT_IN[name])
    for name in (
        "balanced",
        "cheapest",
        "greenest",
        "nearest-data",
        "optimal",
        "lowest-latency",
        "pack",
        "spread",
        "fair",
        "least-attained-service",
        "shortest-first",
    )
)
"""Their cost is a weighted sum of a candidate's entries, so that a kernel can compute it."""
_PREFERENCE = 10.0
"""A preference of weight 100 outweighs every price, and the policy's lesser terms so many times."""


class Pricing:
    """A policy's cost of one demand, by group."""

    __slots__ = ("_demand", "_unit", "is_linear", "price", "weights")

    def __init__(self, policy: Guarded, job: Job, demand: Demand) -> None:
        self._demand = demand
        self._unit = 0.0
        self.is_linear = type(policy.policy) in _LINEAR
        self.price: Column = np.zeros(len(demand.codes))
        self.weights: Column = np.zeros(2)
        """Of breaking a whole GPU, and of fullness."""
        if self.is_linear:
            self.price = policy.cost(job, _by_group(demand, self.price))
            nothing, one = np.zeros(2), np.eye(2)
            terms = Candidates(*(nothing,) * 5, fullness=one[1], waste=one[0])
            self.weights = policy.cost(job, terms)

    def unit(self, policy: Guarded, job: Job) -> float:
        """What a preference of weight 100 that is not met adds to a cost."""
        if not self._unit:
            costs, lesser = self.price, float(np.abs(self.weights).sum())
            if not self.is_linear:
                empty = np.zeros(len(costs))
                costs = policy.cost(job, _by_group(self._demand, empty))
                full = policy.cost(job, _by_group(self._demand, empty + 1.0))
                lesser = float(np.abs(full - costs).max(initial=0.0))
            possible = np.abs(costs[self._demand.codes == 0])
            self._unit = float(possible.max(initial=0.0)) + _PREFERENCE * (lesser or 1.0)
        return self._unit


def pricing(policy: Guarded, job: Job, demand: Demand) -> Pricing:
    """Kept with the demand where the policy's costs follow from it alone."""
    if type(policy.policy) not in _LINEAR:
        return Pricing(policy, job, demand)
    found: Pricing | None = demand.derived.get(policy.policy)
    if found is None:
        found = demand.derived[policy.policy] = Pricing(policy, job, demand)
    return found


class _Rows(Candidates):
    """Candidates whose lesser columns are spread from groups to rows only if a policy reads them:
    at 100,000 nodes most of the time and memory of a decision would go there."""

    __slots__ = ("_demand", "_group")

    def __init__(
        self,
        demand: Demand,
        group: Int,
        fullness: Column,
        waste: Column,
        room: Callable[[], Room],
    ) -> None:
        self._demand = demand
        self._group = group
        self.egress_usd = self.latency_ms = np.zeros(len(group))
        self.score = demand.score[group]
        self.fullness = fullness
        self.waste = waste
        self.room = room

    @property
    def usd_per_hour(self) -> Column:  # type: ignore[override]  # policies only read
        return self._demand.usd_per_hour[self._group]

    @property
    def gco2e_per_hour(self) -> Column:  # type: ignore[override]  # policies only read
        return self._demand.gco2e_per_hour[self._group]


def ask(
    policy: Guarded,
    job: Job,
    demand: Demand,
    s: Seating,
    at: slice | Long | Int,
    capacities: Sequence[Capacity],
) -> None:
    """Write the policy's own costs of some rows; infinite where there is no room."""
    fits, breaks = room(s, at)
    n = len(s.gate)
    group = s.group[:n][at]
    waste = demand.with_gpus[group] if breaks is None else breaks.astype(np.float64)

    def free() -> Room:
        a = s.amounts[:, :n][:, at]
        return Room(demand.request, a[WHOLE], a[PART], a[CPUS], a[MEMORY], group, capacities)

    costs = policy.cost(job, _Rows(demand, group, s.fullness[:n][at], waste, free))
    if len(s.extra):
        costs = costs + s.extra[at]
    s.cost[at] = np.where(fits, costs, np.inf)


def _by_group(demand: Demand, fullness: Column) -> Candidates:
    nothing = np.zeros(len(fullness))
    return Candidates(
        usd_per_hour=demand.usd_per_hour,
        egress_usd=nothing,
        gco2e_per_hour=demand.gco2e_per_hour,
        latency_ms=nothing,
        score=demand.score,
        fullness=fullness,
        waste=demand.with_gpus,
    )
