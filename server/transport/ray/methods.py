"""The methods that Ray Serve takes calls of, and hands over as bytes: messages are parsed behind it, by the services.

Ray calls a deployment's method by the last part of a call's path, and pickles what its own parser made of a message
where its proxy stands between: a message of protobuf is unpickled only where its module has the name that it was made
with. Bytes always are, and need no parser twice.
"""

import math
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator
from contextlib import aclosing
from typing import Any, NamedTuple

import grpc
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from regard.v1 import regard_pb2
from server.api.open_inference import open_inference_pb2

TIMEOUT = "grpc-timeout"  # which gRPC itself reads and leaves out, so that no caller can give it
PROCESS = "regard-process"  # the last of this name is not the caller's
THIS_PROCESS = uuid.uuid4().hex
_MAX_TIMEOUT_MS = 99_999_999
SERVICES: tuple[Any, ...] = (  # descriptors, of which protobuf has types that do not go together
    regard_pb2.DESCRIPTOR.services_by_name["RegardService"],
    open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"],
    health_pb2.DESCRIPTOR.services_by_name["Health"],
    reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"],
)


class Method(NamedTuple):
    """A method that is called.

    Attributes:
        name: The last part of its path.
        path: /SERVICE/METHOD.
        request_streaming: Whether its requests are a stream.
        response_streaming: Whether its answers are.
    """

    name: str
    path: str
    request_streaming: bool
    response_streaming: bool


def methods(services: Iterable[Any] = SERVICES) -> Iterator[Method]:
    """Yield the methods of services."""
    for service in services:
        for one in service.methods:
            yield Method(one.name, f"/{service.full_name}/{one.name}", one.client_streaming, one.server_streaming)


def add_services(servicer: object, server: Any) -> None:
    """Add the services to Ray's gRPC server: one of its grpc_servicer_functions.

    Args:
        servicer: None of ours: Ray puts its own functions in the methods' place.
        server: Ray's, to which generated code would add a service.
    """
    for service in SERVICES:
        handlers = {method.name: _handler_of(method) for method in methods([service])}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, handlers),))


def _handler_of(method: Method) -> Any:
    return _Handler(method.request_streaming, method.response_streaming, None, None, None, None, None, None)


class _Handler(type(grpc.unary_unary_rpc_method_handler(lambda *_: None))):  # type: ignore[misc]  # a named tuple
    """A method without a parser; the function that Ray puts in it is told the deadline, and where the call came in."""

    def _replace(self, **changes: Any) -> Any:
        for name, tell in _TELLING.items():
            if changes.get(name):
                changes[name] = tell(changes[name])
        return super()._replace(**changes)


def _telling(function: Callable[[Any, Any], Awaitable[bytes]]) -> Callable[[Any, Any], Awaitable[bytes]]:
    async def run(request: Any, context: Any) -> bytes:
        return await function(request, _Told(context))

    return run


def _telling_stream(
    function: Callable[[Any, Any], AsyncGenerator[bytes]],
) -> Callable[[Any, Any], AsyncGenerator[bytes]]:
    async def run(request: Any, context: Any) -> AsyncGenerator[bytes]:
        async with aclosing(function(request, _Told(context))) as answers:
            async for answer in answers:
                yield answer

    return run


_TELLING: dict[str, Callable[[Any], Any]] = {
    "unary_unary": _telling,
    "stream_unary": _telling,
    "unary_stream": _telling_stream,
    "stream_stream": _telling_stream,
}


class _Told:
    """gRPC's side of a call, whose metadata say more: nothing else of it reaches a replica."""

    def __init__(self, context: Any) -> None:
        self._context = context

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def invocation_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        """What the caller says beside the message, in how many milliseconds it wants the answer, and who took the call.

        That is the replica itself, or Ray's own proxy, to which HAProxy, too, hands calls where it knows no replica.
        """
        metadata = (*(self._context.invocation_metadata() or ()), (PROCESS, THIS_PROCESS))
        seconds = self._context.time_remaining()
        if seconds is None:
            return metadata
        milliseconds = min(max(math.ceil(seconds * 1e3), 0), _MAX_TIMEOUT_MS)
        return (*metadata, (TIMEOUT, f"{milliseconds}m"))
