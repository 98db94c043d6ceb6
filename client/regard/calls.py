"""How a client makes its calls: over one channel, each with the token and a deadline, until it is closed."""

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
import grpc.aio

from regard import checks, decoding
from regard.attention import Attention
from regard.bulk_calls import Running
from regard.channels import Connection
from regard.errors import from_rpc_error
from regard.v1 import regard_pb2 as rpc
from regard.v1.regard_pb2_grpc import RegardServiceStub

_Answer = TypeVar("_Answer")


class _Calls:
    """What blocking calls and calls for asyncio share."""

    def __init__(self, to: Connection) -> None:
        self._to = to
        self._closed = False

    def _seconds(self, timeout: float | None) -> float | None:
        """Return how long a call may take, unless it may not be made at all."""
        if self._closed:
            raise checks.closed()
        return self._to.seconds(timeout)


class BlockingCalls(_Calls):
    """Calls that block, and may be made by several threads."""

    def __init__(self, to: Connection) -> None:
        super().__init__(to)
        if to.credentials is None:
            self._channel = grpc.insecure_channel(to.address, to.options)
        else:
            self._channel = grpc.secure_channel(to.address, to.credentials, to.options)
        self._stub = RegardServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; calls still running are cancelled, later ones raise a `RegardError`."""
        self._closed = True
        self._channel.close()

    def _call(self, method: Callable[..., _Answer], request: object, timeout: float | None) -> _Answer:
        seconds = self._seconds(timeout)
        try:
            return method(request, timeout=seconds, metadata=self._to.metadata)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error

    def _call_held(
        self, method: Callable[..., _Answer], request: object, timeout: float | None, running: Running
    ) -> _Answer:
        """As `_call`, but so that another thread may cancel it."""
        future: Any = getattr(method, "future")  # noqa: B009 -- of every stub's method, unlike of callables
        call = future(request, timeout=self._seconds(timeout), metadata=self._to.metadata)
        with running.holding(call):
            try:
                answer: _Answer = call.result()
            except grpc.FutureCancelledError as error:
                raise checks.closed() from error
            except grpc.RpcError as error:
                raise from_rpc_error(error) from error
            return answer

    def _layers(
        self, request: rpc.AttendRequest, timeout: float | None, running: Running | None = None
    ) -> Iterator[Attention]:
        call = self._stub.Attend(request, timeout=self._seconds(timeout), metadata=self._to.metadata)
        first = None
        with (running or Running()).holding(call):
            try:
                for answer in call:
                    layer = decoding.read_attended(answer, first)
                    first = first or layer
                    yield layer
            except grpc.RpcError as error:
                raise from_rpc_error(error) from error


class AsyncCalls(_Calls):
    """Calls that are awaited, in the event loop in which this was made."""

    def __init__(self, to: Connection) -> None:
        super().__init__(to)
        if to.credentials is None:
            self._channel = grpc.aio.insecure_channel(to.address, to.options)
        else:
            self._channel = grpc.aio.secure_channel(to.address, to.credentials, to.options)
        self._stub = RegardServiceStub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """As `Client.close`."""
        self._closed = True
        await self._channel.close()

    async def _call(
        self,
        method: Callable[..., Coroutine[Any, Any, _Answer]],
        request: object,
        timeout: float | None,  # noqa: ASYNC109 -- gRPC sends it to the server as the deadline
    ) -> _Answer:
        seconds = self._seconds(timeout)
        try:
            return await method(request, timeout=seconds, metadata=self._to.metadata)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error

    async def _layers(
        self,
        request: rpc.AttendRequest,
        timeout: float | None,  # noqa: ASYNC109 -- as above
    ) -> AsyncIterator[Attention]:
        first, seconds = None, self._seconds(timeout)
        try:
            async for answer in self._stub.Attend(request, timeout=seconds, metadata=self._to.metadata):
                layer = decoding.read_attended(answer, first)
                first = first or layer
                yield layer
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
