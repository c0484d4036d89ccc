"""How much of what is free is of no use: the measure of Weng et al., ATC 2023 ("Beware of
Fragmentation"), over the workload's own mixture of shapes.

For one node and one shape of job: if the node cannot take one, all its free GPUs are useless to it;
if it can, those devices are whose free part is smaller than what the shape needs of one device. The
measure is the mean over shapes by how often they occur, summed over nodes.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from hyperion.model.node import Node
from hyperion.model.resources import MILLI
from hyperion.sim.trace import TraceJob, requests

SHAPES_MAX = 16
"""The most frequent ones stand for all."""


class Shape(Struct, frozen=True):
    """What one replica asks for, and the part of all replicas that are like it."""

    gpus_milli: int
    gpu_type: str
    cpus_milli: int
    memory_mib: int
    part: float


def shapes(jobs: Iterable[TraceJob]) -> list[Shape]:
    """The workload's shapes that want GPUs, by how many jobs have them."""
    found: Counter[tuple[int, str, int, int]] = Counter()
    for job in jobs:
        request = next(iter(requests(job.job)))[0]
        if request.gpus_milli:
            kind = request.gpu_type if len(job.job.alternatives) == 1 else ""
            found[request.gpus_milli, kind, request.cpus_milli, request.memory_mib] += 1
    most = found.most_common(SHAPES_MAX)
    total = sum(n for _, n in most)
    return [Shape(*shape, part=n / total) for shape, n in most]


def stranded(
    nodes: Sequence[Node],
    devices: NDArray[np.int32],
    cpus: NDArray[np.int64],
    memory: NDArray[np.int64],
    mixture: Sequence[Shape],
) -> tuple[float, float]:
    """(free GPUs that are useless to the mixture, free GPUs), in GPUs.

    ``devices`` holds what is free of each device in thousandths; devices that a node has not are 0.
    """
    free = devices.sum(axis=1)
    all_free = int(free.sum())
    total_free = float(all_free) / MILLI
    useless = 0.0
    whole = (devices == MILLI).sum(axis=1)
    largest = devices.max(axis=1, initial=0)
    useful: dict[int, NDArray[np.int64]] = {}
    """By what a shape needs of one device: the parts of devices that are large enough."""
    for shape in mixture:
        fits = (cpus >= shape.cpus_milli) & (memory >= shape.memory_mib)
        if shape.gpus_milli >= MILLI:
            fits &= whole >= shape.gpus_milli // MILLI
        else:
            fits &= largest >= shape.gpus_milli
        if shape.gpu_type:
            fits &= _of_type(nodes, shape.gpu_type)
        need = min(shape.gpus_milli, MILLI)
        if need not in useful:
            useful[need] = np.where(devices >= need, devices, 0).sum(axis=1)
        useless += shape.part * float(all_free - int(useful[need][fits].sum()))
    return useless / MILLI, total_free


def _of_type(nodes: Sequence[Node], gpu_type: str) -> NDArray[np.bool_]:
    return np.array([n.capacity.gpu_type == gpu_type for n in nodes], np.bool_)
