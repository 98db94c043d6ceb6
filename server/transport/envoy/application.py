"""gRPC as an ASGI application: finds methods, runs them, and ends their calls."""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any

import grpc

from server.api.calls import Calls
from server.api.servicer import Task
from server.ledger import CALL_BYTES
from server.transport.auth_interceptor import AuthInterceptor
from server.transport.envoy.call import Ended, EnvoyCall, Receive, Send
from server.transport.methods import Methods, first_of
from server.transport.refusals import Refusals
from server.transport.wire import MaxBytes

_log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.1  # between two looks at whether callers have hung up
_LOOKS_AT_A_TIME = 200
_SMALL_BYTES = 2**14  # an answer of which it is waited until it is read where it is one of so many, drawn by lot:
_ONE_OF = 16
_LAST_SECONDS = 5.0  # which a caller has to read what it was told when its call was cut off


class GrpcApplication:
    """Answers calls of gRPC; stands for a grpc.aio.Server to which services are added. Lives in the event loop."""

    def __init__(
        self, interceptor: AuthInterceptor | None, calls: Calls, refusals: Refusals, max_message_bytes: int
    ) -> None:
        """Begin without services.

        Args:
            interceptor: Turns callers away before their message is read.
            calls: Which are told what arrives.
            refusals: Tells callers whose message is none.
            max_message_bytes: Of a message, as it is sent and inflated.
        """
        self._methods = Methods(interceptor, refusals, max_message_bytes)
        self._known_calls = calls
        self._calls = dict[Task, EnvoyCall]()
        self._looked_at: Iterator[EnvoyCall] = iter(())
        self._stuck = set[tuple[str, int]]()  # callers who do not read how their calls ended

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Add a service, as generated code does."""
        self._methods.add_generic_rpc_handlers(handlers)

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer a call, which is an http scope of ASGI."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 -- the ASGI server's own
        call = EnvoyCall(scope, receive, send, task)
        if not call.is_grpc:
            await call.refuse_http(415, "this port speaks gRPC; expected content-type: application/grpc\n")
            return
        if not call.takes_trailers:
            await call.end(grpc.StatusCode.INTERNAL, "te: not trailers; expected te: trailers")
            return
        self._calls[task] = call
        seconds = call.time_remaining()
        timer = None if seconds is None else asyncio.get_running_loop().call_later(seconds, call.expire)
        try:
            await self._run_to_its_end(call)
        finally:
            if timer:
                timer.cancel()
            call.stop_looking()
            del self._calls[task]

    async def _run_to_its_end(self, call: EnvoyCall) -> None:
        """Run a call until its answer is read; nothing that happens in it leaves it."""
        try:
            await self._run(call)
            await self._wait_until_read(call)
        except asyncio.CancelledError:  # or its caller has hung up
            await call.end(*_why_cancelled(call))
            await self._wait_for_the_last(call)

    async def _wait_until_read(self, call: EnvoyCall) -> None:
        """Wait until an answer is read, so long as what is held for it counts; of small ones for some, for the rest.

        To ask Envoy takes as long as a small answer.
        """
        known = self._known_calls.of(call.task)
        if call.sent_bytes <= _SMALL_BYTES:
            if random.randrange(_ONE_OF):  # noqa: S311 -- no secret
                return
            if known:
                known.account.hold("unread", _ONE_OF * (CALL_BYTES + call.sent_bytes))
        if known and known.waits_for != "answer":
            known.wait_for("answer")
        await call.wait_until_read()

    async def _wait_for_the_last(self, call: EnvoyCall) -> None:
        """Wait until a caller whose call was cut off is told so; one that does not read is hung up on.

        What Envoy has of its answer it keeps, and what is said behind that it does not take.
        """
        if call.sent_bytes <= _SMALL_BYTES:
            return
        try:
            async with asyncio.timeout(_LAST_SECONDS):
                await call.wait_until_read()
        except (TimeoutError, asyncio.CancelledError):
            self._stuck.add(call.address)

    async def _run(self, call: EnvoyCall) -> None:
        """Run the method, and end the call."""
        try:
            await self._answer(call)
        except Exception as error:
            if isinstance(first_of(error), Ended):
                return
            _log.exception("%s failed", call.method)
            await call.end(grpc.StatusCode.INTERNAL, "internal error; the server's log has the details")

    async def _answer(self, call: EnvoyCall) -> None:
        answered = await self._methods.run(call.method, call, partial(self._request, call))
        if answered is None:
            return
        if answered.is_stream:
            await call.end()
        else:
            await call.answer(answered.answer)

    async def _request(self, call: EnvoyCall, handler: Any, most: MaxBytes) -> Any:
        if handler.response_streaming and (known := self._known_calls.of(call.task)):
            call.hold = partial(known.account.hold, "sent")
        if handler.request_streaming:
            return call.messages(most, self._arriving)
        return await call.message(most, self._arriving)

    def _arriving(self, task: Task, size_bytes: int) -> None:
        """Count what has come of a message that is not whole; raises TooBusy where there is no room for it."""
        if call := self._known_calls.of(task):
            call.account.hold("arriving", size_bytes)
            if size_bytes:
                call.account.check()

    def end_calls(self, tasks: Sequence[Task]) -> None:
        """End calls; see servicer.EndCalls."""
        for task in tasks:
            task.cancel()

    async def watch(self, hang_up: Callable[[Container[tuple[str, int]]], None]) -> None:
        """See for ever whether callers have hung up, of which Envoy only says so when asked; hang up on who is stuck.

        Args:
            hang_up: Closes the connections of IP addresses and ports, in a thread.
        """
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            self._look(time.monotonic() - _LOOK_SECONDS)
            if self._stuck:
                stuck, self._stuck = self._stuck, set()
                await asyncio.to_thread(hang_up, stuck)

    def _look(self, begun_before: float) -> None:
        """Look at some calls that have lasted, and next time at those behind them."""
        found = list(islice(self._looked_at, _LOOKS_AT_A_TIME))
        if len(found) < _LOOKS_AT_A_TIME:
            lasting = [call for call in self._calls.values() if call.began < begun_before]
            self._looked_at = iter(lasting)
            found += islice(self._looked_at, _LOOKS_AT_A_TIME - len(found))
        for call in found:
            if call.task in self._calls:
                call.look()


def _why_cancelled(call: EnvoyCall) -> tuple[grpc.StatusCode, str]:
    if call.has_expired:
        return grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"
    return grpc.StatusCode.CANCELLED, "the server has ended the call"
