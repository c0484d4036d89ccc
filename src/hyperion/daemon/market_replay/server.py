"""The replay server itself: one small ASGI application, and a page of its own to steer it by."""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any
from urllib.parse import parse_qs

import msgspec
from msgspec import Struct

from hyperion.adapters.market.gcp import COMPUTE_ENGINE
from hyperion.adapters.market.moments import iso, ms_of
from hyperion.daemon.market_replay import clouds, grids
from hyperion.daemon.market_replay.clouds import Asked
from hyperion.daemon.market_replay.faults import KINDS, Fault, Faults, tampering
from hyperion.daemon.market_replay.series import Series
from hyperion.model.quotes import Kind

LARGEST_REQUEST_BYTES = 64 << 10
FASTEST = 100_000.0
STATUSES = {"429": 429, "500": 500, "503": 503, "401": 401}
KEYS: Mapping[str, str] = {
    "aws-spot": "authorization",
    "gcp": "x-goog-api-key",
    "electricity-maps": "auth-token",
    "watttime": "authorization",
}
"""API → the header that must be there; any key will do."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Clock(Struct, kw_only=True):
    """Replay time: it runs ``speed`` times as fast as the real one, and can be set."""

    at_ms: int
    real_ms: int
    speed: float = 1.0

    def now_ms(self, real_ms: int) -> int:
        return self.at_ms + int((real_ms - self.real_ms) * self.speed)


class ClockOrder(Struct, forbid_unknown_fields=True):
    """Set the clock, move it, or change its pace."""

    at: str = ""
    by_s: float = 0.0
    speed: float | None = None


class ValueOrder(Struct, forbid_unknown_fields=True):
    """From now on a value is this: ``spot``, ``aws/us-east-1``, ``p4d.24xlarge``, 12.5."""

    kind: Kind
    place: str
    value: float
    subject: str = ""


class Answer(Struct):
    status: int
    body: bytes
    kind: str = "application/json"
    headers: dict[str, str] = {}


class ReplayServer:
    """An ASGI application. The APIs are below ``/NAME``, NAME being the feed's."""

    def __init__(self, series: Series, begins_ms: int | None = None, speed: float = 1.0) -> None:
        self.series, self.faults = series, Faults()
        real_ms = _real_ms()
        self.clock = Clock(at_ms=begins_ms or real_ms, real_ms=real_ms, speed=speed)
        self.served: dict[str, int] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
        body = await _body(receive)
        try:
            answer = await self._answer(scope, headers, body)
        except grids.Missing as error:
            answer = _json(404, {"error": str(error)})
        except (ValueError, KeyError, OverflowError, msgspec.DecodeError) as error:
            answer = _json(400, {"error": f"{error}; docs/market.md says what can be asked"})
        await _send(answer, headers, send)

    async def _answer(self, scope: Scope, headers: Mapping[str, str], body: bytes) -> Answer:
        path: str = scope["path"]
        if path == "/replay" or path.startswith("/replay/"):
            return self._steer(scope["method"], path, body)
        _, _, rest = path.partition("/")
        api, _, inner = rest.partition("/")
        if api not in MAKERS:
            return _json(404, {"error": f"no API {api[:60]!r}; there are {', '.join(MAKERS)}"})
        self.served[api] = self.served.get(api, 0) + 1
        faults = self.faults.strike(api)
        for fault in faults:
            if fault.kind == "slow":
                await asyncio.sleep(fault.delay_s)
            elif fault.kind in STATUSES:
                after = {"retry-after": f"{fault.delay_s:g}"} if fault.kind == "429" else {}
                status = STATUSES[fault.kind]
                return Answer(status, b'{"error": "as ordered"}', headers=after)
        if KEYS.get(api) and KEYS[api] not in headers:
            return _json(401, {"error": f"no {KEYS[api]}"})
        real_ms = _real_ms()
        query = parse_qs(scope["query_string"].decode("latin-1"))
        base = f"http://{headers.get('host', 'localhost')}"
        at_ms = self.clock.now_ms(real_ms)
        wrong = tampering(faults)
        asked = Asked(path, query, base, at_ms, real_ms, self.clock.speed, wrong)
        made = MAKERS[api](self.series, asked, inner)
        answer = (
            Answer(200, made.encode(), "text/xml" if made.startswith("<") else "text/csv")
            if isinstance(made, str)
            else _json(200, made)
        )
        if any(fault.kind == "truncated" for fault in faults):
            answer.body = answer.body[: len(answer.body) // 2]
        return answer

    def _steer(self, method: str, path: str, body: bytes) -> Answer:
        real_ms = _real_ms()
        match method, path:
            case "GET", "/replay":
                pass
            case "POST", "/replay/clock":
                self._set_clock(msgspec.json.decode(body, type=ClockOrder), real_ms)
            case "POST", "/replay/faults":
                self.faults.set(msgspec.json.decode(body, type=Fault))
            case "DELETE", "/replay/faults":
                self.faults.clear()
            case "POST", "/replay/values":
                order = msgspec.json.decode(body, type=ValueOrder)
                self.series.order((order.kind, order.place, order.subject), order.value)
            case "DELETE", "/replay/values":
                self.series.orders.clear()
            case _:
                raise ValueError(f"{method} {path}: there are clock, faults and values")
        state = {
            "at": iso(self.clock.now_ms(real_ms)),
            "speed": self.clock.speed,
            "faults": [msgspec.to_builtins(f) | {"left": n} for f, n in self.faults.on],
            "known_faults": KINDS,
            "values": [[k.value, p, s, v] for (k, p, s), v in self.series.orders.items()],
            "served": self.served,
        }
        return _json(200, state)

    def _set_clock(self, order: ClockOrder, real_ms: int) -> None:
        at_ms = ms_of(order.at) if order.at else self.clock.now_ms(real_ms)
        speed = self.clock.speed if order.speed is None else order.speed
        if not 0 <= speed <= FASTEST:
            raise ValueError(f"speed {speed}: from 0 to {FASTEST:,.0f}")
        self.clock = Clock(at_ms=at_ms + int(order.by_s * 1000), real_ms=real_ms, speed=speed)


def _aws_prices(series: Series, asked: Asked, path: str) -> Any:
    return clouds.aws_prices(series, asked, path.split("/")[-2])


def _gcp(series: Series, asked: Asked, path: str) -> Any:
    if path != f"v1/services/{COMPUTE_ENGINE}/skus":
        raise grids.Missing(path)
    return clouds.gcp(series, asked)


def _electricity_maps(series: Series, asked: Asked, path: str) -> Any:
    ahead = path.endswith("/forecast")
    make = grids.electricity_maps_forecast if ahead else grids.electricity_maps_latest
    return make(series, asked)


def _watttime(series: Series, asked: Asked, path: str) -> Any:
    if path == "login":
        return {"token": "a-token-of-the-replay-server"}
    make = grids.watttime_region if path.endswith("region-from-loc") else grids.watttime_forecast
    return make(series, asked)


def _uk_carbon(series: Series, asked: Asked, path: str) -> Any:
    region = int(path.rpartition("/")[2])
    return (grids.uk_ahead if "/fw48h/" in path else grids.uk_now)(series, asked, region)


MAKERS: Mapping[str, Callable[[Series, Asked, str], Any]] = {
    "aws-spot": lambda series, asked, path: clouds.aws_spot(series, asked, path.strip("/")),
    "aws-prices": _aws_prices,
    "aws-advisor": lambda series, asked, _: clouds.aws_advisor(series, asked),
    "azure": lambda series, asked, _: clouds.azure(series, asked),
    "gcp": _gcp,
    "skypilot": lambda series, asked, path: clouds.skypilot(series, asked, path.split("/")[0]),
    "electricity-maps": _electricity_maps,
    "watttime": _watttime,
    "uk-carbon": _uk_carbon,
}


def base_url(api: str, address: str) -> str:
    """What to set as the feed's base URL so that it asks this server."""
    return f"http://{address}/{api}" + ("/{region}" if api == "aws-spot" else "")


def _json(status: int, content: Any) -> Answer:
    return Answer(status, msgspec.json.encode(content))


def _real_ms() -> int:
    return int(time.time() * 1000)  # noqa: TID251 - the APIs date their answers by it


async def _body(receive: Receive) -> bytes:
    body = bytearray()
    while len(body) <= LARGEST_REQUEST_BYTES:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return bytes(body)
    return b""  # which no order is


async def _send(answer: Answer, asked: Mapping[str, str], send: Send) -> None:
    etag = f'"{hashlib.sha256(answer.body).hexdigest()[:32]}"'
    status, body = answer.status, answer.body
    if status == 200 and asked.get("if-none-match") == etag:
        status, body = 304, b""
    said = {"content-type": answer.kind, "etag": etag, "content-length": str(len(body))}
    if status == 304:
        del said["content-length"]
    pairs = [(k.encode(), v.encode()) for k, v in (said | answer.headers).items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})
