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


class Stranded:
    """(free GPUs that are useless to the mixture, free GPUs), kept up to date row by row.

    ``devices`` holds what is free of each device in thousandths; devices that a node has not are 0.
    The arrays are the caller's, who says which rows have changed. All sums are whole numbers, so
    that it does not matter in which order they came about.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        devices: NDArray[np.int32],
        cpus: NDArray[np.int64],
        memory: NDArray[np.int64],
        mixture: Sequence[Shape],
    ) -> None:
        self._devices, self._cpus, self._memory = devices, cpus, memory
        self._mixture = mixture
        types = np.array([n.capacity.gpu_type for n in nodes])
        self._of_type = {s.gpu_type: types == s.gpu_type for s in mixture if s.gpu_type}
        self._needs = sorted({min(s.gpus_milli, MILLI) for s in mixture})
        self._free = np.zeros(len(nodes), np.int64)
        self._useful = np.zeros((len(mixture), len(nodes)), np.int64)
        self._all_free = 0
        self._all_useful = [0] * len(mixture)
        self._update(np.arange(len(nodes)))

    def gpus(self, changed: Iterable[int]) -> tuple[float, float]:
        """(useless, free) in GPUs, once these rows have been looked at anew."""
        rows = np.fromiter(changed, np.int64)
        if rows.size:
            self._update(rows)
        useless = 0.0
        for shape, useful in zip(self._mixture, self._all_useful, strict=True):
            useless += shape.part * float(self._all_free - useful)
        return useless / MILLI, float(self._all_free) / MILLI

    def _update(self, rows: NDArray[np.int64]) -> None:
        devices, cpus, memory = self._devices[rows], self._cpus[rows], self._memory[rows]
        free = devices.sum(axis=1, dtype=np.int64)
        self._all_free += int((free - self._free[rows]).sum())
        self._free[rows] = free
        whole = (devices == MILLI).sum(axis=1)
        largest = devices.max(axis=1, initial=0)
        large_enough = {
            need: np.where(devices >= need, devices, 0).sum(axis=1, dtype=np.int64)
            for need in self._needs
        }
        for n, shape in enumerate(self._mixture):
            fits = (cpus >= shape.cpus_milli) & (memory >= shape.memory_mib)
            if shape.gpus_milli >= MILLI:
                fits &= whole >= shape.gpus_milli // MILLI
            else:
                fits &= largest >= shape.gpus_milli
            if shape.gpu_type:
                fits &= self._of_type[shape.gpu_type][rows]
            useful = large_enough[min(shape.gpus_milli, MILLI)] * fits
            self._all_useful[n] += int((useful - self._useful[n, rows]).sum())
            self._useful[n, rows] = useful
