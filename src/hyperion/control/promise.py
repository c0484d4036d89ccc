"""How well the promise of pausing is kept: what each pause took, step by step. Soft state.

Times are the scheduler's own, in ms; what happens within a node is told by its agent in µs.
"""

from collections import deque

from msgspec import Struct

from hyperion.model.allocation import Freeze
from hyperion.model.ids import JobId, NodeId

REMEMBERED = 10_000
PROMISED_MS = 50
"""From the order to stand still until the CPUs are free."""
MISSES_REMEMBERED = 32


class Trace(Struct, kw_only=True):
    """One urgent job and those that stood still for it. A time of 0 has not come (yet)."""

    job: JobId
    victims: tuple[JobId, ...]
    submitted_at_ms: int
    ordered_at_ms: int
    """The victims were chosen, and told to stand still."""
    free_at_ms: int = 0
    """All of them stood still; the urgent job was told to run."""
    running_at_ms: int = 0
    resumed_at_ms: int = 0
    """The victims were told to go on."""
    failed: str = ""
    """Why somebody did not stand still."""

    @property
    def missed(self) -> bool:
        late = self.free_at_ms and self.free_at_ms - self.ordered_at_ms > PROMISED_MS
        return bool(self.failed or late)


class Freezing(Struct, frozen=True):
    """One replica, by its node's own clock."""

    node: NodeId
    freeze: Freeze


class Promise:
    def __init__(self) -> None:
        self.traces: deque[Trace] = deque(maxlen=REMEMBERED)
        """The newest last."""
        self.freezes: deque[Freezing] = deque(maxlen=REMEMBERED)
        self.activations: deque[Freezing] = deque(maxlen=REMEMBERED)
        """Of standbys: from when it was known at the node that one is wanted."""
        self._open: dict[JobId, Trace] = {}

    def ordered(
        self, job: JobId, victims: tuple[JobId, ...], submitted_at_ms: int, now_ms: int
    ) -> None:
        trace = Trace(
            job=job, victims=victims, submitted_at_ms=submitted_at_ms, ordered_at_ms=now_ms
        )
        if len(self._open) >= REMEMBERED:
            del self._open[next(iter(self._open))]
        self._open[job] = trace
        self.traces.append(trace)

    def froze(self, node: NodeId, freeze: Freeze) -> None:
        self.freezes.append(Freezing(node, freeze))

    def activated(self, node: NodeId, freeze: Freeze) -> None:
        self.activations.append(Freezing(node, freeze))

    def free(self, job: JobId, now_ms: int) -> None:
        trace = self._open.get(job)
        if trace is not None:
            trace.free_at_ms = now_ms

    def failed(self, job: JobId, reason: str) -> None:
        trace = self._open.pop(job, None)
        if trace is not None:
            trace.failed = reason

    def runs(self, job: JobId, now_ms: int) -> None:
        trace = self._open.get(job)
        if trace is not None and not trace.running_at_ms:
            trace.running_at_ms = now_ms

    def resumed(self, job: JobId, now_ms: int) -> None:
        trace = self._open.pop(job, None)
        if trace is not None:
            trace.resumed_at_ms = now_ms

    @property
    def watches(self) -> bool:
        """Whether anybody's start is still to be noted."""
        return bool(self._open)
