"""Values that may be written short: a text that is parsed, or one that stands for a mapping."""

from collections.abc import Callable
from typing import Any

from hyperion.wire.spec_kinds import Place, Reading, Record, Schema, ValueKind
from hyperion.wire.spec_tree import Kind, Node, Scalar, Table


class Parsed:
    """A text, taken as it is written and read by ``parse``, which raises ValueError with what it
    expected. With ``numbers`` what looks like one is such a text too."""

    def __init__(
        self,
        words: str,
        expected: str,
        parse: Callable[[str], Any],
        pattern: str = "",
        numbers: bool = False,
    ) -> None:
        self.words, self.expected, self.parse, self.pattern = words, expected, parse, pattern
        self.kinds = (Kind.TEXT, Kind.WHOLE, Kind.NUMBER) if numbers else (Kind.TEXT,)

    def read(self, node: Node, place: Place, to: Reading) -> object:
        if not isinstance(node, Scalar) or node.kind not in self.kinds:
            to.expect(place, node, self.expected)
            return None
        try:
            return self.parse(node.text)
        except ValueError as error:
            to.expect(place, node, str(error) or self.expected)
            return None

    def schema(self) -> Schema:
        text: Schema = {"type": "string"}
        if self.pattern:
            text["pattern"] = f"^({self.pattern})$"
        return text if len(self.kinds) == 1 else {"anyOf": [text, {"type": "number"}]}


class Shorthand:
    """A mapping, or something shorter that stands for one."""

    def __init__(
        self, record: Record, short: ValueKind, make: Callable[[Any], Any] = lambda value: value
    ) -> None:
        self.record, self.short, self.make = record, short, make
        self.words = f"{short.words}, or mapping"

    def read(self, node: Node, place: Place, to: Reading) -> object:
        if isinstance(node, Table):
            return self.record.read(node, place, to)
        value = self.short.read(node, place, to)
        return None if value is None else self.make(value)

    def schema(self) -> Schema:
        return {"anyOf": [self.short.schema(), self.record.schema()]}
