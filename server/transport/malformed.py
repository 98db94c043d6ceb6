"""Messages that are not parsed, since they are none or too large: refused as their caller's fault.

gRPC would log a traceback and answer UNKNOWN.
"""

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.message import DecodeError

from server.api.calls import Calls
from server.api.handler import parsed
from server.context import address_of
from server.errors import MalformedMessage, ServerError, TooBusy
from server.transport.field_count import MessageLimits, check_fields, fields_of
from server.transport.refusals import Refusals
from server.transport.transport import TakesServices
from server.transport.turns import Turns

_MAKERS = {  # by whether requests and responses are streams
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}
Read = Callable[[bytes], Awaitable[Any]]


class MalformedMessageHandler:
    """Stands for a server while services are added to it, so that each of their methods refuses what is not parsed."""

    def __init__(
        self,
        server: TakesServices,
        calls: Calls,
        refusals: Refusals,
        limits: MessageLimits,
        max_bytes: int | None = None,
    ) -> None:
        """Add services to a server; to those with `max_bytes` messages come one at a time.

        Args:
            server: Which has not started.
            calls: Which are told of each.
            refusals: Tells callers.
            limits: Of what a request has.
            max_bytes: Of a request, where they are fewer than the server receives.
        """
        self._server = server
        self._refusing = functools.partial(
            _Refusing, calls=calls, refusals=refusals, limits=limits, max_bytes=max_bytes
        )

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Add a service, as generated code does."""
        self._server.add_generic_rpc_handlers([self._refusing(handler) for handler in handlers])

    def add_registered_method_handlers(self, service: str, handlers: Any) -> None:
        """Do nothing, as grpc.aio's server: the generic handlers are enough."""


class _Refusing(grpc.GenericRpcHandler):
    """Finds a service's methods."""

    def __init__(
        self,
        handler: grpc.GenericRpcHandler,
        calls: Calls,
        refusals: Refusals,
        limits: MessageLimits,
        max_bytes: int | None,
    ) -> None:
        self._handler, self._calls, self._refusals = handler, calls, refusals
        self._prefix = f"/{handler.service_name()}/" if isinstance(handler, grpc.ServiceRpcHandler) else "/"
        self._limits, self._max_bytes = limits, max_bytes
        self._turns = None if max_bytes is None else Turns()
        self._methods: dict[str, Any] = {}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Return how a method is run; None where it is another service's."""
        path = handler_call_details.method
        if not path.startswith(self._prefix):
            return None
        if path not in self._methods:
            found = self._handler.service(handler_call_details)
            if found is None:
                return None
            self._methods[path] = self._reading(path, found)
        method = self._methods[path]
        if self._max_bytes is None:  # what every caller may ask is answered in a server that is full, too
            try:
                self._calls.ledger.check()
            except TooBusy as error:
                return self._refusals.handler(path.rpartition("/")[2], error)
        self._calls.begin(reads=not method.request_streaming)
        return method

    def _reading(self, path: str, handler: Any) -> Any:
        """Let a method that takes MalformedMessage for its request have it, and refuse it for all others."""
        read = self._reader(path, handler.request_deserializer)
        method = handler.unary_unary or handler.unary_stream or handler.stream_stream
        refuse, write = None, None
        if not getattr(method, "handles_bytes", False):
            refuse, write = functools.partial(self._refusals.end, path.rpartition("/")[2]), handler.response_serializer
        if self._turns and refuse and not handler.request_streaming:
            run = _run_in_turn(method, read, refuse, self._turns, answers=not handler.response_streaming)
            run.max_message_bytes = self._max_bytes  # where a transport can refuse a longer one unread
            return grpc.stream_stream_rpc_method_handler(run, None, write)
        run = (_run_stream if handler.request_streaming else _run)(method, read, refuse)
        run.max_message_bytes = self._max_bytes
        make = _MAKERS[handler.request_streaming, handler.response_streaming]
        return make(run, None, write)  # messages come to it as bytes

    def _reader(self, path: str, parse: Callable[[bytes], Any]) -> Read:
        asked = descriptor_pool.Default().FindMethodByName(path[1:].replace("/", ".")).input_type
        fields, limits, max_bytes = fields_of(asked), self._limits, self._max_bytes
        messages_refused = self._refusals.metrics.messages_refused

        async def read(content: bytes) -> Any:
            self._calls.received(len(content))
            try:
                if max_bytes is not None and len(content) > max_bytes:
                    raise MalformedMessage(_too_long(len(content), max_bytes), "bytes")
                if len(content) > limits.harmless_bytes:
                    for _ in check_fields(content, fields, limits):
                        await asyncio.sleep(0)
                return parse(content)
            except (DecodeError, MalformedMessage) as raised:
                error = raised.with_traceback(None) if isinstance(raised, MalformedMessage) else MalformedMessage()
            messages_refused.labels(error.reason).inc()
            return error

        return read


def _too_long(found: int, limit: int) -> str:
    return f"a message of {found} bytes; expected at most {limit} of this method"


Refuse = Callable[[ServerError, Any], Awaitable[None]]


def _run_in_turn(method: Any, read: Read, refuse: Refuse, turns: Turns, *, answers: bool) -> Any:
    """For gRPC it is a stream of messages, of which it receives none before it is asked to."""

    async def run(contents: AsyncIterator[bytes], servicer: Any) -> None:
        try:
            request = parsed(await turns.read(address_of(servicer.peer()), contents, read) or MalformedMessage())
            answer = await method(request, servicer)
        except (TooBusy, MalformedMessage) as raised:
            error = raised.with_traceback(None)
        else:
            if answers:
                await servicer.write(answer)
            return
        await refuse(error, servicer)

    return run


def _run(method: Any, read: Read, refuse: Refuse | None) -> Any:
    @functools.wraps(method)
    async def run(content: bytes, servicer: Any, **caller: Any) -> Any:
        request = await read(content)
        if refuse and isinstance(request, MalformedMessage):
            await refuse(request, servicer)
        return await method(request, servicer, **caller)

    return run


def _run_stream(method: Any, read: Read, refuse: Refuse | None) -> Any:
    async def read_all(contents: AsyncIterator[bytes], servicer: Any) -> AsyncIterator[Any]:
        async for content in contents:
            request = await read(content)
            if refuse and isinstance(request, MalformedMessage):
                await refuse(request, servicer)
            yield request

    @functools.wraps(method)
    async def run(contents: AsyncIterator[bytes], servicer: Any) -> None:
        answers = method(read_all(contents, servicer), servicer)
        if inspect.isawaitable(answers):
            await answers
            return
        async with aclosing(answers):
            async for answer in answers:
                await servicer.write(answer)

    return run
