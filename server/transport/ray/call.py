"""A call as the methods see it, over what Ray Serve hands to a replica: a request, and a context to answer with."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from typing import Any, NoReturn

import grpc

from server.api.servicer import Task
from server.errors import Trailers
from server.transport.ray.methods import PROCESS, THIS_PROCESS, TIMEOUT
from server.transport.wire import seconds_of


class Ended(Exception):
    """The method has ended the call with a code."""


class RayCall:
    """One call; see server.api.servicer.Servicer. Lives in the event loop of its task.

    Attributes:
        path: /SERVICE/METHOD.
        task: Which the method runs in.
        is_cut_off: Whether the server itself has cancelled it.
        is_stream: Whether its answers are a stream.
        is_direct: Whether this process itself took the call, and no proxy of Ray's.
        serialize: Makes bytes of a message; None where methods give bytes.
    """

    def __init__(self, path: str, context: Any, task: Task, *, is_stream: bool = False) -> None:
        """Begin a call.

        Args:
            path: /SERVICE/METHOD.
            context: A ray.serve.grpc_util.RayServegRPCContext.
            task: Which the method runs in.
            is_stream: Whether its answers are a stream.
        """
        self.path, self.task, self.is_stream = path, task, is_stream
        self._context = context
        self._metadata = list(context.invocation_metadata())
        told = dict(self._metadata)
        self.is_direct, timeout = told.get(PROCESS) == THIS_PROCESS, told.get(TIMEOUT)
        seconds = seconds_of(str(timeout)) if timeout is not None else None
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._answers = asyncio.Queue[bytes | None]()  # None behind the last; there is one at most that waits
        self.is_cut_off = False
        self.serialize: Callable[[Any], bytes] | None = None

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]]:
        """What the caller says beside the message."""
        return self._metadata

    def time_remaining(self) -> float | None:
        """Seconds until the caller's deadline; None where there is none."""
        return None if self._deadline is None else max(self._deadline - time.monotonic(), 0.0)

    def peer(self) -> str:
        """Where the call comes from: a proxy's address where one stands between."""
        return str(self._context.peer())

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """Who the connection says it is: nobody, since it is not encrypted."""
        return {}

    async def write(self, message: Any) -> None:
        """Send a message, which `serialize` makes bytes of, and wait until the next is asked for where there is one."""
        self._answers.put_nowait(message if self.serialize is None else self.serialize(message))
        if self.is_stream:
            await self._answers.join()

    def set_trailing_metadata(self, trailing_metadata: Trailers) -> None:
        """Say what goes with the end of the call."""
        self._context.set_trailing_metadata(list(trailing_metadata))

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Trailers = ()) -> NoReturn:
        """End the call with a code, a message and what goes with them; always raises."""
        self.end(code, details, trailing_metadata)
        raise Ended

    def end(self, code: grpc.StatusCode, details: str, trailing_metadata: Trailers = ()) -> None:
        """Say how the call ends: Ray sends that when its method has returned, not where it has raised."""
        self._context.set_code(code)
        self._context.set_details(details)
        if trailing_metadata:
            self.set_trailing_metadata(trailing_metadata)

    @property
    def has_failed(self) -> bool:
        """Whether it has ended with another code than OK."""
        return bool(self._context.code())

    def only_answer(self) -> bytes:
        """Return what was written; nothing where the call has failed."""
        return b"" if self._answers.empty() else self._answers.get_nowait() or b""

    async def answers(self) -> AsyncGenerator[bytes]:
        """Yield what is written, until `finish`."""
        while (answer := await self._answers.get()) is not None:
            yield answer
            self._answers.task_done()

    def finish(self) -> None:
        """Say that there is no more."""
        self._answers.put_nowait(None)
