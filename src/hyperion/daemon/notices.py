"""Tells a program over HTTP that it is to end, where its job asked for that. The signal comes all
the same, and does not wait for it.
"""

import asyncio
import contextlib
import logging

from hyperion.model.ids import AllocationId
from hyperion.model.notice import NoticeUrl

_log = logging.getLogger("hyperion.agent")
TRIES = 2
TRY_WITHIN_S = 2.0
"""Connected, sent and answered."""
_AGAIN_AFTER_S = 0.2
_MOST_ANSWER_BYTES = 4096


async def tell(id: AllocationId, url: NoticeUrl, body: bytes) -> None:
    """Until it is answered by 2xx, twice at most. Redirects are not followed."""
    said = ""
    for attempt in range(TRIES):
        if attempt:
            await asyncio.sleep(_AGAIN_AFTER_S)
        try:
            async with asyncio.timeout(TRY_WITHIN_S):
                status = await _request(url, body)
        except TimeoutError:
            said = f"no answer within {TRY_WITHIN_S:g} s"
        except (OSError, ValueError) as error:
            said = str(error)
        else:
            if 200 <= status < 300:
                return
            said = f"it answers {status}"
    _log.warning(
        "%s is not told of its end by %s http://%s%s: %s",
        id, url.method, url.authority, url.target, said,
    )  # fmt: skip


async def _request(url: NoticeUrl, body: bytes) -> int:
    """The status of the answer. ValueError where there is none in what came."""
    reader, writer = await asyncio.open_connection(url.host, url.port, limit=_MOST_ANSWER_BYTES)
    try:
        head = f"{url.method} {url.target} HTTP/1.1\r\nHost: {url.authority}\r\n"
        head += "User-Agent: hyperion-agent\r\nConnection: close\r\n"
        if url.method == "POST":
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        writer.write(head.encode() + b"\r\n" + (body if url.method == "POST" else b""))
        await writer.drain()
        first = await reader.readline()
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    words = first.split(maxsplit=2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
        raise ValueError(f"found {first[:40]!r}, expected an answer of HTTP/1.1")
    return int(words[1])
