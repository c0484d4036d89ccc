"""A span of time in which some nodes are kept free: for maintenance, or for those it admits."""

from msgspec import Struct

from hyperion.model.ids import NodeId, QueueName, UserId, WindowId


class Window(Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """Jobs that it does not admit are not started on its nodes if they would still run when it
    begins, and are stopped and queued again when it does."""

    id: WindowId
    begins_at_ms: int
    ends_at_ms: int
    nodes: tuple[NodeId, ...]
    queues: tuple[QueueName, ...] = ()
    """Jobs of these queues may use it; with ``users`` empty too it is maintenance."""
    users: tuple[UserId, ...] = ()
    reason: str = ""

    @property
    def is_maintenance(self) -> bool:
        return not self.queues and not self.users
