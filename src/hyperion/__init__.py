"""Hyperion-X: the operating system for AI compute."""

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """`hyperion.step`, `hyperion.loop` and their like; imported only when asked for."""
    if not name.startswith("_"):
        from hyperion import workload

        if name in workload.NAMES:
            return getattr(workload, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
