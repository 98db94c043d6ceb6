"""Drives many inputs through the calls of a client: with threads, or as tasks of asyncio."""

import asyncio
import threading
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Sequence,
)
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing, contextmanager
from typing import Any

import grpc

from regard import checks
from regard.bulk import Bulk, Cutter, Kind, Part
from regard.errors import RegardError
from regard.pace import CALLS, Pace, Silence

_AHEAD = 2 * CALLS
"""Parts that are asked for or answered and not yet taken: what bounds the memory."""


class Running:
    """The calls of threads, to be cancelled when nobody wants their answers any more."""

    def __init__(self) -> None:
        self.stopped = threading.Event()
        self._calls = set[grpc.RpcContext]()
        self._lock = threading.Lock()

    @contextmanager
    def holding(self, call: grpc.RpcContext) -> Iterator[None]:
        """Keep a call that has begun, while it runs."""
        with self._lock:
            self._calls.add(call)
        if self.stopped.is_set():
            call.cancel()
        try:
            yield
        finally:
            with self._lock:
                self._calls.discard(call)

    def stop(self) -> None:
        """Cancel every call, and wake what waits."""
        self.stopped.set()
        with self._lock:
            calls = list(self._calls)
        for call in calls:
            call.cancel()


Ask = Callable[[Sequence[Any], Running], Sequence[Any]]
AsyncAsk = Callable[[Sequence[Any]], Awaitable[Sequence[Any]]]


def answer_each(
    kind: Kind,
    inputs: Iterable[Any],
    most: Callable[[], int],
    ask: Ask,
    *,
    seconds: float | None,
    single: bool,
    raise_errors: bool,
) -> Iterator[Any]:
    """Yield the answer to each input or its error, in order.

    Args:
        kind: What the inputs are.
        inputs: They may be endless.
        most: Says how many inputs a call takes.
        ask: Makes a call of several inputs; returns an answer or an error for each.
        seconds: How long a call may take; None for no limit.
        single: Whether a call takes one alone.
        raise_errors: Raise the first error of an input instead.
    """
    bulk, running, ahead = Bulk(Pace(most()), single, silence=Silence(seconds)), Running(), deque[Future[list[Any]]]()
    cutter = Cutter(kind, bulk.pace)

    def answer(part: Part) -> list[Any]:
        steps = bulk.answer_part(part)
        try:
            step = next(steps)
            while True:
                try:
                    done = (
                        _wait(step, running) if isinstance(step, float) else ask([one.value for one in step], running)
                    )
                except RegardError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(done)
        except StopIteration as end:
            found: list[Any] = end.value
            return found

    with ThreadPoolExecutor(CALLS, thread_name_prefix="regard") as pool:
        try:
            for part in _parts(cutter, inputs):
                ahead.append(pool.submit(answer, part))
                while ahead and (len(ahead) >= _AHEAD or ahead[0].done()):
                    yield from _checked(ahead.popleft().result(), raise_errors)
            while ahead:
                yield from _checked(ahead.popleft().result(), raise_errors)
        finally:
            running.stop()
            pool.shutdown(wait=True, cancel_futures=True)


async def answer_each_async(
    kind: Kind,
    inputs: Iterable[Any] | AsyncIterable[Any],
    most: Callable[[], Awaitable[int]],
    ask: AsyncAsk,
    *,
    seconds: float | None,
    single: bool,
    raise_errors: bool,
) -> AsyncIterator[Any]:
    """As `answer_each`, for asyncio."""
    bulk, ahead = Bulk(Pace(await most()), single, silence=Silence(seconds)), deque[asyncio.Task[list[Any]]]()
    cutter, free = Cutter(kind, bulk.pace), asyncio.Semaphore(CALLS)

    async def answer(part: Part) -> list[Any]:
        async with free:
            steps = bulk.answer_part(part)
            try:
                step = next(steps)
                while True:
                    try:
                        done = await (_sleep(step) if isinstance(step, float) else ask([one.value for one in step]))
                    except RegardError as error:
                        step = steps.throw(error)
                    else:
                        step = steps.send(done)
            except StopIteration as end:
                found: list[Any] = end.value
                return found

    try:
        async with aclosing(_parts_async(cutter, inputs)) as parts:
            async for part in parts:
                ahead.append(asyncio.create_task(answer(part)))
                while ahead and (len(ahead) >= _AHEAD or ahead[0].done()):
                    for one in _checked(await ahead.popleft(), raise_errors):
                        yield one
        while ahead:
            for one in _checked(await ahead.popleft(), raise_errors):
                yield one
    finally:
        for task in ahead:
            task.cancel()
        await asyncio.gather(*ahead, return_exceptions=True)


def _wait(seconds: float, running: Running) -> Sequence[Any]:
    if running.stopped.wait(seconds):
        raise checks.closed()
    return ()


async def _sleep(seconds: float) -> Sequence[Any]:
    await asyncio.sleep(seconds)
    return ()


def _parts(cutter: Cutter, inputs: Iterable[Any]) -> Iterator[Part]:
    for value in inputs:
        yield from cutter.add(value)
    yield from cutter.rest()


async def _parts_async(cutter: Cutter, inputs: Iterable[Any] | AsyncIterable[Any]) -> AsyncGenerator[Part, None]:
    if isinstance(inputs, AsyncIterable):
        async for value in inputs:
            for part in cutter.add(value):
                yield part
    else:
        for value in inputs:
            for part in cutter.add(value):
                yield part
    for part in cutter.rest():
        yield part


def _checked(answers: Sequence[Any], raise_errors: bool) -> Iterator[Any]:
    for one in answers:
        if raise_errors and isinstance(one, RegardError):
            raise one
        yield one
