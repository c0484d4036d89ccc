"""The words in which quotas speak: what a job counts for, what they say to it, and why."""

from collections.abc import Sequence
from enum import Enum

from msgspec import Struct

from hyperion.model.ids import QueueName
from hyperion.model.queue import Queue
from hyperion.model.resources import MILLI, ResourceRequest

Need = tuple[tuple[str, int], ...]
"""Amounts by resource, sorted by name, without zeros."""


def need_of(request: ResourceRequest, gpu_type: str = "", replicas: int = 1) -> Need:
    """What so many replicas count for; GPUs of a known type count both as theirs and as any."""
    found = []
    if request.cpus_milli:
        found.append(("cpus_milli", request.cpus_milli * replicas))
    if request.disk_mib:
        found.append(("disk_mib", request.disk_mib * replicas))
    if request.gpus_milli:
        found.append(("gpus_milli", request.gpus_milli * replicas))
        kind = gpu_type or request.gpu_type
        if kind:
            found.append((f"gpus_milli/{kind}", request.gpus_milli * replicas))
    if request.memory_mib:
        found.append(("memory_mib", request.memory_mib * replicas))
    if request.custom:
        found += [(name, amount * replicas) for name, amount in request.custom if amount]
        found.sort()
    return tuple(found)


class Admission(Enum):
    """What its quota says to a job."""

    NOMINAL = "nominal"
    """It fits within what its queue may always have."""
    BORROWS = "borrows"
    """It fits with what the cohort leaves idle."""
    RECLAIM = "reclaim"
    """It is within the quota, but others have borrowed that: it fits once they have given back."""
    DISPLACES = "displaces"
    """It fits only in place of less urgent jobs of its own queue."""
    REFUSED = "refused"

    @property
    def at_once(self) -> bool:
        """Whether nobody need be stopped for it."""
        return self is Admission.NOMINAL or self is Admission.BORROWS


class QuotaRefusal(Struct, frozen=True):
    """The first limit on the way up that does not allow it."""

    queue: QueueName
    """Whose limit it is: the job's queue or one above it."""
    resource: str
    """Empty: the queue is stopped."""
    used: int
    quota: int
    """With what may be borrowed."""
    asked: int
    """What would be added to ``used``: the need, less what queues below keep for themselves."""


class Standing(Struct, frozen=True):
    """A queue as tables show it."""

    queue: QueueName
    held: dict[str, int]
    lately: dict[str, float]
    """The average, in which what was held a half-life ago counts half."""
    quota: dict[str, int]
    """What it and those below it may always have, less what those keep for themselves."""
    borrowed: dict[str, int]
    share: float


class History(Struct, frozen=True):
    """What a queue held lately; kept from time to time, since nothing else tells it."""

    as_of_ms: int
    average: dict[str, float]


class UnknownQueue(KeyError):
    """No such queue; the text says so and names the remedy."""

    def __init__(self, name: str) -> None:
        super().__init__(f'no queue "{name}" here; hyperion queues lists them')

    def __str__(self) -> str:
        return str(self.args[0])


def closed(queue: Queue, below: Sequence[str], user: str) -> str:
    """Why the user's job cannot wait in this queue, which has those below it; empty when it can."""
    if below:
        first = ", ".join(below[:3])
        return f'queue "{queue.name}" is a cohort of others; name one of them, such as {first}'
    if queue.users and user not in queue.users:
        return (
            f'queue "{queue.name}" is not open to user "{user}"; name another one, or ask for'
            " the user to be added to it"
        )
    return ""


def refusal_text(refusal: QuotaRefusal) -> str:
    """``queue lab may have 32 GPUs and has 24; it would need 16 more``."""
    if not refusal.resource:
        return f"queue {refusal.queue} is stopped: nothing new starts from it"
    used, asked = (
        amount_text(refusal.resource, amount) for amount in (refusal.used, refusal.asked)
    )
    return (
        f"queue {refusal.queue} may have {_limit_text(refusal)} and has {used};"
        f" it would need {asked} more"
    )


def waiting_text(refusal: QuotaRefusal) -> str:
    """The same in what does not change from second to second: thousands may wait for this."""
    if not refusal.resource:
        return refusal_text(refusal)
    return f"over what queue {refusal.queue} may have: {_limit_text(refusal)}"


def _limit_text(refusal: QuotaRefusal) -> str:
    kind = refusal.resource.partition("gpus_milli/")[2]
    noun = f"{kind} GPUs" if kind else _NOUNS.get(refusal.resource, refusal.resource)
    return f"{amount_text(refusal.resource, refusal.quota)} {noun}"


def amount_text(resource: str, amount: float) -> str:
    """An amount as people write it, such as ``2.5`` GPUs or ``1.5Gi``."""
    if resource.endswith("_mib"):
        return f"{amount / 1024:.4g}Gi"
    whole = amount / MILLI if resource.endswith("_milli") or "_milli/" in resource else amount
    return f"{whole:.10g}" if whole == round(whole) else f"{whole:.2f}"


_NOUNS = {
    "gpus_milli": "GPUs",
    "cpus_milli": "CPUs",
    "memory_mib": "of memory",
    "disk_mib": "of disk",
}
