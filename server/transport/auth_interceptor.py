"""Turns unauthenticated and greedy callers away before their message is read, and tells methods who calls."""

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import grpc

from server.api.calls import Calls
from server.api.servicer import Servicer
from server.auth.clients import NOBODY, Authenticator, Client, certificate_names
from server.context import share_of
from server.errors import MalformedMessage, ServerError
from server.transport.refusals import Refusals

_OPEN_SERVICES = ("/grpc.health.v1.Health/",)
_REFLECTION = "/grpc.reflection."


class AuthInterceptor(grpc.aio.ServerInterceptor):
    """Stands before every service but health's; methods that take a caller are given theirs."""

    def __init__(self, authenticator: Authenticator, refusals: Refusals, calls: Calls) -> None:
        self._authenticator = authenticator
        self._refusals = refusals
        self._calls = calls

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Return the method's handler, or one that refuses."""
        metadata = dict(handler_call_details.invocation_metadata or ())
        method, handler = handler_call_details.method, await continuation(handler_call_details)
        if method.startswith(_OPEN_SERVICES):
            return handler
        name = method.rpartition("/")[2] if handler else ""  # what an unauthenticated caller invents is no label
        by_certificate = self._authenticator.knows_certificates and "authorization" not in metadata
        if by_certificate and not method.startswith(_REFLECTION):
            return self._identify_later(handler, name)
        caller = NOBODY
        try:
            caller = self._authenticator.identify(metadata)
            self._calls.belong_to(share_of(caller))
        except ServerError as raised:
            return self._refusals.handler(name, raised, caller)
        return _for_caller(handler, caller)

    def _identify_later(self, handler: Any, name: str) -> Any:
        """Look at the certificate, which is only seen once the RPC has begun, and read no message before.

        So gRPC is given a stream of messages for every method; streams of requests identify the caller at each, too.
        """
        if handler is None:
            return handler

        async def run(requests: AsyncIterator[Any], servicer: Servicer) -> None:
            caller = NOBODY
            try:
                caller = self._authenticator.identify({}, certificate_names(servicer.auth_context()))
                self._calls.belong_to(share_of(caller))
            except ServerError as raised:
                error = raised.with_traceback(None)
            else:
                await self._run(handler, name, requests, servicer, caller)
                return
            await self._refusals.end(name, error, servicer, caller)

        return grpc.stream_stream_rpc_method_handler(run, handler.request_deserializer, handler.response_serializer)

    async def _run(
        self, handler: Any, name: str, requests: AsyncIterator[Any], servicer: Servicer, caller: Client
    ) -> None:
        """Run a method of any kind with a stream of messages; whoever has one request sends it first."""
        if handler.request_streaming:
            await handler.stream_stream(requests, servicer)
            return
        request = await anext(requests, None)
        if request is None:
            await self._refusals.end(name, MalformedMessage(), servicer)
        method = handler.unary_stream or handler.unary_unary
        response = await _with_caller(method, caller)(request, servicer)
        if not handler.response_streaming:
            await servicer.write(response)


def _for_caller(handler: Any, caller: Client) -> Any:
    """Tell a method who calls, if it wants to know."""
    if handler is None or handler.request_streaming:
        return handler
    method = handler.unary_stream or handler.unary_unary
    return _like(handler, _with_caller(method, caller)) if getattr(method, "takes_caller", False) else handler


def _with_caller(method: Any, caller: Client) -> Any:
    return partial(method, caller=caller) if getattr(method, "takes_caller", False) else method


def _like(handler: Any, method: Any) -> Any:
    """Make a handler of another method for the same messages."""
    make = grpc.unary_stream_rpc_method_handler if handler.response_streaming else grpc.unary_unary_rpc_method_handler
    return make(method, handler.request_deserializer, handler.response_serializer)
