"""Answers kept for a client who asks the same again, and shared by its requests for the same at once.

Every client has its own: from one that comes at once, another would learn what somebody else has asked.

Off unless the operator gives it memory: to know that two requests are the same costs a hash of every input.
"""

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from artifact.dtypes import Array
from server.engine.device_ops import Weights
from server.errors import DeadlinePassed, ServerError
from server.scheduling.batch import BatchItem, Result
from server.scheduling.grouping import Each
from server.telemetry.metrics import Metrics

Submit = Callable[[BatchItem], Coroutine[Any, Any, Result]]
SubmitAll = Callable[..., Awaitable[list[Each]]]
Key = tuple[str, object, tuple[str, ...], tuple[str, ...], bytes]

_DIGEST_BYTES = 16
_ENTRY_BYTES = 1024  # what a kept answer takes besides its arrays, generously


@dataclass(eq=False)
class _Flight:
    """A request being computed, and how many wait for it."""

    task: asyncio.Task[Result]
    priority: int
    waiting: int = 0


class ResponseCache:
    """Stands before the scheduler; lives in the event loop. The answer used longest ago makes room for a new one."""

    def __init__(self, submit: Submit, submit_all: SubmitAll, max_bytes: int, metrics: Metrics) -> None:
        """Make an empty cache.

        Args:
            submit: Computes what is not there; Scheduler.submit.
            submit_all: Likewise for the inputs of one call; Scheduler.submit_all.
            max_bytes: Most memory for answers; with 0 nothing is kept and nothing is shared.
            metrics: Where hits are counted.
        """
        self._submit, self._submit_all = submit, submit_all
        self._max_bytes = max_bytes
        self.is_on = max_bytes > 0  # whether anything is kept or shared
        # Answers from memory, from a request for the same that is on its way, or by computing. Errors are
        # Scheduler.submit's. What comes from memory took no time and had no batch.
        self.compute: Submit = self._look_up if self.is_on else submit
        self._metrics = metrics
        self._kept: OrderedDict[Key, Result] = OrderedDict()
        self._held_bytes = 0
        self._flights: dict[Key, _Flight] = {}
        metrics.cache_bytes.set_function(lambda: float(self._held_bytes))

    async def _look_up(self, item: BatchItem) -> Result:
        (key,) = _keys_of([item])
        if key in self._kept:
            self._kept.move_to_end(key)
            self._metrics.cache_lookups.labels("hit").inc()
            return self._kept[key]
        flight = self._flights.get(key)
        if flight and flight.priority <= item.priority:
            self._metrics.cache_lookups.labels("joined").inc()
            try:
                return await self._wait(key, flight, item.context.deadline)
            except ServerError:  # of the other's deadline, or refused with it: this one has its own chance
                return await self._submit(item)
        self._metrics.cache_lookups.labels("miss").inc()
        return await self._wait(key, self._start(key, item), None)

    async def compute_all(self, items: Sequence[BatchItem], later_rows: int, *, goes_on: bool) -> list[Each]:
        """Answer inputs of one call, each from memory or by computing; arguments and errors are those of submit_all."""
        if not self.is_on:
            return await self._submit_all(items, later_rows, goes_on=goes_on)
        keys = _keys_of(items)
        found: dict[int, Each] = {number: self._kept[key] for number, key in enumerate(keys) if key in self._kept}
        missing = [number for number in range(len(items)) if number not in found]
        self._metrics.cache_lookups.labels("hit").inc(len(found))
        self._metrics.cache_lookups.labels("miss").inc(len(missing))
        for number in found:
            self._kept.move_to_end(keys[number])
        left = [items[number] for number in missing]
        computed = await self._submit_all(left, later_rows, goes_on=goes_on) if left else []
        for number, outcome in zip(missing, computed, strict=True):
            found[number] = outcome
            if isinstance(outcome, Result):
                self._keep(keys[number], outcome)
        return [found[number] for number in range(len(items))]

    def _start(self, key: Key, item: BatchItem) -> _Flight:
        flight = self._flights[key] = _Flight(asyncio.ensure_future(self._submit(item)), item.priority)
        flight.task.add_done_callback(lambda done: self._land(key, done))
        return flight

    async def _wait(self, key: Key, flight: _Flight, deadline: float | None) -> Result:
        """Wait for a flight; whoever leaves last calls it off, and then nobody may join it any more."""
        flight.waiting += 1
        try:
            async with asyncio.timeout_at(_on_loop(deadline)):
                return await asyncio.shield(flight.task)
        except TimeoutError as error:
            raise DeadlinePassed("the deadline passed while an equal request was computed") from error
        finally:
            flight.waiting -= 1
            if not flight.waiting:
                self._forget(key, flight)
                flight.task.cancel()

    def _forget(self, key: Key, flight: _Flight) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]

    def _land(self, key: Key, done: asyncio.Task[Result]) -> None:
        if not done.cancelled() and not done.exception():
            self._keep(key, done.result())

    def _keep(self, key: Key, result: Result) -> None:
        size_bytes = _held_bytes(result)
        if size_bytes > self._max_bytes or key in self._kept:
            return
        self._kept[key] = Result(_copy(result.outputs), _copy(result.further))
        self._held_bytes += size_bytes
        while self._held_bytes > self._max_bytes:
            _, oldest = self._kept.popitem(last=False)
            self._held_bytes -= _held_bytes(oldest)


def _on_loop(deadline: float | None) -> float | None:
    """Turn a time on time.monotonic() into one of the event loop, whose clock need not be the same."""
    loop = asyncio.get_running_loop()
    return None if deadline is None else loop.time() + deadline - time.monotonic()


def _keys_of(items: Sequence[BatchItem]) -> list[Key]:
    """Tell items apart; an array of which several rows or items show the same memory is hashed once."""
    known = dict[Hashable, bytes]()

    def hash_once(array: Array) -> bytes:
        shown = array[:1] if array.strides[:1] == (0,) else array  # a row shown several times
        place = shown.__array_interface__["data"], shown.shape, shown.strides, shown.dtype
        if place not in known:
            known[place] = _hash(shown)
        return known[place]

    def key_of(item: BatchItem) -> Key:
        digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
        for name in sorted(item.inputs):
            array = item.inputs[name]
            digest.update(f"{name} {array.dtype} {array.shape} ".encode())
            digest.update(hash_once(array))
        return item.context.caller.name, item.graph.token, item.outputs, item.further, digest.digest()

    return [key_of(item) for item in items]


def _hash(array: Array) -> bytes:
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    if array.dtype.kind == "O":
        for element in array.flat:
            digest.update(f"{len(element)} {element}".encode())
    else:
        digest.update(np.ascontiguousarray(array).ravel().view(np.uint8).data)
    return digest.digest()


def _held_bytes(result: Result) -> int:
    return _ENTRY_BYTES + result.size_bytes


def _copy(arrays: Mapping[str, Weights]) -> dict[str, Array]:
    """Copy: a view would keep the whole batch in memory."""
    return {name: array.copy() for name, array in arrays.items()}
