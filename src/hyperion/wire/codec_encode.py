"""Structs to protobuf: one encoder per pair, made from the fields' names and types.

An encoder gives the keyword arguments of the message, nested ones as dicts: protobuf fills a nested
message from a dict faster than it copies one.
"""

from collections.abc import Callable
from typing import TypeVar, get_args

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from msgspec import NODEFAULT, Struct

from hyperion.model.job import Secret
from hyperion.wire.codec_fields import (
    Annotation,
    AnyDescriptor,
    Convert,
    Fields,
    ToFields,
    Value,
    WireError,
    check_scalar,
    default_of,
    is_map,
    map_value,
    matched,
    members_of,
    mismatch,
    origin_of,
    plain_type,
    special_of,
)

M = TypeVar("M", bound=Message)

_encoders: dict[tuple[type[Struct], str], ToFields] = {}


def encoder(kind: type[Struct], message: AnyDescriptor) -> ToFields:
    """A function from such a Struct to the keyword arguments of its message."""
    key = (kind, message.full_name)
    if key not in _encoders:
        _encoders[key] = _make_encoder(kind, message)
    return _encoders[key]


def _make_encoder(kind: type[Struct], message: AnyDescriptor) -> ToFields:
    plain: list[tuple[str, str]] = []
    converted: list[tuple[str, str, Callable[[Value], Value]]] = []
    present: list[tuple[str, str, Value, Convert]] = []
    special = special_of(kind)
    for info, field in matched(kind, message):
        if info.name in special.derived:
            continue
        convert = _encode_value(plain_type(info.type), field)
        if field.has_presence:
            default = default_of(info)
            skip = None if default is NODEFAULT else default
            present.append((info.name, field.name, skip, convert))
        elif convert is None:
            plain.append((info.name, field.name))
        else:
            converted.append((info.name, field.name, convert))
    begin = special.begin

    def encode(value: Value) -> Fields:
        fields: Fields = {}
        for name, key in plain:
            item = getattr(value, name)
            if item:
                fields[key] = item
        for name, key, convert in converted:
            item = getattr(value, name)
            if item:
                fields[key] = convert(item)
        for name, key, skip, convert_present in present:
            item = getattr(value, name)
            if item is not skip and item != skip:
                fields[key] = item if convert_present is None else convert_present(item)
        if begin is not None:
            begin(value, fields)
        return fields

    return encode


def _encode_value(annotation: Annotation, field: FieldDescriptor) -> Convert:
    if origin_of(annotation) is dict:
        return _encode_map(annotation, field)
    if not field.is_repeated:
        return _encode_single(annotation, field)
    arguments = get_args(annotation)
    if origin_of(annotation) is not tuple or len(arguments) != 2 or arguments[1] is not Ellipsis:
        mismatch(annotation, field)
    single = _encode_single(plain_type(arguments[0]), field)
    if single is None:
        return None
    convert = single
    return lambda items: [convert(item) for item in items]


def _encode_single(annotation: Annotation, field: FieldDescriptor) -> Convert:
    if field.message_type is not None:
        if origin_of(annotation) is tuple:
            names = [inner.name for inner in field.message_type.fields]
            return lambda values: dict(zip(names, values, strict=True))
        if not issubclass(annotation, Struct):
            mismatch(annotation, field)
        return encoder(annotation, field.message_type)
    if field.enum_type is not None:
        return members_of(annotation, field.enum_type).__getitem__
    check_scalar(annotation, field)
    return None


def _encode_map(annotation: Annotation, field: FieldDescriptor) -> Convert:
    inner = map_value(annotation, field)
    if inner is Secret:
        return lambda items: {key: secret.value for key, secret in items.items()}
    return None


def to_message(kind: type[M], fields: Fields) -> M:
    """The message of these encoded fields; WireError names the field that does not fit.

    protobuf's own errors may hold the value, so they are not passed on, not even as a context.
    """
    try:
        return kind(**fields)
    except (TypeError, ValueError):
        fault = _blame(kind.DESCRIPTOR, fields)
    raise fault


def _blame(message: AnyDescriptor, fields: Fields) -> WireError:
    for name, value in fields.items():
        try:
            message._concrete_class(**{name: value})
        except (TypeError, ValueError):
            return _blame_field(message, name, value)
    return WireError("does not fit the contract")


def _blame_field(message: AnyDescriptor, name: str, value: Value) -> WireError:
    field = message.fields_by_name.get(name)
    if field is None:
        return WireError(f"is no field of {message.name}", name)
    if field.message_type is None or is_map(field):
        return WireError("has a value of the wrong type or range, or a lone surrogate", name)
    if isinstance(value, dict):
        return _blame(field.message_type, value).within(name)
    for index, item in enumerate(value):
        try:
            message._concrete_class(**{name: [item]})
        except (TypeError, ValueError):
            return _blame(field.message_type, item).within(f"{name}[{index}]")
    return WireError("does not fit the contract", name)
