"""The jobs that hold nodes, as those see them that wait: what stopping one costs, when it ends."""

from collections.abc import Iterable

from msgspec import Struct

from hyperion.model.allocation import Allocation
from hyperion.model.ids import AllocationId, JobId, QueueName
from hyperion.model.job import Priority


class Occupant(Struct, frozen=True, kw_only=True):
    """A job of which at least one replica holds a place."""

    job: JobId
    queue: QueueName
    priority: Priority
    nice: int = 0
    started_at_ms: int = 0
    """Of this attempt; while it is being started, when it was placed."""
    ends_at_ms: int = 0
    """As estimated; 0: nobody knows."""
    preemptible_at_ms: int = 0
    saves_every_ms: int = 0
    """0: it writes no checkpoints by itself."""
    saves_on_stop: bool = False
    """Told to end, it writes one, so that nothing is lost but the time to restore."""
    restore_ms: int = 0
    usd_per_hour: float = 0.0
    """Of all its replicas; 0 where machines have no price."""
    egress_usd: float = 0.0
    """Paid again when it starts elsewhere."""
    least: int = 1
    """An elastic job can give up its last ranks down to so many, if it need not restart."""
    stopping: bool = False
    """It is being stopped already: no victim, and its places will be free soon."""


class Running:
    """A fold over the same records as the snapshot; one entry a job, one seat a live replica."""

    def __init__(self) -> None:
        self.occupants: dict[JobId, Occupant] = {}
        self._seats: dict[JobId, dict[AllocationId, Allocation]] = {}

    def put(self, occupant: Occupant) -> None:
        """A job that got its first seat, or new facts about one."""
        self.occupants[occupant.job] = occupant
        self._seats.setdefault(occupant.job, {})

    def drop(self, job: JobId) -> None:
        """It holds nothing any more; its seats go with it."""
        self.occupants.pop(job, None)
        self._seats.pop(job, None)

    def seat(self, allocation: Allocation) -> None:
        """A live replica of an occupant."""
        self._seats[allocation.job][allocation.id] = allocation

    def unseat(self, allocation: Allocation) -> None:
        self._seats.get(allocation.job, {}).pop(allocation.id, None)

    def seats(self, job: JobId) -> Iterable[Allocation]:
        return self._seats.get(job, {}).values()
