"""A spec as a tree that knows where each piece stood, whether it came as YAML or as JSON."""

import math
from collections.abc import Mapping
from enum import Enum

from msgspec import Struct

from hyperion.model.faults import quoted
from hyperion.wire.api import Problem

MAX_DEPTH = 16
MAX_PIECES = 50_000
"""Scalars, lists and mappings together; the largest allowed spec has far fewer."""
MAX_PROBLEMS = 100
MAX_TEXT_BYTES = 1 << 20


class SpecError(Exception):
    """The spec is refused whole. ``str()`` gives one line per problem, as a compiler would."""

    def __init__(self, problems: tuple[Problem, ...], source: str = "spec") -> None:
        super().__init__(problems, source)
        self.problems = problems
        self.source = source

    def __str__(self) -> str:
        lines = []
        for problem in self.problems:
            place = f":{problem.line}:{problem.column}" if problem.line else ""
            lines.append(f"{self.source}{place}: {problem.message}")
        return "\n".join(lines)


class Kind(Enum):
    """What a scalar is, as written."""

    NULL = "null"
    FLAG = "flag"
    WHOLE = "number"
    NUMBER = "fraction"
    TEXT = "text"


class Scalar(Struct, frozen=True):
    text: str
    """As written; a JSON value in JSON's own notation."""
    kind: Kind
    plain: bool = False
    """Written in YAML without quotes, so that its kind was guessed from its looks."""
    line: int = 0
    column: int = 0


class Listing(Struct, frozen=True):
    items: tuple["Node", ...]
    line: int = 0
    column: int = 0


class Table(Struct, frozen=True):
    entries: tuple[tuple[Scalar, "Node"], ...]
    line: int = 0
    column: int = 0


Node = Scalar | Listing | Table


def tree_of(value: object, source: str) -> Node:
    """The tree of a value decoded from JSON. Raises SpecError for what JSON cannot hold."""
    return _Tree(source).node(value, 0)


def describe(node: Node) -> str:
    """What was found, for a message."""
    if isinstance(node, Listing):
        return "a list"
    if isinstance(node, Table):
        return "a mapping"
    if node.kind is Kind.NULL:
        return "nothing (null)"
    if node.kind is Kind.TEXT:
        return quoted(node.text)
    text = node.text if len(node.text) <= 40 else node.text[:37] + "..."
    return f"the number {text}" if node.kind is not Kind.FLAG else text


class _Tree:
    def __init__(self, source: str) -> None:
        self.source = source
        self.pieces = 0

    def node(self, value: object, depth: int) -> Node:
        self.pieces += 1
        if depth > MAX_DEPTH:
            raise self._refusal(f"is nested more than {MAX_DEPTH} levels deep; flatten it")
        if self.pieces > MAX_PIECES:
            raise self._refusal(f"has more than {MAX_PIECES} values; make it smaller")
        if isinstance(value, Mapping):
            entries = []
            for key, item in value.items():
                name = Scalar(key if isinstance(key, str) else str(key), Kind.TEXT)
                entries.append((name, self.node(item, depth + 1)))
            return Table(tuple(entries))
        if isinstance(value, list | tuple):
            return Listing(tuple(self.node(item, depth + 1) for item in value))
        return self._scalar(value)

    def _scalar(self, value: object) -> Scalar:
        if value is None:
            return Scalar("null", Kind.NULL)
        if isinstance(value, str):
            return Scalar(value, Kind.TEXT)
        if isinstance(value, bool):
            return Scalar("true" if value else "false", Kind.FLAG)
        if isinstance(value, int):
            # Huge ones are refused by whoever reads a number; str() of them would raise.
            return Scalar(str(value) if value.bit_length() < 256 else "9" * 80, Kind.WHOLE)
        if isinstance(value, float):
            whole = math.isfinite(value) and value == int(value) and abs(value) < 1e15
            return Scalar(repr(value), Kind.WHOLE if whole else Kind.NUMBER)
        raise self._refusal(f"holds a {type(value).__name__}, which JSON does not have")

    def _refusal(self, message: str) -> SpecError:
        return SpecError((Problem(pointer="", message="the spec " + message),), self.source)
