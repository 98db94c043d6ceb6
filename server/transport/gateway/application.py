"""The ASGI application: finds the method that a path means, runs it, and writes its answer."""

import asyncio
import logging
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import grpc
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route as StarletteRoute
from starlette.routing import Router

from server.api.calls import Calls
from server.api.rest.connect import PROTO
from server.api.rest.exchange import Asked, HttpAnswer, HttpRequest, Refusal, Route
from server.api.rest.fields import write_json
from server.api.rest.framed import Framing, is_framed
from server.api.rest.json_bounds import JsonBounds
from server.api.rest.open_inference import HEADER_LENGTH
from server.api.rest.openapi import PATH, describe
from server.api.servicer import Task
from server.config import Config
from server.errors import InternalFault, InvalidInput, MalformedMessage, PermissionDenied, ServerError
from server.inference.workers import Workers
from server.ledger import COPIES
from server.transport.auth_interceptor import AuthInterceptor
from server.transport.envoy.metadata import metadata_of
from server.transport.gateway.body import Body, HungUp
from server.transport.gateway.call import Ended, HttpCall
from server.transport.gateway.connections import Connections
from server.transport.methods import Methods, first_of, implementation_of
from server.transport.refusals import Refusals
from server.transport.wire import BadMessage, MaxBytes, seconds_of

_log = logging.getLogger(__name__)

_CHUNK_BYTES = 2**18  # sent at a time; the next when there is room
_VALUE_BYTES = 100  # of an object for a value of JSON
_TIMEOUTS_MS = ("x-request-timeout-ms", "connect-timeout-ms")
_MAX_TIMEOUT_MS = 10**10 - 1  # as Connect has it
Receive = Callable[[], Any]
Send = Callable[[dict[str, Any]], Any]
Scope = Mapping[str, Any]
Answer = TypeVar("Answer")


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
        self._most = MaxBytes(config.max_message_bytes, "the server's --max-message-bytes")
        self._max_values = config.max_message_fields + config.max_message_integers
        self._origins = [origin.strip() for origin in config.http_cors.split(",") if origin.strip()]
        self._calls = dict[Task, HttpCall]()
        self._application = self._route(routes)

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

    def _route(self, routes: Iterable[Route]) -> Any:
        routes = list(routes)
        page = HttpAnswer(describe(routes))

        async def answer_page(scope: Scope, receive: Receive, send: Send) -> None:
            """Describe the paths, to everybody: they are no secret."""
            await _Exchange(scope, Body(receive, {}, MaxBytes(0, "")), receive, send).send(page)

        router = Router(
            [
                StarletteRoute(PATH, _Endpoint(answer_page), methods=["GET"]),
                *(
                    StarletteRoute(route.path, _Endpoint(partial(self._answer, route)), methods=[route.verb])
                    for route in routes
                ),
            ],
            redirect_slashes=False,
            default=_answer_unknown,
        )
        if not self._origins:
            return router
        return CORSMiddleware(
            router,
            allow_origins=self._origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["*"],
        )

    async def _answer(self, route: Route, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request by the method of a path; nothing that happens in it leaves it."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 -- uvicorn's own
        headers = metadata_of(scope["headers"])
        address = scope["client"]
        call = HttpCall(route.method, headers, address, list(self._connections.names_of(address)), task)
        self._calls[task] = call
        exchange = _Exchange(scope, Body(receive, headers, self._most), receive, send)
        kind = str(headers.get("content-type", "")).partition(";")[0].strip().lower()
        try:
            if route.path == route.method and is_framed(kind):
                await self._answer_framed(Framing(kind, route.path), call, exchange, headers)
            else:
                read = partial(self._read, route, call, exchange, headers)
                try:
                    answer = await self._run(call, headers, partial(self._ask, call, read))
                except Ended as ended:
                    answer = _refuse(route, ended.refusal)
                await exchange.send(answer)
        except HungUp:
            pass
        except asyncio.CancelledError:
            await self._end_cancelled(route, call, exchange)
        finally:
            exchange.stop_watching()
            del self._calls[task]

    async def _run(
        self, call: HttpCall, headers: dict[str, str | bytes], ask: Callable[[Any], Awaitable[Answer]]
    ) -> Answer:
        """Run a method, by a function that is given how it is run; what goes wrong is raised as Ended."""
        timer = None
        try:
            if refused := self._why_refused(call, headers):
                await self._refusals.end(call.method, refused, call)
            handler = await self._methods.find(call.path, call.invocation_metadata())
            if call.deadline is not None:
                timer = asyncio.get_running_loop().call_at(_on_loop(call.deadline), call.expire)
            return await ask(handler)
        except ServerError as error:
            call.status = 413 if isinstance(error, BadMessage) and error.reason == "bytes" else 0
            if isinstance(error, MalformedMessage):
                self._refusals.metrics.messages_refused.labels(error.reason).inc()
            await self._refusals.end(call.method, error.with_traceback(None), call)
            raise
        except (Ended, HungUp, asyncio.CancelledError):
            raise
        except Exception as error:
            first = first_of(error)
            if isinstance(first, Ended):
                raise first from None
            _log.exception("%s failed", call.method)
            fault = InternalFault()
            raise Ended(Refusal(fault.code, str(fault))) from error
        finally:
            if timer:
                timer.cancel()

    def _why_refused(self, call: HttpCall, headers: Mapping[str, str | bytes]) -> ServerError | None:
        """Say what is wrong with a request's headers; nothing where nothing is."""
        origin = headers.get("origin")
        if origin is not None and origin not in self._origins and "*" not in self._origins:
            what = f"origin: {origin!r} is not named by --http-cors; expected one that is, or a caller that is no page"
            return PermissionDenied(what)
        try:
            seconds = _read_timeout(headers)
        except InvalidInput as error:
            return error
        call.deadline = None if seconds is None else time.monotonic() + seconds
        return None

    async def _ask(self, call: HttpCall, read: Callable[[], Awaitable[Asked]], handler: Any) -> HttpAnswer:
        """Run a method, which reads the request when it may."""
        method = implementation_of(handler)
        call.serialize = handler.response_serializer
        asked: list[Asked] = []

        async def contents() -> AsyncGenerator[bytes]:
            asked.append(await read())
            yield asked[0].message.SerializeToString()

        if handler.request_streaming:  # or refused unread
            await method(contents(), call)
            content = call.answer
        else:
            message = await anext(messages := contents())
            found = await method(message, call)
            await messages.aclose()
            content = found if call.serialize is None else call.serialize(found)
        assert content is not None  # noqa: S101 -- methods that fail raise
        answer: HttpAnswer = await self._workers.encode(partial(asked[0].write, content), len(content))
        self._hold(call, "written", COPIES * len(answer.content))
        return HttpAnswer(
            answer.content, answer.content_type, answer.status, {**answer.headers, **_headers_of(call.trailers)}
        )

    async def _read(
        self, route: Route, call: HttpCall, exchange: "_Exchange", headers: dict[str, str | bytes]
    ) -> Asked:
        """Read a request, and watch from then on whether its caller hangs up."""
        bounds = JsonBounds(self._max_values)
        said = str(headers.get(HEADER_LENGTH, ""))
        json_bytes = int(said) if said.isascii() and said.isdecimal() and len(said) < 12 else None
        if str(headers.get("content-type", "")).startswith(PROTO):
            json_bytes = 0
        if known := self._known_calls.of(call.task):
            known.is_counted = True
        body = await exchange.body.read(partial(self._arriving, call), bounds, json_bytes)
        self._hold(call, "arriving", COPIES * len(body) + _VALUE_BYTES * bounds.values)
        exchange.watch(call)
        request = HttpRequest(exchange.names, headers, body)
        size = len(body) if json_bytes is None else json_bytes
        asked: Asked = await self._workers.decode(partial(route.read, request), size)
        self._hold(call, "arriving", 0)
        return asked

    async def _answer_framed(
        self, framing: Framing, call: HttpCall, exchange: "_Exchange", headers: dict[str, str | bytes]
    ) -> None:
        """Answer in frames: a method that has one answer, or a stream of them."""

        async def read() -> AsyncGenerator[bytes]:
            if known := self._known_calls.of(call.task):
                known.is_counted = True
            bounds = None if framing.is_binary else JsonBounds(self._max_values)
            body = await exchange.body.read(partial(self._arriving, call), bounds, None)
            exchange.watch(call)
            self._hold(call, "arriving", COPIES * len(body) + (_VALUE_BYTES * bounds.values if bounds else 0))
            message = await self._workers.decode(partial(framing.read, body), len(body))
            self._hold(call, "arriving", 0)
            yield message

        async def ask(handler: Any) -> None:
            method, contents = implementation_of(handler), read()
            call.serialize = handler.response_serializer
            if handler.request_streaming:  # or refused unread
                await method(contents, call)
                return
            found = await method(await anext(contents), call)
            if found is not None:
                await call.write(found)

        async def write(content: bytes) -> None:
            await exchange.send_part(framing.content_type, framing.frame(content))

        call.write_one, refusal = write, None
        try:
            await self._run(call, headers, ask)
        except Ended as ended:
            refusal = ended.refusal
        trailers = refusal.trailers if refusal else call.trailers
        await exchange.send_part(framing.content_type, framing.end(refusal, trailers), is_last=True)

    def _arriving(self, call: HttpCall, size_bytes: int) -> None:
        """Count what has come of a body that is not whole; raises TooBusy where there is no room for it."""
        if known := self._known_calls.of(call.task):
            known.account.hold("arriving", size_bytes)
            known.account.check()

    def _hold(self, call: HttpCall, part: str, size_bytes: int) -> None:
        if known := self._known_calls.of(call.task):
            known.account.hold(part, size_bytes)

    async def _end_cancelled(self, route: Route, call: HttpCall, exchange: "_Exchange") -> None:
        """Say why a call was cancelled, where there is somebody to tell."""
        call.task.uncancel()
        if call.is_gone:
            return
        if exchange.has_begun:
            self._connections.abort(call.address)
        elif call.has_expired:
            refusal = Refusal(grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline has passed")
            await exchange.send(_refuse(route, refusal))
        elif call.is_cut_off:
            why = "the request has not come in time (--max-stall-seconds), or there is no room for it"
            await exchange.send(_refuse(route, Refusal(grpc.StatusCode.CANCELLED, why, status=408)))
        else:
            await exchange.send(_refuse(route, Refusal(grpc.StatusCode.UNAVAILABLE, "the server is stopping")))


class _Exchange:
    """A request's way to read and to answer."""

    def __init__(self, scope: Scope, body: Body, receive: Receive, send: Send) -> None:
        self.names: Mapping[str, str] = scope.get("path_params", {})
        self.body = body
        self._receive, self._send = receive, send
        self._watching: asyncio.Task[None] | None = None
        self.has_begun = False

    async def send(self, answer: HttpAnswer) -> None:
        """Send an answer, and wait until there is room for all of it; the connection ends where the body is unread."""
        headers = [
            (b"content-type", answer.content_type.encode()),
            (b"content-length", str(len(answer.content)).encode()),
            *((name.lower().encode(), value.encode("latin-1", "replace")) for name, value in answer.headers.items()),
        ]
        if not self.body.is_read:
            headers.append((b"connection", b"close"))
        self.has_begun = True
        await self._send({"type": "http.response.start", "status": answer.status, "headers": headers})
        for begin in range(0, len(answer.content), _CHUNK_BYTES):
            piece = answer.content[begin : begin + _CHUNK_BYTES]
            await self._send({"type": "http.response.body", "body": piece, "more_body": True})
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def send_part(self, content_type: str, content: bytes, *, is_last: bool = False) -> None:
        """Send a part of an answer, and wait until there is room for the next."""
        if not self.has_begun:
            self.has_begun = True
            headers = [(b"content-type", content_type.encode())]
            if not self.body.is_read:
                headers.append((b"connection", b"close"))
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        for begin in range(0, len(content), _CHUNK_BYTES):
            piece = content[begin : begin + _CHUNK_BYTES]
            await self._send({"type": "http.response.body", "body": piece, "more_body": True})
        if is_last:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def watch(self, call: HttpCall) -> None:
        """Cancel a call when its caller hangs up."""

        async def watch() -> None:
            while (await self._receive())["type"] != "http.disconnect":
                pass
            if not call.task.done():
                call.is_gone = True
                call.task.cancel()

        self._watching = asyncio.create_task(watch())

    def stop_watching(self) -> None:
        """Watch no more."""
        if self._watching:
            self._watching.cancel()


class _Endpoint:
    """An ASGI application for Starlette, which calls functions otherwise."""

    def __init__(self, answer: Callable[..., Any]) -> None:
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._answer(scope, receive, send)


async def _answer_unknown(scope: Scope, receive: Receive, send: Send) -> None:
    """Say that there is nothing by this path."""
    path = str(scope["path"])[:100]
    answer = write_json({"error": f"path: {path!r} is not known; expected one of {PATH}"}, 404)
    await _Exchange(scope, Body(receive, {}, MaxBytes(0, "")), receive, send).send(answer)


def _refuse(route: Route, refusal: Refusal) -> HttpAnswer:
    answer = route.write_error(refusal)
    headers = {**answer.headers, **_headers_of(refusal.trailers)}
    return HttpAnswer(answer.content, answer.content_type, answer.status, headers)


def _headers_of(trailers: Iterable[tuple[str, str | bytes]]) -> dict[str, str]:
    """Return what goes with an end as headers; when to retry as HTTP says it, in whole seconds."""
    headers = dict[str, str]()
    for name, value in trailers:
        if name == "grpc-retry-pushback-ms":
            headers["retry-after"] = str(math.ceil(int(value) / 1e3))
        elif isinstance(value, str):
            headers[name] = value
    return headers


def _read_timeout(headers: Mapping[str, str | bytes]) -> float | None:
    """Read in how many seconds the answer is wanted; None where nobody says.

    Raises:
        InvalidInput: It is no number of milliseconds.
    """
    for name in _TIMEOUTS_MS:
        if (said := headers.get(name)) is not None:
            text = str(said)
            if not (text.isascii() and text.isdecimal() and int(text[:12]) <= _MAX_TIMEOUT_MS):
                raise InvalidInput(name, said, f"whole milliseconds, at most {_MAX_TIMEOUT_MS}")
            return int(text) / 1e3
    timeout = headers.get("grpc-timeout")
    return None if timeout is None else seconds_of(str(timeout))


def _on_loop(monotonic: float) -> float:
    return asyncio.get_running_loop().time() + monotonic - time.monotonic()
