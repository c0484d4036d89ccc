"""The jobs that hold nodes, as those see them that wait: what stopping one costs, when it ends."""

from collections.abc import Callable, Iterable

from msgspec import Struct

from hyperion.model.allocation import Allocation, AllocationState
from hyperion.model.ids import AllocationId, JobId, NodeId, QueueName
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
    least: int = 0
    """An elastic job that need not restart can give up its last ranks down to so many. 0: it
    stands or falls as a whole."""
    array: bool = False
    """Its replicas are tasks of their own: each may be stopped alone, and loses its own work."""
    min_runtime_ms: int = 0
    """Of each task of an array; of other jobs ``preemptible_at_ms`` says it all."""
    stopping: bool = False
    """It is being stopped already: no victim, and its places will be free soon."""


class Width(Struct, frozen=True):
    """How much a job holds now, over all its replicas."""

    replicas: int = 0
    gpus_milli: int = 0
    cpus_milli: int = 0


class Running:
    """A fold over the same records as the snapshot; one entry a job, one seat a live replica."""

    def __init__(self) -> None:
        self.occupants: dict[JobId, Occupant] = {}
        self._seats: dict[JobId, dict[AllocationId, Allocation]] = {}
        self._on: dict[NodeId, dict[AllocationId, Allocation]] = {}
        self._leaving: dict[AllocationId, Allocation] = {}
        self._watchers: list[Callable[[JobId, bool], object]] = []

    def watch(self, touched: Callable[[JobId, bool], object]) -> None:
        """Tell of every change: the job, and whether places may have become free, or be later."""
        self._watchers.append(touched)

    def put(self, occupant: Occupant) -> None:
        """A job that got its first seat, or new facts about one."""
        self._tell(occupant.job, occupant.job in self.occupants)
        self.occupants[occupant.job] = occupant
        for seat in self._seats.setdefault(occupant.job, {}).values():
            self._note_leaving(seat)

    def drop(self, job: JobId) -> None:
        """It holds nothing any more; its seats go with it."""
        self.occupants.pop(job, None)
        for seat in self._seats.pop(job, {}).values():
            self._leave(seat)
        self._tell(job, True)

    def seat(self, allocation: Allocation) -> None:
        """A live replica of an occupant, or its new state."""
        self._seats[allocation.job][allocation.id] = allocation
        self._on.setdefault(allocation.node, {})[allocation.id] = allocation
        self._note_leaving(allocation)
        self._tell(allocation.job, False)

    def unseat(self, allocation: Allocation) -> None:
        found = self._seats.get(allocation.job, {}).pop(allocation.id, None)
        if found is not None:
            self._leave(found)
            self._tell(allocation.job, True)

    def seats(self, job: JobId) -> Iterable[Allocation]:
        return self._seats.get(job, {}).values()

    def on(self, node: NodeId) -> Iterable[Allocation]:
        """The replicas that hold a part of this node."""
        return self._on.get(node, {}).values()

    @property
    def leaving(self) -> Iterable[Allocation]:
        """The replicas that are being stopped already; their places will be free soon."""
        return self._leaving.values()

    def leaves(self, seat: Allocation) -> bool:
        return seat.id in self._leaving

    def width(self, job: JobId) -> Width:
        gpus_milli = cpus_milli = 0
        seats = self._seats.get(job, {})
        for seat in seats.values():
            gpus_milli += seat.request.gpus_milli
            cpus_milli += seat.request.cpus_milli
        return Width(len(seats), gpus_milli, cpus_milli)

    def _tell(self, job: JobId, freed: bool) -> None:
        for touched in self._watchers:
            touched(job, freed)

    def _note_leaving(self, seat: Allocation) -> None:
        if seat.state is AllocationState.STOPPING or self.occupants[seat.job].stopping:
            self._leaving[seat.id] = seat
        else:
            self._leaving.pop(seat.id, None)

    def _leave(self, seat: Allocation) -> None:
        self._leaving.pop(seat.id, None)
        here = self._on[seat.node]
        del here[seat.id]
        if not here:
            del self._on[seat.node]
