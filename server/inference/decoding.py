"""Threads that decode images and tokenise long texts, in which callers take turns.

A job cannot be stopped once it runs, so each is one image or piece of texts, whose size is bounded. Large images never
take the last thread: what is small waits for what is small only. Nobody waits for these threads when the process ends.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from server.context import RpcContext
from server.errors import DeadlinePassed, ShuttingDown
from server.scheduling.batch import resolve
from server.telemetry.metrics import Metrics

Made = TypeVar("Made")

LARGE_PIXELS = 2**20
_STOPPING = "the server is stopping"
_TOO_LATE = "the deadline passed while inputs were decoded"


@dataclass(frozen=True, eq=False, slots=True)
class _Job:
    run: Callable[[], Any]
    context: RpcContext
    pixels: int
    reply: "asyncio.Future[Any]"


class Decoders:
    """The threads and what waits for them; all but the threads themselves lives in the event loop."""

    def __init__(self, threads: int, max_pixels: int, metrics: Metrics) -> None:
        """Start the threads.

        Args:
            threads: How many; at least two, one of which is for small images.
            max_pixels: Of all large images that are decoded at a time, or of one.
            metrics: Where the time is counted.
        """
        self._max_pixels, self._metrics = max_pixels, metrics
        self._small, self._large = _Turns(), _Turns()
        self._running = list[_Job]()
        self._closed = False
        self._ready = threading.Condition()
        self._max_large = max(threads, 2) - 1
        metrics.decoding_waiting.set_function(lambda: float(len(self._small) + len(self._large)))
        for number in range(self._max_large + 1):
            threading.Thread(target=self._work, name=f"decoder_{number}", daemon=True).start()

    async def run(self, jobs: Sequence[tuple[Callable[[], Made], int]], context: RpcContext) -> list[Made]:
        """Run jobs of one request when their turns come; those that wait are dropped where one fails.

        Args:
            jobs: Each with the pixels that it decodes.
            context: For whom, and by when.

        Raises:
            DeadlinePassed: Before all were done.
            ShuttingDown: Likewise.
        """
        loop = asyncio.get_running_loop()
        queued = [_Job(run, context, pixels, loop.create_future()) for run, pixels in jobs]
        seconds = None if context.deadline is None else context.deadline - time.monotonic()
        self._add(queued)
        try:
            async with asyncio.timeout(seconds):
                return [await job.reply for job in queued]
        except TimeoutError as error:
            raise DeadlinePassed(_TOO_LATE) from error
        finally:
            self._drop(queued)

    def close(self) -> None:
        """Answer everybody ShuttingDown, now and from now on; the threads end by themselves."""
        with self._ready:
            self._closed = True
            left = [*self._small.clear(), *self._large.clear(), *self._running]
            self._ready.notify_all()
        for job in left:
            resolve(job.reply, ShuttingDown(_STOPPING))

    def _add(self, jobs: Sequence[_Job]) -> None:
        with self._ready:
            if self._closed:
                raise ShuttingDown(_STOPPING)
            for job in jobs:
                (self._large if job.pixels > LARGE_PIXELS else self._small).add(job)
            self._ready.notify(len(jobs))

    def _drop(self, jobs: Sequence[_Job]) -> None:
        with self._ready:
            for job in jobs:
                self._small.remove(job)
                self._large.remove(job)
        for job in jobs:
            if not job.reply.cancel() and not job.reply.cancelled():
                job.reply.exception()  # of several that failed one is told

    def _work(self) -> None:
        """What a thread does all its life."""
        while job := self._take():
            began = time.thread_time()
            outcome = _compute(job)
            self._end(job, outcome, time.thread_time() - began)
            del job, outcome  # they hold an image, and the next may be long in coming

    def _take(self) -> _Job | None:
        with self._ready:
            while not self._closed:
                if job := self._next():
                    self._running.append(job)
                    return job
                self._ready.wait()
        return None

    def _next(self) -> _Job | None:
        """Choose what is decoded next: all large ones together have no more pixels than one may have."""
        running = [job.pixels for job in self._running if job.pixels > LARGE_PIXELS]
        first = self._large.first() if len(running) < self._max_large else None
        if first and (not running or sum(running) + first.pixels <= self._max_pixels):
            self._large.remove(first)
            return first
        if first := self._small.first():
            self._small.remove(first)
        return first

    def _end(self, job: _Job, outcome: object, seconds: float) -> None:
        """Answer a job's caller."""
        with self._ready:
            self._running.remove(job)
            self._ready.notify()
        with suppress(RuntimeError):  # the event loop may have ended before
            job.reply.get_loop().call_soon_threadsafe(self._finish, job, outcome, seconds)

    def _finish(self, job: _Job, outcome: object, seconds: float) -> None:
        """Charge a caller, whether it still waits or not, and answer it."""
        caller = job.context.caller
        job.context.decoding_seconds += seconds
        caller.quota.charge(0.0, seconds)
        self._metrics.client_decoding_seconds.labels(caller.name).inc(seconds)
        resolve(job.reply, outcome)


def _compute(job: _Job) -> Any:
    """Run a job; returns what it made, or the error."""
    deadline = job.context.deadline
    if job.reply.cancelled() or (deadline is not None and time.monotonic() >= deadline):
        return DeadlinePassed(_TOO_LATE)
    try:
        return job.run()
    except Exception as error:  # InputError, or a fault of ours: the caller's own task tells them apart
        return error


class _Turns:
    """Jobs that wait: callers take turns, and so do the requests of each."""

    def __init__(self) -> None:
        self._callers: dict[object, dict[RpcContext, deque[_Job]]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, job: _Job) -> None:
        self._count += 1
        self._callers.setdefault(job.context.share, {}).setdefault(job.context, deque()).append(job)

    def first(self) -> _Job | None:
        """Return whose turn it is."""
        for requests in self._callers.values():
            for jobs in requests.values():
                return jobs[0]
        return None

    def remove(self, job: _Job) -> None:
        """Take a job out, if it waits; its request and its caller go behind all others."""
        requests = self._callers.get(job.context.share, {})
        jobs = requests.get(job.context, deque())
        if job not in jobs:
            return
        jobs.remove(job)
        self._count -= 1
        del requests[job.context], self._callers[job.context.share]
        if jobs:
            requests[job.context] = jobs
        if requests:
            self._callers[job.context.share] = requests

    def clear(self) -> list[_Job]:
        """Take everything out."""
        waiting = [job for requests in self._callers.values() for jobs in requests.values() for job in jobs]
        self._callers.clear()
        self._count = 0
        return waiting
