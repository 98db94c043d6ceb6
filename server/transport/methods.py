"""The methods of the services, for transports that are not grpcio's server: found by path, an interceptor first."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple, Protocol

import grpc

from server.api.servicer import Servicer
from server.errors import MalformedMessage, ServerError
from server.transport.auth_interceptor import AuthInterceptor
from server.transport.refusals import Refusals
from server.transport.wire import MaxBytes


class Details(NamedTuple):
    """What is known of a call before its message is read; see grpc.HandlerCallDetails."""

    method: str
    invocation_metadata: Iterable[tuple[str, str | bytes]]


class Call(Servicer, Protocol):
    """A call, and how its answers become bytes.

    Attributes:
        serialize: Makes bytes of a message; None where methods give bytes.
    """

    serialize: Callable[[Any], bytes] | None


class Answered(NamedTuple):
    """A method has come to its end: what it returns, and whether it has written a stream before."""

    answer: Any
    is_stream: bool


class Methods:
    """Stands for a grpc.aio.Server to which services are added, and runs their methods."""

    def __init__(self, interceptor: AuthInterceptor | None, refusals: Refusals, max_message_bytes: int) -> None:
        """Begin without services.

        Args:
            interceptor: Turns callers away before their message is read.
            refusals: Tells callers whose message is none.
            max_message_bytes: Of a message, as it is sent and inflated.
        """
        self._interceptor, self._refusals = interceptor, refusals
        self._most = MaxBytes(max_message_bytes, "the server's --max-message-bytes")
        self._services = list[grpc.GenericRpcHandler]()

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Add a service, as generated code does."""
        self._services += handlers

    async def run(self, path: str, call: Call, request: Callable[[Any, MaxBytes], Awaitable[Any]]) -> Answered | None:
        """Run a method; None where the message cannot be used, of which the caller is told.

        Args:
            path: /SERVICE/METHOD.
            call: The transport's side of it.
            request: Returns the message, or a generator of them, for a handler and what one may have; may raise
                BadMessage, or another ServerError.

        Raises:
            Exception: What the method raises, or `call.abort`.
        """
        handler = await self._find(path, call.invocation_metadata() or ())
        if handler is None:
            await call.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
        method = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
        call.serialize, fewer = handler.response_serializer, getattr(method, "max_message_bytes", None)
        most = self._most if fewer is None else MaxBytes(fewer, "of this method")
        try:
            answer = await method(await request(handler, most), call)
        except (ServerError, ExceptionGroup) as raised:  # of the message: what a method raises is told by the method
            error = first_of(raised).with_traceback(None)
            if not isinstance(error, ServerError):
                raise
        else:
            return Answered(answer, handler.response_streaming)
        if isinstance(error, MalformedMessage):
            self._refusals.metrics.messages_refused.labels(error.reason).inc()
        await self._refusals.end(path.rpartition("/")[2], error, call)
        return None

    async def _find(self, path: str, metadata: Iterable[tuple[str, str | bytes]]) -> Any:
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


def first_of(error: Exception) -> Exception:
    """Return an error, or the first of a group of tasks."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error
