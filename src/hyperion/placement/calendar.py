"""What time forbids: windows that close nodes, and starts promised to others.

A calendar belongs to one ``Running``, whose jobs' ends it counts on. All it says is exact as long
as those ends are, and errs on the side of the promise where GPUs are shared: each share of a GPU is
taken to need a whole one of its own, or to keep one from being whole again.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Hashable, Iterable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from hyperion.model.allocation import Allocation
from hyperion.model.ids import JobId, NodeId, WindowId
from hyperion.model.job import Job
from hyperion.model.resources import MILLI
from hyperion.model.window import Window
from hyperion.placement.planner import Withheld
from hyperion.placement.promises import Booked, Kept, Promise, Promises, Span
from hyperion.placement.running import Running
from hyperion.placement.snapshot import Snapshot
from hyperion.placement.timeline import UNKNOWN_MS, Timeline

__all__ = ["Calendar", "Promise"]

MOST_WINDOWS = 1024


class Calendar:
    """The planner's view of the future; it changes only when it is told of windows and promises."""

    def __init__(self, running: Running, unknown_ms: int = UNKNOWN_MS) -> None:
        self.timeline = Timeline(running, unknown_ms)
        self.unknown_ms = unknown_ms
        self.windows: dict[WindowId, Window] = {}
        self.reserved = Promises(unknown_ms)
        self._begins: list[int] = []
        self._ends: list[int] = []
        self._by_begin: list[Window] = []
        self._closing_memo: dict[object, tuple[WindowId, ...]] = {}
        self._masks: dict[WindowId, NDArray[np.bool_]] = {}
        self._masks_for: tuple[Snapshot, int] | None = None

    # -- windows ----------------------------------------------------------------------------------

    def put_window(self, window: Window) -> bool:
        """Kept, or there are too many. A known id is replaced."""
        if len(self.windows) >= MOST_WINDOWS and window.id not in self.windows:
            return False
        self.windows[window.id] = window
        self._windows_changed()
        return True

    def drop_window(self, id: WindowId) -> None:
        if self.windows.pop(id, None) is not None:
            self._windows_changed()

    def over(self, job: Job, now_ms: int) -> bool:
        """Whether the job's reservation can no more be met: it has ended, or never was."""
        if not job.reservation:
            return False
        window = self.windows.get(job.reservation)
        return window is None or window.ends_at_ms <= now_ms

    def stopped_by(
        self, now_ms: int, allocations: Iterable[Allocation], jobs: Mapping[JobId, Job]
    ) -> Iterator[tuple[Allocation, WindowId]]:
        """The allocations that must not run any longer, each with the window that says so.

        Those on the nodes of a window that has begun and does not admit their job, and those whose
        own reservation has ended. A job that ``jobs`` does not have is admitted nowhere.
        """
        begun: dict[NodeId, list[Window]] = {}
        for window in self._by_begin[: bisect_right(self._begins, now_ms)]:
            if window.ends_at_ms > now_ms:
                for node in window.nodes:
                    begun.setdefault(node, []).append(window)
        for allocation in allocations:
            job = jobs.get(allocation.job)
            if job is not None and self.over(job, now_ms):
                yield allocation, job.reservation
                continue
            for window in begun.get(allocation.node, ()):
                if job is None or not window.admits(job):
                    yield allocation, window.id
                    break

    # -- promises ---------------------------------------------------------------------------------

    @property
    def promises(self) -> Mapping[JobId, Promise]:
        return self.reserved.by_job

    def promise(self, promise: Promise) -> bool:
        """Kept, or there are too many (``MOST_PROMISES``). One of the same job is replaced."""
        return self.reserved.put(promise)

    def withdraw(self, job: JobId) -> None:
        """It has started, or waits no more."""
        self.reserved.drop(job)

    def lasts_to_ms(self, promise: Promise, now_ms: int) -> int:
        """When its job would end; one that is late begins as soon as it can."""
        lasts_ms = self.reserved.ends_ms(promise) - promise.at_ms
        return max(promise.at_ms, now_ms) + lasts_ms

    def overdue(self, running: Running, now_ms: int) -> tuple[JobId, ...]:
        """The guests that have outstayed: they started on the places of a promise after it was
        made, their estimate is over, and its time has come. Stopping them lets it start. The tasks
        of an array are no guests of the next of them."""
        late: set[JobId] = set()
        for promise in self.promises.values():
            if promise.at_ms > now_ms:
                continue
            for node in dict.fromkeys(node for node, _ in promise.seats):
                for seat in running.on(node):
                    started_ms, ends_ms = self.timeline.told(seat)
                    if (
                        ends_ms <= now_ms
                        and seat.job != promise.job
                        and started_ms >= promise.made_at_ms
                        and running.occupants[seat.job].priority <= promise.priority
                        and not running.leaves(seat)
                    ):
                        late.add(seat.job)
        return tuple(sorted(late))

    # -- the planner's view -----------------------------------------------------------------------

    def mark(self, job: Job, ends_at_ms: int, now_ms: int) -> Hashable:
        """Equal where ``closed`` and ``withheld`` are; small, and found by bisection."""
        ends_ms = self._ends_ms(ends_at_ms, now_ms)
        windows = self._closing(job, now_ms, ends_ms)
        own = (job.reservation, self._inside(job, ends_at_ms, now_ms)) if job.reservation else None
        count = self.reserved.count_before(ends_ms)
        if not count:
            return windows, own
        mine = job.id if job.id in self.promises else None
        edition = self.reserved.edition
        bound = job.priority, _shares(job), mine
        return windows, own, count, bound, edition, self.timeline.freed, now_ms

    def closed(
        self, snapshot: Snapshot, job: Job, ends_at_ms: int, now_ms: int
    ) -> NDArray[np.bool_] | None:
        """By row: True where a replica that runs until then must not be started now."""
        return self.closed_then(snapshot, job, ends_at_ms, now_ms, now_ms)

    def withheld(
        self, snapshot: Snapshot, job: Job, ends_at_ms: int, now_ms: int
    ) -> Mapping[int, Withheld]:
        """By row: what must stay free beside a replica that runs until then."""
        return self.withheld_at(snapshot, job, ends_at_ms, now_ms, now_ms)

    # -- the same, for a start in the future ------------------------------------------------------

    def closed_at(
        self, snapshot: Snapshot, job: Job, ends_at_ms: int, begins_ms: int
    ) -> NDArray[np.bool_] | None:
        ends_ms = self._ends_ms(ends_at_ms, begins_ms)
        closed: NDArray[np.bool_] | None = None
        for id in self._closing(job, begins_ms, ends_ms):
            mask = self._mask(snapshot, id)
            closed = mask.copy() if closed is None else closed | mask
        if job.reservation:
            if not self._inside(job, ends_at_ms, begins_ms):
                return np.ones(snapshot.rows, np.bool_)
            outside = ~self._mask(snapshot, job.reservation)
            closed = outside if closed is None else closed | outside
        return closed

    def closed_then(
        self, snapshot: Snapshot, job: Job, ends_at_ms: int, begins_ms: int, now_ms: int
    ) -> NDArray[np.bool_] | None:
        """``closed_at`` on a snapshot as it is at that time: also the rows where a share of a GPU
        might keep one from being whole again that is promised."""
        closed = self.closed_at(snapshot, job, ends_at_ms, begins_ms)
        if not _shares(job):
            return closed
        kept = self.kept_at(snapshot, job, ends_at_ms, begins_ms, now_ms)
        if kept is not None:
            closed = np.zeros(snapshot.rows, np.bool_) if closed is None else closed
            closed[kept.rows[kept.shared > snapshot.whole[kept.rows]]] = True
        return closed

    def withheld_at(
        self, snapshot: Snapshot, job: Job, ends_at_ms: int, begins_ms: int, now_ms: int
    ) -> Mapping[int, Withheld]:
        kept = self.kept_at(snapshot, job, ends_at_ms, begins_ms, now_ms)
        if kept is None:
            return {}
        binding = self.binding(snapshot, job, ends_at_ms, begins_ms, now_ms)
        custom = self._custom(snapshot, binding, Span(begins_ms, now_ms))
        some = np.flatnonzero(kept.amounts.any(axis=0))
        found = {}
        for row, (cpus, memory, disk, gpus) in zip(
            kept.rows[some].tolist(), kept.amounts[:, some].T.tolist(), strict=True
        ):
            found[row] = Withheld(cpus, memory, disk, gpus, custom.pop(row, ()))
        for row, amounts in custom.items():
            found[row] = Withheld(0, 0, 0, 0, amounts)
        return found

    def kept_at(
        self, snapshot: Snapshot, job: Job, ends_at_ms: int, begins_ms: int, now_ms: int
    ) -> Kept | None:
        """``withheld_at`` in columns, without the countables of the site's own."""
        binding = self.binding(snapshot, job, ends_at_ms, begins_ms, now_ms)
        span = Span(begins_ms, now_ms, _shares(job), job.id if _shares(job) else JobId(""))
        return self.reserved.kept(snapshot, self.timeline, binding, span)

    def binding(
        self, snapshot: Snapshot, job: Job, ends_at_ms: int, begins_ms: int, now_ms: int
    ) -> list[Booked]:
        """The promises that the job must respect if it starts then."""
        ends_ms = self._ends_ms(ends_at_ms, begins_ms)
        return self.reserved.binding(snapshot, job, begins_ms, ends_ms, now_ms)

    def next_change_ms(self, now_ms: int) -> int | None:
        """When a window begins or ends next, or a promised start comes; None: never."""
        times = [
            found[at]
            for found in (self._begins, self._ends, self.reserved.times())
            if (at := bisect_right(found, now_ms)) < len(found)
        ]
        return min(times, default=None)

    def changes_ms(self, job: Job, length_ms: int, now_ms: int) -> list[int]:
        """The times after now at which a start may become possible or impossible by itself.

        Between two of them what is closed does not change for a job of this length, and what is
        free for it only grows.
        """
        times: set[int] = set()
        for window in self.windows.values():
            times |= {window.begins_at_ms - length_ms + 1, window.ends_at_ms}
            if window.id == job.reservation:
                times |= {window.begins_at_ms, window.ends_at_ms - length_ms + 1}
        for promise in self.promises.values():
            begins = max(promise.at_ms, now_ms)
            times |= {begins - length_ms + 1, self.lasts_to_ms(promise, now_ms)}
        return sorted(t for t in times if t > now_ms)

    def copy(self) -> "Calendar":
        """For trials: the same windows and promises of its own, and the same running jobs."""
        made = Calendar.__new__(Calendar)
        made.__dict__.update(self.__dict__)
        made.windows = dict(self.windows)
        made.reserved = self.reserved.copy()
        return made

    # -- private ----------------------------------------------------------------------------------

    def _ends_ms(self, ends_at_ms: int, begins_ms: int) -> int:
        return ends_at_ms or begins_ms + self.unknown_ms

    def _windows_changed(self) -> None:
        self._by_begin = sorted(self.windows.values(), key=lambda w: (w.begins_at_ms, w.id))
        self._begins = [w.begins_at_ms for w in self._by_begin]
        self._ends = sorted(w.ends_at_ms for w in self._by_begin)
        self._closing_memo = {}
        self._masks = {}

    def _closing(self, job: Job, begins_ms: int, ends_ms: int) -> tuple[WindowId, ...]:
        """The windows that overlap [begins, ends) and do not admit the job, in their order."""
        if not self.windows:
            return ()
        begun = bisect_left(self._begins, ends_ms)
        ended = bisect_right(self._ends, begins_ms)
        key = (begun, ended, job.queue, job.user)
        found = self._closing_memo.get(key)
        if found is None:
            if len(self._closing_memo) >= MOST_WINDOWS:
                self._closing_memo.clear()
            found = self._closing_memo[key] = tuple(
                w.id for w in self._by_begin[:begun]
                if w.ends_at_ms > begins_ms and not w.admits(job)
            )  # fmt: skip
        return found

    def _inside(self, job: Job, ends_at_ms: int, begins_ms: int) -> bool:
        """Whether the job may use its reservation for that time."""
        window = self.windows.get(job.reservation)
        return (
            window is not None
            and window.admits(job)
            and window.begins_at_ms <= begins_ms < window.ends_at_ms
            and ends_at_ms <= window.ends_at_ms
        )

    def _mask(self, snapshot: Snapshot, id: WindowId) -> NDArray[np.bool_]:
        if self._masks_for is None or (
            self._masks_for[0] is not snapshot or self._masks_for[1] != snapshot.structure
        ):
            self._masks_for = (snapshot, snapshot.structure)
            self._masks = {}
        found = self._masks.get(id)
        if found is None:
            found = self._masks[id] = np.zeros(snapshot.rows, np.bool_)
            row = snapshot.row
            found[[row[n] for n in self.windows[id].nodes if n in row]] = True
        return found

    def _custom(
        self, snapshot: Snapshot, binding: list[Booked], span: Span
    ) -> dict[int, tuple[tuple[str, int], ...]]:
        """Withheld countables of the site's own; few jobs have some, so node by node."""
        nodes = {node for b in binding for node, r in b.promise.seats if r.custom}
        found = {}
        for node in sorted(nodes & snapshot.row.keys()):
            most = dict.fromkeys(
                (
                    n
                    for b in binding
                    for at, r in b.promise.seats
                    if at == node
                    for n, _ in r.custom
                ),
                0,
            )
            for name in most:
                most[name] = max(
                    self._custom_at(snapshot, binding, span, node, name, point) for point in
                    {max(span.begins_ms, b.begins_ms(span.now_ms)) for b in binding}
                )  # fmt: skip
            kept = tuple(sorted((n, a) for n, a in most.items() if a > 0))
            if kept:
                found[snapshot.row[node]] = kept
        return found

    def _custom_at(
        self, snapshot: Snapshot, binding: list[Booked], span: Span,
        node: NodeId, name: str, at_ms: int,
    ) -> int:  # fmt: skip
        """Promised at a time, less what is freed from the begin of the span until then."""
        amount = 0
        for booked in binding:
            if booked.begins_ms(span.now_ms) <= at_ms < booked.lasts_to_ms(span.now_ms):
                for where, request in booked.promise.seats:
                    if where == node:
                        amount += dict(request.custom).get(name, 0)
        for seat in snapshot.held(node):
            if seat.request.custom:
                ends_ms = self.timeline.estimate(seat, span.now_ms)
                if ends_ms is not None and span.begins_ms < ends_ms <= at_ms:
                    amount -= dict(seat.request.custom).get(name, 0)
        return amount


def _shares(job: Job) -> int:
    """How many of its replicas may want a share of a GPU."""
    requests = [*job.alternatives, *(role.resources for role in job.roles)]
    return job.replicas if any(0 < r.gpus_milli < MILLI for r in requests) else 0
