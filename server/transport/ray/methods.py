"""The methods that Ray Serve takes calls of, and hands over as bytes: messages are parsed behind it, by the services.

Ray calls a deployment's method by the last part of a call's path, and pickles what its own parser made of a message
where its proxy stands between: a message of protobuf is unpickled only where its module has the name that it was made
with. Bytes always are, and need no parser twice.
"""

import math
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import aclosing
from typing import Any, NamedTuple

import grpc
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from regard.v1 import regard_pb2
from server.api.open_inference import open_inference_pb2
from server.errors import MalformedMessage
from server.transport.field_count import read_first_text

TIMEOUT = "grpc-timeout"  # which gRPC itself reads and leaves out, so that no caller can give it
PROCESS = "regard-process"  # the last of this name is not the caller's
THIS_PROCESS = uuid.uuid4().hex
MODEL = "multiplexed_model_id"  # by which Ray's own proxy chooses among replicas; the last of this name counts
_MAX_TIMEOUT_MS = 99_999_999
_MAX_NAME_BYTES = 100
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
        names_model: Whether field 1 of its requests is a model's name.
    """

    name: str
    path: str
    request_streaming: bool
    response_streaming: bool
    names_model: bool


def methods(services: Iterable[Any] = SERVICES) -> Iterator[Method]:
    """Yield the methods of services."""
    for service in services:
        for one in service.methods:
            path = f"/{service.full_name}/{one.name}"
            yield Method(one.name, path, one.client_streaming, one.server_streaming, _names_model(one))


def _names_model(method: Any) -> bool:
    first = method.input_type.fields_by_number.get(1)
    return first is not None and (first.name in {"model", "model_name"} or method.name.startswith("Model"))


def add_services(server: Any, *, tell_model: bool) -> None:
    """Add the services to Ray's gRPC server, which puts its own functions in the methods' place.

    Args:
        server: Ray's, to which generated code would add a service.
        tell_model: Whether these are to be told which model a request names.
    """
    for service in SERVICES:
        handlers = {
            method.name: _handler_of(method, tell_model=tell_model and method.names_model)
            for method in methods([service])
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, handlers),))


def _handler_of(method: Method, *, tell_model: bool) -> Any:
    made = _ModelHandler if tell_model else _Handler
    return made(method.request_streaming, method.response_streaming, None, None, None, None, None, None)


class _Handler(type(grpc.unary_unary_rpc_method_handler(lambda *_: None))):  # type: ignore[misc]  # a named tuple
    """A method without a parser; the function that Ray puts in it is told the deadline, and where the call came in."""

    _tells_model = False

    def _replace(self, **changes: Any) -> Any:
        for name in ("unary_unary", "stream_unary", "unary_stream", "stream_stream"):
            if function := changes.get(name):
                telling = _telling_stream if name.endswith("stream") else _telling
                changes[name] = telling(function, tells_model=self._tells_model)
        return super()._replace(**changes)


class _ModelHandler(_Handler):
    """One whose function is also told the model that the request names."""

    _tells_model = True


def _telling(
    function: Callable[[Any, Any], Awaitable[bytes]], *, tells_model: bool
) -> Callable[[Any, Any], Awaitable[bytes]]:
    async def run(request: Any, context: Any) -> bytes:
        model, request = await _model_of(request) if tells_model else ("", request)
        return await function(request, _Told(context, model))

    return run


def _telling_stream(
    function: Callable[[Any, Any], AsyncGenerator[bytes]], *, tells_model: bool
) -> Callable[[Any, Any], AsyncGenerator[bytes]]:
    async def run(request: Any, context: Any) -> AsyncGenerator[bytes]:
        model, request = await _model_of(request) if tells_model else ("", request)
        async with aclosing(function(request, _Told(context, model))) as answers:
            async for answer in answers:
                yield answer

    return run


async def _model_of(request: bytes | AsyncIterator[bytes]) -> tuple[str, bytes | AsyncIterator[bytes]]:
    """Return the model that a message, or the first of a stream, names, and the request as it was."""
    if isinstance(request, bytes):
        return name_of_model(request), request
    async for first in request:
        return name_of_model(first), _behind(first, request)
    return "", request


async def _behind(first: bytes, others: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    yield first
    async for one in others:
        yield one


def name_of_model(content: bytes) -> str:
    """Read a message's field 1 where it stands first, as protobuf's libraries write it; empty for what is no name."""
    try:
        return read_first_text(content, _MAX_NAME_BYTES)
    except (MalformedMessage, IndexError):  # which the replica tells its caller
        return ""


class _Told:
    """gRPC's side of a call, whose metadata say more: nothing else of it reaches a replica."""

    def __init__(self, context: Any, model: str) -> None:
        self._context, self._model = context, model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def invocation_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        """What the caller says beside the message, which model it names, by when it wants the answer, and who took it.

        That is the replica itself, or Ray's own proxy, to which HAProxy, too, hands calls where it knows no replica.
        """
        model = ((MODEL, self._model),) if self._model else ()
        metadata = (*(self._context.invocation_metadata() or ()), *model, (PROCESS, THIS_PROCESS))
        seconds = self._context.time_remaining()
        if seconds is None:
            return metadata
        milliseconds = min(max(math.ceil(seconds * 1e3), 0), _MAX_TIMEOUT_MS)
        return (*metadata, (TIMEOUT, f"{milliseconds}m"))
