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
        demand = tuple((shape, weight / total) for shape, weight in heaviest)
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
    r = room.request
    whole = np.asarray(room.gpus, np.float64)
    part = np.asarray(room.part_milli, np.float64)
    cpus, memory = np.asarray(room.cpus_milli), np.asarray(room.memory_mib)
    nothing = np.zeros(len(whole))
    before = _State(whole, part, nothing, cpus, memory)
    cpus, memory = cpus - r.cpus_milli, memory - r.memory_mib
    if r.gpus_milli >= MILLI:
        after = _State(whole - r.whole_gpus, part, nothing, cpus, memory)
    elif r.gpus_milli:
        breaks = part < r.gpus_milli
        left = np.where(breaks, float(MILLI - r.gpus_milli), 0.0)
        rest = np.where(breaks, part, part - r.gpus_milli)
        after = _State(whole - breaks, np.maximum(rest, left), np.minimum(rest, left), cpus, memory)
    else:
        after = _State(whole, part, nothing, cpus, memory)
    types = {kind.gpu_type for kind in room.capacities if kind.gpus}
    of_type = {
        name: np.array([k.gpu_type == name for k in room.capacities])[room.kind]
        for name in {shape.gpu_type for shape, _ in demand}
        if name and types != {name}
    }
    total = nothing
    for shape, probability in demand:
        suits = of_type.get(shape.gpu_type)
        total = total + probability * (
            _fragmented(after, shape, suits) - _fragmented(before, shape, suits)
        )
    return total


class _State(NamedTuple):
    """Nodes by what is free: whole GPUs, and the shares of at most two that are partly used."""

    whole: Column
    part: Column
    lesser: Column
    cpus: NDArray[Any]
    memory: NDArray[Any]


def _fragmented(n: _State, shape: Shape, suits: NDArray[np.bool_] | None) -> Column:
    """The free share of each node's GPUs that the shape cannot use, in thousandths."""
    free_part = n.part + n.lesser
    if shape.gpus_milli >= MILLI:
        fits = n.whole >= shape.gpus_milli // MILLI
        lost = free_part
    else:
        fits = (n.whole >= 1) | (n.part >= shape.gpus_milli)
        lost = np.where(n.part < shape.gpus_milli, n.part, 0.0)
        lost = lost + np.where(n.lesser < shape.gpus_milli, n.lesser, 0.0)
    fits = fits & (n.cpus >= shape.cpus_milli) & (n.memory >= shape.memory_mib)
    if suits is not None:
        fits &= suits
    return np.where(fits, lost, n.whole * MILLI + free_part)


def _shape(request: ResourceRequest) -> Shape:
    return Shape(request.gpus_milli, request.gpu_type, request.cpus_milli, request.memory_mib)
