"""How feeds ask the outside: time-outs, a budget of retries, a rate, a cache, and no key in sight.

Errors are ``FeedError`` (an ``OSError``) and name the source, the host and the path, never the
query or a header, since keys may be in them.
"""

import asyncio
import logging
import random
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import httpx
import msgspec
from msgspec import Struct

CONNECT_S = 5.0
READ_S = 20.0
TRIES = 4
"""Of one request, the first included."""
LONGEST_PAUSE_S = 30.0
"""A server that asks for more in ``Retry-After`` is asked again at the next poll instead."""
LARGEST_ANSWER_BYTES = 32 << 20
LARGE_BYTES = 256 << 10
"""From this on JSON is decoded in a thread, so that the daemon's loop does not wait for it."""
CACHED_ANSWERS = 256
CACHED_BYTES = 64 << 20
LARGEST_CACHED_BYTES = 16 << 20
"""A larger answer is not worth the memory, and is asked for anew."""
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})

T = TypeVar("T")
for _name in ("httpx", "httpcore"):
    logging.getLogger(_name).setLevel(logging.WARNING)  # their lines hold whole URLs and headers


class FeedError(OSError):
    """A source did not answer, or not as agreed. Says which, what was found, and what helps."""


class Bucket:
    """Tokens that come back with time; whoever finds none waits for one, or is told no."""

    def __init__(
        self, per_s: float, most: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_s, self._most, self._clock = per_s, most, clock
        self._left, self._at_s = most, clock()

    def take(self) -> float:
        """0 when a token was there, else the seconds until one will be."""
        now_s = self._clock()
        self._left = min(self._most, self._left + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        if self._left >= 1:
            self._left -= 1
            return 0.0
        return (1 - self._left) / self._per_s

    async def wait(self) -> None:
        """Take the next token, which may be one that is yet to come back."""
        pause_s = self.take()
        if pause_s:
            self._left -= 1  # below zero: whoever comes after waits longer
            await asyncio.sleep(pause_s)


class Limits(Struct, frozen=True, kw_only=True):
    """What one source may be burdened with, and how long its answers may be reused."""

    requests_per_s: float = 5.0
    burst: float = 10.0
    retries_per_minute: float = 20.0
    """Over all requests: when a source is down, retries must not multiply what it gets."""
    reuse_s: float = 5.0
    """An answer this young is used again without asking, however short the interval is set."""
    answer_bytes: int = LARGEST_ANSWER_BYTES
    total_s: float = 60.0
    """For one request with all its tries."""


class _Kept(Struct):
    at_s: float
    etag: str
    body: bytes


class Fetcher:
    """One source's connection to its server."""

    def __init__(self, source: str, base_url: str, limits: Limits | None = None) -> None:
        self.source, self.base_url = source, base_url.rstrip("/")
        self._limits = limits or Limits()
        self._rate = Bucket(self._limits.requests_per_s, self._limits.burst)
        self._retries = Bucket(self._limits.retries_per_minute / 60, TRIES * 2)
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._http = httpx.AsyncClient(
            timeout=httpx.Timeout(READ_S, connect=CONNECT_S),
            follow_redirects=False,  # a key must not follow to another host
            headers={"user-agent": "hyperion-x", "accept-encoding": "gzip"},
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def get(
        self,
        path: str,
        query: Mapping[str, str] | None = None,
        headers: Callable[[str], Mapping[str, str]] | None = None,
    ) -> bytes:
        """The body of a GET. ``headers`` makes the secret ones for the whole URL, at each try."""
        whole = httpx.URL(self._url(path))
        url = str(whole.copy_merge_params(dict(query)) if query else whole)
        kept = self._kept.get(url)
        if kept is not None and time.monotonic() - kept.at_s < self._limits.reuse_s:
            return kept.body
        try:
            async with asyncio.timeout(self._limits.total_s):
                return await self._tried(url, path, headers, kept)
        except TimeoutError:
            raise self.error(path, f"no answer within {self._limits.total_s:g} s") from None

    async def json(
        self,
        path: str,
        kind: type[T],
        query: Mapping[str, str] | None = None,
        headers: Callable[[str], Mapping[str, str]] | None = None,
    ) -> T:
        """A JSON body of this shape; ``FeedError`` when it is cut off or of another."""
        body = await self.get(path, query, headers)
        if len(body) < LARGE_BYTES:
            return self.decoded(path, body, kind)
        return await asyncio.to_thread(self.decoded, path, body, kind)

    def decoded(self, path: str, body: bytes, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(body, type=kind)
        except (msgspec.DecodeError, RecursionError) as wrong:
            self.forget()  # what is broken must not be served again from here
            raise self.error(path, f"the answer is not as documented: {wrong}") from None

    def forget(self) -> None:
        self._kept.clear()

    def error(self, path: str, what: str) -> FeedError:
        host = httpx.URL(self.base_url).host
        return FeedError(f"{self.source}: {host}{path.partition('?')[0]}: {what}")

    def _url(self, path: str) -> str:
        """Next pages come as whole URLs; one that leads to another host is not followed."""
        if "://" not in path:
            return self.base_url + path
        base, other = httpx.URL(self.base_url), httpx.URL(path)
        if (other.scheme, other.host, other.port) != (base.scheme, base.host, base.port):
            raise self.error("", f"the next page is at another host, {other.host}; not followed")
        return path

    async def _tried(
        self,
        url: str,
        path: str,
        headers: Callable[[str], Mapping[str, str]] | None,
        kept: _Kept | None,
    ) -> bytes:
        what = ""
        for attempt in range(TRIES):
            if attempt and self._retries.take():
                raise self.error(path, f"{what}; too many retries lately, asked again later")
            await self._rate.wait()
            try:
                status, answer, body = await self._once(url, headers, kept)
            except httpx.HTTPError as error:
                what, pause_s = type(error).__name__, None
            else:
                if status == 304 and kept is not None:
                    kept.at_s = time.monotonic()
                    return kept.body
                if status == 200:
                    self._keep(url, answer.get("etag", ""), body)
                    return body
                what = f"status {status}"
                if status not in _AGAIN:
                    raise self.error(path, what + _advice(status))
                pause_s = _retry_after_s(answer)
            await self._pause(attempt, pause_s, path, what)
        raise self.error(path, f"{what} after {TRIES} tries")

    async def _pause(self, attempt: int, asked_s: float | None, path: str, what: str) -> None:
        if asked_s is not None and asked_s > LONGEST_PAUSE_S:
            raise self.error(path, f"{what}, and asks to wait {asked_s:g} s")
        if attempt + 1 < TRIES:
            backoff_s = 0.2 * 2**attempt * random.uniform(0.5, 1.0)
            await asyncio.sleep(backoff_s if asked_s is None else asked_s)

    async def _once(
        self, url: str, headers: Callable[[str], Mapping[str, str]] | None, kept: _Kept | None
    ) -> tuple[int, httpx.Headers, bytes]:
        sent = dict(headers(url)) if headers else {}
        if kept is not None and kept.etag:
            sent["if-none-match"] = kept.etag
        async with self._http.stream("GET", url, headers=sent) as answer:
            body = bytearray()
            async for piece in answer.aiter_bytes():
                body += piece
                if len(body) > self._limits.answer_bytes:
                    raise self.error(
                        answer.url.path, f"more than {self._limits.answer_bytes:,} bytes"
                    )
            return answer.status_code, answer.headers, bytes(body)

    def _keep(self, url: str, etag: str, body: bytes) -> None:
        if len(body) > LARGEST_CACHED_BYTES:
            return
        self._kept[url] = _Kept(time.monotonic(), etag, body)
        self._kept.move_to_end(url)
        while len(self._kept) > CACHED_ANSWERS or (
            len(self._kept) > 1 and sum(len(k.body) for k in self._kept.values()) > CACHED_BYTES
        ):
            self._kept.popitem(last=False)


def _retry_after_s(headers: Mapping[str, Any]) -> float | None:
    """Seconds only; a date there is taken for nothing said."""
    try:
        return max(0.0, float(headers.get("retry-after", "")))
    except ValueError:
        return None


def _advice(status: int) -> str:
    if status in {401, 403}:
        return "; is the key right, and does it cover this call? (docs/market.md)"
    return "; is the base URL right?" if status in {301, 302, 307, 308, 404} else ""
