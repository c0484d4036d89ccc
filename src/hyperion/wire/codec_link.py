"""The persistent streams: link messages, relayed calls and readings to and from their envelopes."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from google.protobuf.message import Message
from msgspec import Struct

from hyperion.control.messages import (
    AgentUpward,
    AllocationReport,
    ClusterHeartbeat,
    ClusterHello,
    ClusterOrder,
    ClusterUpward,
    Forget,
    ForgetJob,
    Guard,
    JobReport,
    Lease,
    NodeHeartbeat,
    NodeHello,
    NodeOrder,
    Pause,
    PlaceJob,
    Prepare,
    Resume,
    Run,
    Stop,
    StopJob,
)
from hyperion.ports import Reading
from hyperion.wire import codec_job  # noqa: F401 - it states how jobs differ from AIJob
from hyperion.wire.codec_decode import decoder
from hyperion.wire.codec_encode import encoder, to_message
from hyperion.wire.codec_fields import Decode, Fields, Special, ToFields, Value, WireError, register
from hyperion.wire.generated import link_pb2, node_pb2
from hyperion.wire.relay import Call, CallCancel, Chunk, Measured

Relayed = Call | Chunk | CallCancel
E = TypeVar("E", bound=Message)

MAX_ENVELOPE_BYTES = 1 << 20
"""What ``split`` aims at: a quarter of what gRPC receives by default."""

_FIELDS: dict[type[Struct], str] = {
    PlaceJob: "place_job",
    StopJob: "stop_job",
    ForgetJob: "forget_job",
    Lease: "lease",
    JobReport: "job_report",
    ClusterHello: "cluster_hello",
    ClusterHeartbeat: "cluster_heartbeat",
    Prepare: "prepare",
    Run: "run",
    Stop: "stop",
    Pause: "pause",
    Resume: "resume",
    Guard: "guard",
    Forget: "forget",
    AllocationReport: "allocation_report",
    NodeHello: "node_hello",
    NodeHeartbeat: "node_heartbeat",
    Call: "call",
    Chunk: "chunk",
    CallCancel: "call_cancel",
    Measured: "metrics",
}
_encoders: dict[type[Struct], tuple[str, ToFields]] = {}
_decoders: dict[str, Decode] = {}
_readings: list[tuple[ToFields, Decode]] = []


# -- one message --------------------------------------------------------------------------------


def encode(message: Struct) -> Fields:
    """The keyword arguments of the Item that carries this message; TypeError for any other kind."""
    made = _encoders.get(type(message))
    if made is None:
        made = _encoders[type(message)] = _item_encoder(type(message))
    name, convert = made
    try:
        return {name: convert(message)}
    except WireError as fault:
        raise fault.within(name) from None


def decode(item: Value) -> Value:
    """The message in an Item of any envelope; None for a kind that only newer peers know.

    Raises WireError (a ValueError) naming the field that the contract does not admit.
    """
    name = item.WhichOneof("item")
    if name is None:
        return None
    convert = _decoders.get(name)
    if convert is None:
        convert = _decoders[name] = _item_decoder(name)
    try:
        return convert(getattr(item, name))
    except WireError as fault:
        raise fault.within(name) from None


def decode_late(item: Value) -> Value:
    """Like ``decode``, but a reading is only looked at when somebody asks for it: one of thousands
    of nodes that report each second is seldom asked about."""
    if item.WhichOneof("item") != "metrics":
        return decode(item)
    return Unread(item.metrics.node_id, item.metrics)


class Unread(Struct, frozen=True):
    """A node's reading as it came."""

    node: str
    message: Any

    def read(self) -> Reading:
        """The reading, or WireError where the contract does not admit it."""
        try:
            return metrics_from_proto(self.message)[1]
        except WireError as fault:
            raise fault.within("metrics") from None


def _item_encoder(kind: type[Struct]) -> tuple[str, ToFields]:
    name = _FIELDS.get(kind)
    if name is None:
        raise TypeError(f"{kind.__name__} is no message of a stream")
    if kind is Measured:
        return name, lambda measured: metrics_fields(measured.reading, measured.node)
    return name, encoder(kind, getattr(link_pb2, kind.__name__).DESCRIPTOR)


def _item_decoder(name: str) -> Decode:
    kind = next(kind for kind, field in _FIELDS.items() if field == name)
    if kind is Measured:
        return lambda message: Measured(*metrics_from_proto(message))
    return decoder(kind, getattr(link_pb2, kind.__name__).DESCRIPTOR)


# -- envelopes ----------------------------------------------------------------------------------


def _pack(kind: type[E], messages: Iterable[Struct]) -> E:
    return to_message(kind, {"items": [encode(message) for message in messages]})


def _unpack(envelope: Value) -> Iterator[Any]:
    for index, item in enumerate(envelope.items):
        try:
            message = decode(item)
        except WireError as fault:
            raise fault.within(f"items[{index}]") from None
        if message is not None:
            yield message


def pack_federation(messages: Iterable[ClusterOrder | Relayed]) -> link_pb2.FederationMessage:
    """What a federation sends to a cluster."""
    return _pack(link_pb2.FederationMessage, messages)


def pack_cluster(messages: Iterable[ClusterUpward | Relayed]) -> link_pb2.ClusterMessage:
    """What a cluster sends to its federation."""
    return _pack(link_pb2.ClusterMessage, messages)


def pack_scheduler(messages: Iterable[NodeOrder | Relayed]) -> link_pb2.SchedulerMessage:
    """What a scheduler sends to an agent."""
    return _pack(link_pb2.SchedulerMessage, messages)


def pack_agent(messages: Iterable[AgentUpward | Relayed | Measured]) -> link_pb2.AgentMessage:
    """What an agent sends to its scheduler."""
    return _pack(link_pb2.AgentMessage, messages)


def unpack_federation(envelope: link_pb2.FederationMessage) -> Iterator[ClusterOrder | Relayed]:
    """Its messages in their order; WireError at the first that is not admitted."""
    return _unpack(envelope)


def unpack_cluster(envelope: link_pb2.ClusterMessage) -> Iterator[ClusterUpward | Relayed]:
    """Its messages in their order; WireError at the first that is not admitted."""
    return _unpack(envelope)


def unpack_scheduler(envelope: link_pb2.SchedulerMessage) -> Iterator[NodeOrder | Relayed]:
    """Its messages in their order; WireError at the first that is not admitted."""
    return _unpack(envelope)


def unpack_agent(envelope: link_pb2.AgentMessage) -> Iterator[AgentUpward | Relayed | Measured]:
    """Its messages in their order; WireError at the first that is not admitted."""
    return _unpack(envelope)


def split(envelope: E, limit_bytes: int = MAX_ENVELOPE_BYTES) -> Iterator[E]:
    """The same items in envelopes of at most that size, where a single item is not larger."""
    items: Any = getattr(envelope, "items")  # noqa: B009 - every envelope has them; E cannot say so
    if len(items) < 2 or envelope.ByteSize() <= limit_bytes:
        yield envelope
        return
    half = len(items) // 2
    make: Callable[..., E] = type(envelope)
    yield from split(make(items=items[:half]), limit_bytes)
    yield from split(make(items=items[half:]), limit_bytes)


# -- readings -----------------------------------------------------------------------------------


def _finish_reading(fields: Fields) -> None:
    for name in ("node_id", "gpu_utilization_percent", "custom_metrics"):
        fields.pop(name, None)


register(
    Reading,
    Special(
        extra={
            "node_id": str,
            "gpu_utilization_percent": float,
            "custom_metrics": dict[str, float],
        },
        finish=_finish_reading,
    ),
)


def _reading_pair() -> tuple[ToFields, Decode]:
    if not _readings:
        descriptor = node_pb2.NodeMetrics.DESCRIPTOR
        _readings.append((encoder(Reading, descriptor), decoder(Reading, descriptor)))
    return _readings[0]


def metrics_fields(reading: Reading, node_id: str) -> Fields:
    """The keyword arguments of NodeMetrics; its GPU utilisation is the mean of those that say."""
    fields = _reading_pair()[0](reading)
    fields["node_id"] = node_id
    said = [g.utilization_percent for g in reading.gpus if g.utilization_percent is not None]
    if said:
        fields["gpu_utilization_percent"] = sum(percent / len(said) for percent in said)
    return fields


def metrics_to_proto(reading: Reading, node_id: str) -> node_pb2.NodeMetrics:
    """One node at one instant, for the blueprint's readers too."""
    return to_message(node_pb2.NodeMetrics, metrics_fields(reading, node_id))


def metrics_from_proto(message: node_pb2.NodeMetrics) -> tuple[str, Reading]:
    """(node id, reading); WireError names a number that is negative or not finite.

    An agent that speaks only the blueprint's text says nothing of single GPUs; its mean and its
    ``custom_metrics`` are in the message, and no GPU is made up from them here.
    """
    reading: Reading = _reading_pair()[1](message)
    return message.node_id, reading
