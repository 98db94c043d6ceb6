"""Owns the queue: one task cuts batches and hands them to the engine's one thread; the service submits and awaits.

It is work-conserving: an idle engine starts at once with what is queued, and nobody waits on a timer. Whose turn it is
follows arrival; who shares the batch follows length. A request whose caller hung up, or whose deadline passed, is
dropped when a batch is cut and never computed.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from server.batching import BatchLimits, Results, Work, choose_companions, padding_share, run_batch
from server.errors import DeadlinePassed, InternalFault, ServerError, ShuttingDown, TooBusy
from server.metrics import Metrics

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Computed:
    """What a request gets back: its results, how long it waited and ran, and how many rows shared the batch."""

    results: Results
    queue_ns: int
    compute_ns: int
    batch_size: int


@dataclass(frozen=True, eq=False)
class _Entry:
    work: Work
    deadline: float | None
    reply: asyncio.Future[Computed]
    arrived_ns: int = field(default_factory=time.perf_counter_ns)


class Scheduler:
    """Queue, batching and the engine's thread."""

    def __init__(self, limits: BatchLimits, max_queue_size: int, metrics: Metrics) -> None:
        self._limits = limits
        self._max_queue_size = max_queue_size
        self._metrics = metrics
        self._queue: list[_Entry] = []
        self._wake = asyncio.Event()
        self._refusing = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to work; must be called in the event loop."""
        self._metrics.queue_depth.set_function(lambda: float(len(self._queue)))
        self._task = asyncio.create_task(self._work(), name="scheduler")

    async def submit(self, work: Work, deadline: float | None = None) -> Computed:
        """Queue a request and wait for its results.

        Args:
            work: What to compute.
            deadline: On the event loop's clock, in seconds; None for none.

        Raises:
            TooBusy: The queue is full.
            DeadlinePassed: The deadline passed in the queue.
            ShuttingDown: The server stopped before its turn came.
            InternalFault: The engine failed on this very request.
        """
        if self._refusing:
            raise ShuttingDown("the server is stopping")
        if len(self._queue) >= self._max_queue_size:
            self._queue = [entry for entry in self._queue if self._is_wanted(entry)]
        if len(self._queue) >= self._max_queue_size:
            raise TooBusy(
                f"the queue is full: {len(self._queue)} requests wait (the server's --max-queue-size); retry later"
            )
        entry = _Entry(work, deadline, asyncio.get_running_loop().create_future())
        self._queue.append(entry)
        self._wake.set()
        return await entry.reply

    def refuse_waiting(self) -> None:
        """Answer everything that waits with ShuttingDown, and everything that comes."""
        self._refusing = True
        for entry in self._queue:
            _resolve(entry, ShuttingDown("the server is stopping"))
        self._queue.clear()

    async def close(self) -> None:
        """Refuse what waits, let the running batch end, and stop the thread."""
        self.refuse_waiting()
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await asyncio.to_thread(self._thread.shutdown)

    async def _work(self) -> None:
        while True:
            await self._wake.wait()
            batch = self._cut()
            if batch:
                await self._run(batch)
            else:
                self._wake.clear()

    def _cut(self) -> list[_Entry]:
        """Take the next batch out of the queue, dropping what nobody waits for any more."""
        self._queue = [entry for entry in self._queue if self._is_wanted(entry)]
        if not self._queue:
            return []
        first, *rest = self._queue
        chosen = set(choose_companions(first.work, [entry.work for entry in rest], self._limits))
        self._queue = [entry for index, entry in enumerate(rest) if index not in chosen]
        return [first, *(entry for index, entry in enumerate(rest) if index in chosen)]

    def _is_wanted(self, entry: _Entry) -> bool:
        if entry.reply.done():
            self._metrics.dropped.labels("cancelled").inc()
            return False
        if entry.deadline is not None and asyncio.get_running_loop().time() >= entry.deadline:
            self._metrics.dropped.labels("expired").inc()
            _resolve(entry, DeadlinePassed("the deadline passed while the request waited"))
            return False
        return True

    async def _run(self, batch: list[_Entry]) -> None:
        works = [entry.work for entry in batch]
        started_ns = time.perf_counter_ns()
        loop = asyncio.get_running_loop()
        outcomes = await loop.run_in_executor(self._thread, _compute, works)
        compute_ns = time.perf_counter_ns() - started_ns
        rows = sum(work.rows for work in works)
        self._metrics.observe_batch(works[0].contract.name, rows, padding_share(works))
        for entry, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, Results):
                _resolve(entry, Computed(outcome, started_ns - entry.arrived_ns, compute_ns, rows))
            else:
                _resolve(entry, outcome)


def _resolve(entry: _Entry, outcome: Computed | ServerError) -> None:
    """Answer an entry; the only place that does. A reply that is done belongs to a caller who hung up."""
    if entry.reply.done():
        return
    if isinstance(outcome, ServerError):
        entry.reply.set_exception(outcome)
    else:
        entry.reply.set_result(outcome)


def _compute(works: Sequence[Work]) -> Sequence[Results | InternalFault]:
    """Run a batch in the engine's thread. Should it fail, each request runs alone: only the guilty one fails."""
    try:
        return run_batch(works)
    except Exception:
        _log.exception("a batch of %d requests of %s failed", len(works), works[0].contract.name)
        if len(works) == 1:
            return [InternalFault()]
    return [outcome for work in works for outcome in _compute([work])]
