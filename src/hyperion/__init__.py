"""Hyperion-X: the operating system for AI compute."""

__version__ = "0.1.0"

#: What a user's program finds here, from `hyperion.workload`; imported only when asked for.
_WORKLOAD = frozenset(
    {
        "checkpointed",
        "lightning_callback",
        "loop",
        "on_preempt",
        "point",
        "preempted",
        "restore",
        "resume_from",
        "step",
        "trainer_callback",
    }
)


def __getattr__(name: str) -> object:
    if name in _WORKLOAD:
        from hyperion import workload

        return getattr(workload, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
