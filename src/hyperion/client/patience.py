"""How long, and how often, a client tries again."""

import random
import time

from hyperion.client.errors import Busy, HyperionError, TimedOut, Unavailable

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
MAX_ATTEMPTS = 12
"""Of one call. A stream that delivers something starts counting anew."""


MAX_BUSY_ATTEMPTS = 4
"""A bound that has been reached is the caller's to know of before long."""


class Patience:
    """Bounds one call in attempts and in seconds."""

    def __init__(self, timeout_s: float | None) -> None:
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self._timeout_s = timeout_s
        self._attempts = 0

    def left_s(self, most_s: float | None = None) -> float | None:
        """Seconds until the deadline, at most ``most_s``; raises TimedOut when none are left."""
        if self._deadline is None:
            return most_s
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimedOut(
                f"no answer within {self._timeout_s:g} s", "give it longer, or look at its log"
            )
        return left if most_s is None else min(left, most_s)

    def pause_s(self, error: HyperionError, retry_after_s: float | None = None) -> float:
        """How long to wait before the next attempt; raises ``error`` when it was the last one."""
        self._attempts += 1
        most = MAX_BUSY_ATTEMPTS if isinstance(error, Busy) else MAX_ATTEMPTS
        if self._attempts >= most or not isinstance(error, Busy | Unavailable):
            raise error
        doubled: float = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (self._attempts - 1))
        pause = max(doubled * random.uniform(0.5, 1.0), retry_after_s or 0.0)
        if self._deadline is not None and time.monotonic() + pause >= self._deadline:
            raise error
        return pause

    def progress(self) -> None:
        """Something came; the count of attempts starts anew."""
        self._attempts = 0
