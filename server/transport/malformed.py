"""Bytes that are no message: refused as their caller's fault, where gRPC would log a traceback and answer UNKNOWN."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from server.errors import MalformedMessage

_MAKERS = {  # by whether requests and responses are streams
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


class MalformedMessageHandler:
    """Stands for a server while services are added to it, so that each of their methods refuses what is no message."""

    def __init__(self, server: grpc.aio.Server, max_bytes: int | None = None) -> None:
        """Add services to a server.

        Args:
            server: Which has not started.
            max_bytes: Of a request, beyond which it is no message of theirs: the call would hold it until it ends.
        """
        self._server, self._max_bytes = server, max_bytes

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Add a service, as generated code does."""
        self._server.add_generic_rpc_handlers([_Refusing(handler, self._max_bytes) for handler in handlers])

    def add_registered_method_handlers(self, service: str, handlers: Any) -> None:
        """Do nothing, as grpc.aio's server: the generic handlers are enough."""


class _Refusing(grpc.GenericRpcHandler):
    """Finds a service's methods."""

    def __init__(self, handler: grpc.GenericRpcHandler, max_bytes: int | None) -> None:
        self._handler, self._max_bytes = handler, max_bytes
        self._methods: dict[str, Any] = {}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Return how a method is run; None where it is another service's."""
        name = handler_call_details.method
        if name not in self._methods:
            found = self._handler.service(handler_call_details)
            if found is None:
                return None
            self._methods[name] = _refusing(found, self._max_bytes)
        return self._methods[name]


def _refusing(handler: Any, max_bytes: int | None) -> Any:
    """Let a method that takes None for what is no message have it, and refuse it for all others."""
    read, write = _reader(handler.request_deserializer, max_bytes), handler.response_serializer
    method = handler.unary_unary or handler.unary_stream or handler.stream_stream
    if not getattr(method, "takes_malformed", False):
        method = _refuse_none_in(method) if handler.request_streaming else _refuse_none(method)
    return _MAKERS[handler.request_streaming, handler.response_streaming](method, read, write)


def _reader(deserialize: Callable[[bytes], Any], max_bytes: int | None) -> Callable[[bytes], Any]:
    def read(content: bytes) -> Any:
        if max_bytes is not None and len(content) > max_bytes:
            return None
        try:
            return deserialize(content)
        except DecodeError:
            return None

    return read


def _refuse_none(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def run(request: Any, context: Any) -> Any:
        if request is None:
            await _abort(context)
        return await method(request, context)

    return run


def _refuse_none_in(method: Callable[..., AsyncIterator[Any]]) -> Callable[..., AsyncIterator[Any]]:
    async def read(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        async for request in requests:
            if request is None:
                await _abort(context)
            yield request

    async def run(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        async for response in method(read(requests, context), context):
            yield response

    return run


async def _abort(context: Any) -> None:
    error = MalformedMessage()
    await context.abort(error.code, str(error))
