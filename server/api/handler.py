"""What every RPC goes through, whichever protocol: counted, admitted or refused, its errors told."""

import asyncio
import functools
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Hashable, Sequence
from contextlib import aclosing
from typing import Any, Protocol, TypeVar

import grpc

from server.api.calls import Call, Calls
from server.api.servicer import Servicer
from server.auth.clients import Authenticator, Client
from server.context import Metadata, RpcContext
from server.errors import InternalFault, MalformedMessage, ServerError, ShuttingDown, TooBusy, Trailers
from server.ledger import COPIES
from server.telemetry.logs import log_rpc
from server.telemetry.metrics import Metrics
from server.telemetry.tracing import Tracing, end

_log = logging.getLogger(__name__)

Response = TypeVar("Response")
Message = TypeVar("Message")


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
        calls: Calls,
        load_trailers: Callable[[], Trailers] = tuple,
    ) -> None:
        """Count from nothing.

        Args:
            max_in_flight: How many may be in the server, waiting ones and those being decoded.
            metrics: Where they are counted.
            label: Turns what a caller named into a model's name, or nothing: what callers invent is no label.
            suggest_retry: In how many seconds one that was refused has a chance.
            authenticator: Who may call what.
            tracing: Where they are traced.
            calls: Those that gRPC has begun.
            load_trailers: What is told of the server's load with the end of each.
        """
        self.authenticator = authenticator
        self._tracing = tracing
        self._max_in_flight = max_in_flight
        self._metrics = metrics
        self._label = label
        self._suggest_retry = suggest_retry
        self.calls = calls
        self._load_trailers = load_trailers
        self.refusing = False

    def refuse(self) -> None:
        """Answer every RPC that comes from now on UNAVAILABLE."""
        self.refusing = True

    async def wait_idle(self) -> None:
        """Wait until no RPC is in flight, and every answer read."""
        await self.calls.ledger.wait_idle()

    async def answer(
        self,
        name: str,
        model: str,
        servicer: Servicer,
        caller: Client | None,
        handle: Callable[[RpcContext], Awaitable[Response]],
    ) -> Response:
        """Run an RPC; what it raises ends it with a code and a message. It is in the server until gRPC's call is over.

        Args:
            name: The RPC's.
            model: As the caller named it.
            servicer: gRPC's side of it.
            caller: Who calls; None where nobody has looked yet.
            handle: Does the work of a call.
        """
        metadata = dict(servicer.invocation_metadata() or ())
        call = self.calls.current()
        call.method = name
        remaining, peer = servicer.time_remaining(), servicer.peer()
        context = RpcContext.begin(name, model, metadata, remaining, peer, call.account)
        context.received_bytes = call.received_bytes
        try:
            answer = await self.run(context, metadata, handle, caller=caller)
        except ServerError as raised:
            error = raised.with_traceback(None)  # whose frames hold the request, and this error
            call.account.answer()  # one that was refused takes no place from others while it is told so
        else:
            call.wait_for("answer")
            call.account.answer()
            own = context.trailers if context.id_is_callers else ()
            if trailers := (*own, *self._load_trailers()):
                servicer.set_trailing_metadata(trailers)
            return answer
        await servicer.abort(error.code, str(error), (*error.trailers, *context.trailers, *self._load_trailers()))
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
        """Count an RPC until its account is closed, and see who makes it.

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
        self._metrics.received.of[context.method,].value += 1
        context.account.accept()
        if self._tracing.is_on:
            self._tracing.begin(context, metadata)
        try:
            context.caller = caller or self.authenticator.identify(metadata, certificates)
            share = context.share
            context.account.belong_to(share)
            self._admit(context, share)
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

    def _admit(self, context: RpcContext, share: Hashable) -> None:
        """Refuse before any work; requests that are being decoded count as waiting, since they hold memory too."""
        self.authenticator.check(context.caller, context.method)
        if self.refusing:
            raise ShuttingDown("the server is stopping")
        context.account.check()
        self.calls.ledger.check_requests(share, self._max_in_flight, self._suggest_retry)
        context.caller.quota.admit()

    def _end(self, context: RpcContext, code: str, message: str) -> None:
        seconds = (time.perf_counter_ns() - context.started_ns) / 1e9
        self._metrics.observe_end(context.method, self._label(context.model), code, context.caller.name, seconds)
        if context.span is not None:
            end(context, code)
        log_rpc(context, code, message)


class Service(Protocol):
    """A service whose methods are RPCs."""

    rpcs: RpcHandler


Unary = Callable[[Any, Any, RpcContext], Awaitable[Any]]
Streaming = Callable[[Any, Any, RpcContext], AsyncGenerator[Any]]


def rpc(model_field: str = "") -> Callable[[Unary], Any]:
    """Make an RPC of a service's method that takes a request and an RpcContext and returns a response.

    Args:
        model_field: Of the request: which holds the model's name; none where it names no model.
    """

    def decorate(method: Unary) -> Any:
        name = method.__name__

        @functools.wraps(method)
        def run(
            service: Service, request: Any, servicer: Servicer, caller: Client | None = None
        ) -> Coroutine[Any, Any, bytes]:
            async def write(context: RpcContext) -> bytes:
                if isinstance(request, MalformedMessage):
                    raise request
                response = await method(service, request, context)
                content: bytes = response.SerializeToString()
                context.account.hold("answer", COPIES * len(content))
                return content

            return service.rpcs.answer(name, getattr(request, model_field, ""), servicer, caller, write)

        return _taking(run)

    return decorate


def streaming_rpc(model_field: str, *, computes_first: bool = True) -> Callable[[Streaming], Any]:
    """Make an RPC of a service's method that takes a request and an RpcContext and yields responses.

    Args:
        model_field: Of the request: which holds the model's name.
        computes_first: Whether all is computed before anything is yielded; else it is said when that is so.
    """

    def decorate(method: Streaming) -> Any:
        name = method.__name__

        @functools.wraps(method)
        async def run(service: Service, request: Any, servicer: Servicer, caller: Client | None = None) -> None:
            async def write_all(context: RpcContext) -> None:
                call = service.rpcs.calls.current()
                async with aclosing(method(service, parsed(request), context)) as responses:
                    async for response in responses:
                        content = response.SerializeToString()
                        del response  # which is large, and its caller may take long to read it
                        call.account.hold("answer", COPIES * len(content))
                        if computes_first:
                            call.account.answer()
                        await send(servicer, call, content)

            await service.rpcs.answer(name, getattr(request, model_field, ""), servicer, caller, write_all)

        return _taking(run)

    return decorate


def parsed(request: Message | MalformedMessage) -> Message:
    """Return a request; raises what the transport gave in its place."""
    if isinstance(request, MalformedMessage):
        raise request
    return request


async def send(servicer: Servicer, call: Call, content: bytes) -> None:
    """Write a message of a stream, and wait until its caller has room for it."""
    call.wait_for("answer")
    try:
        await servicer.write(content)
    except grpc.aio.InternalError as error:  # the caller hung up, and gRPC has not yet said so
        raise asyncio.CancelledError from error
    call.wait_for("")


def _taking(method: Any) -> Any:
    """Tell the interceptor to say who calls, and the transport to give MalformedMessage for what is not parsed."""
    method.takes_caller = True
    return handles_bytes(method)


def handles_bytes(method: Any) -> Any:
    """Let a method have MalformedMessage for what is not parsed: it is counted and logged as every other request.

    It gives gRPC the bytes of its answers, not messages, which would be held until the caller has read them.
    """
    method.handles_bytes = True
    return method
