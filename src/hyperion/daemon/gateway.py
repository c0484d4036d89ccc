"""REST under /v1 over an Application: one Litestar app behind a TCP listener and a unix socket."""

import asyncio
import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import h11
import uvicorn
from litestar import Litestar, Router
from litestar.datastructures import State
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme
from msgspec import Struct
from uvicorn.protocols.http.h11_impl import H11Protocol

from hyperion import __version__
from hyperion.daemon.application import Application
from hyperion.daemon.clock import WallClock
from hyperion.daemon.gateway_datasets import DATASET_ROUTES
from hyperion.daemon.gateway_guard import BODY_PAUSE_S, AsgiApp, Guard
from hyperion.daemon.gateway_money import MONEY_ROUTES
from hyperion.daemon.gateway_openapi import ViewSchemas
from hyperion.daemon.gateway_problems import answer
from hyperion.daemon.gateway_routes import ROUTES
from hyperion.daemon.gateway_streams import Streams
from hyperion.ports import Clock
from hyperion.wire.rest import API_PREFIX

SOCKET_NAME = "federation.sock"
HEADER_PAUSE_S = 20.0
"""From the first byte of a request (or the connection) to the end of its headers."""
MAX_HEADER_BYTES = 32 << 10
MAX_UNIX_PATH_BYTES = 107
"""sun_path of sockaddr_un holds 108 bytes with its final zero (unix(7))."""


class GatewaySettings(Struct, frozen=True, kw_only=True):
    """Where the gateway listens, and its bounds."""

    socket_path: str = ""
    """The unix socket, mode 0600 and without token; empty is none."""
    host: str = "127.0.0.1"
    port: int | None = None
    """0 takes a free one; None is no TCP listener."""
    token: str = ""
    """Bearer tokens of the TCP listener, one a line. Needed, with TLS, unless ``host`` is
    loopback."""
    certificate_path: str = ""
    key_path: str = ""
    ca_path: str = ""
    """The authority that joiners compare with their pin; by default beside the certificate."""
    max_body_bytes: int = 8 << 20
    max_streams: int = 256
    max_connections: int = 1024
    keepalive_s: float = 15.0
    """Between comments on a quiet stream."""
    body_pause_s: float = BODY_PAUSE_S
    stop_s: float = 3.0
    """How long open requests may take to end at a stop."""

    def __repr__(self) -> str:
        return f"GatewaySettings({self.socket_path!r}, {self.host}:{self.port})"


class GatewayError(Exception):
    """The gateway cannot listen as it was told to; the message has the remedy."""


def build(
    application: Application,
    settings: GatewaySettings | None = None,
    clock: Clock | None = None,
) -> Litestar:
    """The ASGI app. Who may call is judged before it, by ``Guard``, for each listener."""
    settings = settings or GatewaySettings()
    clock = clock or WallClock()
    streams = Streams(settings.max_streams, settings.keepalive_s)
    return Litestar(
        route_handlers=[
            Router(API_PREFIX, route_handlers=[*ROUTES, *MONEY_ROUTES, *DATASET_ROUTES])
        ],
        exception_handlers={Exception: answer},
        request_max_body_size=settings.max_body_bytes,
        state=State(
            {
                "application": application,
                "streams": streams,
                "clock": clock,
                "ca_pem": _authority(settings),
            }
        ),
        openapi_config=_openapi(),
        plugins=[ViewSchemas()],
        logging_config=None,
    )


class Gateway:
    """The listeners over one app, in the running event loop, without signal handlers."""

    def __init__(self, application: Application, settings: GatewaySettings) -> None:
        _check(settings)
        self._settings = settings
        self._app = build(application, settings)
        self._servers: list[_Server] = []
        self.url = ""
        """Of the TCP listener, once started."""

    async def start(self) -> None:
        """Listen. Raises GatewayError when an address cannot be had."""
        try:
            if self._settings.socket_path:
                await self._listen(_unix_socket(Path(self._settings.socket_path)), Guard(self._app))
            if self._settings.port is not None:
                await self._listen_on_tcp(self._settings.port)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """End streams, let open requests finish for ``stop_s``, then cut them off."""
        self._app.state["streams"].close()
        await asyncio.gather(*(server.stop() for server in self._servers))
        self._servers.clear()

    async def _listen_on_tcp(self, port: int) -> None:
        settings = self._settings
        listener = _tcp_socket(settings.host, port)
        guard = Guard(
            self._app,
            settings.token,
            browsers_shut_out=not settings.token.strip(),
            body_pause_s=settings.body_pause_s,
        )
        await self._listen(listener, guard, settings.certificate_path, settings.key_path)
        scheme = "https" if settings.certificate_path else "http"
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        self.url = f"{scheme}://{host}:{listener.getsockname()[1]}"

    async def _listen(
        self, listener: socket.socket, app: AsgiApp, certificate: str = "", key: str = ""
    ) -> None:
        server = _Server(listener, app, self._settings, certificate, key)
        self._servers.append(server)
        await server.start()


async def serve(application: Application, settings: GatewaySettings) -> None:
    """Serve until cancelled, then stop in good order."""
    gateway = Gateway(application, settings)
    await gateway.start()
    try:
        await asyncio.Event().wait()
    finally:
        await gateway.close()


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a listener on that host."""
    return host in {"localhost", "::1"} or host.startswith("127.")


class _Server:
    """One listening socket, served by uvicorn without its main loop and its signal handlers."""

    def __init__(
        self,
        listener: socket.socket,
        app: AsgiApp,
        settings: GatewaySettings,
        certificate: str,
        key: str,
    ) -> None:
        self._listener = listener
        self._inode = _inode_of(listener)
        config = uvicorn.Config(
            app,
            http=_PatientProtocol,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,  # Guard writes it; uvicorn's would need its main loop
            limit_concurrency=settings.max_connections,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=max(1, round(settings.stop_s)),
            h11_max_incomplete_event_size=MAX_HEADER_BYTES,
            ssl_certfile=certificate or None,
            ssl_keyfile=key or None,
        )
        self._config = config
        self._server = uvicorn.Server(config)

    async def start(self) -> None:
        try:
            self._config.load()
        except OSError as error:  # ssl.SSLError is one
            raise GatewayError(
                f"the certificate {self._config.ssl_certfile} or its key cannot be used: {error}"
            ) from error
        self._server.lifespan = self._config.lifespan_class(self._config)
        self._listener.listen(256)
        await self._server.startup(sockets=[self._listener])

    async def stop(self) -> None:
        path = self._listener.getsockname() if self._inode else ""
        if self._server.started:
            await self._server.shutdown(sockets=[self._listener])
        self._listener.close()
        with contextlib.suppress(OSError):  # a successor may have put its own socket there
            if path and os.stat(path).st_ino == self._inode:
                os.unlink(path)


class _PatientProtocol(H11Protocol):
    """uvicorn's HTTP/1.1, with an end to its patience while headers trickle in."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)  # asyncio types it as BaseTransport; uvicorn narrows it
        self._await_headers()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._headers_came()
        elif self._deadline is None:
            self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._headers_came()
        super().connection_lost(exc)

    def _await_headers(self) -> None:
        self._deadline = self.loop.call_later(HEADER_PAUSE_S, self._lose_patience)

    def _headers_came(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _lose_patience(self) -> None:
        if self.conn.their_state is h11.IDLE:
            self.transport.close()


def _openapi() -> OpenAPIConfig:
    return OpenAPIConfig(
        title="Hyperion-X federation",
        version=__version__,
        path="/openapi",  # its 404 page must not answer for /v1
        description="Errors are application/problem+json (RFC 9457) with a remedy.",
        render_plugins=[JsonRenderPlugin()],
        components=Components(
            security_schemes={"bearer": SecurityScheme(type="http", scheme="bearer")}
        ),
        security=[{"bearer": []}, {}],
        operation_id_creator=lambda handler, _method, _path: handler.handler_name,
    )


def _authority(settings: GatewaySettings) -> str:
    path = settings.ca_path
    if not path and settings.certificate_path:
        beside = Path(settings.certificate_path).with_name("ca.pem")
        path = str(beside) if beside.exists() else ""
    try:
        return Path(path).read_text(encoding="ascii") if path else ""
    except (OSError, UnicodeDecodeError) as error:
        raise GatewayError(f"ca_path: {path} cannot be read: {error}") from None


def _check(settings: GatewaySettings) -> None:
    if settings.port is None or is_loopback(settings.host):
        return
    lacking = [
        name
        for name, value in (
            ("a token", settings.token.strip()),
            ("a certificate", settings.certificate_path),
            ("its key", settings.key_path),
        )
        if not value
    ]
    if lacking:
        raise GatewayError(
            f"REST on {settings.host} can be reached from elsewhere and lacks {', '.join(lacking)};"
            " give them, or listen on 127.0.0.1"
        )


def _tcp_socket(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With its protocol named, for only then asyncio sets TCP_NODELAY on what it accepts.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setblocking(False)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise GatewayError(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another port"
        ) from error
    return listener


def _unix_socket(path: Path) -> socket.socket:
    if len(os.fsencode(path)) > MAX_UNIX_PATH_BYTES:
        raise GatewayError(
            f"the socket's path {path} is longer than {MAX_UNIX_PATH_BYTES} bytes;"
            " choose a state directory with a shorter name"
        )
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.setblocking(False)
    try:
        listener.bind(os.fspath(path))
        # Nobody can connect between bind and listen, so the mode is right from the first moment.
        path.chmod(0o600)
    except OSError as error:
        listener.close()
        raise GatewayError(f"cannot listen on {path}: {error.strerror}") from error
    return listener


def _remove_stale(path: Path) -> None:
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise GatewayError(f"{path} is in the way and no socket; move it away")
    except FileNotFoundError:
        return
    with _probe() as probe:
        found = probe.connect_ex(os.fspath(path))
    if found == 0 or found not in {errno.ECONNREFUSED, errno.ENOENT}:
        raise GatewayError(f"a federation answers on {path}; stop it first, or use another state")
    path.unlink(missing_ok=True)


@contextlib.contextmanager
def _probe() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        yield probe


def _inode_of(listener: socket.socket) -> int:
    if listener.family != socket.AF_UNIX:
        return 0
    return os.stat(listener.getsockname()).st_ino
