"""What a policy sees of the places it ranks and of the jobs that wait, and what it must answer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from hyperion.model.job import Job
from hyperion.model.resources import Capacity, ResourceRequest

Column = NDArray[np.float64]


class Room(NamedTuple):
    """What is free on candidates that are nodes: one entry a candidate, numbers of any dtype."""

    request: ResourceRequest
    """What one replica takes, of the job's alternatives or roles the one that is being ranked."""
    gpus: NDArray[Any]
    """GPUs that nobody uses."""
    part_milli: NDArray[Any]
    """The largest free share of a GPU that is already partly used."""
    cpus_milli: NDArray[Any]
    memory_mib: NDArray[Any]
    kind: NDArray[Any]
    """Where in ``capacities`` the node's own is."""
    capacities: Sequence[Capacity]


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
    room: Callable[[], Room] | None = None
    """Made when a policy asks; None where candidates are whole clusters."""

    def __len__(self) -> int:
        return len(self.score)


class Waiting(Struct, frozen=True):
    """A job that begins to wait in a cluster, as a policy's ``order`` sees it."""

    job: Job
    submitted_at_ms: int
    expected_ms: int = 0
    """How long it will run, by its own estimate or what its likes took; 0: nobody knows."""
    attained_gpu_ms: int = 0
    """GPU time it has had already, in earlier attempts."""
    gpus_milli: int = 0
    """Of all its replicas."""
    user_share: float = 0.0
    """What its user has had lately: a time-decayed dominant share, 0 and up."""


class Policy(Protocol):
    """Ranks candidates. A plug-in or a test may supply its own.

    It may also have ``order(waiting) -> float``, ``per_user: bool``, ``observe(job) -> None`` and
    ``begin() -> bool``; see ``watched.Guarded``, which asks for them.
    """

    @property
    def name(self) -> str: ...

    def cost(self, job: Job, candidates: Candidates) -> Column:
        """One finite number per candidate, lower is better.

        A candidate's cost must depend on the job and on its own entries only: the planner asks
        again for just those candidates that changed.
        """
