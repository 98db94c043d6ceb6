"""What every RPC goes through, whichever protocol: counted, admitted or refused, its errors told."""

import asyncio
import functools
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any, Protocol, TypeVar

import grpc

from server.auth.clients import Authenticator, Client
from server.context import Metadata, RpcContext
from server.errors import InternalFault, MalformedMessage, ServerError, ShuttingDown, TooBusy
from server.telemetry.logs import log_rpc
from server.telemetry.metrics import Metrics
from server.telemetry.tracing import Tracing, set_outcome

_log = logging.getLogger(__name__)

Servicer = grpc.aio.ServicerContext[Any, Any]
Response = TypeVar("Response")


class RpcHandler:
    """The RPCs in flight; lives in the event loop."""

    def __init__(
        self,
        max_in_flight: int,
        metrics: Metrics,
        label: Callable[[str], str],
        suggest_retry: Callable[[], float],
        authenticator: Authenticator,
        tracing: Tracing,
    ) -> None:
        """Count from nothing.

        Args:
            max_in_flight: How many may be in the server, waiting ones and those being decoded.
            metrics: Where they are counted.
            label: Turns what a caller named into a model's name, or nothing: what callers invent is no label.
            suggest_retry: In how many seconds one that was refused has a chance.
            authenticator: Who may call what.
            tracing: Where they are traced.
        """
        self.authenticator = authenticator
        self._tracing = tracing
        self._max_in_flight = max_in_flight
        self._metrics = metrics
        self._label = label
        self._suggest_retry = suggest_retry
        self._in_flight = 0
        metrics.in_flight.set_function(lambda: float(self._in_flight))
        self._idle = asyncio.Event()
        self._idle.set()
        self.refusing = False

    def refuse(self) -> None:
        """Answer every RPC that comes from now on UNAVAILABLE."""
        self.refusing = True

    async def wait_idle(self) -> None:
        """Wait until no RPC is in flight."""
        await self._idle.wait()

    async def answer(
        self,
        name: str,
        model: str,
        servicer: Servicer,
        caller: Client | None,
        handle: Callable[[RpcContext], Awaitable[Response]],
    ) -> Response:
        """Run an RPC; what it raises ends it with a code and a message.

        Args:
            name: The RPC's.
            model: As the caller named it.
            servicer: gRPC's side of it.
            caller: Who calls; None where nobody has looked yet.
            handle: Does the work.
        """
        metadata = dict(servicer.invocation_metadata() or ())
        context = RpcContext.begin(name, model, metadata, servicer.time_remaining(), servicer.peer())
        try:
            answer = await self.run(context, metadata, handle, caller=caller)
        except ServerError as raised:
            error = raised.with_traceback(None)  # whose frames hold the request, and this error
        else:
            if context.id_is_callers:
                servicer.set_trailing_metadata(context.trailers)
            return answer
        await servicer.abort(error.code, str(error), (*error.trailers, *context.trailers))
        raise AssertionError("abort always raises")

    async def run(
        self,
        context: RpcContext,
        metadata: Metadata,
        handle: Callable[[RpcContext], Awaitable[Response]],
        *,
        caller: Client | None = None,
        certificates: Sequence[str] = (),
    ) -> Response:
        """Count an RPC, and see who makes it.

        Args:
            context: Begun.
            metadata: Of the call.
            handle: Does the work.
            caller: Who calls; None where nobody has looked yet.
            certificates: Names on the caller's certificate, to look at then.

        Raises:
            ServerError: As it came, or InternalFault for anything else.
        """
        code, message = "OK", ""
        self._metrics.received.labels(context.method).inc()
        self._in_flight += 1
        self._idle.clear()
        with self._tracing.request(context, metadata):
            try:
                context.caller = caller or self.authenticator.identify(metadata, certificates)
                self._admit(context)
                return await handle(context)
            except ServerError as error:
                code, message = error.code.name, str(error)
                if isinstance(error, TooBusy):
                    self._metrics.refused.labels(error.reason).inc()
                raise
            except asyncio.CancelledError:
                code = "CANCELLED"
                raise
            except Exception as error:
                _log.exception("%s failed, request %s", context.method, context.request_id)
                code = InternalFault.code.name
                raise InternalFault from error
            finally:
                self._end(context, code, message)

    def _admit(self, context: RpcContext) -> None:
        """Refuse before any work; requests that are being decoded count as waiting, since they hold memory too."""
        self.authenticator.check(context.caller, context.method)
        if self.refusing:
            raise ShuttingDown("the server is stopping")
        if self._in_flight > self._max_in_flight:
            message = f"the server is full: {self._max_in_flight} requests are in it (--max-queue-size); retry later"
            raise TooBusy(message, self._suggest_retry(), "requests")
        context.caller.quota.admit()

    def _end(self, context: RpcContext, code: str, message: str) -> None:
        seconds = (time.perf_counter_ns() - context.started_ns) / 1e9
        self._metrics.observe_end(context.method, self._label(context.model), code, context.caller.name, seconds)
        log_rpc(context, code, message)
        set_outcome(context, code)
        self._in_flight -= 1
        if not self._in_flight:
            self._idle.set()


class Service(Protocol):
    """A service whose methods are RPCs."""

    rpcs: RpcHandler


Unary = Callable[[Any, Any, RpcContext], Awaitable[Any]]
Handle = Callable[[RpcContext], Awaitable[Any]]
Streaming = Callable[[Any, Any, RpcContext], AsyncGenerator[Any]]


def rpc(model_field: str = "") -> Callable[[Unary], Any]:
    """Make an RPC of a service's method that takes a request and an RpcContext and returns a response.

    Args:
        model_field: Of the request: which holds the model's name; none where it names no model.
    """

    def decorate(method: Unary) -> Any:
        name = method.__name__

        @functools.wraps(method)
        async def run(service: Service, request: Any, servicer: Servicer, caller: Client | None = None) -> Any:
            handle: Handle = functools.partial(method, service, request)
            if isinstance(request, MalformedMessage):
                handle = functools.partial(refuse_malformed, request)
            return await service.rpcs.answer(name, getattr(request, model_field, ""), servicer, caller, handle)

        return _taking(run)

    return decorate


def streaming_rpc(model_field: str) -> Callable[[Streaming], Any]:
    """Make an RPC of a service's method that takes a request and an RpcContext and yields responses."""

    def decorate(method: Streaming) -> Any:
        name = method.__name__

        @functools.wraps(method)
        async def run(service: Service, request: Any, servicer: Servicer, caller: Client | None = None) -> None:
            async def write_all(context: RpcContext) -> None:
                async with aclosing(method(service, request, context)) as responses:
                    async for response in responses:
                        await servicer.write(response)

            handle: Handle = write_all
            if isinstance(request, MalformedMessage):
                handle = functools.partial(refuse_malformed, request)
            await service.rpcs.answer(name, getattr(request, model_field, ""), servicer, caller, handle)

        return _taking(run)

    return decorate


async def refuse_malformed(error: MalformedMessage, context: RpcContext) -> Any:
    """Refuse a request that came as an error."""
    raise error


def _taking(method: Any) -> Any:
    """Tell the interceptor to say who calls, and the transport to give MalformedMessage for what is not parsed."""
    method.takes_caller = True
    return takes_malformed(method)


def takes_malformed(method: Any) -> Any:
    """Let a method have MalformedMessage for what is not parsed: it is counted and logged as every other request."""
    method.takes_malformed = True
    return method
