"""The ASGI application: runs the method that a path means, and writes its answer."""

import asyncio
import logging
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import grpc

from server.api.calls import Calls
from server.api.rest.exchange import Asked, HttpAnswer, HttpRequest, Refusal, Route, content_type_of
from server.api.rest.framed import PREFIX_BYTES, Framing, is_framed
from server.api.rest.json_bounds import JsonBounds
from server.api.servicer import Task
from server.config import Config
from server.errors import InternalFault, ServerError
from server.inference.workers import COPY_INLINE_BYTES, Workers
from server.ledger import COPIES
from server.transport.auth_interceptor import AuthInterceptor
from server.transport.gateway.admission import Admission, origins_of
from server.transport.gateway.body import Body, HungUp, Receive
from server.transport.gateway.call import Ended, HttpCall
from server.transport.gateway.connections import Connections
from server.transport.gateway.exchange import Exchange, Scope, Send, headers_of, refuse
from server.transport.gateway.paths import make_router
from server.transport.metadata import metadata_of
from server.transport.methods import Answered, Methods, first_of
from server.transport.refusals import Refusals
from server.transport.wire import BadMessage, MaxBytes

_log = logging.getLogger(__name__)

_VALUE_BYTES = 100  # of an object for a value of JSON
_END_SECONDS = 1.0  # for the end of a call that was cut off: whoever reads has room for it at once
Read = Callable[[MaxBytes], Awaitable[bytes]]


class Gateway:
    """Answers HTTP; stands for a grpc.aio.Server to which services are added. Lives in the event loop."""

    def __init__(
        self,
        config: Config,
        interceptor: AuthInterceptor | None,
        calls: Calls,
        refusals: Refusals,
        workers: Workers,
        connections: Connections,
        routes: Iterable[Route],
    ) -> None:
        """Begin without services.

        Args:
            config: The settings.
            interceptor: Turns callers away before a body is read.
            calls: Which are told what arrives.
            refusals: Tells callers whose request is none.
            workers: For reading and writing what is large.
            connections: That are open.
            routes: What is asked by which path.
        """
        self._methods = Methods(interceptor, refusals, config.max_message_bytes)
        self._known_calls, self._refusals, self._workers = calls, refusals, workers
        self._connections = connections
        self._max_values = config.max_message_fields + config.max_message_integers
        self._admission = Admission(config)
        self._calls = dict[Task, HttpCall]()
        self._application = make_router(routes, origins_of(config), self._answer)

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Add a service, as generated code does."""
        self._methods.add_generic_rpc_handlers(handlers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, which is an http scope of ASGI."""
        await self._application(scope, receive, send)

    def end_calls(self, tasks: Sequence[Task]) -> list[Task]:
        """End those calls that are this one's; returns the others. See servicer.EndCalls."""
        others = list[Task]()
        for task in tasks:
            if call := self._calls.get(task):
                call.is_cut_off = True
                task.cancel()
            else:
                others.append(task)
        return others

    def end_all(self) -> None:
        """End every call, telling its caller that the server is stopping."""
        for task in self._calls:
            task.cancel()

    async def _answer(self, route: Route, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request by the method of a path; nothing that happens in it leaves it."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 -- uvicorn's own
        headers = metadata_of(scope["headers"])
        address = scope["client"]
        call = HttpCall(route.method, headers, address, list(self._connections.names_of(address)), task)
        self._calls[task] = call
        exchange = Exchange(scope, Body(receive, headers), receive, send)
        kind = content_type_of(headers)
        framing = Framing(kind, route.path) if route.path == route.method and is_framed(kind) else None
        try:
            if framing:
                await self._answer_framed(framing, call, exchange)
            else:
                await exchange.send(await self._ask(route, call, exchange))
        except HungUp:
            pass
        except asyncio.CancelledError:
            await self._end_cancelled(route, call, exchange, framing)
        finally:
            exchange.stop_watching()
            del self._calls[task]

    async def _run(self, call: HttpCall, read: Read) -> Answered:
        """Run a method.

        Args:
            call: The transport's side of it.
            read: Reads its message, once it may.

        Raises:
            Ended: It has ended with a code.
            HungUp: The caller has.
        """

        async def request(handler: Any, most: MaxBytes) -> Any:
            return _only(read, most) if handler.request_streaming else await read(most)  # or refused unread

        timer = None
        try:
            seconds = self._admission.check(call.headers)
            if seconds is not None:
                call.deadline = time.monotonic() + seconds
                timer = asyncio.get_running_loop().call_later(seconds, call.expire)
            answered = await self._methods.run(call.path, call, request)
        except ServerError as refused:  # by its headers
            await self._refusals.end(call.method, refused.with_traceback(None), call)
            raise
        finally:
            if timer:
                timer.cancel()
        assert answered is not None  # noqa: S101 -- what ends a call raises
        return answered

    async def _ask(self, route: Route, call: HttpCall, exchange: Exchange) -> HttpAnswer:
        """Run a method; returns its answer, or why there is none."""
        asked: list[Asked] = []

        async def read(most: MaxBytes) -> bytes:
            json_bytes = route.json_bytes(call.headers)
            body = await self._read(call, exchange, most, JsonBounds(self._max_values), json_bytes)

            def understand() -> tuple[Asked, bytes]:
                found = route.read(HttpRequest(exchange.names, call.headers, body))
                return found, found.message.SerializeToString()

            size = len(body) if json_bytes is None else json_bytes
            found, message = await self._workers.decode(understand, size if len(body) < COPY_INLINE_BYTES else math.inf)
            self._hold(call, "arriving", 0)
            asked.append(found)
            return message

        try:
            answered = await self._run(call, read)
            content = call.answer if answered.is_stream else call.bytes_of(answered.answer)
            assert content is not None  # noqa: S101 -- methods that fail raise
            answer = await self._workers.encode(partial(asked[0].write, content), len(content))
        except Exception as error:
            return refuse(route, _why_ended(call, error))
        self._hold(call, "written", COPIES * len(answer.content))
        return replace(answer, headers={**answer.headers, **headers_of(call.trailers)})

    async def _answer_framed(self, framing: Framing, call: HttpCall, exchange: Exchange) -> None:
        """Answer in frames: a method that has one answer, or a stream of them."""

        async def read(most: MaxBytes) -> bytes:
            bounds = None if framing.is_binary else JsonBounds(self._max_values, PREFIX_BYTES)
            body = await self._read(call, exchange, most, bounds)
            message: bytes = await self._workers.decode(partial(framing.read, body), len(body))
            self._hold(call, "arriving", 0)
            return message

        async def write(content: bytes) -> None:
            await exchange.send_part(framing.content_type, framing.frame(content))

        call.write_one, refusal = write, None
        try:
            answered = await self._run(call, read)
            if answered.answer is not None:
                await write(call.bytes_of(answered.answer))
        except Exception as error:
            refusal = _why_ended(call, error)
        trailers = refusal.trailers if refusal else call.trailers
        await exchange.send_part(framing.content_type, framing.end(refusal, trailers), is_last=True)

    async def _read(
        self,
        call: HttpCall,
        exchange: Exchange,
        most: MaxBytes,
        bounds: JsonBounds | None,
        json_bytes: int | None = None,
    ) -> bytes:
        """Read a body, and watch from then on whether its caller hangs up; for arguments and errors see Body.read."""
        if known := self._known_calls.of(call.task):
            known.is_counted = True
        try:
            body = await exchange.body.read(most, partial(self._arriving, call), bounds, json_bytes)
        except BadMessage as error:
            call.status = 413 if error.reason == "bytes" else 0
            raise
        self._hold(call, "arriving", COPIES * len(body) + (_VALUE_BYTES * bounds.values if bounds else 0))
        exchange.watch(call)
        return body

    def _arriving(self, call: HttpCall, size_bytes: int) -> None:
        """Count what has come of a body that is not whole; raises TooBusy where there is no room for it."""
        if known := self._known_calls.of(call.task):
            known.account.hold("arriving", size_bytes)
            known.account.check()

    def _hold(self, call: HttpCall, part: str, size_bytes: int) -> None:
        if known := self._known_calls.of(call.task):
            known.account.hold(part, size_bytes)

    async def _end_cancelled(self, route: Route, call: HttpCall, exchange: Exchange, framing: Framing | None) -> None:
        """Say why a call was cancelled, where there is somebody to tell; in frames also behind some of them."""
        call.task.uncancel()
        if call.is_gone:
            return
        refusal, reads_nothing = _why_cancelled(call), call.is_cut_off and exchange.has_begun
        if framing and exchange.is_whole and not reads_nothing:
            try:
                async with asyncio.timeout(_END_SECONDS):
                    end = framing.end(refusal, call.trailers)
                    await exchange.send_part(framing.content_type, end, is_last=True)
            except TimeoutError:
                self._connections.abort(call.address)
        elif exchange.has_begun:
            self._connections.abort(call.address)
        else:
            await exchange.send(refuse(route, refusal))


async def _only(read: Read, most: MaxBytes) -> AsyncGenerator[bytes]:
    """Yield the one message of a request."""
    yield await read(most)


def _why_cancelled(call: HttpCall) -> Refusal:
    """Say why a call was cancelled, but by its caller."""
    if call.has_expired:
        return Refusal(grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline has passed")
    if call.is_cut_off:
        why = "the request has not come in time (--max-stall-seconds), or there is no room for it"
        return Refusal(grpc.StatusCode.CANCELLED, why, status=408)
    return Refusal(grpc.StatusCode.UNAVAILABLE, "the server is stopping")


def _why_ended(call: HttpCall, error: Exception) -> Refusal:
    """Say how a call has failed; what nobody foresaw goes into the log.

    Raises:
        HungUp: There is nobody to tell.
    """
    first = first_of(error)
    if isinstance(first, HungUp):
        raise first
    if isinstance(first, Ended):
        return first.refusal
    if not isinstance(first, ServerError):  # or the method is counted, and its answer cannot be said in this protocol
        _log.error("%s failed", call.method, exc_info=error)
        first = InternalFault()
    return Refusal(first.code, str(first), (*first.trailers, *call.trailers))
