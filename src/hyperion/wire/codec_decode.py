"""Protobuf to Structs: one decoder per pair, made from the fields' names and types.

Only fields that are set are visited. Numbers and enums of orders, reports and jobs are checked.
"""

from collections.abc import Callable
from enum import Enum
from math import inf, isfinite
from typing import get_args

import msgspec
from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from msgspec import NODEFAULT, Struct

from hyperion.model.job import Secret
from hyperion.wire.codec_fields import (
    LAX_MODULES,
    MAX_PORT,
    SIGNED,
    Annotation,
    AnyDescriptor,
    Convert,
    Decode,
    Fields,
    Value,
    WireError,
    default_of,
    is_optional,
    map_value,
    matched,
    members_of,
    origin_of,
    plain_type,
    special_of,
)

_decoders: dict[tuple[type[Struct], str], Decode] = {}


def decoder(kind: type[Struct], message: AnyDescriptor) -> Decode:
    """A function from such a message to the Struct. It raises WireError, nothing else."""
    key = (kind, message.full_name)
    if key not in _decoders:
        _decoders[key] = _make_decoder(kind, message)
    return _decoders[key]


def _make_decoder(kind: type[Struct], message: AnyDescriptor) -> Decode:
    table, zeros = _decode_table(kind, message)
    finish, share = special_of(kind).finish, special_of(kind).share
    maps = [name for name, zero in zeros.items() if zero == {}]

    def decode(received: Value) -> Value:
        fields = zeros.copy()
        for name in maps:
            fields[name] = {}  # its own, since a dict can be changed
        try:
            for field, value in received.ListFields():
                name, convert = table[field]
                fields[name] = value if convert is None else convert(value)
        except WireError as fault:
            raise fault.within(field.name) from None
        if finish is not None:
            finish(fields)
        try:
            made = kind(**fields)
        except TypeError:
            raise _missing(kind, fields) from None
        return made if share is None else share(made)

    return decode


def _decode_table(
    kind: type[Struct], message: AnyDescriptor
) -> tuple[dict[FieldDescriptor, tuple[str, Convert]], Fields]:
    """Per protobuf field where its value goes and how; and what stands for absent fields."""
    table: dict[FieldDescriptor, tuple[str, Convert]] = {}
    zeros: Fields = {}
    strict = kind.__module__ not in LAX_MODULES
    special = special_of(kind)
    for info, field in matched(kind, message):
        annotation = plain_type(info.type)
        table[field] = (info.name, _decode_value(annotation, field, strict))
        default = default_of(info)
        if not field.has_presence and field.enum_type is None:
            zero = origin_of(annotation)() if origin_of(annotation) else annotation()
            if default is NODEFAULT or default != zero or info.name in special.zeros:
                zeros[info.name] = zero
        elif default is NODEFAULT and is_optional(info.type):
            zeros[info.name] = None
    for name, annotation in special.extra.items():
        extra = message.fields_by_name[name]
        table[extra] = (name, _decode_value(annotation, extra, strict))
    return table, zeros


def _missing(kind: type[Struct], fields: Fields) -> WireError:
    names = [info.name for info in msgspec.structs.fields(kind) if info.required]
    absent = next((name for name in names if name not in fields), kind.__name__)
    return WireError("is missing; the sender must set it", absent)


def _decode_value(annotation: Annotation, field: FieldDescriptor, strict: bool) -> Convert:
    if origin_of(annotation) is dict:
        return _decode_map(annotation, field, strict)
    if not field.is_repeated:
        return _decode_single(annotation, field, strict)
    single = _decode_single(plain_type(get_args(annotation)[0]), field, strict)
    if single is None:
        return tuple
    convert = single

    def several(values: Value) -> tuple[Value, ...]:
        try:
            return tuple([convert(value) for value in values])
        except WireError:
            raise _located(values, convert) from None

    return several


def _located(values: Value, convert: Callable[[Value], Value]) -> WireError:
    """The fault again, with the index of the element that has it."""
    for index, value in enumerate(values):
        try:
            convert(value)
        except WireError as fault:
            return fault.within(f"[{index}]")
    return WireError("cannot be read")


def _decode_single(annotation: Annotation, field: FieldDescriptor, strict: bool) -> Convert:
    if field.message_type is not None:
        if origin_of(annotation) is tuple:
            return _decode_pair(annotation, field, strict)
        return decoder(annotation, field.message_type)
    if field.enum_type is not None:
        return _named(annotation, field.enum_type)
    if strict and annotation is int and field.name not in SIGNED:
        return _port if field.name == "port" else _count
    if strict and annotation is float:
        return _finite if field.name in SIGNED else _amount
    return None


def _decode_pair(annotation: Annotation, field: FieldDescriptor, strict: bool) -> Convert:
    """A tuple from the fields of a small message, in their order."""
    message: AnyDescriptor = field.message_type
    parts = [
        (part.name, _decode_single(plain_type(kind), part, strict))
        for kind, part in zip(get_args(annotation), message.fields, strict=True)
    ]
    if all(convert is None for _, convert in parts):
        names = [name for name, _ in parts]
        return lambda value: tuple([getattr(value, name) for name in names])

    def pair(value: Value) -> Value:
        made = []
        for name, convert in parts:
            part = getattr(value, name)
            try:
                made.append(part if convert is None else convert(part))
            except WireError as fault:
                raise fault.within(name) from None
        return tuple(made)

    return pair


def _named(kind: type[Enum], values: EnumDescriptor) -> Callable[[int], Enum]:
    members = {number: member for member, number in members_of(kind, values).items()}
    known = ", ".join(f"{number} ({member.name})" for number, member in sorted(members.items()))

    def named(number: int) -> Enum:
        member = members.get(number)
        if member is None:
            raise WireError(f"is {number}, expected one of {known}")
        return member

    return named


def _count(number: int) -> int:
    if number < 0:
        raise WireError(f"is {number}, expected 0 or more")
    return number


def _port(number: int) -> int:
    if not 0 <= number <= MAX_PORT:
        raise WireError(f"is {number}, expected a port from 0 to {MAX_PORT}")
    return number


def _amount(number: float) -> float:
    if not 0.0 <= number < inf:
        raise WireError(f"is {number}, expected a finite number, 0 or more")
    return number


def _finite(number: float) -> float:
    if not isfinite(number):
        raise WireError(f"is {number}, expected a finite number")
    return number


def _decode_map(annotation: Annotation, field: FieldDescriptor, strict: bool) -> Convert:
    inner = map_value(annotation, field)
    if inner is Secret:
        return lambda values: {key: Secret(values[key]) for key in values}
    check = {int: _count, float: _finite}.get(inner) if strict else None
    if check is None:
        return lambda values: {key: values[key] for key in values}  # quicker than dict() here
    return lambda values: {key: check(values[key]) for key in values}
