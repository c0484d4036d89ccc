"""For how many replicas a cluster has room, by the sums that it last told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hyperion.model.cluster import Shape
from hyperion.model.resources import MILLI, Capacity, ResourceRequest
from hyperion.placement import feasibility

if TYPE_CHECKING:
    from hyperion.placement.choice import FleetCluster


def room_in(request: ResourceRequest, shape: Shape, promised: Capacity) -> int:
    """Replicas that the free sums of a shape admit: an upper bound, as fragments count too."""
    empty = shape.nodes * feasibility.slots(request, shape.capacity)
    return room_of(request, shape, promised, empty)


def room_of(request: ResourceRequest, shape: Shape, promised: Capacity, room: int) -> int:
    """The same where ``room`` would fit if it were empty."""
    if request.gpus_milli:
        room = min(room, max(0, shape.free_gpus_milli - promised.gpus) // request.gpus_milli)
    if request.cpus_milli:
        room = min(room, max(0, shape.free_cpus_milli - promised.cpus_milli) // request.cpus_milli)
    if request.memory_mib:
        room = min(room, max(0, shape.free_memory_mib - promised.memory_mib) // request.memory_mib)
    return room


def promised(member: FleetCluster) -> Capacity:
    """What jobs placed there will take and its load does not count yet (``gpus`` in thousandths).

    It is taken off every shape, for nobody knows yet which nodes they will get.
    """
    gpus, cpus, memory = uncounted(member)
    return Capacity(gpus=max(0, gpus), cpus_milli=max(0, cpus), memory_mib=max(0, memory))


def uncounted(member: FleetCluster) -> tuple[int, int, int]:
    """By how much what jobs placed there ask for exceeds what its load counts as used: GPUs and
    CPUs in thousandths, MiB. Below zero where others use it too, or some have just ended."""
    gpus = cpus = memory = 0
    for shape in member.load.shapes:
        gpus += shape.nodes * shape.capacity.gpus * MILLI - shape.free_gpus_milli
        cpus += shape.nodes * shape.capacity.cpus_milli - shape.free_cpus_milli
        memory += shape.nodes * shape.capacity.memory_mib - shape.free_memory_mib
    return (
        member.committed_gpus_milli - gpus,
        member.committed_cpus_milli - cpus,
        member.committed_memory_mib - memory,
    )
