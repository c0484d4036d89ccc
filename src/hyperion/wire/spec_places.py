"""Where replicas may be, as a spec says it: terms on nodes, topology, spread, near and away."""

import re
from typing import Any, cast

from hyperion.model import bounds
from hyperion.model.constraints import (
    HOST,
    LEVELS,
    NodeTerm,
    Operator,
    Packing,
    ReplicaTerm,
    Spread,
)
from hyperion.wire.spec_kinds import (
    Choice,
    Field,
    Flag,
    ListOf,
    Place,
    Reading,
    Record,
    Schema,
    Text,
    Variables,
    Whole,
)
from hyperion.wire.spec_shorthand import Parsed, Shorthand
from hyperion.wire.spec_tree import Node, Table

_VALUE = r"[^\s,()!=<>'\"]+"
_KEY = bounds.KEY_PATTERN
_bare = re.compile(rf"(!\s*|not\s+)?({_KEY})").fullmatch
_compared = re.compile(rf"({_KEY})\s*(==|=|!=|>=|<=|>|<)\s*({_VALUE})").fullmatch
_listed = re.compile(
    rf"({_KEY})\s+(in|not\s*in)\s*\(\s*({_VALUE}(?:\s*,\s*{_VALUE})*)\s*\)", re.IGNORECASE
).fullmatch
_value = re.compile(_VALUE).fullmatch
_whole = re.compile(r"-?\d{1,16}", re.ASCII).fullmatch
_TERM = "a term such as zone in (a, b), gpu-memory > 40, disk = nvme, nvlink or not spot"
_MAX_TERM_CHARS = 16_384


def term_of(text: str) -> NodeTerm:
    """The term in ``zone in (a, b)``, ``gpu-memory >= 40``, ``disk != hdd``, ``nvlink``, ``!spot``.

    Raises ValueError with what was expected.
    """
    text = text.strip()
    if len(text) > _MAX_TERM_CHARS:
        raise ValueError(f"at most {_MAX_TERM_CHARS} characters")
    if match := _bare(text):
        return NodeTerm(match[2], Operator.ABSENT if match[1] else Operator.EXISTS)
    if match := _listed(text):
        values = tuple(value.strip() for value in match[3].split(","))
        inside = match[2].lower() == "in"
        return NodeTerm(match[1], Operator.IN if inside else Operator.NOT_IN, values)
    match = _compared(text)
    if match is None:
        hint = (
            "; put it in quotes, since it has a comma" if text.count("(") != text.count(")") else ""
        )
        raise ValueError(_TERM + hint)
    key, sign, value = match.groups()
    if sign in ("=", "=="):
        return NodeTerm(key, Operator.IN, (value,))
    if sign == "!=":
        return NodeTerm(key, Operator.NOT_IN, (value,))
    if not _whole(value):
        raise ValueError(f"a whole number behind {sign}, such as {key} {sign} 40")
    operator = Operator.GREATER if sign[0] == ">" else Operator.LESS
    edge = 0 if len(sign) == 1 else 1 if sign == "<=" else -1
    return NodeTerm(key, operator, (str(int(value) + edge),))


def term_text(term: NodeTerm) -> str:
    """What ``term_of`` reads back as this term, without its weight; empty where nothing does."""
    if not all(_value(value) for value in term.values):
        return ""
    if term.key == "not" and term.operator is Operator.EXISTS:
        return ""
    return _FORMS[term.operator].format(key=term.key, values=", ".join(term.values))


_FORMS = {
    Operator.EXISTS: "{key}",
    Operator.ABSENT: "!{key}",
    Operator.IN: "{key} in ({values})",
    Operator.NOT_IN: "{key} not in ({values})",
    Operator.GREATER: "{key} > {values}",
    Operator.LESS: "{key} < {values}",
}


def label_of(text: str) -> dict[str, str]:
    """The pairs in ``app=web`` or ``app=web,tier=front``. Raises ValueError."""
    pairs = {}
    for part in text.split(","):
        key, equals, value = part.strip().partition("=")
        if not equals or key in pairs:
            raise ValueError("metadata of the other jobs, such as app=web or {labels: {app: web}}")
        pairs[key] = value
    return pairs


class Countables:
    """Names and whole numbers. Reads to pairs in order of the names."""

    words = "mapping of whole numbers"

    def read(self, node: Node, place: Place, to: Reading) -> tuple[tuple[str, int], ...] | None:
        if not isinstance(node, Table):
            to.expect(place, node, "a mapping of names to whole numbers, such as {fpga: 1}")
            return None
        found = []
        for key, value in node.entries:
            at = place.field(key)
            to.places[at.canonical] = at
            amount = _AMOUNT.read(value, at, to)
            if amount is not None:
                found.append((key.text, amount))
        return tuple(sorted(found))

    def schema(self) -> Schema:
        return {
            "type": "object",
            "propertyNames": {"pattern": f"^{bounds.KEY_PATTERN}$"},
            "additionalProperties": _AMOUNT.schema(),
        }


_AMOUNT = Whole(1, bounds.MAX_CUSTOM_AMOUNT)


class _NodeTerm(Record):
    """A term as a mapping: the text with a weight, or key, operator and values as in Kubernetes."""

    def read(self, node: Node, place: Place, to: Reading) -> NodeTerm | None:
        before = len(to.faults)
        values = cast("dict[str, Any] | None", super().read(node, place, to))
        if values is None or len(to.faults) > before:
            return None
        weight = values.pop("weight", 0)
        term = values.pop("term", None)
        if term is not None and not values:
            return NodeTerm(term.key, term.operator, term.values, weight)
        if term is not None:
            to.refuse(place, "found term and key, operator or values; keep term alone")
        elif "key" not in values:
            to.refuse(place, f"key is missing; or give term: {_TERM}")
        else:
            values.setdefault("operator", Operator.IN if "values" in values else Operator.EXISTS)
            return NodeTerm(weight=weight, **values)
        return None


_OPERATORS = {operator.value: operator for operator in Operator} | {
    "NotIn": Operator.NOT_IN,
    "DoesNotExist": Operator.ABSENT,
    "Gt": Operator.GREATER,
    "Lt": Operator.LESS,
}

_WEIGHT = Field(
    "weight",
    Whole(0, bounds.MAX_TERM_WEIGHT),
    "1 to 100 prefers it so strongly; 0 requires it.",
    default="0",
    example="50",
)

NODE_TERM = Shorthand(
    _NodeTerm(
        (
            Field(
                "term",
                Parsed("text", _TERM, term_of),
                "The term as a text.",
                example="zone in (a, b)",
            ),
            Field(
                "key",
                Text("a label", bounds.KEY_PATTERN, empty=False),
                "Or its parts: the node's label,",
                example="zone",
            ),
            Field(
                "operator",
                Choice(_OPERATORS),
                "how it is compared (Kubernetes' words are known too),",
                default="in, or exists without values",
                example="not-in",
            ),
            Field(
                "values",
                ListOf(
                    Parsed("text", "a text", str, numbers=True), bounds.MAX_TERM_VALUES, lone=True
                ),
                "and with what.",
                example="[a, b]",
            ),
            _WEIGHT,
        ),
        words="mapping with term and weight",
    ),
    Parsed("text", _TERM, term_of),
)

LEVEL = Choice({level: level for level in LEVELS})
_LEVEL_DOC = "Of `zone`, `block`, `rack`, `nvlink`, `host`, which are labels of nodes."


class _Topology(Record):
    def read(self, node: Node, place: Place, to: Reading) -> Packing | None:
        before = len(to.faults)
        values = cast("dict[str, str] | None", super().read(node, place, to))
        if values is None or len(to.faults) > before:
            return None
        if len(values) != 1:
            found = "required and preferred" if values else "neither required nor preferred"
            to.refuse(place, f"found {found}, expected one of them, such as required: rack")
            return None
        ((word, level),) = values.items()
        return Packing(level, required=word == "required")


TOPOLOGY = Shorthand(
    _Topology(
        (
            Field(
                "required",
                LEVEL,
                "All replicas in one part of this level, or the job waits.",
                example="rack",
            ),
            Field(
                "preferred",
                LEVEL,
                "In one part of this level if one has room, else of the next wider one.",
                example="nvlink",
            ),
        ),
        words="mapping with required or preferred",
    ),
    LEVEL,
    Packing,
)

SPREAD = Shorthand(
    Record(
        (
            Field("level", LEVEL, _LEVEL_DOC, default="host", example="rack"),
            Field(
                "max_skew",
                Whole(1, bounds.MAX_SKEW),
                "How many more a part may have than the emptiest one that could take one.",
                default="1",
                example="2",
            ),
            Field("required", Flag(), "`false` only prefers it.", default="true", example="false"),
        ),
        Spread,
    ),
    LEVEL,
    Spread,
)


def _term(labels: dict[str, str], level: str = HOST, weight: int = 0) -> ReplicaTerm:
    return ReplicaTerm(tuple(sorted(labels.items())), level, weight=weight)


REPLICA_TERM = Shorthand(
    Record(
        (
            Field(
                "labels",
                Variables(bounds.KEY_PATTERN),
                "What the other jobs have in their `metadata`, all of it.",
                example="{app: web}",
                required=True,
            ),
            Field("level", LEVEL, _LEVEL_DOC, default="host", example="rack"),
            _WEIGHT,
        ),
        _term,
        words="mapping with labels, level and weight",
    ),
    Parsed("KEY=VALUE", "app=web, or {labels: {app: web}, level: rack}", label_of, r"[^=]+=.*"),
    _term,
)
