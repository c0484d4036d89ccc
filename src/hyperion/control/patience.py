"""Nobody waits for ever for a quota that smaller jobs keep using up.

A job that its quota refuses hides nobody: smaller ones go past it. But after so many of them have
done so, the limit that stands in its way is saved up for it: whoever needs that resource, and is
not more urgent, waits until it has had its turn, or until some time has passed, since what runs may
never end. Both bounds double each time, so that little is lost and any job that ends is outwaited.
"""

from hyperion.control.lines import Bunch, Urgency
from hyperion.placement.fairness import QueueTree
from hyperion.placement.quota import QuotaRefusal

OVERTAKEN = 100
"""So many jobs of its cohort start before one that waits, until its limit is saved up for it."""
SAVED_MS = 600_000
"""How long at most, the first time."""
MAX_DOUBLINGS = 16


class _Saving:
    """A limit that is saved up for one bunch."""

    __slots__ = ("barrier", "bunch", "until_ms")

    def __init__(self, bunch: Bunch, barrier: QuotaRefusal, until_ms: int) -> None:
        self.bunch = bunch
        self.barrier = barrier
        self.until_ms = until_ms


class Patience:
    def __init__(self, tree: QueueTree, urgencies: dict[int, Urgency]) -> None:
        self._tree = tree
        self._urgencies = urgencies
        self._savings: dict[str, _Saving] = {}
        """By the top of the cohort; one at a time in each."""

    def clear(self) -> None:
        """The tree has changed, and every gate is open."""
        self._savings.clear()

    def refused(self, bunch: Bunch, barrier: QuotaRefusal) -> None:
        """Its quota refuses the bunch at this limit."""
        branch = bunch.line.branch
        if branch is None or not barrier.resource:
            return
        top = branch.path[-1].queue.name
        saving = self._savings.get(top)
        if saving is not None and saving.bunch is bunch:
            if barrier.queue != saving.barrier.queue:
                self._open(saving)
            saving.barrier = barrier
        elif bunch.patient_at is None and self._tree.ever(bunch.line.queue, bunch.need):
            self._watch(bunch, top)

    def told(self, bunch: Bunch, now_ms: int, *, started: bool) -> None:
        """Its quota let one of the bunch go, which started or did not fit into the cluster."""
        branch = bunch.line.branch
        bunch.calm()
        bunch.doublings = 0
        if branch is None:
            return
        top = branch.path[-1].queue.name
        saving = self._savings.get(top)
        if saving is not None:
            if saving.bunch is bunch:
                self._lift(top)
            return
        for urgency in self._urgencies.values() if started else ():
            line = urgency.lines.get(top)
            if line is None or not line.patient or urgency.priority < bunch.lane.urgency.priority:
                continue
            line.admitted += 1
            first = next(iter(line.patient))
            if line.admitted - first.since >= OVERTAKEN << first.doublings:
                self._save_up(urgency, first, top, now_ms)
                return

    def gone(self, bunch: Bunch) -> None:
        """One of the bunch does not wait any more."""
        branch = bunch.line.branch
        if self._savings and branch is not None:
            top = branch.path[-1].queue.name
            saving = self._savings.get(top)
            if saving is not None and saving.bunch is bunch:
                self._lift(top)

    def expire(self, now_ms: int) -> None:
        for top, saving in list(self._savings.items()):
            if now_ms >= saving.until_ms:
                bunch = saving.bunch
                bunch.doublings = min(bunch.doublings + 1, MAX_DOUBLINGS)
                self._lift(top)
                self._watch(bunch, top)

    def held_back(self, bunch: Bunch) -> str | None:
        """The queue whose limit is saved up for somebody else; None: nothing is in its way."""
        if not self._savings or bunch.line.branch is None:
            return None
        path = bunch.line.branch.path
        saving = self._savings.get(path[-1].queue.name)
        if (
            saving is None
            or saving.bunch is bunch
            or saving.bunch.lane.urgency.priority < bunch.lane.urgency.priority
            or not any(b.queue.name == saving.barrier.queue for b in path)
            or not any(resource == saving.barrier.resource for resource, _ in bunch.need)
        ):
            return None
        return saving.barrier.queue

    def _watch(self, bunch: Bunch, top: str) -> None:
        """Count who starts before it from now on."""
        line = bunch.lane.urgency.lines[top]
        bunch.patient_at, bunch.since = line, line.admitted
        line.patient[bunch] = None

    def _save_up(self, urgency: Urgency, bunch: Bunch, top: str, now_ms: int) -> None:
        entry = bunch.heap[0] if bunch.heap else None
        barrier = entry and self._tree.barrier(
            bunch.line.queue, bunch.need, urgency.priority, entry[0]
        )
        bunch.calm()
        if barrier is not None and barrier.resource:
            until_ms = now_ms + (SAVED_MS << bunch.doublings)
            self._savings[top] = _Saving(bunch, barrier, until_ms)
            urgency.release(bunch)  # from a gate that its likes elsewhere may close

    def _lift(self, top: str) -> None:
        self._open(self._savings.pop(top))

    def _open(self, saving: _Saving) -> None:
        """Whoever was held back is looked at again."""
        for urgency in self._urgencies.values():
            line = urgency.lines.get(saving.barrier.queue)
            if line is not None:
                urgency.open(line, "", 0)
