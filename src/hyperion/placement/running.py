"""The jobs that hold nodes, as those see them that wait: what stopping one costs, when it ends."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from hyperion.model.allocation import Allocation, AllocationState
from hyperion.model.ids import AllocationId, JobId, NodeId, QueueName
from hyperion.model.job import Priority
from hyperion.placement.ledger import Ledger
from hyperion.placement.occupant import Occupant, Width
from hyperion.placement.regret import Terms, task_terms, terms

__all__ = ["Occupant", "Running", "Width"]


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
        self._width: dict[JobId, Width] = {}
        self._term: dict[JobId, int] = {}
        self._task_term: dict[AllocationId, int] = {}
        self._cheaper: set[JobId] = set()
        """Jobs whose regret fell since the ledger was settled."""
        self._watchers: list[Callable[[JobId, bool], object]] = []

    def watch(self, touched: Callable[[JobId, bool], object]) -> None:
        """Tell of every change: the job, and whether places may have become free, or be later."""
        self._watchers.append(touched)

    def put(self, occupant: Occupant) -> None:
        """A job that got its first seat, or new facts about one."""
        job = occupant.job
        old = self.occupants.get(job)
        if old == occupant:
            return
        self._tell(job, old is not None)
        if old is not None:
            self._forget(old)
        self.occupants[job] = occupant
        among = self._of.setdefault(occupant.queue, {})
        among.setdefault((occupant.priority, occupant.nice), {})[job] = None
        seats = self._seats.setdefault(job, {})
        if old is None:
            self._width[job] = Width()
            if not occupant.array:
                self._term[job] = self.ledger.new_term(self._terms(occupant))
            return
        assert old.array == occupant.array, "an array stays one"
        if not occupant.array:
            self.ledger.set_term(self._term[job], self._terms(occupant))
        for seat in seats.values():
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
        self._cheaper.discard(job)
        term = self._term.pop(job, None)
        if term is not None:
            self.ledger.drop_term(term)
        self._tell(job, True)

    def seat(self, allocation: Allocation) -> None:
        """A live replica of an occupant, or its new state."""
        job = allocation.job
        occupant, seats = self.occupants[job], self._seats[job]
        if allocation.id not in seats:
            r, w = allocation.request, self._width[job]
            self._width[job] = Width(
                w.replicas + 1, w.gpus_milli + r.gpus_milli, w.cpus_milli + r.cpus_milli
            )
            if not occupant.array:
                self.ledger.set_term(self._term[job], self._terms(occupant))
        seats[allocation.id] = allocation
        self._on.setdefault(allocation.node, {})[allocation.id] = allocation
        self._note(occupant, allocation)
        self._tell(job, False)

    def unseat(self, allocation: Allocation) -> None:
        found = self._seats.get(allocation.job, {}).pop(allocation.id, None)
        if found is None:
            return
        here = self._on[found.node]
        del here[found.id]
        if not here:
            del self._on[found.node]
        self._leaving.pop(found.id, None)
        self.ledger.unseat(found.id)
        r, w = found.request, self._width[found.job]
        self._width[found.job] = Width(
            w.replicas - 1, w.gpus_milli - r.gpus_milli, w.cpus_milli - r.cpus_milli
        )
        task = self._task_term.pop(found.id, None)
        if task is not None:
            self.ledger.drop_term(task)
        else:
            occupant = self.occupants[found.job]
            self.ledger.set_term(self._term[found.job], self._terms(occupant))
            self._cheaper.add(found.job)
        self._tell(found.job, True)

    def settle(self) -> None:
        """Tell the ledger of jobs that have become cheaper: once, not with every seat they lost."""
        for job in self._cheaper:
            self.ledger.touch(self._seats[job])
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
        return self._width[job]

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

    def _terms(self, occupant: Occupant) -> Terms:
        standing = self.ledger.standing(occupant.queue, occupant.priority, occupant.nice)
        return terms(occupant, self._width[occupant.job], standing)

    def _note(self, occupant: Occupant, seat: Allocation) -> None:
        leaves = occupant.stopping or seat.state is AllocationState.STOPPING
        if leaves:
            self._leaving[seat.id] = seat
        else:
            self._leaving.pop(seat.id, None)
        term = self._term.get(occupant.job)
        if term is None:
            standing = self.ledger.standing(occupant.queue, occupant.priority, occupant.nice)
            own = task_terms(occupant, seat, standing)
            term = self._task_term.get(seat.id)
            if term is None:
                term = self._task_term[seat.id] = self.ledger.new_term(own)
            else:
                self.ledger.set_term(term, own)
        self.ledger.seat(seat, term, leaves)
