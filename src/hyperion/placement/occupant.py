"""A job that holds nodes, as those see it that wait: what stopping it costs, when it ends."""

from msgspec import Struct

from hyperion.model.ids import JobId, QueueName
from hyperion.model.job import Priority


class Occupant(Struct, frozen=True, kw_only=True):
    """A job of which at least one replica holds a place."""

    job: JobId
    queue: QueueName
    priority: Priority
    nice: int = 0
    started_at_ms: int = 0
    """Of this attempt; while it is being started, when it was placed."""
    ends_at_ms: int = 0
    """As estimated; 0: nobody knows."""
    preemptible_at_ms: int = 0
    saved_at_ms: int = 0
    """When its newest checkpoint became known; 0: none has."""
    saves_every_ms: int = 0
    """0: it writes no checkpoints by itself."""
    saves_on_stop: bool = False
    """Told to end, it writes one, so that nothing is lost but the time to restore."""
    restore_ms: int = 0
    yields_ms: int = 0
    """So long it may take until it stands still; whoever is frozen at once is preferred."""
    usd_per_hour: float = 0.0
    """Of all its replicas, of an array each; 0 where machines have no price."""
    egress_usd: float = 0.0
    """Paid again when it starts elsewhere."""
    least: int = 0
    """An elastic job that need not restart can give up its last ranks down to so many. 0: it
    stands or falls as a whole."""
    array: bool = False
    """Its replicas are tasks of their own: each may be stopped alone, and loses its own work."""
    min_runtime_ms: int = 0
    """Of each task of an array; of other jobs ``preemptible_at_ms`` says it all."""
    stopping: bool = False
    """It is being stopped already: no victim, and its places will be free soon."""


class Width(Struct, frozen=True):
    """How much a job holds now, over all its replicas."""

    replicas: int = 0
    gpus_milli: int = 0
    cpus_milli: int = 0
