"""Ends a policy that takes too long: SIGALRM raises ``TooLate`` in it, on the main thread.

Python runs signal handlers on the main thread between two steps of its bytecode, and there the
event loop runs, which steps the machine, which asks the policy. The timer runs only meanwhile, so
nothing else can be hit, and the handler and a timer that were there before are put back: asyncio
knows nothing of it. What cannot be ended are C code that does not return, and a policy that
catches ``BaseException`` again and again.
"""

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

from hyperion.placement.ranking import TooLate

AGAIN_S = 0.01
"""It rings again so often, for a policy that swallowed the first one."""


class Alarm:
    """The ``Budget`` of one policy: so much time in a round, all its answers together."""

    __slots__ = ("_armed", "_before", "_left_s", "_since", "limit_ms")

    def __init__(self, limit_ms: float) -> None:
        self.limit_ms = limit_ms
        self._left_s = limit_ms / 1e3
        self._since = 0.0
        self._armed = False
        self._before: tuple[Any, tuple[float, float]] = (None, (0.0, 0.0))

    def begin(self) -> None:
        self._left_s = self.limit_ms / 1e3

    def __call__(self) -> "Alarm":
        return self

    def __enter__(self) -> None:
        if self._left_s <= 0:
            raise TooLate
        handler = signal.signal(signal.SIGALRM, self._ring)
        self._since = time.monotonic()
        self._before = handler, signal.setitimer(signal.ITIMER_REAL, self._left_s, AGAIN_S)
        self._armed = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        elapsed_s = time.monotonic() - self._since
        self._left_s -= elapsed_s
        handler, (rings_in_s, every_s) = self._before
        signal.signal(signal.SIGALRM, handler)
        if rings_in_s:
            signal.setitimer(signal.ITIMER_REAL, max(1e-6, rings_in_s - elapsed_s), every_s)

    def _ring(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  a signal's two
        """Raise, unless it rang on the way in or out: ``__exit__`` must not be cut short."""
        if self._armed and (frame is None or frame.f_code not in _OWN):
            raise TooLate


_OWN = frozenset((Alarm.__enter__.__code__, Alarm.__exit__.__code__))


def alarm(limit_ms: float) -> Alarm | None:
    """An alarm; none off the main thread, where Python delivers no signals."""
    if threading.current_thread() is not threading.main_thread():
        return None
    return Alarm(limit_ms)
