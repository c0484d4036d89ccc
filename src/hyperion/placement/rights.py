"""Whom a waiting job may take places from, as facts that no longer need the tree of queues."""

from enum import Enum

from msgspec import Struct
from msgspec.structs import force_setattr

from hyperion.model.ids import QueueName
from hyperion.model.job import Job, Priority
from hyperion.placement.running import Occupant

Need = tuple[tuple[str, int], ...]
"""Amounts by resource, as quotas name them, in order of the names."""


class Title(Enum):
    """By which right a place may be taken."""

    CLASS = "a lower priority class"
    RECLAIM = "borrowed from its quota"
    WITHIN = "nicer, in the same queue"
    MOVE = "goes on elsewhere"


class Rights(Struct, frozen=True, kw_only=True):
    """A higher priority class takes from all lower ones, whatever their queue."""

    priority: Priority = Priority.BATCH
    queue: QueueName = QueueName("")
    nice: int = 0
    within: bool = False
    """Whether it may take from nicer jobs of its own queue and class."""
    borrowed: tuple[tuple[QueueName, Need], ...] = ()
    """Queues that hold what is this one's, each with how much it holds above its own quota: it is
    taken from while it does, and only from jobs of the same or a lower class."""
    owed: Need = ()
    """How much those queues must give back before the job is within its own quota, be there
    places or not; empty: only places are wanted."""
    moves: bool = False
    """Whether jobs of its class and of lower ones may be moved for it, whole and to new places."""
    holders: frozenset[QueueName] = frozenset()
    """The queues of ``borrowed``; follows from them."""

    def __post_init__(self) -> None:
        if len(self.holders) != len(self.borrowed):
            force_setattr(self, "holders", frozenset(queue for queue, _ in self.borrowed))

    @staticmethod
    def of(
        job: Job,
        queue: QueueName,
        within: bool = False,
        borrowed: tuple[tuple[QueueName, Need], ...] = (),
        owed: Need = (),
    ) -> "Rights":
        return Rights(
            priority=job.priority,
            queue=queue,
            nice=job.nice,
            within=within,
            borrowed=borrowed,
            owed=owed,
        )

    def title(self, occupant: Occupant) -> Title | None:
        """The right to this occupant's places; None: it has none."""
        if self.moves:
            movable = occupant.priority <= self.priority and not occupant.array
            return Title.MOVE if movable else None
        if occupant.priority < self.priority:
            return Title.CLASS
        if occupant.priority > self.priority:
            return None
        if self.within and occupant.queue == self.queue and occupant.nice > self.nice:
            return Title.WITHIN
        if self.borrowed and occupant.queue in self.holders:
            return Title.RECLAIM
        return None

    @property
    def any(self) -> bool:
        """Whether there may be anybody it can take from."""
        return self.priority > Priority.BATCH or self.within or self.moves or bool(self.borrowed)
