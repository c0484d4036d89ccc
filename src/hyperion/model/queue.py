"""Queues as a tree: whose turn it is, and how much of the cluster each may hold."""

from msgspec import Struct

from hyperion.model.ids import QueueName

DEFAULT_QUEUE = QueueName("default")
"""Where jobs wait that name no queue. It exists without being made, and has no quota."""


class Queue(Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """A leaf holds jobs; a queue with children is a cohort, whose members lend to each other.

    Amounts are by resource: ``cpus_milli``, ``memory_mib``, ``disk_mib``, ``gpus_milli`` (of any
    type), ``gpus_milli/A100`` (of one type), or the name of a custom countable.
    """

    name: QueueName
    parent: QueueName = QueueName("")
    """Empty: directly below the root."""
    weight: float = 1.0
    """Its part of what its siblings compete for."""
    quota: dict[str, int] = {}
    """What it may always have. A resource that is not named here is not limited here."""
    borrow: dict[str, int] = {}
    """How much above its quota it may take of what its cohort leaves idle; not named: all."""
    lend: dict[str, int] = {}
    """How much of its quota others may take while it is idle; not named: all of it."""
    reclaim: bool = True
    """Whether it takes back by preemption what others have borrowed of its quota."""
    preempt_within: bool = False
    """Whether a job preempts others of this queue that are nicer."""
    users: tuple[str, ...] = ()
    """Who may submit here; empty: everybody."""
    stopped: bool = False
    """Nothing new starts from it; what runs goes on."""
