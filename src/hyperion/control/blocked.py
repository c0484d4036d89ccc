"""Shapes of jobs that found no room, and which of them are worth another look.

A shape that did not fit can only fit now if something was given back on a node that has room for at
least one replica of it. Thousands of shapes that wait for other nodes need not be planned anew.
"""

from collections.abc import Container, Hashable, Iterable

import numpy as np
from numpy.typing import NDArray

from hyperion.model.ids import NodeId
from hyperion.model.job import Job
from hyperion.model.resources import MILLI, ResourceRequest
from hyperion.placement.planner import Unplaceable
from hyperion.placement.snapshot import Snapshot

_Amounts = NDArray[np.int64]


class Blocked:
    def __init__(self) -> None:
        self.refusals: dict[Hashable, Unplaceable] = {}
        """Why the jobs of a blocked shape do not fit, by shape."""
        self._least: dict[Hashable, tuple[int, ...]] = {}
        """What the smallest replica of the shape takes, dimension by dimension."""
        self._urgent: set[Hashable] = set()
        self._fickle: set[Hashable] = set()
        """Shapes whose room depends on more than what is free on single nodes."""

    def add(self, shape: Hashable, job: Job, refusal: Unplaceable, *, urgent: bool) -> None:
        """``urgent``: others might be stopped for it, later if not now."""
        self.refusals[shape] = refusal
        self._least[shape] = _least(job)
        if urgent:
            self._urgent.add(shape)
        if job.spread or job.replica_affinity:
            self._fickle.add(shape)

    def remove(self, shape: Hashable) -> None:
        self.refusals.pop(shape, None)
        self._least.pop(shape, None)
        self._urgent.discard(shape)
        self._fickle.discard(shape)

    def clear(self) -> None:
        self.refusals.clear()
        self._least.clear()
        self._urgent.clear()
        self._fickle.clear()

    def to_look_at(self) -> list[Hashable]:
        """Those for which something may have changed that no freed node tells."""
        return [*self._urgent, *(self._fickle - self._urgent)]

    def keep(self, blocked: Container[Hashable]) -> None:
        """Forget the shapes for which nobody waits any more."""
        for shape in [shape for shape in self._least if shape not in blocked]:
            self.remove(shape)

    def hopeful(self, snapshot: Snapshot, freed: Iterable[NodeId]) -> list[Hashable]:
        """Those that may fit now that something was given back on these nodes."""
        rows = [snapshot.row[node] for node in freed if node in snapshot.row]
        if not rows or not self._least:
            return list(self._fickle) if rows else []
        shapes = list(self._least)
        least = np.array([self._least[shape] for shape in shapes], np.int64)
        fits = np.all(least[:, None, :] <= _free(snapshot, rows)[None, :, :], axis=2)
        found = [shapes[n] for n in np.flatnonzero(np.any(fits, axis=1)).tolist()]
        return found + [shape for shape in self._fickle if shape not in set(found)]


def _free(snapshot: Snapshot, rows: list[int]) -> _Amounts:
    whole, part = snapshot.whole[rows], snapshot.part[rows]
    share = np.where(whole > 0, MILLI, part)
    columns = (snapshot.free_cpus, snapshot.free_memory, snapshot.free_disk)
    return np.column_stack([*(column[rows] for column in columns), whole, share]).astype(np.int64)


def _least(job: Job) -> tuple[int, ...]:
    asked = [role.resources for role in job.roles] if job.roles else job.alternatives
    return tuple(min(amounts) for amounts in zip(*map(_amounts, asked), strict=True))


def _amounts(r: ResourceRequest) -> tuple[int, int, int, int, int]:
    share = 0 if r.gpus_milli >= MILLI else r.gpus_milli
    return r.cpus_milli, r.memory_mib, r.disk_mib, r.whole_gpus, share
