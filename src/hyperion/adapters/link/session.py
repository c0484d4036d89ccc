"""One open stream, seen alike from both ends: queues, batches, and calls beside the messages."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

from msgspec import Struct

from hyperion.adapters.link.calls import Calls, Produce
from hyperion.adapters.link.errors import Exhausted, LinkError, Translation, Unavailable
from hyperion.adapters.link.streams import Direction
from hyperion.wire.relay import Call, CallCancel, Chunk

MAX_ITEMS = 512
"""In one envelope; together with the next, it keeps an urgent message's wait short."""
MAX_CHUNK_BYTES = 256 * 1024
"""Of call chunks in one envelope, after which messages get their turn again."""
QUEUE_LIMIT = 50_000
"""Messages waiting to be written. More, and the session ends: the peer must say Hello anew."""

Read = Callable[[], Awaitable[bytes | None]]
"""The next envelope; None at the end of the stream."""
Write = Callable[[bytes], Awaitable[None]]


class Outbox:
    """What waits to be written: messages first, then chunks of calls."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._messages: deque[Struct] = deque()
        self._chunks: deque[Chunk] = deque()
        self._filled = asyncio.Event()

    def put(self, message: Struct) -> bool:
        """False, and nothing kept, when it is full."""
        if len(self._messages) >= self._limit:
            return False
        self._messages.append(message)
        self._filled.set()
        return True

    def put_chunk(self, chunk: Chunk) -> None:
        """Bounded by the windows of the calls."""
        self._chunks.append(chunk)
        self._filled.set()

    async def take(self) -> list[Struct]:
        """At least one item, at most an envelope's worth."""
        await self._filled.wait()
        messages, chunks = self._messages, self._chunks
        if len(messages) <= MAX_ITEMS:
            taken = list(messages)
            messages.clear()
        else:
            taken = [messages.popleft() for _ in range(MAX_ITEMS)]
        size = 0
        while chunks and size < MAX_CHUNK_BYTES:
            chunk = chunks.popleft()
            size += len(chunk.body) + 64
            taken.append(chunk)
        if not messages and not chunks:
            self._filled.clear()
        return taken


class Session:
    """Sends, receives, asks and answers until the stream ends or ``end`` is called."""

    def __init__(
        self,
        sending: Direction,
        receiving: Direction,
        methods: Mapping[str, Produce],
        translation: Translation,
        queue_limit: int = QUEUE_LIMIT,
    ) -> None:
        self._sending = sending
        self._receiving = receiving
        self._outbox = Outbox(queue_limit)
        self._calls = Calls(methods, translation, self._post, self._outbox.put_chunk)
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def open(self) -> bool:
        return not self._ended.done()

    def send(self, message: Struct) -> bool:
        """Queue it; False when the session has ended, or ends now because the queue is full."""
        if self._ended.done():
            return False
        if self._outbox.put(message):
            return True
        self.end(Exhausted("the other side takes messages too slowly; the queue is full"))
        return False

    def ask(self, method: str, body: bytes, quiet_s: float | None) -> AsyncGenerator[bytes]:
        return self._calls.ask(method, body, quiet_s)

    def end(self, why: LinkError) -> None:
        """Make ``run`` raise this."""
        if not self._ended.done():
            self._ended.set_exception(why)

    async def run(self, read: Read, write: Write, deliver: Callable[[Struct], None]) -> None:
        """Move items both ways until one side ends the stream (return) or it breaks (raise)."""
        reading = asyncio.ensure_future(self._read_all(read, deliver))
        writing = asyncio.ensure_future(self._write_all(write))
        first: set[asyncio.Future[None]] = set()
        try:
            first, _ = await asyncio.wait(
                {reading, writing, self._ended}, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            reading.cancel()
            writing.cancel()
            self.end(Unavailable("the link to the other side ended"))
            await asyncio.gather(reading, writing, self._ended, return_exceptions=True)
            await self._calls.close()
        for cause in (self._ended, reading, writing):
            if cause in first:
                cause.result()

    async def _read_all(self, read: Read, deliver: Callable[[Struct], None]) -> None:
        calls, unpack, ended = self._calls, self._receiving.unpacked, self._ended
        while (envelope := await read()) is not None:
            for item in unpack(envelope):
                if isinstance(item, (Call, Chunk, CallCancel)):
                    calls.take(item)
                elif not ended.done():
                    deliver(item)

    async def _write_all(self, write: Write) -> None:
        while True:
            for envelope in self._sending.packed(await self._outbox.take()):
                await write(envelope)

    def _post(self, item: Call | CallCancel) -> None:
        self.send(item)
