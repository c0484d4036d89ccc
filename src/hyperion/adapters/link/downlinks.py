"""The serving side of a persistent stream: one session per peer, each bound to its certificate."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import grpc
from msgspec import Struct

from hyperion.adapters.link.calls import ANSWER_S, Produce
from hyperion.adapters.link.credentials import admit, certificate_ends_s
from hyperion.adapters.link.errors import (
    STANDARD,
    Conflict,
    Denied,
    Exhausted,
    Invalid,
    LinkError,
    TimedOut,
    Translation,
    Unavailable,
)
from hyperion.adapters.link.identity import Identity
from hyperion.adapters.link.session import QUEUE_LIMIT, Session
from hyperion.adapters.link.status import abort
from hyperion.adapters.link.streams import Stream

HELLO_S = 10.0
MAX_SESSIONS = 10_000
LONGEST_SESSION_S = 30 * 24 * 3600.0
"""Then the peer attaches anew, and shows its certificate again."""

PeerProduce = Callable[[str, bytes], AsyncIterator[bytes]]
"""Answers one question of the named peer."""

_log = logging.getLogger("hyperion.link")


class Downlinks:
    """Every attached peer, by the id its Hello says.

    The id must be the certificate's name; where ``within`` is given (a scheduler's cluster), the
    name must be ``<within>/<id>``. A newer session of a peer replaces the older. Callbacks come on
    the event loop and must not wait: ``on_attached``, messages, ``on_detached``, in this order.
    """

    def __init__(
        self,
        stream: Stream,
        trust_domain: str,
        within: str = "",
        *,
        on_attached: Callable[[str, Any], None],
        on_message: Callable[[str, Any], None],
        on_detached: Callable[[str], None],
        translation: Translation = STANDARD,
        queue_limit: int = QUEUE_LIMIT,
        max_sessions: int = MAX_SESSIONS,
        hello_s: float = HELLO_S,
    ) -> None:
        self._stream = stream
        self._trust_domain = trust_domain
        self._within = within
        self._on_attached = on_attached
        self._on_message = on_message
        self._on_detached = on_detached
        self._translation = translation
        self._queue_limit = queue_limit
        self._max_sessions = max_sessions
        self._hello_s = hello_s
        self._methods: dict[str, PeerProduce] = {}
        self._sessions: dict[str, Session] = {}
        self._open = 0

    @property
    def peers(self) -> list[str]:
        """Attached now."""
        return list(self._sessions)

    def serve(self, method: str, produce: PeerProduce) -> None:
        """Answer the peers' calls of ``method``."""
        self._methods[method] = produce

    def send(self, peer: str, message: Struct) -> bool:
        """Queue it for the peer's session. False when it was dropped: not attached."""
        session = self._sessions.get(peer)
        return session is not None and session.send(message)

    async def call(
        self, peer: str, method: str, body: bytes = b"", quiet_s: float | None = ANSWER_S
    ) -> AsyncGenerator[bytes]:
        """Ask the peer; see ``Calls.ask``. Close the iterator to cancel."""
        session = self._sessions.get(peer)
        if session is None:
            raise Unavailable(f"{self._stream.client.value} {peer} is not attached")
        pieces = session.ask(method, body, quiet_s)
        try:
            async for piece in pieces:
                yield piece
        finally:
            await pieces.aclose()

    def disconnect(self, peer: str, why: str = "asked to attach anew") -> None:
        """End the peer's session, if there is one. It may attach again at once."""
        if session := self._sessions.get(peer):
            session.end(Unavailable(why))

    def handler(self) -> grpc.GenericRpcHandler:
        """To be added to a ``grpc.aio.server``."""
        attach: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(
            self._attach
        )
        return grpc.method_handlers_generic_handler(self._stream.service, {"Attach": attach})

    async def _attach(self, _: object, context: "grpc.aio.ServicerContext[Any, Any]") -> None:
        if self._open >= self._max_sessions:
            await abort(context, Exhausted(f"{self._max_sessions} sessions are open; try later"))
        self._open += 1
        try:
            identity = admit(context, self._trust_domain, {self._stream.client})
            await context.send_initial_metadata((("hyperion-link", "1"),))
            await self._serve_peer(identity, context)
        except LinkError as why:
            await abort(context, why)
        finally:
            self._open -= 1

    async def _serve_peer(
        self, identity: Identity, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> None:
        peer = ""

        async def read() -> bytes | None:
            envelope: Any = await context.read()
            return None if envelope is grpc.aio.EOF else envelope

        def deliver(message: Struct) -> None:
            nonlocal peer
            if isinstance(message, self._stream.hello):
                if peer:
                    raise Invalid(f"{peer}: a second Hello in one session")
                peer = self._checked_id(identity, message)
                patience.cancel()
                self._enter(peer, session, message)
            elif peer:
                self._on_message(peer, message)
            else:
                raise Invalid(f"{type(message).__name__} before the Hello")

        methods: dict[str, Produce] = {
            name: (lambda body, produce=produce: produce(peer, body))  # type: ignore[misc]
            for name, produce in self._methods.items()
        }
        stream = self._stream
        session = Session(stream.down, stream.up, methods, self._translation, self._queue_limit)
        loop = asyncio.get_running_loop()
        late = TimedOut(f"no Hello within {self._hello_s:g} s")
        patience = loop.call_later(self._hello_s, session.end, late)
        # TLS looks at the certificate once; the session must not outlive it.
        over = Denied(f"the certificate of {identity} has expired; renew it and attach again")
        expiry = loop.call_later(_left_s(context), session.end, over)
        try:
            await session.run(read, context.write, deliver)
        finally:
            patience.cancel()
            expiry.cancel()
            if self._sessions.get(peer) is session:
                self._leave(peer)

    def _checked_id(self, identity: Identity, hello: Struct) -> str:
        """The Hello's id, if the certificate allows it."""
        peer = self._stream.hello_id(hello)
        expected = f"{self._within}/{peer}" if self._within else peer
        if identity.name != expected:
            raise Denied(f"{identity} says it is {expected[:200]!r}; it may not")
        return peer

    def _enter(self, peer: str, session: Session, hello: Struct) -> None:
        older = self._sessions.get(peer)
        if older is not None:
            older.end(Conflict(f"{peer} attached anew; this session is over"))
            self._leave(peer)
        self._sessions[peer] = session
        _log.info("%s: attached", peer)
        self._on_attached(peer, hello)

    def _leave(self, peer: str) -> None:
        del self._sessions[peer]
        _log.info("%s: detached", peer)
        self._on_detached(peer)


def _left_s(context: "grpc.aio.ServicerContext[Any, Any]") -> float:
    """How long the caller's certificate is still good, or the longest session."""
    ends_s = certificate_ends_s(context)
    if ends_s is None:
        return LONGEST_SESSION_S
    return min(max(0.0, ends_s - datetime.now(UTC).timestamp()), LONGEST_SESSION_S)
