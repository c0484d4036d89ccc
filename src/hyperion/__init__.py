"""Hyperion-X: the operating system for AI compute."""

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """`hyperion.step` and `hyperion.point` in a user's program; imported only when asked for."""
    if name in ("step", "point"):
        from hyperion import workload

        return getattr(workload, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
