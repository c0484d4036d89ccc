"""Jobs that fare alike in a round: what one of them is told goes for all of its shape."""

from collections.abc import Callable, Hashable

from hyperion.control.lending import may_borrow
from hyperion.control.occupancy import queue_of
from hyperion.model.job import Job
from hyperion.placement.demand import demand_key
from hyperion.placement.fairness import Need

SHAPES_REMEMBERED = 65_536


class Shapes:
    def __init__(self, need_of: Callable[[Job], Need]) -> None:
        self._need_of = need_of
        self._known: dict[Hashable, tuple[int, Need]] = {}
        self._last = 0

    def of(self, job: Job) -> tuple[int, Need]:
        """Its shape, and what its quota must admit for it to start. The shape is a small number,
        for it is looked up all the time."""
        labels = tuple(sorted(job.metadata.items())) if job.metadata else ()
        borrows = may_borrow(job)  # what standbys lend is there for some and not for others
        key = (demand_key(job), job.priority, job.nice, queue_of(job), job.user, labels, borrows)
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= SHAPES_REMEMBERED:
                self._known.clear()  # those still waiting keep their old numbers
            self._last += 1
            known = self._known[key] = self._last, self._need_of(job)
        return known
