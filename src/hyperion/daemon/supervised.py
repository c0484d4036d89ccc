"""One daemon over all its lives: when it died, when it is to live again, what it says of itself."""

from collections import deque
from contextlib import suppress
from pathlib import Path

from hyperion.daemon.readiness import Ready, read_ready
from hyperion.daemon.world import DaemonPlan, ProcessMark

SLOW_S = 10.0
"""Between the lives of a daemon that dies too often."""
_BACKOFF_S = 0.1
_BACKOFF_MAX_S = 5.0
_STEADY_S = 5.0
"""A life of this length is no failure to start: the next one begins without delay again."""
_TAIL_LINES = 12


class Supervised:
    """What the supervisor knows of one daemon."""

    def __init__(self, plan: DaemonPlan, log: Path) -> None:
        self.plan = plan
        self.log = log
        self.mark: ProcessMark | None = None
        self.ready: Ready | None = None
        self.was_ready = False
        self.lives = 0
        self.failures = 0
        """In a row, without a steady life between them."""
        self.deaths: deque[float] = deque(maxlen=10_000)
        self.born = 0.0
        self.next_birth = 0.0
        self.is_slowed = False

    @property
    def serves(self) -> bool:
        return self.ready is not None

    @property
    def is_settled(self) -> bool:
        """It serves and has reached the peer above it, as far as it tells."""
        return self.ready is not None and self.ready.attached is not False

    def look(self) -> bool:
        """Read what it says of itself; whether that is news."""
        if self.mark is None or self.is_settled:
            return False
        found = read_ready(self.plan.settings.state_dir, self.mark.pid)
        changed = found != self.ready
        self.ready = found
        self.was_ready = self.was_ready or found is not None
        return changed

    def died(self, now: float, limit: int) -> None:
        """Decide when it is to live again: soon, later each time, slowly when it dies too often."""
        self.mark, self.ready = None, None
        self.failures = 0 if now - self.born > _STEADY_S else self.failures + 1
        self.deaths.append(now)
        recent = sum(1 for death in self.deaths if death > now - 60)
        self.is_slowed = recent > limit
        delay = min(_BACKOFF_MAX_S, _BACKOFF_S * 2 ** min(10, max(0, self.failures - 1)))
        self.next_birth = now + (SLOW_S if self.is_slowed else delay)

    def tail(self) -> str:
        """The last lines of its log."""
        with suppress(OSError), self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - 8192))
            lines = file.read().decode(errors="replace").splitlines()[-_TAIL_LINES:]
            return "\n".join(f"    {line}" for line in lines)
        return "    (no log)"
