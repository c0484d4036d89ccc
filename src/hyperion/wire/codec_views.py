"""The API's views to and from their messages, which have the same fields."""

from typing import TypeVar

from google.protobuf.message import Message
from msgspec import Struct

from hyperion.wire.codec_decode import decoder
from hyperion.wire.codec_encode import encoder, to_message
from hyperion.wire.codec_fields import AnyMessage
from hyperion.wire.generated import federation_pb2

S = TypeVar("S", bound=Struct)


def view_to_proto(view: Struct) -> AnyMessage:
    """The message of the view's name: a JobView gives a ``federation_pb2.JobView``.

    WireError (a ValueError) names a field that does not fit; TypeError for what is no view.
    """
    kind: type[Message] | None = getattr(federation_pb2, type(view).__name__, None)
    if kind is None:
        raise TypeError(f"{type(view).__name__} is no view of the API")
    return to_message(kind, encoder(type(view), kind.DESCRIPTOR)(view))


def view_from_proto(message: Message, kind: type[S]) -> S:
    """The view that this message holds; WireError names a field that is missing or unknown."""
    view: S = decoder(kind, message.DESCRIPTOR)(message)
    return view
