"""What every call passes: who calls, may they, and what an error becomes on the way out."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection
from typing import Any, TypeAlias

import grpc
import msgspec
from google.protobuf.message import DecodeError

from hyperion.adapters.link.credentials import admit
from hyperion.adapters.link.errors import STANDARD, Exhausted, Invalid, Translation
from hyperion.adapters.link.identity import Identity, Role
from hyperion.adapters.link.status import abort_for

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Act = Callable[[Identity, Any], Awaitable[Any]]
ActStreaming = Callable[[Identity, Any], AsyncGenerator[Any]]
ActOnStream = Callable[[Identity, AsyncIterator[Any]], Awaitable[Any]]

MAX_STREAMS = 256
"""Streams of answers (logs, watch) at a time; each may last for hours."""
PROBLEMS_KEY = "hyperion-problems-bin"
_MAX_PROBLEMS_BYTES = 4_096


class Gate:
    """Makes gRPC method handlers that admit some roles and translate what their code raises."""

    def __init__(
        self,
        trust_domain: str,
        translation: Translation = STANDARD,
        max_streams: int = MAX_STREAMS,
    ) -> None:
        self._trust_domain = trust_domain
        self._translation = translation
        self._max_streams = max_streams
        self._streams = 0

    def unary(self, request: type[Any], roles: Collection[Role], act: Act) -> Handler:
        """One question, one answer."""

        async def call(body: bytes, context: Context) -> Any:
            try:
                who = admit(context, self._trust_domain, roles)
                return await act(who, _parsed(request, body))
            except Exception as error:
                await self._refuse(context, error)

        return grpc.unary_unary_rpc_method_handler(call, None, _serialized)

    def streaming(self, request: type[Any], roles: Collection[Role], act: ActStreaming) -> Handler:
        """One question, a stream of answers."""

        async def call(body: bytes, context: Context) -> AsyncIterator[Any]:
            if self._streams >= self._max_streams:
                await self._refuse(context, Exhausted(f"{self._max_streams} streams are open"))
            self._streams += 1
            try:
                who = admit(context, self._trust_domain, roles)
                answers = act(who, _parsed(request, body))
                try:
                    async for answer in answers:
                        yield answer
                finally:
                    await answers.aclose()
            except Exception as error:
                await self._refuse(context, error)
            finally:
                self._streams -= 1

        return grpc.unary_stream_rpc_method_handler(call, None, _serialized)

    def on_stream(self, request: type[Any], roles: Collection[Role], act: ActOnStream) -> Handler:
        """A stream of questions, one answer."""

        async def call(bodies: AsyncIterator[bytes], context: Context) -> Any:
            try:
                who = admit(context, self._trust_domain, roles)
                return await act(who, (_parsed(request, body) async for body in bodies))
            except Exception as error:
                await self._refuse(context, error)

        return grpc.stream_unary_rpc_method_handler(call, None, _serialized)

    async def _refuse(self, context: Context, error: Exception) -> None:
        if isinstance(error, grpc.aio.AbortError):
            raise error
        if problems := getattr(error, "problems", ()):
            context.set_trailing_metadata(((PROBLEMS_KEY, _problems(problems)),))
        await abort_for(context, error, self._translation)


def _parsed(request: type[Any], body: bytes) -> Any:
    """The message. gRPC's own parsing would call a malformed one INTERNAL, as if it were ours."""
    try:
        return request.FromString(body)
    except DecodeError:
        kind = request.DESCRIPTOR.full_name
        raise Invalid(f"{len(body)} bytes came that are no {kind}, expected its encoding") from None


def _serialized(message: Any) -> bytes:
    serialized: bytes = message.SerializeToString()
    return serialized


def _problems(problems: Collection[Any]) -> bytes:
    """As many faults of a spec as fit into a trailer; each a Struct with Problem's fields."""
    from hyperion.wire.generated.federation_pb2 import Problem, Problems

    listed = Problems()
    for problem in problems:
        fields = msgspec.to_builtins(problem)
        listed.problems.append(
            Problem(
                pointer=fields.get("pointer", ""),
                message=fields.get("message", ""),
                line=fields.get("line", 0),
                column=fields.get("column", 0),
            )
        )
        if listed.ByteSize() > _MAX_PROBLEMS_BYTES:
            listed.problems.pop()
            break
    return listed.SerializeToString()
