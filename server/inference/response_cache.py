"""Answers kept for those who ask the same again, and shared by those who ask the same at once; the pipeline asks it.

Off unless the operator gives it memory: to know that two requests are the same costs a hash of every input.
"""

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from server.engine.device_ops import Weights
from server.errors import DeadlinePassed, ServerError
from server.scheduling.batch import Array, Results, Work, size_of
from server.scheduling.scheduler import Computed
from server.telemetry.metrics import Metrics

Submit = Callable[[Work, float | None, int], Awaitable[Computed]]
Key = tuple[object, tuple[str, ...], tuple[str, ...], bytes]

_DIGEST_BYTES = 16
_ENTRY_BYTES = 1024  # what a kept answer takes besides its arrays, generously


@dataclass(eq=False)
class _Flight:
    """A request being computed, and how many wait for it."""

    task: asyncio.Task[Computed]
    priority: int
    waiting: int = 0


class AnswerCache:
    """Stands before the scheduler; lives in the event loop. The answer used longest ago makes room for a new one."""

    def __init__(self, submit: Submit, max_bytes: int, metrics: Metrics) -> None:
        """Make an empty cache.

        Args:
            submit: Computes what is not there; Scheduler.submit.
            max_bytes: Most memory for answers; with 0 nothing is kept and nothing is shared.
            metrics: Where hits are counted.
        """
        self._submit = submit
        self._max_bytes = max_bytes
        self._metrics = metrics
        self._kept: OrderedDict[Key, Computed] = OrderedDict()
        self._held_bytes = 0
        self._flights: dict[Key, _Flight] = {}
        metrics.cache_bytes.set_function(lambda: float(self._held_bytes))

    async def compute(self, work: Work, deadline: float | None, priority: int) -> Computed:
        """Answer from memory, from a request for the same that is on its way, or by computing.

        Args and errors are Scheduler.submit's. What comes from memory took no time and had no batch.
        """
        if not self._max_bytes:
            return await self._submit(work, deadline, priority)
        key = _key_of(work)
        if key in self._kept:
            self._kept.move_to_end(key)
            self._metrics.cache_lookups.labels("hit").inc()
            return self._kept[key]
        flight = self._flights.get(key)
        if flight and flight.priority <= priority:
            self._metrics.cache_lookups.labels("joined").inc()
            try:
                return await self._wait(flight, deadline)
            except ServerError:  # of the other's deadline, or refused with it: this one has its own chance
                return await self._submit(work, deadline, priority)
        self._metrics.cache_lookups.labels("miss").inc()
        task = asyncio.ensure_future(self._submit(work, deadline, priority))
        flight = self._flights[key] = _Flight(task, priority)
        task.add_done_callback(lambda done: self._land(key, flight, done))
        return await self._wait(flight, None)

    async def _wait(self, flight: _Flight, deadline: float | None) -> Computed:
        """Wait for a flight; whoever leaves last calls it off."""
        flight.waiting += 1
        try:
            async with asyncio.timeout_at(_on_loop(deadline)):
                return await asyncio.shield(flight.task)
        except TimeoutError as error:
            raise DeadlinePassed("the deadline passed while an equal request was computed") from error
        finally:
            flight.waiting -= 1
            if not flight.waiting:
                flight.task.cancel()

    def _land(self, key: Key, flight: _Flight, done: asyncio.Task[Computed]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
        if not done.cancelled() and not done.exception():
            self._keep(key, done.result())

    def _keep(self, key: Key, computed: Computed) -> None:
        results = computed.results
        size_bytes = _size_bytes(results)
        if size_bytes > self._max_bytes or key in self._kept:
            return
        own = Results(_copy(results.outputs), _copy(results.attentions))
        self._kept[key] = replace(computed, results=own, queue_ns=0, compute_ns=0, batch_size=0)
        self._held_bytes += size_bytes
        while self._held_bytes > self._max_bytes:
            _, oldest = self._kept.popitem(last=False)
            self._held_bytes -= _size_bytes(oldest.results)


def _on_loop(deadline: float | None) -> float | None:
    """Turn a time on time.monotonic() into one of the event loop, whose clock need not be the same."""
    loop = asyncio.get_running_loop()
    return None if deadline is None else loop.time() + deadline - time.monotonic()


def _key_of(work: Work) -> Key:
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for name in sorted(work.inputs):
        array = work.inputs[name]
        digest.update(f"{name} {array.dtype} {array.shape} ".encode())
        if array.dtype.kind == "O":
            for element in array.reshape(-1):
                digest.update(f"{len(element)} {element}".encode())
        else:
            digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return work.graph.token, work.outputs, work.attentions, digest.digest()


def _size_bytes(results: Results) -> int:
    return _ENTRY_BYTES + sum(size_of(array) for array in (*results.outputs.values(), *results.attentions.values()))


def _copy(arrays: Mapping[str, Weights]) -> dict[str, Array]:
    """Copy: a view would keep the whole batch in memory."""
    return {name: array.copy() for name, array in arrays.items()}
