"""Queues as a tree: whose turn it is, and how much of the cluster each may hold."""

import math
import re
from collections.abc import Iterator, Sequence

from msgspec import Struct

from hyperion.model.bounds import KEY_PATTERN, MAX_WEIGHT, NAME_PATTERN
from hyperion.model.faults import Fault, bad_key, line_faults, pointer_part, quoted, short
from hyperion.model.ids import QueueName

MAX_QUEUES = 10_000
MAX_QUEUE_DEPTH = 8
"""Levels from the top to a leaf."""
MAX_QUEUE_RESOURCES = 64
MAX_QUEUE_AMOUNT = 1 << 53
MAX_QUEUE_USERS = 1024
MAX_USER_BYTES = 256

_name = re.compile(NAME_PATTERN).fullmatch
_key = re.compile(KEY_PATTERN).fullmatch

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


def check_queues(queues: Sequence[Queue]) -> tuple[Fault, ...]:
    """Everything that is wrong with the queues of a cluster taken together. Never raises.

    Pointers are into their list, such as ``/queues/3/parent``. The default queue need not be in it.
    """
    if len(queues) > MAX_QUEUES:
        most = f"found {len(queues)} queues, expected at most {MAX_QUEUES}"
        return (Fault("/queues", f"{most}; let several teams share one"),)
    return tuple(_faults(queues))


def _faults(queues: Sequence[Queue]) -> Iterator[Fault]:
    first: dict[str, int] = {}
    parents = {queue.name: queue.parent for queue in queues}
    cohorts = {queue.parent for queue in queues}
    for n, queue in enumerate(queues):
        at = f"/queues/{n}"
        yield from _own_faults(at, queue)
        other = first.setdefault(queue.name, n)
        if other != n:
            twice = f"found {quoted(queue.name)}, which /queues/{other} is called already"
            yield Fault(f"{at}/name", f"{twice}; give it another name")
        yield from _parent_faults(at, queue, parents)
        if queue.name in cohorts:
            yield from _cohort_faults(at, queue)


def _own_faults(at: str, queue: Queue) -> Iterator[Fault]:
    if not _name(queue.name):
        yield Fault(
            f"{at}/name",
            f"found {quoted(queue.name)}, expected up to 63 letters, digits, '.', '_' or '-',"
            " starting with a letter or digit",
        )
    if not (math.isfinite(queue.weight) and 0 < queue.weight <= MAX_WEIGHT):
        yield Fault(
            f"{at}/weight",
            f"found {short(queue.weight)}, expected more than 0 and at most {MAX_WEIGHT:g};"
            " to let nothing start from it, set stopped",
        )
    for field, amounts in (("quota", queue.quota), ("borrow", queue.borrow), ("lend", queue.lend)):
        yield from _amount_faults(f"{at}/{field}", amounts)
        if field == "quota":
            continue
        for resource in (r for r in amounts if r not in queue.quota):
            yield Fault(
                f"{at}/{field}/{pointer_part(resource)}",
                f"found a limit on {quoted(resource)}, of which the queue has no quota;"
                f" name it in quota, 0 if it has none of its own, or remove it from {field}",
            )
        if amounts and not queue.parent:
            yield Fault(
                f"{at}/{field}",
                "found limits, but a queue without a parent has nobody to share with; give it a"
                " parent or remove them",
            )
    if len(queue.users) > MAX_QUEUE_USERS:
        yield Fault(
            f"{at}/users",
            f"found {len(queue.users)} users, expected at most {MAX_QUEUE_USERS};"
            " leave it empty to let everybody in",
        )
    for n, user in enumerate(queue.users[:MAX_QUEUE_USERS]):
        if not user:
            yield Fault(f"{at}/users/{n}", "is empty; expected the name of a user")
        yield from line_faults(f"{at}/users/{n}", user, MAX_USER_BYTES)


def _amount_faults(at: str, amounts: dict[str, int]) -> Iterator[Fault]:
    if len(amounts) > MAX_QUEUE_RESOURCES:
        yield Fault(at, f"found {len(amounts)} resources, expected at most {MAX_QUEUE_RESOURCES}")
        return
    for resource, amount in amounts.items():
        place = f"{at}/{pointer_part(resource)}"
        if not _key(resource):
            yield Fault(place, bad_key(resource))
        if not 0 <= amount <= MAX_QUEUE_AMOUNT:
            yield Fault(place, f"found {amount}, expected 0 to {MAX_QUEUE_AMOUNT}")


def _parent_faults(at: str, queue: Queue, parents: dict[QueueName, QueueName]) -> Iterator[Fault]:
    at += "/parent"
    if not queue.parent:
        return
    if queue.parent == DEFAULT_QUEUE:
        yield Fault(
            at,
            f'found "{DEFAULT_QUEUE}", where jobs wait that name no queue: nothing can be below it;'
            " name another queue, or none",
        )
    elif queue.parent not in parents:
        yield Fault(
            at,
            f"found {quoted(queue.parent)}, which is no queue here;"
            f"{_meant(queue.parent, parents)} make it first, or leave parent out",
        )
    levels, above = 1, queue.parent
    while above and above != queue.name and levels <= MAX_QUEUE_DEPTH:
        levels, above = levels + 1, parents.get(above, QueueName(""))
    if above == queue.name:
        yield Fault(
            at,
            f"found {quoted(queue.parent)}, which is below this queue itself; name one that is"
            " not, or leave parent out",
        )
    elif levels > MAX_QUEUE_DEPTH:
        yield Fault(
            at,
            f"found more than {MAX_QUEUE_DEPTH} levels of queues; hang it below one nearer to the"
            " top",
        )


def _meant(wrong: str, names: dict[QueueName, QueueName]) -> str:
    from difflib import get_close_matches  # 2 ms that only a typo pays for

    near = get_close_matches(wrong[:64], names, n=1)
    return f' did you mean "{near[0]}"? Or' if near else ""


def _cohort_faults(at: str, queue: Queue) -> Iterator[Fault]:
    """Of a queue with others below it: no job waits in it."""
    if queue.users:
        yield Fault(
            f"{at}/users", "found users of a queue that has queues below it; name them at those"
        )
    if queue.preempt_within:
        yield Fault(
            f"{at}/preempt_within",
            "is set for a queue that has queues below it, and so no jobs; set it at those",
        )
