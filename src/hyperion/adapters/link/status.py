"""Refusals as gRPC status codes, in both directions."""

import logging
from typing import Any, NoReturn

import grpc

from hyperion.adapters.link.errors import (
    Conflict,
    Denied,
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

STATUS: dict[type[LinkError], grpc.StatusCode] = {
    Invalid: grpc.StatusCode.INVALID_ARGUMENT,
    NotFound: grpc.StatusCode.NOT_FOUND,
    Conflict: grpc.StatusCode.FAILED_PRECONDITION,
    Exhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
    Denied: grpc.StatusCode.PERMISSION_DENIED,
    TimedOut: grpc.StatusCode.DEADLINE_EXCEEDED,
    Failed: grpc.StatusCode.INTERNAL,
}
LONGEST_DETAILS = 4_096
"""Characters; a status travels in HTTP/2 headers, which peers bound at 8 KiB by default."""

_log = logging.getLogger("hyperion.link")


async def abort(context: "grpc.aio.ServicerContext[Any, Any]", why: LinkError) -> NoReturn:
    """End the call with the refusal's code and words."""
    code = STATUS.get(type(why), grpc.StatusCode.INTERNAL)
    await context.abort(code, str(why)[:LONGEST_DETAILS])
    raise AssertionError  # abort raises


async def abort_for(
    context: "grpc.aio.ServicerContext[Any, Any]", error: Exception, translation: Translation
) -> NoReturn:
    """End the call with what the exception stands for; a fault of our own is logged, not shown."""
    refusal = translated(error, translation)
    if refusal is None:
        _log.error("a call failed", exc_info=error)
        refusal = Failed("the server failed; its log says why")
    await abort(context, refusal)
