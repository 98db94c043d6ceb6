"""The methods of the services, for transports that are not grpcio's server: found by path, an interceptor first."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import grpc

from server.transport.auth_interceptor import AuthInterceptor


class Details(NamedTuple):
    """What is known of a call before its message is read; see grpc.HandlerCallDetails."""

    method: str
    invocation_metadata: Iterable[tuple[str, str | bytes]]


class Methods:
    """Stands for a grpc.aio.Server to which services are added."""

    def __init__(self, interceptor: AuthInterceptor | None) -> None:
        """Begin without services; the interceptor turns callers away before their message is read."""
        self._interceptor = interceptor
        self._services = list[grpc.GenericRpcHandler]()

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Add a service, as generated code does."""
        self._services += handlers

    async def find(self, path: str, metadata: Iterable[tuple[str, str | bytes]]) -> Any:
        """Return how a method is run, or refused; None where there is none.

        Args:
            path: /SERVICE/METHOD.
            metadata: The call's; keys are in lower case.
        """
        details: Any = Details(path, metadata)
        if self._interceptor is None:
            return self._handler_of(details)

        async def find(details: grpc.HandlerCallDetails) -> Any:
            return self._handler_of(details)

        return await self._interceptor.intercept_service(find, details)

    def _handler_of(self, details: grpc.HandlerCallDetails) -> Any:
        return next(filter(None, (service.service(details) for service in self._services)), None)


def implementation_of(handler: Any) -> Any:
    """Return the coroutine function, or the asynchronous generator, that a handler runs."""
    return handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream


def first_of(error: Exception) -> Exception:
    """Return an error, or the first of a group of tasks."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error
