"""What every state machine gives back, and the keys under which entities are kept."""

from collections.abc import Callable, Collection, Iterator
from typing import Any

from msgspec import Struct

PREFIX = "/hyperion/v1/"


class Outcome(Struct, frozen=True):
    """Keep the records first, then carry out the commands."""

    records: list[Any]
    commands: list[Any]


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
    for decision in decisions:
        if type(decision) in records:
            apply(decision)
            kept.append(decision)
        else:
            commands.append(decision)
    return Outcome(kept, commands)
