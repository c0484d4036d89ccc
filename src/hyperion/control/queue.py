"""Who waits for a place, in what order, grouped by shape so that a thousand alike cost one look."""

import heapq
from collections.abc import Hashable, Iterator

from msgspec import Struct

from hyperion.model.ids import JobId


class _Waiting(Struct):
    job: JobId
    rank: tuple[int, int]
    shape: Hashable
    not_before_ms: int


class WaitingQueue:
    """Higher priority first, then first come. A blocked shape is passed over until unblocked."""

    def __init__(self) -> None:
        self._waiting: dict[JobId, _Waiting] = {}
        self._by_shape: dict[Hashable, list[tuple[tuple[int, int], JobId]]] = {}
        """A heap per shape; entries of jobs that have left are passed over when they surface."""
        self.blocked: dict[Hashable, str] = {}
        """Shapes that did not fit, each with the reason in words if one was given."""

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, job: object) -> bool:
        return job in self._waiting

    def add(
        self, job: JobId, priority: int, order: int, shape: Hashable, not_before_ms: int = 0
    ) -> None:
        if job not in self._waiting:
            rank = (-priority, order)
            self._waiting[job] = _Waiting(job, rank, shape, not_before_ms)
            heapq.heappush(self._by_shape.setdefault(shape, []), (rank, job))

    def remove(self, job: JobId) -> None:
        gone = self._waiting.pop(job, None)
        if gone is None:
            return
        heap = self._by_shape.get(gone.shape)
        if heap is not None:
            if len(heap) > 64 and len(heap) > 2 * len(self._waiting):
                # Jobs that leave from behind one that never fits would stay in the heap for ever.
                heap[:] = [entry for entry in heap if entry[1] in self._waiting]
                heapq.heapify(heap)
            self._trim(gone.shape, heap)

    def block(self, shape: Hashable, reason: str = "") -> None:
        """Pass over the shape until ``unblock``."""
        self.blocked[shape] = reason

    def unblock(self) -> None:
        self.blocked.clear()

    def shapes_blocked(self) -> Iterator[tuple[Hashable, list[JobId]]]:
        """Each blocked shape that somebody waits for, with its first jobs in no special order."""
        for shape in list(self.blocked):
            heap = self._by_shape.get(shape)
            if heap:
                yield shape, [job for _, job in heap[:64] if job in self._waiting]

    def next_due_ms(self, now_ms: int) -> bool:
        """Whether anybody waits in a shape that is not blocked and whose time has come."""
        return any(
            shape not in self.blocked
            and any(self._waiting[j].not_before_ms <= now_ms for _, j in heap if j in self._waiting)
            for shape, heap in self._by_shape.items()
        )

    def candidates(self, now_ms: int) -> Iterator[JobId]:
        """Jobs in the order in which they are to be tried. Each is yielded once.

        The caller may remove a job, or block its shape, between two steps.
        """
        heads: list[tuple[tuple[int, int], int, Hashable]] = []
        aside: dict[Hashable, list[tuple[tuple[int, int], JobId]]] = {}
        for n, (shape, heap) in enumerate(list(self._by_shape.items())):
            if shape not in self.blocked and heap:
                heads.append((heap[0][0], n, shape))
        heapq.heapify(heads)
        seen: set[JobId] = set()  # a job that left and came back stands in the heap twice
        try:
            while heads:
                _, n, shape = heapq.heappop(heads)
                shape_heap = self._by_shape.get(shape)
                if shape in self.blocked or not shape_heap:
                    continue
                rank, job = heapq.heappop(shape_heap)
                waiting = self._waiting.get(job)
                if waiting is not None and waiting.rank == rank and job not in seen:
                    seen.add(job)
                    aside.setdefault(shape, []).append((rank, job))
                    if waiting.not_before_ms <= now_ms:
                        yield job
                shape_heap = self._by_shape.get(shape)
                if shape_heap:
                    heapq.heappush(heads, (shape_heap[0][0], n, shape))
        finally:
            self._put_back(aside)

    def position(self, job: JobId) -> int | None:
        """How many are before it, by priority and time; None when it does not wait."""
        mine = self._waiting.get(job)
        if mine is None:
            return None
        return sum(other.rank < mine.rank for other in self._waiting.values())

    def _put_back(self, aside: dict[Hashable, list[tuple[tuple[int, int], JobId]]]) -> None:
        for shape, entries in aside.items():
            heap = self._by_shape.setdefault(shape, [])
            for entry in entries:
                if entry[1] in self._waiting:
                    heapq.heappush(heap, entry)
            self._trim(shape, heap)

    def _trim(self, shape: Hashable, heap: list[tuple[tuple[int, int], JobId]]) -> None:
        while heap and heap[0][1] not in self._waiting:
            heapq.heappop(heap)
        if not heap:
            self._by_shape.pop(shape, None)
            self.blocked.pop(shape, None)
