"""The dialling side of a persistent stream: an agent's to its scheduler, a scheduler's upward."""

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Callable
from typing import Any, TypeAlias

import grpc
from msgspec import Struct

from hyperion.adapters.link.calls import ANSWER_S, Produce
from hyperion.adapters.link.credentials import Credentials
from hyperion.adapters.link.errors import (
    STANDARD,
    LinkError,
    TimedOut,
    Translation,
    Unavailable,
)
from hyperion.adapters.link.session import QUEUE_LIMIT, Read, Session
from hyperion.adapters.link.streams import Stream, channel_options

FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 5.0
CONNECT_S = 5.0
STEADY_S = 10.0
"""A session that held so long makes the next wait short again."""

_Call: TypeAlias = "grpc.aio.StreamStreamCall[Any, Any]"
_log = logging.getLogger("hyperion.link")


class Uplink:
    """Stays attached to ``target`` for as long as ``run`` runs.

    ``credentials`` is asked at each attempt, so that a renewed certificate is taken up. All
    callbacks come on the event loop, must not wait, and see messages of an open session only:
    ``on_attached``, then messages, then ``on_detached``.
    """

    def __init__(
        self,
        stream: Stream,
        target: str,
        credentials: Callable[[], Credentials],
        *,
        on_attached: Callable[[], None],
        on_message: Callable[[Any], None],
        on_detached: Callable[[], None],
        translation: Translation = STANDARD,
        queue_limit: int = QUEUE_LIMIT,
    ) -> None:
        self.target = target
        self.last_error = ""
        """Why there was no session, or why the last one ended; for status pages."""
        self._stream = stream
        self._credentials = credentials
        self._on_attached = on_attached
        self._on_message = on_message
        self._on_detached = on_detached
        self._translation = translation
        self._queue_limit = queue_limit
        self._methods: dict[str, Produce] = {}
        self._session: Session | None = None
        self._said_hello = False

    @property
    def attached(self) -> bool:
        return self._session is not None

    def serve(self, method: str, produce: Produce) -> None:
        """Answer the other side's calls of ``method``."""
        self._methods[method] = produce

    def send(self, message: Struct) -> bool:
        """Queue it for this session. False when it was dropped: detached, or no Hello sent yet."""
        session = self._session
        if session is None:
            return False
        if not self._said_hello:
            if not isinstance(message, self._stream.hello):
                return False
            self._said_hello = True
        return session.send(message)

    async def call(
        self, method: str, body: bytes = b"", quiet_s: float | None = ANSWER_S
    ) -> AsyncGenerator[bytes]:
        """Ask the other side; see ``Calls.ask``. Close the iterator to cancel."""
        if self._session is None or not self._said_hello:
            raise Unavailable(f"not attached to {self.target}: {self.last_error or 'not yet'}")
        pieces = self._session.ask(method, body, quiet_s)
        try:
            async for piece in pieces:
                yield piece
        finally:
            await pieces.aclose()

    def disconnect(self, why: str) -> None:
        """End the session; another follows."""
        if self._session is not None:
            self._session.end(Unavailable(why))

    async def run(self) -> None:
        """Attach, again and again, until cancelled."""
        attempt = 0
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            why = await self._attempt()
            attempt = 0 if loop.time() - began >= STEADY_S else attempt + 1
            if why != self.last_error:
                _log.warning("%s: %s", self.target, why)
            self.last_error = why
            longest = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(attempt, 16))
            await asyncio.sleep(longest * random.uniform(0.5, 1.0))

    async def _attempt(self) -> str:
        """One session from dial to end; why it ended."""
        try:
            credentials = self._credentials().channel()
            options = channel_options(self._stream.server)
            async with grpc.aio.secure_channel(self.target, credentials, options) as channel:
                await self._attach(channel)
            return "the other side closed the stream"
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name}: {error.details()}"
        except Exception as error:
            if not isinstance(error, (LinkError, OSError)):
                _log.exception("%s: the link broke", self.target)
            return str(error) or type(error).__name__

    async def _attach(self, channel: grpc.aio.Channel) -> None:
        call: _Call = channel.stream_stream(self._stream.path)()
        try:
            await self._accepted(call)
            session = Session(
                self._stream.up,
                self._stream.down,
                self._methods,
                self._translation,
                self._queue_limit,
            )
            self._session, self._said_hello = session, False
            _log.info("%s: attached", self.target)
            try:
                self._on_attached()
                await session.run(_reader(call), call.write, self._on_message)
            except asyncio.InvalidStateError:
                pass  # written to after the other side ended it, which says why
            finally:
                self._session = None
                self._on_detached()
            await _ending(call)
        finally:
            call.cancel()

    async def _accepted(self, call: "_Call") -> None:
        """Wait until the other side has let us in."""
        try:
            async with asyncio.timeout(CONNECT_S):
                await call.initial_metadata()
        except TimeoutError:
            raise TimedOut(f"no answer within {CONNECT_S:g} s") from None
        if call.done():
            await _ending(call)


def _reader(call: "_Call") -> Read:
    async def read() -> bytes | None:
        envelope: Any = await call.read()
        return None if envelope is grpc.aio.EOF else envelope

    return read


async def _ending(call: "_Call") -> None:
    """Raise what the other side ended the stream with, if it was an error."""
    async with asyncio.timeout(CONNECT_S):
        code, details = await call.code(), await call.details()
    if code is not grpc.StatusCode.OK:
        raise Unavailable(f"{code.name}: {details}")
