"""The real clock: wall time that never goes backwards while the process lives."""

import time


class WallClock:
    """Reads the wall once, then counts time elapsed, sleep of the machine included.

    So a step of the system's clock (NTP, an operator) neither ends leases nor stretches them; it
    is taken in at the next start.
    """

    def __init__(self) -> None:
        self._offset_ns = time.time_ns() - _elapsed_ns()

    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        return (self._offset_ns + _elapsed_ns()) // 1_000_000


def _elapsed_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
