"""Streams out of the gateway: server-sent events and plain log text, bounded in number."""

import asyncio
import codecs
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, suppress
from typing import Any, TypeVar

import msgspec

from hyperion.daemon.application import Exhausted
from hyperion.daemon.gateway_problems import details_of
from hyperion.wire.api import JobChange
from hyperion.wire.rest import LogChunk

T = TypeVar("T")
KEEPALIVE = b": keepalive\n\n"
END = b"event: end\ndata: {}\n\n"
"""Says that the stream is complete; without it the connection broke and may be taken up again."""
MAX_LINE = 1 << 16
"""A line longer than this is cut in two when ranks are interleaved as text."""


class Streams:
    """Counts open streams against a bound, keeps quiet ones alive, and ends all on ``close``."""

    def __init__(self, limit: int, keepalive_s: float) -> None:
        self._limit = limit
        self._keepalive_s = keepalive_s
        self._open = 0
        self._closing = asyncio.Event()

    @property
    def open(self) -> int:
        return self._open

    def close(self) -> None:
        self._closing.set()

    def check(self) -> None:
        """Raises Exhausted when no further stream may be opened."""
        if self._open >= self._limit:
            raise Exhausted(f"{self._limit} streams are open, the most this federation serves")

    async def events(
        self, source: AsyncIterator[T], encode: Callable[[T], bytes]
    ) -> AsyncGenerator[bytes, None]:
        """Server-sent events, with a comment whenever nothing came for ``keepalive_s``."""
        yield b"retry: 1000\n\n"
        try:
            async with aclosing(self._bounded(source, self._keepalive_s)) as items:
                async for item in items:
                    yield KEEPALIVE if item is None else encode(item)
        except Exception as error:
            yield _event("error", details_of(error))
            return
        if not self._closing.is_set():
            yield END

    async def text(self, source: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        """Bytes as they come; an error breaks the connection, so nobody takes a part for all."""
        async with aclosing(self._bounded(source, None)) as items:
            async for item in items:
                if item:
                    yield item

    async def _bounded(
        self, source: AsyncIterator[T], keepalive_s: float | None
    ) -> AsyncGenerator[T | None, None]:
        self.check()
        self._open += 1
        closing = asyncio.ensure_future(self._closing.wait())
        following: asyncio.Future[T] = asyncio.ensure_future(anext(source))
        try:
            while not self._closing.is_set():
                waited: set[asyncio.Future[Any]] = {following, closing}
                await asyncio.wait(
                    waited,
                    timeout=keepalive_s,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if not following.done():
                    yield None
                    continue
                try:
                    item = following.result()
                except StopAsyncIteration:
                    return
                yield item
                following = asyncio.ensure_future(anext(source))
        finally:
            self._open -= 1
            closing.cancel()
            await _put_down(following, source)


async def _put_down(following: asyncio.Future[T], source: AsyncIterator[T]) -> None:
    """Stop a source that may be waiting for its next item."""
    following.cancel()
    with suppress(asyncio.CancelledError, StopAsyncIteration, Exception):
        await following
    close = getattr(source, "aclose", None)
    if close is not None:
        await close()


def change_event(change: JobChange) -> bytes:
    """One step of ``watch``; its sequence is the event's id, so a reader can take up from there."""
    return b"id: %d\n" % change.sequence + _event("job", change)


def log_event(chunk: LogChunk) -> bytes:
    return _event("log", chunk)


async def as_chunks(source: AsyncIterator[tuple[int, bytes]]) -> AsyncGenerator[LogChunk, None]:
    """Bytes of each rank as text; a character may come in two pieces."""
    decoders: dict[int, codecs.IncrementalDecoder] = {}
    async for rank, piece in source:
        decoder = decoders.get(rank)
        if decoder is None:
            decoder = decoders[rank] = codecs.getincrementaldecoder("utf-8")("replace")
        text = decoder.decode(piece)
        if text:
            yield LogChunk(rank=rank, text=text)
    for rank, decoder in decoders.items():
        text = decoder.decode(b"", final=True)
        if text:
            yield LogChunk(rank=rank, text=text)


async def as_lines(source: AsyncIterator[tuple[int, bytes]]) -> AsyncGenerator[bytes, None]:
    """Whole lines, each after ``RANK| ``, so that ranks can share one text."""
    rest: dict[int, bytes] = {}
    async for rank, piece in source:
        *lines, tail = (rest.get(rank, b"") + piece).split(b"\n")
        if len(tail) > MAX_LINE:
            lines.append(tail)
            tail = b""
        rest[rank] = tail
        if lines:
            yield b"".join(b"%d| %s\n" % (rank, line) for line in lines)
    for rank, tail in sorted(rest.items()):
        if tail:
            yield b"%d| %s\n" % (rank, tail)


async def as_bytes(source: AsyncIterator[tuple[int, bytes]]) -> AsyncGenerator[bytes, None]:
    """The output of one rank, byte for byte."""
    async for _, piece in source:
        yield piece


def _event(name: str, content: msgspec.Struct) -> bytes:
    # JSON has no line breaks of its own, so one data line holds it.
    return b"event: %s\ndata: %s\n\n" % (name.encode(), msgspec.json.encode(content))
