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
    asked_ms: int = 0
    """So much longer it may take, since victims come to a stand by themselves."""
    failed: str = ""
    """Why somebody did not stand still."""

    @property
    def missed(self) -> bool:
        took_ms = self.free_at_ms - self.ordered_at_ms
        late = self.free_at_ms and took_ms > PROMISED_MS + self.asked_ms
        return bool(self.failed or late)


class Freezing(Struct, frozen=True):
    """One replica, by its node's own clock."""

    node: NodeId
    freeze: Freeze


class Miss(Struct, frozen=True, kw_only=True):
    """A time that the promise was not kept, and what is known of why."""

    at_ms: int
    job: JobId
    """Who had to wait for it; of a standby the standby."""
    node: NodeId = NodeId("")
    """Empty: the scheduler knows only that it came late, or not at all."""
    word: str = ""
    """On a node ``called`` or ``wanted``: from when it is counted."""
    took_ms: float = 0.0
    """0: it never came."""
    why: str = ""
    stragglers: tuple[str, ...] = ()
    """Threads that were late: id, state, and where in the kernel they were."""


class Promise:
    def __init__(self) -> None:
        self.misses: deque[Miss] = deque(maxlen=MISSES_REMEMBERED)
        """The newest last."""
        self.traces: deque[Trace] = deque(maxlen=REMEMBERED)
        """The newest last."""
        self.freezes: deque[Freezing] = deque(maxlen=REMEMBERED)
        self.settlings: deque[Freezing] = deque(maxlen=REMEMBERED)
        """Of programs that stand at the end of a step, once that is written."""
        self.activations: deque[Freezing] = deque(maxlen=REMEMBERED)
        """Of standbys: from when it was known at the node that one is wanted."""
        self._open: dict[JobId, Trace] = {}

    def ordered(
        self,
        job: JobId,
        victims: tuple[JobId, ...],
        submitted_at_ms: int,
        now_ms: int,
        asked_ms: int = 0,
    ) -> None:
        trace = Trace(
            job=job,
            victims=victims,
            submitted_at_ms=submitted_at_ms,
            ordered_at_ms=now_ms,
            asked_ms=asked_ms,
        )
        if len(self._open) >= REMEMBERED:
            del self._open[next(iter(self._open))]
        self._open[job] = trace
        self.traces.append(trace)

    def froze(self, node: NodeId, job: JobId, freeze: Freeze, now_ms: int) -> None:
        """A victim of the job stands still."""
        self.freezes.append(Freezing(node, freeze))
        if not freeze.at:  # how long a program takes to its next step is its own affair
            self._note_late("called", node, job, freeze, now_ms)

    def settled(self, node: NodeId, freeze: Freeze) -> None:
        """A victim that stands at the end of its step has written that."""
        self.settlings.append(Freezing(node, freeze))

    def activated(self, node: NodeId, job: JobId, freeze: Freeze, now_ms: int) -> None:
        """All on the guard of a standby stand still."""
        self.activations.append(Freezing(node, freeze))
        self._note_late("wanted", node, job, freeze, now_ms)

    def _note_late(self, word: str, node: NodeId, job: JobId, freeze: Freeze, now_ms: int) -> None:
        took_ms = freeze.confirmed_us / 1000
        if not took_ms or took_ms > PROMISED_MS:
            self.misses.append(
                Miss(
                    at_ms=now_ms,
                    job=job,
                    node=node,
                    word=word,
                    took_ms=took_ms,
                    why=freeze.how,
                    stragglers=freeze.stragglers,
                )
            )

    def free(self, job: JobId, now_ms: int) -> None:
        trace = self._open.get(job)
        if trace is not None:
            trace.free_at_ms = now_ms
            if trace.missed:
                took_ms = float(now_ms - trace.ordered_at_ms)
                why = "from the order until all of it was heard of"
                self.misses.append(Miss(at_ms=now_ms, job=job, took_ms=took_ms, why=why))

    def failed(self, job: JobId, reason: str, now_ms: int) -> None:
        trace = self._open.pop(job, None)
        if trace is not None:
            trace.failed = reason
            self.misses.append(Miss(at_ms=now_ms, job=job, why=reason))

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
