"""The random generators of a process: what they would give next, and how to set them so again."""

from __future__ import annotations

import random
import sys
from typing import Any


def capture() -> dict[str, Any]:
    """Of Python, and of NumPy and torch (with its GPUs) where the program has imported them."""
    version, numbers, gauss = random.getstate()
    out: dict[str, Any] = {"python": [version, list(numbers), gauss]}
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if numpy is not None and hasattr(numpy, "random"):
        name, keys, at, has_gauss, cached = numpy.random.get_state()
        out["numpy"] = [name, keys, at, has_gauss, cached]
    if torch is not None and hasattr(torch, "get_rng_state"):
        out["torch"] = torch.get_rng_state()
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            out["cuda"] = list(torch.cuda.get_rng_state_all())
    return out


def throw_again(state: dict[str, Any]) -> None:
    """Set them to what they were. What the program does not use any more is left out."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if numpy is not None and "numpy" in state:
        numpy.random.set_state(tuple(state["numpy"]))
    if torch is not None and "torch" in state:
        torch.set_rng_state(state["torch"])
        if "cuda" in state and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(state["cuda"])
