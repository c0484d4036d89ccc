"""What every state machine gives back, and the keys under which entities are kept."""

from collections.abc import Callable, Collection, Iterator
from typing import Any

from msgspec import Struct

from hyperion.control.link import AllocationReport, Pause
from hyperion.control.messages import SendToNode, SendToScheduler
from hyperion.model.allocation import AllocationState

PREFIX = "/hyperion/v1/"


class Outcome(Struct, frozen=True):
    """Carry out ``early`` at once; keep the records, then carry out the commands."""

    records: list[Any]
    commands: list[Any]
    early: list[Any] = []
    """What a disk would take longer for than all the rest: orders that end by themselves, and that
    nobody need remember having given; reports of what is there to be seen again."""


def key(kind: str, name: str) -> str:
    """Where the store keeps an entity, such as ``/hyperion/v1/job/train-7f3a``."""
    return f"{PREFIX}{kind}/{name}"


def split(path: str) -> tuple[str, str]:
    """(kind, name) of a key."""
    kind, _, name = path.removeprefix(PREFIX).partition("/")
    return kind, name


def sort_out(
    decisions: Iterator[Any], records: Collection[type], apply: Callable[[Any], None]
) -> Outcome:
    """Apply each record as it is decided, so that the next decision sees it; collect both kinds."""
    kept: list[Any] = []
    commands: list[Any] = []
    early: list[Any] = []
    for decision in decisions:
        if type(decision) in records:
            apply(decision)
            kept.append(decision)
        elif _is_early(decision):
            early.append(decision)
        else:
            commands.append(decision)
    return Outcome(kept, commands, early)


def _is_early(decision: Any) -> bool:
    """An order to stand still, and word that it is done: the kernel remembers that for the node."""
    kind = type(decision)
    if kind is SendToNode:
        return type(decision.message) is Pause
    if kind is SendToScheduler:
        report = decision.message
        stands = type(report) is AllocationReport and report.state is AllocationState.PAUSED
        return stands and not report.stands_for  # for a standby it has done so long before
    return False
