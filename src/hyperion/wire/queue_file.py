"""The tree of queues as a YAML or JSON file says it, with every problem told at its place.

research:
  quota: {gpus: 64, gpus/A100: 32, cpus: 512, memory: 4096}
  queues:
    vision: {quota: {gpus: 32}, users: [ann, bob]}
    speech: {quota: {gpus: 32}, weight: 2, borrow: {gpus: 8}}
nightly: {stopped: true}
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from hyperion.model import accelerators
from hyperion.model.bounds import MAX_CPUS, MAX_CUSTOM_AMOUNT, MAX_GPUS, MAX_WEIGHT
from hyperion.model.ids import QueueName
from hyperion.model.queue import MAX_QUEUE_USERS, Queue, check_queues
from hyperion.model.resources import MILLI
from hyperion.wire.api import Problem
from hyperion.wire.spec_kinds import (
    Field,
    Flag,
    ListOf,
    Number,
    Place,
    Reading,
    Record,
    Schema,
    Size,
    Text,
    Whole,
)
from hyperion.wire.spec_tree import (
    MAX_PROBLEMS,
    Kind,
    Node,
    Scalar,
    SpecError,
    Table,
    tree_of,
)

MAX_NODES = 100_000
"""Of the largest cluster that is planned for: quotas are bounded by so many large nodes."""


def queues_from_yaml(text: str | bytes, source: str) -> tuple[Queue, ...]:
    """Every queue of the file, parents first. Raises SpecError with all its problems."""
    from hyperion.wire.spec_yaml import parse

    return _queues(parse(text, source), source)


def queues_from_mapping(value: object, source: str) -> tuple[Queue, ...]:
    """The same from what JSON decodes to."""
    return _queues(tree_of(value, source), source)


def resource_text(resource: str) -> str:
    """``gpus/A100`` for ``gpus_milli/A100``."""
    return _WRITTEN.get(resource, resource.replace("gpus_milli/", "gpus/", 1))


_MILLI = {"cpus": "cpus_milli", "gpus": "gpus_milli"}
_SIZES = {"memory": "memory_mib", "disk": "disk_mib"}
_WRITTEN = {field: word for word, field in (_MILLI | _SIZES).items()}


class _Amounts:
    """Amounts by resource, in the units of the model."""

    words = "mapping of amounts"

    def read(self, node: Node, place: Place, to: Reading) -> dict[str, int] | None:
        if not isinstance(node, Table):
            to.expect(place, node, "amounts by resource, such as {gpus: 8, cpus: 64, memory: 512}")
            return None
        found = {}
        for key, value in node.entries:
            name, read = _resource(key.text)
            amount = read(value, place.field(key), to)
            if amount is not None:
                found[name] = amount
        return found

    def schema(self) -> Schema:
        return {"type": "object", "additionalProperties": {"type": ["number", "string"]}}


_Read = Callable[[Node, Place, Reading], int | None]


def _resource(word: str) -> tuple[str, _Read]:
    """The model's name of a resource, and how its amount is read."""
    base, slash, kind = word.partition("/")
    if word in _SIZES:
        return _SIZES[word], Size().read
    if word in _MILLI or (base == "gpus" and slash and kind):
        most = MAX_NODES * (MAX_GPUS if base == "gpus" else MAX_CPUS)
        return f"{_MILLI[base]}{slash}{accelerators.canonical(kind) or kind}", _in_thousandths(most)
    return word, Whole(0, MAX_CUSTOM_AMOUNT).read


def _in_thousandths(most: int) -> _Read:
    number = Number(most)

    def read(node: Node, place: Place, to: Reading) -> int | None:
        amount = number.read(node, place, to)
        if amount is None:
            return None
        if not 0 <= amount <= most:
            to.expect(place, node, f"a number from 0 to {most}")
            return None
        return math.floor(amount * MILLI + 0.5)

    return read


class _Queues:
    """Names and what is said of each; those within it in ``queues``."""

    words = "mapping of queues"

    def read(self, node: Node, place: Place, to: Reading) -> list[dict[str, Any]] | None:
        if not isinstance(node, Table):
            to.expect(place, node, "queues by name, such as research: {quota: {gpus: 8}}")
            return None
        found = []
        for key, value in node.entries:
            at = place.field(key)
            bare = isinstance(value, Scalar) and value.kind is Kind.NULL
            read = _QUEUE.read(Table(()) if bare else value, at, to)
            if isinstance(read, dict):
                found.append({**read, "name": key.text, "place": at})
        return found

    def schema(self) -> Schema:
        return {"type": "object", "additionalProperties": {"$ref": "#/$defs/queue"}}


_AMOUNTS = _Amounts()
_QUEUE = Record(
    (
        Field("quota", _AMOUNTS, "What it may always have."),
        Field("borrow", _AMOUNTS, "How much above its quota it may take of what is idle."),
        Field("lend", _AMOUNTS, "How much of its quota others may take while it is idle."),
        Field("weight", Number(MAX_WEIGHT), "Its part of what its siblings compete for."),
        Field("reclaim", Flag(), "Whether it takes back by preemption what it has lent."),
        Field("preempt_within", Flag(), "Whether a job preempts others of it that are nicer."),
        Field("users", ListOf(Text(), MAX_QUEUE_USERS, lone=True), "Who may submit here."),
        Field("stopped", Flag(), "Nothing new starts from it."),
        Field("queues", _Queues(), "The queues within it."),
    ),
    words="queue",
)


def _queues(tree: Node, source: str) -> tuple[Queue, ...]:
    reading = Reading({}, 0)
    root = Place(line=tree.line, column=tree.column)
    read = _Queues().read(tree, root, reading)
    flat = list(_flat(read or [], "", reading))
    queues = tuple(queue for queue, _ in flat)
    if not reading.faults:
        places = [at for _, at in flat]
        for fault in check_queues(queues):
            reading.refuse(_place(fault.pointer, places, root, reading), fault.message)
    if reading.faults:
        raise SpecError(tuple(_problem(*f) for f in reading.faults[:MAX_PROBLEMS]), source)
    return queues


def _place(pointer: str, places: Sequence[Place], root: Place, reading: Reading) -> Place:
    """Where in the file it stands: the queue's field if that is written, else the queue."""
    _, _, *parts = pointer.split("/")
    if not parts:
        return root
    queue = places[int(parts[0])]
    field = parts[1] if len(parts) > 1 else ""
    if field in {"", "name", "parent"}:
        return queue
    return reading.places.get(f"{queue.canonical}/{field}", queue)


def _flat(
    found: Iterable[Mapping[str, Any]], parent: str, reading: Reading
) -> Iterator[tuple[Queue, Place]]:
    for one in found:
        fields = {k: v for k, v in one.items() if k not in {"place", "queues"}}
        name = one["name"]
        here = reading.places.setdefault(f"queue {name}", one["place"])
        if here is not one["place"]:
            reading.refuse(one["place"], f"is there already, in line {here.line}; rename one")
        yield Queue(parent=QueueName(parent), **fields), here
        yield from _flat(one.get("queues") or (), name, reading)


def _problem(place: Place, message: str) -> Problem:
    text = f"{place.name}: {message}" if place.name else message
    return Problem(pointer=place.written, message=text, line=place.line, column=place.column)
