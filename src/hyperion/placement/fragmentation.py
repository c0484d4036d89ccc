"""The policy that leaves the most GPU share usable for what has been asked for lately.

Weng et al., "Beware of Fragmentation: Scheduling GPU-Sharing Workloads with Fragmentation Gradient
Descent", USENIX ATC 2023. A node's fragmentation for one demand is the free GPU share that the
demand cannot use there: all of it where the demand does not fit, else that on GPUs with less left
than it needs. Its expectation is over the demands seen lately; a candidate costs as much as the
expectation rises by placing one replica there.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hyperion.model.job import Job
from hyperion.model.resources import MILLI, ResourceRequest
from hyperion.placement.balanced import BALANCED, SECOND
from hyperion.placement.candidates import Candidates, Column, Room

MEMORY_JOBS = 1024
"""A demand weighs half as much after about 700 further ones (an exponential mean over so many)."""
SHAPES_KEPT = 64
SHAPES_USED = 12
"""The weightiest ones only: costs grow with their number, and most jobs are of few shapes."""
_LARGEST_UNIT = 1e9
GRAIN = 1 << 20
"""Probabilities are multiples of its inverse, and amounts are whole: so sums are exact, and equal
nodes cost the same in whatever order a library adds."""
BLOCK = 4096
"""Nodes looked at together, so that what lies between two steps stays in the cache."""


class Shape(NamedTuple):
    """What a demand for GPUs needs of one node, for one replica."""

    gpus_milli: int
    gpu_type: str
    cpus_milli: int
    memory_mib: int


class Fragmentation:
    """The smallest increase of the expected fragmentation; among equals as ``balanced``.

    Learns the demand from the jobs that begin to wait, and takes it in between rounds.
    """

    __slots__ = ("_demand", "_seen", "_taken_in", "_unit", "_weights")

    name = "fragmentation"

    def __init__(self) -> None:
        self._weights: dict[Shape, float] = {}
        self._unit = 1.0
        """Grows with each demand, which is as good as to let the older ones decay."""
        self._seen = 0
        self._taken_in = 0
        self._demand: tuple[tuple[Shape, float], ...] = ()

    @property
    def demand(self) -> tuple[tuple[Shape, float], ...]:
        """The shapes that costs are computed for, each with its probability."""
        return self._demand

    def observe(self, job: Job) -> None:
        """Count a job, by all its replicas; one without GPUs says nothing of GPUs."""
        replicas = job.array.size if job.array is not None else job.replicas
        if job.roles:
            for role in job.roles:
                self._count(role.resources, role.replicas)
        else:
            self._count(job.alternatives[0], replicas)

    def begin(self) -> bool:
        """Take in what was seen, once it is an eighth more or 64; whether anything was."""
        new = self._seen - self._taken_in
        if not new or (new < 64 and new * 8 < self._taken_in):
            return False
        self._taken_in = self._seen
        heaviest = sorted(self._weights.items(), key=lambda item: (-item[1], item[0]))[:SHAPES_USED]
        total = sum(weight for _, weight in heaviest)
        demand = tuple((shape, round(weight / total * GRAIN) / GRAIN) for shape, weight in heaviest)
        changed = demand != self._demand
        self._demand = demand
        return changed

    def cost(self, job: Job, candidates: Candidates) -> Column:
        """In GPUs; where candidates are whole clusters, as ``pack`` ranks them."""
        second = SECOND * BALANCED.cost(job, candidates)
        if candidates.room is None:
            return candidates.waste - candidates.fullness + second
        room = candidates.room()
        demand = self._demand or ((_shape(room.request), 1.0),)
        return increase(room, demand) / MILLI + second

    def _count(self, request: ResourceRequest, replicas: int) -> None:
        if not request.gpus_milli:
            return
        self._seen += 1
        self._unit *= 1.0 + 1.0 / MEMORY_JOBS
        shape = _shape(request)
        self._weights[shape] = self._weights.get(shape, 0.0) + self._unit * replicas
        if len(self._weights) > SHAPES_KEPT:
            del self._weights[min(self._weights, key=lambda s: (self._weights[s], s))]
        if self._unit > _LARGEST_UNIT:
            self._weights = {s: w / self._unit for s, w in self._weights.items()}
            self._unit = 1.0


def increase(room: Room, demand: Sequence[tuple[Shape, float]]) -> Column:
    """By how much the expected fragmentation rises with one replica more, in thousandths of a GPU.

    Of the GPUs of a node that are partly used only the one with the most left is looked at.
    """
    n = len(room.gpus)
    costs = np.empty(n)
    needs = _Needs.of(demand)
    suits = _suits(room, demand)
    for first in range(0, n, BLOCK):
        at = slice(first, first + BLOCK)
        states = _states(room, at)
        half = len(states.whole) // 2
        expected = needs.probability @ _fragmented(states, needs, suits[:, at])
        costs[at] = expected[half:] - expected[:half]
    return costs


class _Needs(NamedTuple):
    """The demand in columns of one entry a shape, to be held against rows of nodes."""

    probability: Column
    gpus_milli: NDArray[Any]
    whole: NDArray[Any]
    cpus_milli: NDArray[Any]
    memory_mib: NDArray[Any]

    @staticmethod
    def of(demand: Sequence[tuple[Shape, float]]) -> "_Needs":
        table = np.array([(s.gpus_milli, s.cpus_milli, s.memory_mib) for s, _ in demand])
        gpus, cpus, memory = table[:, :1], table[:, 1:2], table[:, 2:]
        return _Needs(np.array([p for _, p in demand]), gpus, -(-gpus // MILLI), cpus, memory)


class _States(NamedTuple):
    """Nodes by what is free: all as they are, then all with one replica more."""

    whole: NDArray[Any]
    part: NDArray[Any]
    lesser: NDArray[Any] | None
    """A second GPU that is partly used; None where no node has one."""
    cpus: NDArray[Any]
    memory: NDArray[Any]


def _states(room: Room, at: slice) -> _States:
    r = room.request
    whole, part = room.gpus[at], room.part_milli[at]
    cpus, memory = room.cpus_milli[at], room.memory_mib[at]
    whole_after, part_after, lesser = whole, part, None
    if r.gpus_milli >= MILLI:
        whole_after = whole - r.whole_gpus
    elif r.gpus_milli:
        breaks = part < r.gpus_milli
        left = np.where(breaks, MILLI - r.gpus_milli, 0)
        rest = np.where(breaks, part, part - r.gpus_milli)
        whole_after = whole - breaks
        part_after = np.maximum(rest, left)
        lesser = np.concatenate((np.zeros_like(rest), np.minimum(rest, left)))
    return _States(
        np.concatenate((whole, whole_after)),
        np.concatenate((part, part_after)),
        lesser,
        np.concatenate((cpus, cpus - r.cpus_milli)),
        np.concatenate((memory, memory - r.memory_mib)),
    )


def _fragmented(n: _States, needs: _Needs, suits: NDArray[np.bool_]) -> Column:
    """By shape and node, the free share of its GPUs that the shape cannot use, in thousandths."""
    enough = n.part >= needs.gpus_milli
    fits = ((n.whole >= needs.whole) | enough) & np.concatenate((suits, suits), axis=1)
    fits &= n.cpus >= needs.cpus_milli
    fits &= n.memory >= needs.memory_mib
    lost = np.where(enough, 0.0, n.part)
    free = n.whole * float(MILLI) + n.part
    if n.lesser is not None:
        lost += np.where(n.lesser >= needs.gpus_milli, 0.0, n.lesser)
        free = free + n.lesser
    return np.where(fits, lost, free)


def _suits(room: Room, demand: Sequence[tuple[Shape, float]]) -> NDArray[np.bool_]:
    """By shape and node: the node's GPUs are of the type that the shape asks for."""
    n = len(room.gpus)
    if n < len(room.capacities):
        types = [room.capacities[kind].gpu_type for kind in room.kind.tolist()]
        return np.array([[s.gpu_type in ("", t) for t in types] for s, _ in demand])
    types = [capacity.gpu_type for capacity in room.capacities]
    by_kind = np.array([[s.gpu_type in ("", t) for t in types] for s, _ in demand])
    if by_kind.all():
        return np.broadcast_to(by_kind[:, :1], (len(demand), n))
    return by_kind[:, room.kind]


def _shape(request: ResourceRequest) -> Shape:
    return Shape(request.gpus_milli, request.gpu_type, request.cpus_milli, request.memory_mib)
