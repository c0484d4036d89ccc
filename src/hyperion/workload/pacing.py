"""Keeping what waits on a GPU short, so that a process that stands still soon has none at work.

A program launches far ahead of its GPU: when its process is frozen the GPU goes on for all that it
was given, a tenth of a second or more. Here launches wait, between two modules, until little of
what was launched before is left. The GPU never runs dry: while it does one slice the next is
there. And whoever has a part of a GPU is kept within that part of its memory.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Hashable
from typing import Any, Protocol

VARIABLE = "HYPERION_GPU_QUEUE_MS"
SHARE = "HYPERION_GPU_SHARE"
SLICES = 2
"""In flight at most; measured on an H200: with one the GPU idles between (12 % of its work is
lost), with two nothing is."""
MOST_KNOWN = 100_000
WEIGHT = 0.25
"""Of what was measured last in what is believed of a unit of work."""


class Mark(Protocol):
    """A place in the queue of a device, like a ``torch.cuda.Event``."""

    def synchronize(self) -> None:
        """Waits until the device has come there."""

    def elapsed_time(self, other: Any, /) -> float:
        """From here to ``other``, which the device has passed as well, in ms."""


class Pacer:
    """At most ``SLICES`` slices of about ``queue_ms`` / (``SLICES`` + 1) wait for one device, and
    one that is being launched.

    Time is the device's own, measured between marks and remembered for each unit of work (a
    module's forward or backward), for what is launched in an instant may take it long. A unit that
    alone takes longer than a slice cannot be cut: it counts whole.
    """

    def __init__(self, queue_ms: float, mark: Callable[[], Mark]) -> None:
        self.slice_ms = queue_ms / (SLICES + 1)
        """0: launches do not wait."""
        self._mark = mark
        self._marks: deque[tuple[Mark, list[Hashable]]] = deque()
        self._last: Mark | None = None
        """The newest mark that the device has passed."""
        self._open: list[Hashable] = []
        """Units launched since the newest mark."""
        self._open_ms = 0.0
        self._known: dict[Hashable, float] = {}

    def point(self, unit: Hashable) -> None:
        """All that was launched since the last point belongs to this unit."""
        if self.slice_ms <= 0:
            return
        self._open.append(unit)
        self._open_ms += self._known.get(unit, self.slice_ms)
        if self._open_ms < self.slice_ms:
            return
        self._marks.append((self._mark(), self._open))
        self._open, self._open_ms = [], 0.0
        while len(self._marks) > SLICES:
            self._pass()

    def _pass(self) -> None:
        mark, units = self._marks.popleft()
        mark.synchronize()
        if self._last is not None:
            self._learn(units, self._last.elapsed_time(mark))
        self._last = mark

    def _learn(self, units: list[Hashable], took_ms: float) -> None:
        """What is measured of several units is dealt to them as they were believed to take."""
        if len(self._known) > MOST_KNOWN:
            self._known.clear()
        believed_ms = sum(self._known.get(unit, self.slice_ms) for unit in units)
        for unit in units:
            before = self._known.get(unit)
            share = (self.slice_ms if before is None else before) / believed_ms
            measured_ms = took_ms * share
            kept = measured_ms if before is None else before + WEIGHT * (measured_ms - before)
            self._known[unit] = max(kept, 1e-6)


def wanted(environment: Any, name: str, most: float, unit: str) -> float:
    """What the job's node wants; 0: nothing. ValueError where it is not from 0 to ``most``."""
    said = environment.get(name) or "0"
    try:
        value = float(said)
    except ValueError:
        value = -1.0
    if not 0 <= value <= most:
        raise ValueError(f"{name}={said}: expected {unit} from 0 to {most:g}")
    return value


class Pacing:
    """The pacers of a process that uses torch, one for each of its GPUs, and the hooks that call
    them: after each module's forward, before each module's backward, after an optimizer's step.
    With ``share`` torch takes no more than that part of a GPU's memory from the first of these on.

    The current stream counts; what a CUDA graph or a compiled module launches is one unit.
    """

    def __init__(self, torch: Any, queue_ms: float, share: float = 0.0) -> None:
        self._torch = torch
        self.queue_ms = queue_ms
        self.share = share
        self._pacers: dict[int, Pacer] = {}
        self._works = True

    def install(self) -> None:
        from torch.nn.modules.module import (  # type: ignore[import-not-found,unused-ignore]
            register_module_forward_hook,
        )
        from torch.optim.optimizer import (  # type: ignore[import-not-found,unused-ignore]
            register_optimizer_step_post_hook,
        )

        register_module_forward_hook(self._after_module)
        register_optimizer_step_post_hook(lambda optimizer, *_: self.point(id(optimizer)))

    def set_queue_ms(self, queue_ms: float) -> None:
        self.queue_ms = queue_ms
        for pacer in self._pacers.values():
            pacer.slice_ms = queue_ms / (SLICES + 1)

    def point(self, unit: Hashable) -> None:
        if not self._works:
            return
        try:
            self._point(unit)
        except Exception as error:  # The program is not to fail for it.
            self._works = False
            print(f"hyperion: launches are not paced any more: {error!r}", file=sys.stderr)

    def _point(self, unit: Hashable) -> None:
        cuda = self._torch.cuda
        if not cuda.is_initialized() or cuda.is_current_stream_capturing():
            return
        device = cuda.current_device()
        pacer = self._pacers.get(device)
        if pacer is None:
            pacer = self._pacers[device] = Pacer(self.queue_ms, self._mark)
            if self.share:
                cuda.set_per_process_memory_fraction(self.share, device)
        pacer.point(unit)

    def _mark(self) -> Mark:
        mark = self._torch.cuda.Event(enable_timing=True, blocking=True)
        mark.record()
        return mark  # type: ignore[no-any-return]

    def _after_module(self, module: Any, _: Any, output: Any) -> None:
        if self._torch.compiler.is_compiling():
            return
        unit = id(module)
        self.point(unit)
        if not self.queue_ms:
            return
        node = getattr(_first_tensor(output), "grad_fn", None)
        if node is not None:
            node.register_prehook(lambda _: self.point(("backward", unit)))


def _first_tensor(output: Any) -> Any:
    """Of a module's output, however it is wrapped; None where there is none."""
    for _ in range(8):
        if isinstance(output, dict):
            output = list(output.values())
        if isinstance(output, (list, tuple)):
            if not output:
                return None
            output = output[0]
        else:
            return output
    return None


active: Pacing | None = None
"""Of this process."""


def install(torch: Any, environment: Any) -> Pacing | None:
    """Where the environment wants it. A wrong wish is said, and the program runs on unpaced."""
    global active  # noqa: PLW0603  # one for the process
    try:
        queue_ms = wanted(environment, VARIABLE, 1000, "milliseconds")
        share = wanted(environment, SHARE, 1, "a part")
        if not (queue_ms or share) or not torch.cuda.is_available():
            return None
        pacing = Pacing(torch, queue_ms, share)
        pacing.install()
        active = pacing
    except Exception as error:
        print(f"hyperion: launches are not paced: {error}", file=sys.stderr)
        return None
    return pacing
