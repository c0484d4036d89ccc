"""What ``bench/gpu_preempt.py`` is made of: logic that any device runs, and two devices.

Only ``cuda`` imports torch, and only in processes that it starts; nothing here imports what the
core does not bring along, so that the GPU machine needs no more than torch and this repository.
"""

import importlib.util
import sys
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "src"

if importlib.util.find_spec("hyperion") is None:
    sys.path.append(str(SOURCE))
