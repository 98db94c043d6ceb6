"""Messages that are none: refused as their caller's fault, where gRPC would log a traceback and answer UNKNOWN."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from server.errors import MALFORMED

Method = Callable[[Any, Any], Awaitable[Any]]


class Registrar:
    """Stands for a server while services are added to it."""

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Add a service, as generated code does."""
        self._server.add_generic_rpc_handlers([_Tolerant(handler) for handler in handlers])

    def add_registered_method_handlers(self, service: str, handlers: Any) -> None:
        """Do nothing, as grpc.aio's server: the generic handlers are enough."""


class _Tolerant(grpc.GenericRpcHandler):
    """Finds a service's methods; what is no message is refused, or None for the stream that can say so itself."""

    def __init__(self, handler: grpc.GenericRpcHandler) -> None:
        self._handler = handler
        self._methods: dict[str, Any] = {}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Return how a method is run; None where it is another service's."""
        name = handler_call_details.method
        if name not in self._methods:
            found = self._handler.service(handler_call_details)
            if found is None:
                return None
            self._methods[name] = _tolerate(found, takes_none=name.endswith("/ModelStreamInfer"))
        return self._methods[name]


def _tolerate(handler: Any, *, takes_none: bool) -> Any:
    read = _reader(handler.request_deserializer)
    if handler.unary_unary:
        method = _refusing(handler.unary_unary)
        return grpc.unary_unary_rpc_method_handler(method, read, handler.response_serializer)
    if handler.stream_stream and takes_none:
        return grpc.stream_stream_rpc_method_handler(handler.stream_stream, read, handler.response_serializer)
    return handler


def _reader(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def read(content: bytes) -> Any:
        try:
            return deserialize(content)
        except DecodeError:
            return None

    return read


def _refusing(method: Method) -> Method:
    async def run(request: Any, context: Any) -> Any:
        if request is None:
            await context.abort(*MALFORMED)
        return await method(request, context)

    return run
