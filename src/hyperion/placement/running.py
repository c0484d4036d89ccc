"""The jobs that hold nodes, as those see them that wait: what stopping one costs, when it ends."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from hyperion.model.allocation import Allocation, AllocationState
from hyperion.model.ids import AllocationId, JobId, NodeId, QueueName
from hyperion.model.job import Priority
from hyperion.placement.ledger import Ledger
from hyperion.placement.occupant import Occupant, Width
from hyperion.placement.regret import task_terms, terms

__all__ = ["Occupant", "Running", "Width"]
FEW_CHANGES = 1000
"""Of seats, in a second."""


class Running:
    """A fold over the same records as the snapshot; one entry a job, one seat a live replica."""

    def __init__(self) -> None:
        self.occupants: dict[JobId, Occupant] = {}
        self.ledger = Ledger()
        """The same in numbers."""
        self.memo: Any = None
        """What a search for victims derived from it."""
        self._of: dict[QueueName, dict[tuple[Priority, int], dict[JobId, None]]] = {}
        """By queue, class and niceness."""
        self._seats: dict[JobId, dict[AllocationId, Allocation]] = {}
        self._on: dict[NodeId, dict[AllocationId, Allocation]] = {}
        self._leaving: dict[AllocationId, Allocation] = {}
        self._width: dict[JobId, list[int]] = {}
        """Replicas, thousandths of GPUs and of CPUs."""
        self._term: dict[JobId, int] = {}
        self._task_term: dict[AllocationId, int] = {}
        self._dirty: dict[AllocationId, Allocation] = {}
        """Seats that have come, changed or gone since the ledger was settled: most jobs come and go
        without anybody looking for victims."""
        self._stale: set[JobId] = set()
        """Likewise jobs."""
        self._unsettled = 0
        """Seats that were so when this was last looked at."""
        self._cheaper: set[JobId] = set()
        """Those of them that have lost seats."""
        self._watchers: list[Callable[[JobId, bool], object]] = []

    def watch(self, touched: Callable[[JobId, bool], object]) -> None:
        """Tell of every change: the job, and whether places may have become free, or be later."""
        self._watchers.append(touched)

    def begin(self, occupant: Occupant, seat: Allocation) -> None:
        """``put`` and ``seat`` at once, for a job that holds nothing yet: most have one replica."""
        job, r = occupant.job, seat.request
        assert job not in self.occupants, f"{job} holds something already"
        self.occupants[job] = occupant
        self._join(occupant)
        self._seats[job] = {seat.id: seat}
        self._width[job] = [1, r.gpus_milli, r.cpus_milli]
        self._place(seat)
        self._stale.add(job)
        self._note(occupant, seat)
        self._tell(job, False)

    def put(self, occupant: Occupant) -> None:
        """A job that got its first seat, or new facts about one."""
        job = occupant.job
        old = self.occupants.get(job)
        if old is not None and old == occupant:
            return
        self._tell(job, old is not None)
        self._stale.add(job)
        self.occupants[job] = occupant
        if old is None:
            self._seats[job] = {}
            self._width[job] = [0, 0, 0]
            self._join(occupant)
            return
        assert old.array == occupant.array, "an array stays one"
        self._forget(old)
        self._join(occupant)
        for seat in self._seats[job].values():
            self._note(occupant, seat)

    def drop(self, job: JobId) -> None:
        """It holds nothing any more; its seats go with it."""
        for seat in list(self._seats.get(job, {}).values()):
            self.unseat(seat)
        occupant = self.occupants.pop(job, None)
        if occupant is not None:
            self._forget(occupant)
        self._seats.pop(job, None)
        self._width.pop(job, None)
        self._stale.add(job)
        self._tell(job, True)

    def seat(self, allocation: Allocation) -> None:
        """A live replica of an occupant, or its new state."""
        job = allocation.job
        seats = self._seats[job]
        if allocation.id not in seats:
            self._widen(allocation, 1)
            self._stale.add(job)
        seats[allocation.id] = allocation
        self._place(allocation)
        self._note(self.occupants[job], allocation)
        self._tell(job, False)

    def unseat(self, allocation: Allocation) -> None:
        job = allocation.job
        found = self._seats.get(job, {}).pop(allocation.id, None)
        if found is None:
            return
        here = self._on[found.node]
        del here[found.id]
        if not here:
            del self._on[found.node]
        self._leaving.pop(found.id, None)
        self._dirty[found.id] = found
        self._widen(found, -1)
        self._stale.add(job)
        self._cheaper.add(job)
        self._tell(job, True)

    def settle_ahead(self) -> None:
        """Bring the ledger up to date now, so that a search finds it so: called each second. While
        so much changes that searches are rare beside it, that is left to them."""
        waiting = len(self._dirty)
        if self.memo is not None or waiting - self._unsettled < FEW_CHANGES:
            self.settle()
        self._unsettled = len(self._dirty)

    def settle(self) -> None:
        """Bring the ledger up to date, before it is read."""
        ledger = self.ledger
        for id, seat in self._dirty.items():
            if id not in self._seats.get(seat.job, ()):
                self._strike(id)
        for job in self._stale:
            self._settle_terms(job)
        for id, seat in self._dirty.items():
            now = self._seats.get(seat.job, {}).get(id)
            if now is not None:
                ledger.seat(now, self._term_of(now), id in self._leaving)
        for job in self._cheaper:
            if job in self.occupants and not self.occupants[job].array:
                ledger.touch(self._seats[job])
        self._dirty.clear()
        self._stale.clear()
        self._cheaper.clear()

    def seats(self, job: JobId) -> Iterable[Allocation]:
        return self._seats.get(job, {}).values()

    def of(self, queue: QueueName) -> Mapping[tuple[Priority, int], Iterable[JobId]]:
        """The jobs of a queue that hold something, by class and niceness."""
        return self._of.get(queue, {})

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
        return Width(*self._width[job])

    def _place(self, seat: Allocation) -> None:
        here = self._on.get(seat.node)
        if here is None:
            self._on[seat.node] = {seat.id: seat}
        else:
            here[seat.id] = seat

    def _join(self, occupant: Occupant) -> None:
        among = self._of.get(occupant.queue)
        if among is None:
            among = self._of[occupant.queue] = {}
        key = occupant.priority, occupant.nice
        alike = among.get(key)
        if alike is None:
            alike = among[key] = {}
        alike[occupant.job] = None

    def _forget(self, occupant: Occupant) -> None:
        among = self._of[occupant.queue]
        alike = among[occupant.priority, occupant.nice]
        del alike[occupant.job]
        if not alike:
            del among[occupant.priority, occupant.nice]
        if not among:
            del self._of[occupant.queue]

    def _tell(self, job: JobId, freed: bool) -> None:
        for touched in self._watchers:
            touched(job, freed)

    def _widen(self, seat: Allocation, sign: int) -> None:
        width, r = self._width[seat.job], seat.request
        width[0] += sign
        width[1] += sign * r.gpus_milli
        width[2] += sign * r.cpus_milli

    def _note(self, occupant: Occupant, seat: Allocation) -> None:
        self._dirty[seat.id] = seat
        if occupant.stopping or seat.state is AllocationState.STOPPING:
            self._leaving[seat.id] = seat
        else:
            self._leaving.pop(seat.id, None)

    # -- the ledger -----------------------------------------------------------------------------

    def _strike(self, id: AllocationId) -> None:
        """A seat that is no more."""
        if self.ledger.has(id):
            self.ledger.unseat(id)
        task = self._task_term.pop(id, None)
        if task is not None:
            self.ledger.drop_term(task)

    def _settle_terms(self, job: JobId) -> None:
        occupant, term = self.occupants.get(job), self._term.get(job)
        if occupant is None or occupant.array:
            if term is not None:
                self.ledger.drop_term(self._term.pop(job))
            return
        now = terms(occupant, self.width(job), self._standing(occupant))
        if term is None:
            self._term[job] = self.ledger.new_term(now)
        else:
            self.ledger.set_term(term, now)

    def _term_of(self, seat: Allocation) -> int:
        occupant = self.occupants[seat.job]
        if not occupant.array:
            return self._term[seat.job]
        own = task_terms(occupant, seat, self._standing(occupant))
        term = self._task_term.get(seat.id)
        if term is None:
            term = self._task_term[seat.id] = self.ledger.new_term(own)
        else:
            self.ledger.set_term(term, own)
        return term

    def _standing(self, occupant: Occupant) -> int:
        return self.ledger.standing(occupant.queue, occupant.priority, occupant.nice)
