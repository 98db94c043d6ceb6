"""Ray Serve around this process, which hands calls over to the methods of a deployment."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from typing import Any

import grpc

from server.api.calls import Calls
from server.api.servicer import Task
from server.auth.clients import Authenticator
from server.config import Config
from server.transport.auth_interceptor import AuthInterceptor
from server.transport.methods import Methods, first_of
from server.transport.ray.call import Ended, RayCall
from server.transport.refusals import Refusals
from server.transport.wire import MaxBytes

_log = logging.getLogger(__name__)


class RayTransport:
    """Ray Serve around this process; see transport.Transport."""

    counts_arriving = False  # a message comes whole

    def __init__(self) -> None:
        """Begin a life."""
        self._calls = dict[Task, RayCall]()

    def open(self, config: Config, authenticator: Authenticator, refusals: Refusals, calls: Calls) -> None:
        """Take services from now on."""
        interceptor = None if authenticator.is_open else AuthInterceptor(authenticator, refusals, calls)
        self._methods = Methods(interceptor, refusals, config.max_message_bytes)

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Add a service, as generated code does."""
        self._methods.add_generic_rpc_handlers(handlers)

    def bind(self) -> str:
        """Say who has the port."""
        return "Ray Serve's gRPC port"

    async def start(self) -> None:
        """Answer calls, which come when Ray knows that this process is ready."""

    async def stop(self, seconds: float) -> None:
        """End calls that last longer; Ray sends none any more."""
        if self._calls:
            await asyncio.wait(list(self._calls), timeout=seconds)
        self.end_calls(list(self._calls))

    async def close(self) -> None:
        """End whatever is left."""
        self.end_calls(list(self._calls))

    def end_calls(self, tasks: Sequence[Task]) -> None:
        """End calls; see servicer.EndCalls."""
        for task in tasks:
            if call := self._calls.get(task):
                call.is_cut_off = True
            task.cancel()

    async def answer(self, path: str, content: bytes, context: Any) -> bytes:
        """Answer a call that has one answer, in the current task; nothing where it fails, as the context then says.

        Args:
            path: /SERVICE/METHOD.
            content: The message.
            context: A ray.serve.grpc_util.RayServegRPCContext.
        """
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 -- Ray's own
        call = RayCall(path, context, task)
        answer = await self._run(call, content)
        return call.only_answer() if answer is None else answer

    async def stream(self, path: str, request: bytes | AsyncIterator[bytes], context: Any) -> AsyncGenerator[bytes]:
        """Answer a call that has a stream of answers; for arguments see `answer`.

        Args:
            path: /SERVICE/METHOD.
            request: The message, or a stream of them.
            context: A ray.serve.grpc_util.RayServegRPCContext.

        Raises:
            Ended: It fails, and Ray's own proxy stands between, which takes a code with an answer or an exception, and
                sends no trailers with the latter.
        """
        begun = asyncio.get_running_loop().create_future()
        task = asyncio.ensure_future(self._run_when(begun, request))  # which lasts until its last answer is taken
        call = RayCall(path, context, task, is_stream=True)
        begun.set_result(call)
        task.add_done_callback(lambda _: call.finish())
        try:
            async with aclosing(call.answers()) as answers:
                async for answer in answers:
                    yield answer
        finally:  # its caller may have hung up
            task.cancel()
            await asyncio.wait([task])
        if call.has_failed and not call.is_direct:
            raise Ended

    async def _run_when(self, begun: "asyncio.Future[RayCall]", request: bytes | AsyncIterator[bytes]) -> None:
        await self._run(await begun, request)

    async def _run(self, call: RayCall, request: bytes | AsyncIterator[bytes]) -> bytes | None:
        """Run the method, and say how the call ends; returns its answer, where it returns one."""
        self._calls[call.task] = call
        try:
            return await self._answer(call, request)
        except Ended:
            pass
        except asyncio.CancelledError:
            if not call.is_cut_off:  # its caller has hung up, or its deadline has passed
                raise
            call.task.uncancel()
            call.end(grpc.StatusCode.CANCELLED, "the server has ended the call")
        except Exception as error:
            if not isinstance(first_of(error), Ended):
                _log.exception("%s failed", call.path)
                call.end(grpc.StatusCode.INTERNAL, "internal error; the server's log has the details")
        finally:
            del self._calls[call.task]
        return None

    async def _answer(self, call: RayCall, request: bytes | AsyncIterator[bytes]) -> bytes | None:
        async def messages(handler: Any, most: MaxBytes) -> Any:
            if handler.request_streaming:
                return _messages(request, most)
            assert isinstance(request, bytes)  # noqa: S101 -- as it is registered
            return _checked(request, most)

        answered = await self._methods.run(call.path, call, messages)
        if answered is None or answered.answer is None:
            return None
        return answered.answer if call.serialize is None else call.serialize(answered.answer)


async def _messages(request: bytes | AsyncIterator[bytes], most: MaxBytes) -> AsyncGenerator[bytes]:
    """Yield the messages of a call as they come; for errors see `_checked`."""
    if isinstance(request, bytes):
        yield _checked(request, most)
        return
    async for content in request:
        yield _checked(content, most)


def _checked(content: bytes, most: MaxBytes) -> bytes:
    """Return a message.

    Raises:
        BadMessage: It is too large.
    """
    if len(content) > most.value:
        raise most.exceeded_by(f"{len(content)} bytes")
    return content
