"""The Python API: ``Client`` for plain code, ``AsyncClient`` for asyncio, and their errors."""

from typing import TYPE_CHECKING

from hyperion.client.errors import (
    Busy,
    Conflict,
    HyperionError,
    NotFound,
    Refused,
    ServerFault,
    SpecRefused,
    TimedOut,
    Unauthorized,
    Unavailable,
)

if TYPE_CHECKING:
    from hyperion.client.asynchronous import AsyncClient
    from hyperion.client.sync import Client

__all__ = [
    "AsyncClient",
    "Busy",
    "Client",
    "Conflict",
    "HyperionError",
    "NotFound",
    "Refused",
    "ServerFault",
    "SpecRefused",
    "TimedOut",
    "Unauthorized",
    "Unavailable",
]


def __getattr__(name: str) -> object:
    # asyncio costs 40 ms to import; who wants one client does not pay for both.
    if name == "Client":
        from hyperion.client.sync import Client

        return Client
    if name == "AsyncClient":
        from hyperion.client.asynchronous import AsyncClient

        return AsyncClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
