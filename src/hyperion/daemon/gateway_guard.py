"""Stands before the router on each listener: token, origin, slow bodies, the Date header."""

import asyncio
import hashlib
import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from email.utils import formatdate
from typing import Any

from hyperion.daemon.gateway_problems import Refusal, encoded, problem
from hyperion.wire.rest import API_PREFIX, ProblemDetails

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Any, Any, Any], Awaitable[None]]

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})
OPEN_PATHS = frozenset(f"{API_PREFIX}/{name}" for name in ("healthz", "ca", "join"))
"""Open without the bearer token: a probe, and ``join``, whose one-time token is its proof."""
BODY_PAUSE_S = 30.0
"""The longest silence while a body is being sent."""


class Guard:
    """An ASGI app that lets through what may pass.

    With ``token`` (several, one a line), each request must bear one of them. Without,
    ``browsers_shut_out`` refuses what only a web page could send: a foreign ``Host`` (DNS
    rebinding) or ``Origin`` (cross-site requests).
    """

    def __init__(
        self,
        app: AsgiApp,
        token: str = "",
        browsers_shut_out: bool = False,
        body_pause_s: float = BODY_PAUSE_S,
    ) -> None:
        self._app = app
        self._digests = [hashlib.sha256(t.encode()).digest() for t in token.split()]
        self._browsers_shut_out = browsers_shut_out
        self._body_pause_s = body_pause_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def dated(message: Message) -> None:
            if message["type"] == "http.response.start":
                date = (b"date", formatdate(usegmt=True).encode())
                message["headers"] = [*message["headers"], date]
            await send(message)

        refusal = self._refusal(scope)
        if refusal is not None:
            await _refuse(dated, refusal)
            return
        await self._app(scope, _impatient(receive, self._body_pause_s), dated)

    def _refusal(self, scope: Scope) -> ProblemDetails | None:
        headers = {k: v for k, v in scope["headers"] if k in _JUDGED}
        if self._digests and scope["path"] not in OPEN_PATHS:
            scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
            found = hashlib.sha256(given.strip()).digest()
            # Every one is compared, so that the time taken does not tell which came near.
            known = [hmac.compare_digest(found, digest) for digest in self._digests]
            if scheme.lower() != b"bearer" or not any(known):
                return problem(
                    401,
                    "the bearer token is wrong" if given else "no bearer token came with this",
                    "set HYPERION_TOKEN, or HYPERION_TOKEN_FILE, to the federation's token",
                )
        if self._browsers_shut_out:
            return _foreign(headers)
        return None


_JUDGED = frozenset({b"authorization", b"host", b"origin"})


def _foreign(headers: dict[bytes, bytes]) -> ProblemDetails | None:
    host = _host_of(headers.get(b"host", b"").decode("latin-1"))
    if host not in LOOPBACK_HOSTS:
        return problem(
            403,
            f"Host is {host!r}, but this listener takes no token and so answers to localhost only",
            "use http://127.0.0.1, or start the federation with a token",
        )
    origin = headers.get(b"origin", b"").decode("latin-1")
    if origin and _host_of(origin.partition("://")[2]) not in LOOPBACK_HOSTS:
        return problem(403, f"a page of {origin!r} may not talk to this listener")
    return None


def _host_of(authority: str) -> str:
    """``[::1]:80`` → ``[::1]``, ``localhost:80`` → ``localhost``."""
    if authority.startswith("["):
        return authority.partition("]")[0] + "]"
    return authority.partition(":")[0].lower()


def _impatient(receive: Receive, pause_s: float) -> Receive:
    """``receive`` that gives up on a body that stops; after the body it may wait for ever."""
    complete = False

    async def inner() -> Message:
        nonlocal complete
        if complete:
            return await receive()  # only the caller's going away is left to hear of
        try:
            async with asyncio.timeout(pause_s):
                message = await receive()
        except TimeoutError:
            raise Refusal(408, f"the body stopped coming for {pause_s:g} s") from None
        complete = not message.get("more_body", False)
        return message

    return inner


async def _refuse(send: Send, details: ProblemDetails) -> None:
    headers, body = encoded(details)
    # The body of the request is unread, so the connection cannot be used again.
    headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": details.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
