"""Hearing in time that this process is to end: by its node's agent, or by a signal from anybody.

SIGTERM is what Kubernetes sends after preStop, torchrun hands on to its workers, and Slurm sends at
the end of the time limit; ``HYPERION_NOTICE_SIGNALS`` names others, such as ``USR1`` for Slurm's
``--signal=USR1@60``. A handler of the program's own is left alone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

EXIT_CODE = 143
"""128 + SIGTERM: what AdaptDL, torchrun's workers and Kubernetes know as "ended as told"."""
VARIABLE = "HYPERION_NOTICE_SIGNALS"


class Notice:
    def __init__(self, by_agent_ns: Callable[[], int]) -> None:
        """``by_agent_ns``: by when the agent wants it to have ended (CLOCK_MONOTONIC); 0: not."""
        self._by_agent_ns = by_agent_ns
        self._by_signal = False
        self._listens = False
        self.callbacks: list[Callable[[], Any]] = []
        """What the user wants done before the end, in the order of their wishes."""

    @property
    def given(self) -> bool:
        return self._by_signal or self._by_agent_ns() != 0

    @property
    def left_s(self) -> float | None:
        """Until it is killed, as far as anybody has said."""
        by_ns = self._by_agent_ns()
        return None if not by_ns else max(0.0, (by_ns - time.monotonic_ns()) / 1e9)

    def listen(self) -> None:
        """From now on the first signal is a notice; the second ends the process at once."""
        if self._listens or threading.current_thread() is not threading.main_thread():
            return
        self._listens = True
        for number in _wanted(os.environ.get(VARIABLE, "TERM")):
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, self._heard)

    @contextlib.contextmanager
    def unheard(self) -> Iterator[None]:
        """Processes and threads that begin here never hear of it: signals often go to all processes
        of a job, and torch's loaders end at theirs."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _wanted(os.environ.get(VARIABLE, "TERM")))
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _heard(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self._by_signal:
            raise SystemExit(128 + number)
        self._by_signal = True

    def run_callbacks(self) -> None:
        """What one of them raises is said, and the others run all the same."""
        for callback in self.callbacks:
            try:
                callback()
            except Exception as error:
                print(f"hyperion: on_preempt: {callback!r} raised {error!r}", file=sys.stderr)


def _wanted(text: str) -> list[signal.Signals]:
    out = []
    for word in text.replace(",", " ").split():
        name = word.upper()
        with contextlib.suppress(KeyError):
            out.append(signal.Signals[name if name.startswith("SIG") else f"SIG{name}"])
    return out
