import asyncio
import threading
from collections.abc import AsyncIterator, Mapping, Sequence

import numpy as np
import pytest

from server.batching import Array, BatchLimits, Work
from server.errors import DeadlinePassed, InternalFault, ShuttingDown, TooBusy
from server.metrics import Metrics
from server.scheduler import Computed, Scheduler
from tests.server.test_batching import CONTRACT

LIMITS = BatchLimits(rows=4, tokens=1024, attention_bytes=10**9)
POISON = 13


class GatedEngine:
    """Computes a row's sum; waits for the gate first, fails on poison, and remembers what it ran."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.batches: list[list[int]] = []

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str], attentions: Sequence[str]) -> dict[str, Array]:
        self.entered.set()
        assert self.gate.wait(timeout=30)
        ids = inputs["input_ids"]
        if (ids == POISON).any():
            raise RuntimeError("poisoned")
        self.batches.append(ids[:, 0].tolist())
        return {"embedding": ids.sum(axis=1, keepdims=True).astype(np.float32)}


@pytest.fixture
def engine() -> GatedEngine:
    """An engine whose gate is closed."""
    return GatedEngine()


@pytest.fixture
async def scheduler() -> AsyncIterator[Scheduler]:
    """A scheduler for batches of four rows and a queue of six."""
    scheduler = Scheduler(LIMITS, max_queue_size=6, metrics=Metrics())
    scheduler.start()
    yield scheduler
    await scheduler.close()


def make_work(engine: GatedEngine, value: int) -> Work:
    """A request of one row of four tokens, all `value`."""
    ids = np.full((1, 4), value, dtype=np.int64)
    return Work(engine, CONTRACT, {"input_ids": ids, "attention_mask": np.ones_like(ids)}, 1, 4, ("embedding",))


async def occupy(scheduler: Scheduler, engine: GatedEngine) -> "asyncio.Task[Computed]":
    """Keep the engine busy with a request of value 1 until the gate opens."""
    task = asyncio.create_task(scheduler.submit(make_work(engine, 1)))
    assert await asyncio.to_thread(engine.entered.wait, 30)
    return task


async def queue(scheduler: Scheduler, engine: GatedEngine, *values: int) -> list["asyncio.Task[Computed]"]:
    """Submit requests and return once they wait."""
    tasks = [asyncio.create_task(scheduler.submit(make_work(engine, value))) for value in values]
    await asyncio.sleep(0)
    return tasks


def value_of(computed: Computed) -> float:
    """The sum that the engine gave for a request."""
    return float(computed.results.outputs["embedding"][0, 0])


async def test_an_idle_engine_starts_at_once_with_a_single_request(scheduler: Scheduler, engine: GatedEngine) -> None:
    """Nobody waits for company while the engine is free."""
    first = await occupy(scheduler, engine)
    engine.gate.set()
    computed = await first
    assert (value_of(computed), computed.batch_size) == (4.0, 1)


async def test_what_waits_while_a_batch_runs_goes_together_in_the_next(
    scheduler: Scheduler, engine: GatedEngine
) -> None:
    """Three that queue behind one are computed as one batch, each with its own answer."""
    first = await occupy(scheduler, engine)
    waiting = await queue(scheduler, engine, 2, 3, 4)
    engine.gate.set()
    answers = [await task for task in (first, *waiting)]
    assert [value_of(answer) for answer in answers] == [4.0, 8.0, 12.0, 16.0]
    assert engine.batches == [[1], [2, 3, 4]]
    assert answers[-1].batch_size == 3


async def test_a_cancelled_request_is_never_computed_and_harms_nobody(
    scheduler: Scheduler, engine: GatedEngine
) -> None:
    """Its neighbours in the queue get their own answers."""
    first = await occupy(scheduler, engine)
    left, cancelled, right = await queue(scheduler, engine, 2, 3, 4)
    cancelled.cancel()
    engine.gate.set()
    assert [value_of(await task) for task in (first, left, right)] == [4.0, 8.0, 16.0]
    assert engine.batches == [[1], [2, 4]]


async def test_a_request_cancelled_in_the_middle_of_its_batch_harms_nobody(
    scheduler: Scheduler, engine: GatedEngine
) -> None:
    """The batch it is part of answers the others."""
    first = await occupy(scheduler, engine)
    first.cancel()
    (later,) = await queue(scheduler, engine, 5)
    engine.gate.set()
    assert value_of(await later) == 20.0
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_a_request_whose_deadline_passed_is_refused_and_never_computed(
    scheduler: Scheduler, engine: GatedEngine
) -> None:
    """A deadline in the past is noticed when the next batch is cut."""
    await occupy(scheduler, engine)
    late = asyncio.create_task(scheduler.submit(make_work(engine, 2), deadline=0.0))
    await asyncio.sleep(0)
    engine.gate.set()
    with pytest.raises(DeadlinePassed):
        await late
    assert engine.batches == [[1]]


async def test_a_full_queue_refuses_at_once(scheduler: Scheduler, engine: GatedEngine) -> None:
    """The seventh that would wait is told so, with the name of the limit."""
    await occupy(scheduler, engine)
    waiting = await queue(scheduler, engine, *range(2, 8))
    with pytest.raises(TooBusy, match=r"6 requests wait.*--max-queue-size"):
        await scheduler.submit(make_work(engine, 9))
    engine.gate.set()
    await asyncio.gather(*waiting)


async def test_a_queue_full_of_callers_who_hung_up_has_room(scheduler: Scheduler, engine: GatedEngine) -> None:
    """Dead entries do not keep the living out."""
    await occupy(scheduler, engine)
    waiting = await queue(scheduler, engine, *range(2, 8))
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    (fresh,) = await queue(scheduler, engine, 9)
    engine.gate.set()
    assert value_of(await fresh) == 36.0


async def test_only_the_guilty_request_of_a_failed_batch_fails(
    scheduler: Scheduler, engine: GatedEngine, caplog: pytest.LogCaptureFixture
) -> None:
    """The batch is run again one by one, the failure is logged, and the scheduler goes on."""
    await occupy(scheduler, engine)
    left, guilty, right = await queue(scheduler, engine, 2, POISON, 4)
    engine.gate.set()
    assert [value_of(await task) for task in (left, right)] == [8.0, 16.0]
    with pytest.raises(InternalFault, match="internal error"):
        await guilty
    assert "poisoned" in caplog.text
    assert value_of(await scheduler.submit(make_work(engine, 5))) == 20.0


async def test_refusing_answers_everything_that_waits_and_everything_that_comes(
    scheduler: Scheduler, engine: GatedEngine
) -> None:
    """The batch that runs still ends well."""
    first = await occupy(scheduler, engine)
    waiting = await queue(scheduler, engine, 2, 3)
    scheduler.refuse_waiting()
    engine.gate.set()
    for task in waiting:
        with pytest.raises(ShuttingDown):
            await task
    with pytest.raises(ShuttingDown):
        await scheduler.submit(make_work(engine, 4))
    assert value_of(await first) == 4.0


async def test_older_requests_are_never_overtaken_for_ever(scheduler: Scheduler, engine: GatedEngine) -> None:
    """The oldest is in the next batch, whatever came after it."""
    await occupy(scheduler, engine)
    waiting = await queue(scheduler, engine, 2, 3, 4, 5, 6)
    engine.gate.set()
    await asyncio.gather(*waiting)
    assert engine.batches == [[1], [2, 3, 4, 5], [6]]
