"""Questions over a stream that is already open: both sides ask, both answer, none can block it.

Flow control: the side that answers may be ``WINDOW`` chunks ahead of the side that asks. With each
chunk it takes, the asking side sends a Call with the same number and no method: one more, please.
So a slow reader stops its own producer and nobody else.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping

from msgspec import Struct

from hyperion.adapters.link.errors import (
    CODES,
    KINDS,
    Exhausted,
    Failed,
    Invalid,
    LinkError,
    NotFound,
    TimedOut,
    Translation,
    Unavailable,
    translated,
)
from hyperion.wire.relay import Call, CallCancel, Chunk

WINDOW = 4
MAX_OPEN = 64
"""Calls that one side asks at a time."""
MAX_ANSWERING = 2 * MAX_OPEN
"""A cancelled call counts until its producer has stopped, while the asker may ask again."""
MAX_BODY_BYTES = 1 << 20
"""Of a question, and of each chunk of an answer."""
ANSWER_S = 30.0
STALL_S = 600.0
"""A producer whose reader takes nothing for so long is ended."""

Produce = Callable[[bytes], AsyncIterator[bytes]]
"""Answers one question; each piece it yields arrives as one piece."""

_log = logging.getLogger("hyperion.link")


class _Answering(Struct, eq=False):
    task: asyncio.Task[None]
    room: asyncio.Semaphore


class Calls:
    """The calls of one session, asked and answered.

    ``post`` sends what is small and urgent, ``post_chunk`` what may wait behind it.
    """

    def __init__(
        self,
        methods: Mapping[str, Produce],
        translation: Translation,
        post: Callable[[Call | CallCancel], None],
        post_chunk: Callable[[Chunk], None],
    ) -> None:
        self._methods = methods
        self._translation = translation
        self._post = post
        self._post_chunk = post_chunk
        self._asked: dict[int, asyncio.Queue[Chunk]] = {}
        self._answering: dict[int, _Answering] = {}
        self._last_id = 0
        self._closed = False

    async def ask(
        self, method: str, body: bytes = b"", quiet_s: float | None = ANSWER_S
    ) -> AsyncGenerator[bytes]:
        """The pieces of the answer as they come; closing the iterator cancels the call.

        Raises what the other side refused with (a LinkError), TimedOut when nothing comes for
        ``quiet_s`` (None waits for as long as the link holds), Unavailable when the link ends.
        """
        chunks = self._open(method, body)
        number, ended = self._last_id, False
        try:
            while True:
                chunk = await _next(chunks, method, quiet_s)
                ended = chunk.end
                if chunk.body:
                    yield chunk.body
                if chunk.end:
                    break
                self._post(Call(id=number, method=""))
            if chunk.code or chunk.error:
                raise KINDS.get(chunk.code, Failed)(chunk.error)
        finally:
            self._asked.pop(number, None)
            if not ended and not self._closed:
                self._post(CallCancel(id=number))

    def take(self, item: Call | Chunk | CallCancel) -> None:
        """What the other side says. Never waits."""
        if isinstance(item, Chunk):
            self._take_chunk(item)
        elif isinstance(item, CallCancel):
            if answering := self._answering.get(item.id):
                answering.task.cancel()
        elif item.method:
            self._take_question(item)
        elif answering := self._answering.get(item.id):
            answering.room.release()

    async def close(self) -> None:
        """End every call: askers get Unavailable, producers are cancelled and waited for."""
        self._closed = True
        lost = Chunk(id=0, end=True, error="the link to the other side ended", code="unavailable")
        for chunks in self._asked.values():
            chunks.put_nowait(lost)
        tasks = [answering.task for answering in self._answering.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=5)

    def _open(self, method: str, body: bytes) -> asyncio.Queue[Chunk]:
        if self._closed:
            raise Unavailable("the link to the other side ended")
        if len(self._asked) >= MAX_OPEN:
            raise Exhausted(f"{MAX_OPEN} calls are open on this link; try again later")
        if len(body) > MAX_BODY_BYTES:
            raise Invalid(f"a call's body holds {MAX_BODY_BYTES} bytes; found {len(body)}")
        self._last_id += 1
        chunks: asyncio.Queue[Chunk] = asyncio.Queue()
        self._asked[self._last_id] = chunks
        self._post(Call(id=self._last_id, method=method, body=body))
        return chunks

    def _take_chunk(self, chunk: Chunk) -> None:
        chunks = self._asked.get(chunk.id)
        if chunks is None:
            return
        if chunks.qsize() > WINDOW:
            del self._asked[chunk.id]
            self._post(CallCancel(id=chunk.id))
            why = f"the other side sent more than {WINDOW} chunks unasked"
            chunk = Chunk(id=chunk.id, end=True, error=why, code="failed")
        chunks.put_nowait(chunk)

    def _take_question(self, call: Call) -> None:
        if call.id in self._answering:
            return
        produce = self._methods.get(call.method)
        if produce is None:
            self._refuse(call, NotFound(f"there is no method {call.method[:80]!r} here"))
        elif len(self._answering) >= MAX_ANSWERING:
            self._refuse(
                call, Exhausted(f"{MAX_ANSWERING} calls are being answered; try again later")
            )
        else:
            room = asyncio.Semaphore(WINDOW)
            task = asyncio.get_running_loop().create_task(self._answer(call, produce, room))
            self._answering[call.id] = _Answering(task, room)
            task.add_done_callback(lambda _: self._answering.pop(call.id, None))

    async def _answer(self, call: Call, produce: Produce, room: asyncio.Semaphore) -> None:
        pieces = produce(call.body)
        try:
            async for piece in pieces:
                if len(piece) > MAX_BODY_BYTES:
                    raise Exhausted(f"a chunk holds {MAX_BODY_BYTES} bytes; found {len(piece)}")
                await _room(room, call.method)
                self._post_chunk(Chunk(id=call.id, body=piece))
            self._post_chunk(Chunk(id=call.id, end=True))
        except Exception as error:
            refusal = translated(error, self._translation)
            if refusal is None:
                _log.exception("answering %s failed", call.method)
                refusal = Failed(f"{call.method} failed on the other side; its log says why")
            self._refuse(call, refusal)
        finally:
            close = getattr(pieces, "aclose", None)
            if close is not None:
                await close()

    def _refuse(self, call: Call, why: LinkError) -> None:
        code = CODES.get(type(why), "failed")
        self._post_chunk(Chunk(id=call.id, end=True, error=str(why)[:4096] or code, code=code))


async def _next(chunks: asyncio.Queue[Chunk], method: str, quiet_s: float | None) -> Chunk:
    try:
        async with asyncio.timeout(quiet_s):
            return await chunks.get()
    except TimeoutError:
        raise TimedOut(f"{method}: no answer for {quiet_s:g} s") from None


async def _room(room: asyncio.Semaphore, method: str) -> None:
    try:
        async with asyncio.timeout(STALL_S):
            await room.acquire()
    except TimeoutError:
        raise TimedOut(f"{method}: nothing was taken for {STALL_S:g} s") from None
