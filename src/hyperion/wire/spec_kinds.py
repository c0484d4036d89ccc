"""The kinds of values a spec field may have: each reads a piece of the tree, and has a schema."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from msgspec import Struct

from hyperion.model.faults import pointer_part, quoted
from hyperion.wire import units
from hyperion.wire.spec_tree import Kind, Listing, Node, Scalar, Table, describe

Schema = dict[str, Any]


class Place(Struct, frozen=True):
    """Where a value stands: as the user wrote it, and under the field's own name (no alias)."""

    written: str = ""
    canonical: str = ""
    name: str = ""
    """For people, such as ``data[0].uri``."""
    line: int = 0
    column: int = 0

    def field(self, key: Scalar, canonical: str | None = None) -> "Place":
        return Place(
            f"{self.written}/{pointer_part(key.text)}",
            f"{self.canonical}/{pointer_part(canonical or key.text)}",
            f"{self.name}.{shown_key(key.text)}" if self.name else shown_key(key.text),
            key.line,
            key.column,
        )

    def item(self, index: int, node: Node) -> "Place":
        return Place(
            f"{self.written}/{index}",
            f"{self.canonical}/{index}",
            f"{self.name}[{index}]",
            node.line,
            node.column,
        )


class Reading:
    """One pass over a spec: collects what is wrong, and remembers where everything stood."""

    def __init__(self, environ: Mapping[str, str], now_ms: int) -> None:
        self.environ = environ
        self.now_ms = now_ms
        self.faults: list[tuple[Place, str]] = []
        self.places: dict[str, Place] = {}
        self.moved: dict[str, str] = {}
        """Pointers to list items that moved up because one before them was refused."""

    def refuse(self, place: Place, message: str) -> None:
        self.faults.append((place, message))

    def expect(self, place: Place, node: Node, expected: str) -> None:
        self.refuse(place, f"found {describe(node)}, expected {expected}")


class ValueKind(Protocol):
    """Reads one kind of value. Bounds are not its business: ``model.checks`` has them."""

    words: str
    """The kind in words, for the reference."""

    def read(self, node: Node, place: Place, to: Reading) -> object:
        """The value, or None after it has been refused."""

    def schema(self) -> Schema: ...


class Field(Struct, frozen=True):
    """One field of the spec: what the parser, the JSON Schema and the reference know of it."""

    name: str
    kind: ValueKind
    doc: str
    to: str = ""
    """The attribute it becomes, where it is called otherwise."""
    aliases: tuple[str, ...] = ()
    unit: str = ""
    default: str = ""
    example: str = ""
    required: bool = False


class Text:
    words = "text"

    def __init__(
        self, expected: str = "a text", pattern: str = "", longest: int = 0, empty: bool = True
    ) -> None:
        self.expected, self.pattern, self.longest, self.empty = expected, pattern, longest, empty

    def read(self, node: Node, place: Place, to: Reading) -> str | None:
        if isinstance(node, Scalar):
            if node.kind is Kind.TEXT:
                return node.text
            if node.kind is not Kind.NULL:
                to.expect(place, node, f'{self.expected}; put it in quotes: "{node.text[:60]}"')
                return None
        to.expect(place, node, self.expected)
        return None

    def schema(self) -> Schema:
        out: Schema = {"type": "string"}
        if self.pattern:
            out["pattern"] = (
                f"^({self.pattern})$" if self.empty is False else f"^({self.pattern})?$"
            )
        if self.longest:
            out["maxLength"] = self.longest
        return out


class Whole:
    words = "whole number"

    def __init__(self, least: int, most: int) -> None:
        self.least, self.most = least, most

    def read(self, node: Node, place: Place, to: Reading) -> int | None:
        expected = f"a whole number from {self.least} to {self.most}"
        if isinstance(node, Scalar):
            if node.kind is Kind.WHOLE and len(node.text) <= units.MAX_DIGITS:
                return int(float(node.text)) if "." in node.text else int(node.text)
            if node.kind is Kind.TEXT and not node.plain and units.number(node.text) is not None:
                to.expect(place, node, f"{expected}; remove the quotes")
                return None
            if odd := odd_number(node):
                to.expect(place, node, f"{expected}; {odd}")
                return None
        to.expect(place, node, expected)
        return None

    def schema(self) -> Schema:
        return {"type": "integer", "minimum": self.least, "maximum": self.most}


class Signed(Whole):
    """A whole number that may be below 0."""

    def __init__(self, most: int) -> None:
        super().__init__(-most, most)


class Number:
    words = "number"

    def __init__(self, most: float) -> None:
        self.most = most

    def read(self, node: Node, place: Place, to: Reading) -> float | None:
        if isinstance(node, Scalar):
            value = units.number(node.text)
            written = node.plain or node.kind is not Kind.TEXT
            if value is not None and written and not odd_number(node):
                return value
            if value is not None:
                to.expect(place, node, f"a number; {odd_number(node) or 'remove the quotes'}")
                return None
        to.expect(place, node, f"a finite number from 0 to {self.most:.12g}")
        return None

    def schema(self) -> Schema:
        return {"type": "number", "minimum": 0, "maximum": self.most}


class Flag:
    words = "true or false"

    def read(self, node: Node, place: Place, to: Reading) -> bool | None:
        if isinstance(node, Scalar):
            if node.kind is Kind.FLAG:
                return node.text.lower() == "true"
            # YAML 1.1 readers, SkyPilot's among them, take these for true and false.
            if node.plain and node.text.lower() in ("yes", "no", "on", "off"):
                return node.text.lower() in ("yes", "on")
        to.expect(place, node, "true or false")
        return None

    def schema(self) -> Schema:
        return {"type": "boolean"}


class Choice:
    """One of a few words, in any case."""

    words = "word"

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = {_word(name): value for name, value in values.items()}
        self.names = tuple(values)

    def read(self, node: Node, place: Place, to: Reading) -> object:
        if isinstance(node, Scalar) and node.kind is Kind.TEXT:
            word = _word(node.text)
            if word in self.values:
                return self.values[word]
            near = did_you_mean(node.text, self.names)
            to.expect(place, node, f"one of {', '.join(self.names)}{near}")
            return None
        to.expect(place, node, f"one of {', '.join(self.names)}")
        return None

    def schema(self) -> Schema:
        others = [n.lower() if n.lower() != n else n.upper() for n in self.names]
        return {"enum": [*self.names, *others]}


class Duration:
    words = "duration"

    def read(self, node: Node, place: Place, to: Reading) -> float | None:
        if isinstance(node, Scalar) and node.kind in (Kind.TEXT, Kind.WHOLE, Kind.NUMBER):
            seconds = units.duration_s(node.text)
            if seconds is not None:
                return seconds
        to.expect(place, node, "a duration such as 90s, 15m, 2h30m or 1d, or seconds as a number")
        return None

    def schema(self) -> Schema:
        return {
            "anyOf": [
                {"type": "number", "minimum": 0},
                {"type": "string", "pattern": f"^{units.DURATION_PATTERN}$"},
            ]
        }


class Size:
    words = "size"

    def read(self, node: Node, place: Place, to: Reading) -> int | None:
        if isinstance(node, Scalar) and node.kind in (Kind.TEXT, Kind.WHOLE, Kind.NUMBER):
            mib = units.size_mib(node.text)
            if mib is not None:
                return mib
        to.expect(place, node, "GiB as a number, or a size such as 16Gi, 512Mi or 16+")
        return None

    def schema(self) -> Schema:
        return {
            "anyOf": [
                {"type": "number", "minimum": 0},
                {"type": "string", "pattern": f"^{units.SIZE_PATTERN}$"},
            ]
        }


class Amount:
    """A size as GiB, not rounded."""

    words = "size"

    def read(self, node: Node, place: Place, to: Reading) -> float | None:
        if isinstance(node, Scalar):
            plain = units.number(node.text) if node.kind is not Kind.TEXT else None
            if plain is not None:
                return plain
        mib = Size().read(node, place, to)
        return None if mib is None else mib / 1024

    def schema(self) -> Schema:
        return Size().schema()


class Variables:
    """Names and values. A value may be any scalar, and is taken as it is written."""

    words = "mapping of texts"

    def __init__(self, name_pattern: str, make: Callable[[str], Any] | None = None) -> None:
        self.name_pattern, self.make = name_pattern, make

    def read(self, node: Node, place: Place, to: Reading) -> dict[str, Any] | None:
        if not isinstance(node, Table):
            to.expect(place, node, "a mapping of names to values, such as NAME: value")
            return None
        found = {}
        for key, value in node.entries:
            at = place.field(key)
            to.places[at.canonical] = at
            text = self.text(value, at, to)
            if text is None and isinstance(value, Scalar) and value.kind is Kind.NULL:
                text = self.absent(key.text, at, to)
            if text is not None:
                found[key.text] = self.make(text) if self.make else text
        return found

    def text(self, node: Node, place: Place, to: Reading) -> str | None:
        if not isinstance(node, Scalar):
            to.refuse(place, f"found {describe(node)}, expected one value; put it in quotes")
            return None
        return None if node.kind is Kind.NULL else node.text

    def absent(self, name: str, place: Place, to: Reading) -> str | None:
        message = f'found nothing (null) for {quoted(name)}, expected a value; write "" for empty'
        to.refuse(place, message)
        return None

    def schema(self) -> Schema:
        return {
            "type": "object",
            "propertyNames": {"pattern": f"^{self.name_pattern}$"},
            "additionalProperties": {"type": ["string", "number", "boolean"]},
        }


class BorrowedVariables(Variables):
    """Variables of which a null one is taken from the submitter's own environment."""

    words = "mapping of texts or null"

    def read(self, node: Node, place: Place, to: Reading) -> dict[str, Any] | None:
        if isinstance(node, Table):
            return super().read(node, place, to)
        # Only the kind of what was found is told: the value may be a secret.
        found = "a list" if isinstance(node, Listing) else f"a {node.kind.value}"
        to.refuse(place, f"found {found}, expected a mapping of names to values (NAME: value)")
        return None

    def absent(self, name: str, place: Place, to: Reading) -> str | None:
        value = to.environ.get(name)
        if value is None:
            to.refuse(
                place,
                "is null, which takes the value from your environment, where there is none;"
                f" export {shown_key(name)} first, or give the value",
            )
        return value

    def schema(self) -> Schema:
        out = super().schema()
        out["additionalProperties"] = {"type": ["string", "number", "boolean", "null"]}
        return out


class ListOf:
    def __init__(
        self, kind: ValueKind, most: int, lone: bool = False, tables: bool = False
    ) -> None:
        """``lone``: a text alone is a list of it; ``tables``: so is a mapping."""
        self.kind, self.most, self.lone, self.tables = kind, most, lone, tables
        self.words = f"list of {kind.words}"

    def read(self, node: Node, place: Place, to: Reading) -> tuple[Any, ...] | None:
        is_text = isinstance(node, Scalar) and node.kind is Kind.TEXT
        if self.lone and (is_text or (self.tables and isinstance(node, Table))):
            node = Listing((node,), node.line, node.column)
        if not isinstance(node, Listing):
            to.expect(place, node, f"a list (- …) of {self.kind.words}")
            return None
        if len(node.items) > self.most:
            to.refuse(place, f"found {len(node.items)} entries, expected at most {self.most}")
            return None
        values = []
        for index, item in enumerate(node.items):
            at = place.item(index, item)
            to.places[at.canonical] = at
            values.append(self.kind.read(item, at, to))
        kept = [index for index, value in enumerate(values) if value is not None]
        for now, index in enumerate(kept):
            if now != index:
                to.moved[f"{place.canonical}/{now}"] = f"{place.canonical}/{index}"
        return tuple(values[index] for index in kept)

    def schema(self) -> Schema:
        many: Schema = {"type": "array", "items": self.kind.schema(), "maxItems": self.most}
        return {"anyOf": [many, self.kind.schema()]} if self.lone else many


class Record:
    """A mapping with known fields."""

    def __init__(
        self,
        fields: Iterable[Field],
        make: Callable[..., Any] = dict,
        foreign: Mapping[str, str] | None = None,
        words: str = "mapping",
        complete: bool = True,
    ) -> None:
        self.complete = complete
        self.fields, self.make, self.words = tuple(fields), make, words
        self.foreign = foreign or {}
        self.by_name = {name: f for f in self.fields for name in (f.name, *f.aliases)}

    def read(self, node: Node, place: Place, to: Reading) -> object:
        if not isinstance(node, Table):
            names = ", ".join(field.name for field in self.fields[:6])
            to.expect(place, node, f"a mapping with fields such as {names}")
            return None
        values: dict[str, Any] = {}
        seen: dict[str, str] = {}
        for key, value in node.entries:
            field = self.by_name.get(key.text)
            at = place.field(key, field.name if field else None)
            if field is None:
                to.refuse(at, self._unknown(key.text))
            elif field.name in seen:
                to.refuse(at, f"means the same as {seen[field.name]}; keep one of them")
            else:
                seen[field.name] = key.text
                to.places[at.canonical] = at
                values[field.to or field.name] = field.kind.read(value, at, to)
        return self._made(values, seen, place, to)

    def _made(
        self, values: dict[str, Any], seen: Mapping[str, str], place: Place, to: Reading
    ) -> object:
        missing = [f.name for f in self.fields if f.required and f.name not in seen]
        missing = missing if self.complete else []
        for name in missing:
            to.refuse(place, f"{name} is missing")
        given = {name: value for name, value in values.items() if value is not None}
        refused = [f for f in self.fields if f.name in seen and (f.to or f.name) not in given]
        hopeless = bool(missing) or (self.complete and any(f.required for f in refused))
        return None if hopeless else self.make(**given)

    def _unknown(self, name: str) -> str:
        if name in self.foreign:
            return f"is not supported; {self.foreign[name]}"
        known = tuple(self.by_name)
        near = did_you_mean(name, known)
        return "is no field here" + (
            near or "; expected one of " + ", ".join(field.name for field in self.fields)
        )

    def schema(self) -> Schema:
        properties: Schema = {}
        for field in self.fields:
            described = field.kind.schema() | {"description": field.doc}
            if field.example and not field.example.startswith(("{", "[")):
                described["examples"] = [_example(field.example)]
            properties[field.name] = described
            for alias in field.aliases:
                properties[alias] = field.kind.schema() | {"description": f"Same as {field.name}."}
        out: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
        required = [field.name for field in self.fields if field.required]
        return out | {"required": required} if required else out


def did_you_mean(wrong: str, names: Iterable[str]) -> str:
    """``; did you mean "x"?`` for the nearest name, or nothing when none is near."""
    from difflib import get_close_matches

    lowered = {name.lower(): name for name in names}
    near = get_close_matches(wrong[:64].lower(), lowered, n=1, cutoff=0.6)
    return f'; did you mean "{lowered[near[0]]}"?' if near else ""


def _word(text: str) -> str:
    return text.lower().replace("-", "_")


def shown_key(key: str) -> str:
    return key if len(key) <= 64 and key.isprintable() and key.strip() else quoted(key)


_ODD = r"[-+]?(0[xob][0-9a-fA-F_]+|0[0-9_]+|\d[\d_]*_[\d_]*|\d+(:\d+)+)"
_odd = re.compile(_ODD, re.ASCII).fullmatch


def odd_number(node: Scalar) -> str:
    """What to do about ``010``, ``0x1f``, ``1_000``, ``1:30``: YAML readers disagree on them."""
    if node.plain and len(node.text) < 40 and _odd(node.text):
        return "write it in plain decimal digits, without leading zeros, underscores or colons"
    return ""


def _example(text: str) -> object:
    value = units.number(text)
    return text if value is None else units.tidy(value)
