"""Puts the services of one process on one port, behind mutual TLS."""

from collections.abc import Iterable, Sequence
from typing import Any

import grpc

from hyperion.adapters.link.credentials import Credentials
from hyperion.adapters.link.errors import Unavailable
from hyperion.adapters.link.streams import server_options

STOP_GRACE_S = 1.0
_SERVING = 1
"""grpc.health.v1.HealthCheckResponse.SERVING."""


class LinkServer:
    """A grpc.aio server with health and reflection beside the given services.

    Every caller must show a certificate of our authority; each method says which roles it admits.
    Health and reflection are open to every role.
    """

    def __init__(
        self, credentials: Credentials, services: Sequence[grpc.GenericRpcHandler]
    ) -> None:
        self._credentials = credentials
        self._server = grpc.aio.server(options=server_options())
        self._server.add_generic_rpc_handlers(tuple(services))
        names = [str(getattr(service, "service_name")()) for service in services]  # noqa: B009
        self._names = names
        self._health = _add_health(self._server)
        _add_reflection(self._server, names)

    async def start(self, host: str, port: int = 0) -> int:
        """Listen; the port bound. Unavailable when the address is taken or not ours."""
        try:
            bound = self._server.add_secure_port(_address(host, port), self._credentials.server())
        except RuntimeError:
            raise Unavailable(
                f"cannot listen on {_address(host, port)}: in use, or no address of this machine;"
                f" see who with: ss -ltnp 'sport = :{port}'"
            ) from None
        for name in self._names:
            await self._health.set(name, _SERVING)
        await self._server.start()
        return bound

    async def stop(self, grace_s: float = STOP_GRACE_S) -> None:
        """Say NOT_SERVING, take no new calls, end the open ones after the grace."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_s)


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _add_health(server: grpc.aio.Server) -> Any:
    from grpc_health.v1 import health, health_pb2_grpc

    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    return servicer


def _add_reflection(server: grpc.aio.Server, names: Iterable[str]) -> None:
    from grpc_reflection.v1alpha import reflection

    listed = (*names, "grpc.health.v1.Health", reflection.SERVICE_NAME)
    reflection.enable_server_reflection(listed, server)
