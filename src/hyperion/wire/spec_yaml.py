"""From YAML text to a tree with lines and columns, within bounds."""

import re
from collections.abc import Iterator
from typing import Any

import yaml

from hyperion.model.faults import pointer_part, quoted
from hyperion.wire.api import Problem
from hyperion.wire.spec_tree import (
    MAX_DEPTH,
    MAX_PIECES,
    MAX_TEXT_BYTES,
    Kind,
    Listing,
    Node,
    Scalar,
    SpecError,
    Table,
)

MAX_ALIASES = 100

_Event = Any  # the stubs do not say which attributes each kind of event has

_forbidden = re.compile(
    "[^\t\n\r\x20-\x7e\x85\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
).search
_null = re.compile(r"~|null|Null|NULL|").fullmatch
_flag = re.compile(r"true|True|TRUE|false|False|FALSE").fullmatch
_whole = re.compile(r"[-+]?(0|[1-9]\d*)", re.ASCII).fullmatch
# As in YAML 1.1, an exponent needs a point before it and a sign in it, or else it is a text: so
# the usual writers decide about quotes. Fields that want a number take 1e5 all the same.
_real = re.compile(
    r"[-+]?(\d+\.\d*|\.\d+)([eE][-+]\d+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", re.ASCII
).fullmatch
_leading_zero = re.compile(r"[-+]?0\d+", re.ASCII).fullmatch


def parse(text: str | bytes, source: str) -> Node:
    """The one document in ``text``. Raises SpecError, with line and column of what is wrong."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    composer = _Composer(source)
    try:
        node = composer.document(iter(yaml.parse(_readable(text, source), Loader=loader)))
    except yaml.MarkedYAMLError as error:
        raise _syntax(error, source) from None
    except yaml.YAMLError as error:
        raise _refusal(source, f"is not YAML: {error}", 1, 1) from None
    if composer.problems:
        raise SpecError(tuple(composer.problems), source)
    return node


def _readable(text: str | bytes, source: str) -> str:
    if len(text) > MAX_TEXT_BYTES:
        raise _refusal(
            source, f"has {len(text)} bytes, expected at most {MAX_TEXT_BYTES}; use workdir"
        )
    if isinstance(text, bytes):
        text = _decoded(text, source)
    text = text.removeprefix("\ufeff")
    bad = _forbidden(text)
    if bad:
        line, column = _position(text, bad.start())
        raise _refusal(
            source,
            f"holds the character U+{ord(bad[0]):04X}, which YAML does not allow; remove it",
            line,
            column,
        )
    return text


def _decoded(text: bytes, source: str) -> str:
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        line, column = _position(text[: error.start].decode("utf-8"), error.start)
        found = f"byte 0x{text[error.start]:02x}"
        message = f"is not UTF-8: found {found}; save it as UTF-8"
        raise _refusal(source, message, line, column) from None


def _position(text: str, offset: int) -> tuple[int, int]:
    before = text[:offset]
    return before.count("\n") + 1, len(before) - before.rfind("\n")


def _refusal(source: str, message: str, line: int = 1, column: int = 1) -> SpecError:
    problem = Problem(pointer="", message="the spec " + message, line=line, column=column)
    return SpecError((problem,), source)


def _syntax(error: yaml.MarkedYAMLError, source: str) -> SpecError:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    problem = str(error.problem or error.context or error)
    if "'\\t'" in problem or "tab" in problem:
        message = "YAML: found a tab; indent with spaces"
    elif "mapping values are not allowed" in problem:
        message = (
            "YAML: found a second ':' in a plain text, or wrong indentation; put the text in"
            " quotes, or align the line with its neighbours"
        )
    elif "undefined alias" in problem:
        message = "YAML: found an alias (*name) with no anchor (&name) before it"
    else:
        context = f"{error.context}: " if error.context and error.problem else ""
        message = f"YAML: {context}{problem}; check quotes, brackets and indentation here"
    return SpecError((Problem(pointer="", message=message, line=line, column=column),), source)


class _Composer:
    """Builds the tree from parser events, so that each bound holds before memory is spent."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.problems: list[Problem] = []
        self.anchors: dict[str, Node] = {}
        self.open_anchors: set[str] = set()
        self.pieces = 0
        self.aliases = 0

    def document(self, events: Iterator[_Event]) -> Node:
        root: Node | None = None
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent) and root is not None:
                raise self._error(
                    event, "several documents in one file; give one spec per file, without ---"
                )
            if isinstance(event, yaml.NodeEvent):
                root = self.node(event, events, "", 0)
        if root is None or (isinstance(root, Scalar) and root.kind is Kind.NULL):
            raise _refusal(self.source, "is empty; the smallest one is: run: echo hello")
        return root

    def node(self, event: _Event, events: Iterator[_Event], pointer: str, depth: int) -> Node:
        self.pieces += 1
        if self.pieces > MAX_PIECES:
            raise self._error(event, f"more than {MAX_PIECES} values; make the spec smaller")
        if depth > MAX_DEPTH:
            raise self._error(event, f"nesting deeper than {MAX_DEPTH} levels; flatten the spec")
        if isinstance(event, yaml.AliasEvent):
            return self.alias(event)
        if event.anchor:
            self.open_anchors.add(event.anchor)
        node = self.fresh(event, events, pointer, depth)
        if event.anchor:
            self.open_anchors.discard(event.anchor)
            self.anchors[event.anchor] = node
        return node

    def fresh(self, event: _Event, events: Iterator[_Event], pointer: str, depth: int) -> Node:
        line, column = event.start_mark.line + 1, event.start_mark.column + 1
        if event.tag not in (None, "!", "tag:yaml.org,2002:str"):
            own = str(event.tag).startswith("!")
            remedy = "put the text in quotes" if own else "remove it"
            self.report(event, pointer, f"found the tag {quoted(str(event.tag))}; {remedy}")
        if isinstance(event, yaml.ScalarEvent):
            plain = bool(event.implicit[0]) and event.tag is None
            kind = _kind(event.value) if plain else Kind.TEXT
            return Scalar(event.value, kind, plain, line, column)
        if isinstance(event, yaml.SequenceStartEvent):
            items: list[Node] = []
            for item in events:
                if isinstance(item, yaml.SequenceEndEvent):
                    break
                items.append(self.node(item, events, f"{pointer}/{len(items)}", depth + 1))
            return Listing(tuple(items), line, column)
        return Table(self.entries(events, pointer, depth), line, column)

    def alias(self, event: _Event) -> Node:
        self.aliases += 1
        if self.aliases > MAX_ALIASES:
            raise self._error(event, f"more than {MAX_ALIASES} aliases; write the values out")
        if event.anchor in self.open_anchors:
            raise self._error(event, f"the alias *{event.anchor} stands inside its own anchor")
        node = self.anchors.get(event.anchor)
        if node is None:
            raise self._error(event, f"the alias *{event.anchor} has no anchor before it")
        return node

    def entries(
        self, events: Iterator[_Event], pointer: str, depth: int
    ) -> tuple[tuple[Scalar, Node], ...]:
        own: dict[str, tuple[Scalar, Node]] = {}
        merged: list[Node] = []
        for event in events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            key = self.node(event, events, pointer, depth + 1)
            name = key.text if isinstance(key, Scalar) else ""
            value = self.node(next(events), events, f"{pointer}/{pointer_part(name)}", depth + 1)
            if not isinstance(key, Scalar):
                self.report(event, pointer, "found a list or mapping as a key; expected a name")
            elif key.plain and key.text == "<<":
                merged += value.items if isinstance(value, Listing) else (value,)
            elif name in own:
                first = own[name][0].line
                at = f"{pointer}/{pointer_part(name)}"
                self.report(event, at, f"is there twice, first on line {first}; keep one")
            else:
                own[name] = (key, value)
        for table in merged:
            self.merge(own, table, pointer)
        return tuple(own.values())

    def merge(self, own: dict[str, tuple[Scalar, Node]], table: Node, pointer: str) -> None:
        """What ``<<`` means: keys of the other mapping, where there is none of our own."""
        if isinstance(table, Table):
            self.pieces += len(table.entries)
            for key, value in table.entries:
                own.setdefault(key.text, (key, value))
            return
        message = f"{_dotted(pointer)}<<: expected a mapping, or a list of them, to merge"
        self.problems.append(
            Problem(pointer=pointer, message=message, line=table.line, column=table.column)
        )

    def report(self, event: _Event, pointer: str, message: str) -> None:
        mark = event.start_mark
        text = f"{_dotted(pointer).removesuffix('.') or 'the spec'}: {message}"
        self.problems.append(
            Problem(pointer=pointer, message=text, line=mark.line + 1, column=mark.column + 1)
        )

    def _error(self, event: _Event, message: str) -> SpecError:
        mark = event.start_mark
        problem = Problem(
            pointer="", message=f"YAML: found {message}", line=mark.line + 1, column=mark.column + 1
        )
        return SpecError((problem,), self.source)


def _dotted(pointer: str) -> str:
    return "".join(part + "." for part in pointer.split("/")[1:])


def _kind(text: str) -> Kind:
    if _null(text):
        return Kind.NULL
    if _flag(text):
        return Kind.FLAG
    if _whole(text):
        return Kind.WHOLE
    if _real(text) and not _leading_zero(text):
        return Kind.NUMBER
    return Kind.TEXT
