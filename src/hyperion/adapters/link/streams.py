"""The two persistent streams of the contract: agents to schedulers, schedulers to federations."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from google.protobuf.message import DecodeError
from msgspec import Struct

from hyperion.adapters.link.errors import Exhausted, Invalid
from hyperion.adapters.link.identity import Role, role_host
from hyperion.control.messages import ClusterHello, NodeHello
from hyperion.wire import codec
from hyperion.wire.generated import link_pb2

MAX_MESSAGE_BYTES = 8 << 20
"""Of one gRPC message, sent or received, on every channel and server of ours."""

_log = logging.getLogger("hyperion.link")


class Direction(Struct, frozen=True):
    """One direction of a stream: how items become envelopes and come out of them again."""

    pack: Callable[[Iterable[Any]], Any]
    envelope: type[Any]
    decode: Callable[[Any], Any] = codec.decode

    def packed(self, items: Sequence[Struct]) -> Iterator[bytes]:
        """Envelopes. An item the contract does not admit is dropped and logged: a message may be
        lost, but it must not break the link for all others."""
        try:
            whole = self.pack(items)
        except (ValueError, TypeError) as error:
            if len(items) == 1:
                _log.error("a %s was not sent: %s", type(items[0]).__name__, error)
                return
            for item in items:
                yield from self.packed([item])
            return
        for envelope in codec.split(whole):
            size = envelope.ByteSize()
            if size > MAX_MESSAGE_BYTES:
                raise Exhausted(f"a message of {size} bytes; at most {MAX_MESSAGE_BYTES} fit")
            yield envelope.SerializeToString()

    def unpacked(self, envelope: bytes) -> Iterator[Any]:
        """Its items; those the contract does not admit are dropped and logged.

        Invalid when it is no envelope at all.
        """
        try:
            items = self.envelope.FromString(envelope).items
        except DecodeError:
            raise Invalid(f"{len(envelope)} bytes that are no {self.envelope.__name__}") from None
        decode = self.decode
        for item in items:
            try:
                message = decode(item)
            except ValueError as error:
                _log.error("a message from the other side was dropped: %s", error)
                continue
            if message is not None:
                yield message


class Stream(Struct, frozen=True):
    """A persistent stream: who serves it, what travels on it, and how it begins."""

    service: str
    server: Role
    client: Role
    up: Direction
    down: Direction
    hello: type[Struct]
    """The first message of the side that dials."""
    hello_id: Callable[[Any], str]

    @property
    def path(self) -> str:
        return f"/{self.service}/Attach"


AGENTS = Stream(
    service="hyperion.v1.Agents",
    server=Role.SCHEDULER,
    client=Role.AGENT,
    up=Direction(codec.pack_agent, link_pb2.AgentMessage, codec.decode_late),
    down=Direction(codec.pack_scheduler, link_pb2.SchedulerMessage),
    hello=NodeHello,
    hello_id=lambda hello: str(hello.node.id),
)
CLUSTERS = Stream(
    service="hyperion.v1.Clusters",
    server=Role.FEDERATION,
    client=Role.SCHEDULER,
    up=Direction(codec.pack_cluster, link_pb2.ClusterMessage),
    down=Direction(codec.pack_federation, link_pb2.FederationMessage),
    hello=ClusterHello,
    hello_id=lambda hello: str(hello.cluster.id),
)

_KEEPALIVE = (
    # A peer that answers no ping for 4 s is gone: noticed within 8 s, though TCP still holds.
    ("grpc.keepalive_time_ms", 4_000),
    ("grpc.keepalive_timeout_ms", 4_000),
    ("grpc.http2.ping_timeout_ms", 4_000),  # else 60 s, whatever the line above says (1.85)
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)
_SIZES = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
)


def channel_options(server: Role) -> list[tuple[str, str | int]]:
    """For every channel of ours: keepalive, sizes, the pinned role, an own connection."""
    pinned = ("grpc.ssl_target_name_override", role_host(server))
    return [*_KEEPALIVE, *_SIZES, pinned, ("grpc.use_local_subchannel_pool", 1)]


def server_options() -> list[tuple[str, str | int]]:
    """For every server of ours: keepalive both ways, sizes, one owner per port."""
    return [
        *_KEEPALIVE,
        *_SIZES,
        ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
        ("grpc.http2.max_ping_strikes", 0),
        ("grpc.so_reuseport", 0),
        # Whoever connects and then says nothing is sent away.
        ("grpc.server_handshake_timeout_ms", 10_000),
        ("grpc.max_connection_idle_ms", 300_000),
    ]
