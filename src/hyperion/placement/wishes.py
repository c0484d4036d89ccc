"""What the planner is asked for and what it answers: wishes, plans, and what time forbids."""

from collections.abc import Hashable, Mapping
from typing import Protocol

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from hyperion.model.ids import JobId, NodeId
from hyperion.model.job import Job
from hyperion.placement.snapshot import Snapshot


class Wish(Struct, frozen=True):
    """A job that wants places for some of its replicas."""

    job: Job
    at_least: int = 0
    """Replicas that must find places together; 0: as many as the job has."""
    at_most: int = 0
    """Place up to so many; 0: as many as ``at_least``."""
    first_rank: int = 0
    """Rank of the first seat."""
    ends_at_ms: int = 0
    """When they would end if they started now; 0: nobody knows."""

    @property
    def least(self) -> int:
        return self.at_least or self.job.replicas

    @property
    def most(self) -> int:
        return max(self.at_most, self.least)


class Seat(Struct, frozen=True, gc=False):
    """Where one replica goes, and which of the node's GPUs it gets."""

    node: NodeId
    devices: tuple[int, ...] = ()


class Plan(Struct, frozen=True):
    """Places for replicas, in the order of their ranks, all for the same alternative of the job."""

    job: JobId
    alternative: int
    seats: tuple[Seat, ...]


class Withheld(Struct, frozen=True):
    """What must stay free on a node, for somebody else."""

    cpus_milli: int = 0
    memory_mib: int = 0
    disk_mib: int = 0
    gpus: int = 0
    """Whole ones."""
    custom: tuple[tuple[str, int], ...] = ()


class View(Protocol):
    """What time forbids: windows, and starts promised to others."""

    def mark(self, job: Job, ends_at_ms: int, now_ms: int) -> Hashable:
        """Equal for jobs for which the other two answer the same."""

    def closed(
        self, snapshot: Snapshot, job: Job, ends_at_ms: int, now_ms: int
    ) -> NDArray[np.bool_] | None:
        """By row: True where the job must not be. None: nowhere."""

    def withheld(
        self, snapshot: Snapshot, job: Job, ends_at_ms: int, now_ms: int
    ) -> Mapping[int, Withheld]:
        """By row, what the job must leave free."""
