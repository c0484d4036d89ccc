"""Converters between a Struct and a protobuf message, made once per pair from their field names.

An encoder gives the keyword arguments of the message (nested ones as dicts: protobuf fills a nested
message from a dict faster than it copies one), a decoder gives the Struct. A pair that does not
match field for field and type for type is refused with TypeError when its converter is made.

An absent field is the zero of its type, or the Struct's default where the contract can tell absent
from zero (``optional``, messages, enums). Nothing here formats a message or a value of text into an
error: jobs carry secrets.
"""

import types
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any, NoReturn, Union, get_args, get_origin

import msgspec
from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from msgspec import NODEFAULT, Struct
from msgspec.structs import FieldInfo

from hyperion.model.job import Secret

Annotation = Any
"""A type as msgspec reports it."""
Value = Any
"""A field's value, a Struct or a message: what is inside is known when a converter is made."""
AnyMessage = Any
"""A message whose class follows from an argument."""
AnyDescriptor = Any
"""A message's descriptor; its class depends on protobuf's implementation."""
Fields = dict[str, Any]
ToFields = Callable[[Any], Fields]
Decode = Callable[[Value], Value]
Convert = Callable[[Value], Value] | None
"""None: the value is the same on both sides."""

SIGNED = frozenset({"exit_code", "nice", "temperature_celsius"})
"""Numbers that may be negative. Elsewhere in orders and reports none may."""
LAX_MODULES = frozenset({"hyperion.wire.api", "hyperion.wire.datasets_api"})
"""Views are only shown, so their numbers are taken as they come."""
ENUM_ALIASES = {"CUSTOM": "CUSTOM_CONTAINER"}
MAX_PORT = 65_535


class WireError(ValueError):
    """A message that the contract does not admit: names the field, what was found, what is right.

    Never holds a text from the message.
    """

    def __init__(self, reason: str, path: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.path = path

    def within(self, name: str) -> "WireError":
        """The same fault, seen from the field around it."""
        joined = self.path if not self.path or self.path.startswith("[") else f".{self.path}"
        return WireError(self.reason, f"{name}{joined}")

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}" if self.path else self.reason


class Special(Struct, frozen=True):
    """How a Struct differs from its message, for those that differ in more than names."""

    renames: Mapping[str, str] = {}
    """Struct field to protobuf field."""
    derived: frozenset[str] = frozenset()
    """Struct fields that ``begin`` encodes; they are decoded like any other."""
    zeros: frozenset[str] = frozenset()
    """Struct fields that ``finish`` wants to find even where they are absent."""
    extra: Mapping[str, Any] = {}
    """Protobuf fields without a namesake, with the type that ``finish`` takes them as."""
    begin: Callable[[Any, Fields], None] | None = None
    """Completes what was encoded: (struct, fields of the message)."""
    finish: Callable[[Fields], None] | None = None
    """Turns the fields of the message into those of the Struct."""
    share: Callable[[Any], Any] | None = None
    """Gives an equal Struct whose parts are those that earlier ones had too."""


_specials: dict[type[Struct], Special] = {}


def special_of(kind: type[Struct]) -> Special:
    """How the Struct differs from its message; by default in nothing."""
    return _specials.get(kind, Special())


def register(kind: type[Struct], special: Special) -> None:
    """State how ``kind`` differs from its message, before its first converter is made."""
    _specials[kind] = special


# -- the fields of a pair, matched --------------------------------------------------------------


def matched(
    kind: type[Struct], message: AnyDescriptor
) -> Iterable[tuple[FieldInfo, FieldDescriptor]]:
    """Struct fields with their protobuf fields; TypeError unless every one has its partner."""
    special = special_of(kind)
    free = {field.name: field for field in message.fields if field.name not in special.extra}
    pairs = []
    for info in msgspec.structs.fields(kind):
        found = free.pop(special.renames.get(info.name, info.name), None)
        if found is None:
            raise TypeError(f"{kind.__name__}.{info.name} has no field in {message.full_name}")
        pairs.append((info, found))
    if free:
        raise TypeError(f"{message.full_name}.{next(iter(free))} is no field of {kind.__name__}")
    return pairs


def plain_type(annotation: Annotation) -> Annotation:
    """The type without NewType and ``| None``."""
    while hasattr(annotation, "__supertype__"):
        annotation = annotation.__supertype__
    if is_optional(annotation):
        (inner,) = (part for part in get_args(annotation) if part is not types.NoneType)
        return plain_type(inner)
    return annotation


def origin_of(annotation: Annotation) -> Annotation:
    """``tuple`` of ``tuple[int, ...]``; None of a type without arguments."""
    return get_origin(annotation)


def is_optional(annotation: Annotation) -> bool:
    return origin_of(annotation) in (types.UnionType, Union)


def default_of(info: FieldInfo) -> Value:
    """The field's default, NODEFAULT where there is none."""
    if info.default is not NODEFAULT:
        return info.default
    if info.default_factory is not NODEFAULT:
        return info.default_factory()
    return NODEFAULT


_SCALARS: dict[type, frozenset[int]] = {
    str: frozenset({FieldDescriptor.TYPE_STRING}),
    bytes: frozenset({FieldDescriptor.TYPE_BYTES}),
    bool: frozenset({FieldDescriptor.TYPE_BOOL}),
    int: frozenset({FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_INT64}),
    float: frozenset({FieldDescriptor.TYPE_DOUBLE}),
}


def is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def mismatch(annotation: Annotation, field: FieldDescriptor) -> NoReturn:
    raise TypeError(f"{field.full_name} does not match {annotation}")


def check_scalar(annotation: Annotation, field: FieldDescriptor) -> None:
    if field.type not in _SCALARS.get(annotation, ()):
        mismatch(annotation, field)


def members_of(kind: type[Enum], values: EnumDescriptor) -> dict[Enum, int]:
    """By name: ``QUEUED`` is ``QUEUED`` or ``JOB_PHASE_QUEUED``; none may be left without one."""
    prefix = "".join(f"_{c}" if c.isupper() else c for c in kind.__name__)[1:].upper() + "_"
    numbers = {value.name.removeprefix(prefix): value.number for value in values.values}
    return {member: numbers[ENUM_ALIASES.get(member.name, member.name)] for member in kind}


def map_value(annotation: Annotation, field: FieldDescriptor) -> Annotation:
    """The type of a map's values, once it is known to match."""
    if not is_map(field):
        mismatch(annotation, field)
    key, inner = (plain_type(part) for part in get_args(annotation))
    message: AnyDescriptor = field.message_type
    entry = message.fields_by_name
    check_scalar(key, entry["key"])
    check_scalar(str if inner is Secret else inner, entry["value"])
    return inner
