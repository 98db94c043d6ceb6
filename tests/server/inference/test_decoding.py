"""Threads that decode: whose turn it is, what is given up, what is charged."""

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable

import pytest

from server.auth.clients import Client
from server.auth.quota import Quota
from server.context import RpcContext
from server.errors import DeadlinePassed, ShuttingDown
from server.inference.decoding import LARGE_PIXELS, Decoders
from server.telemetry.metrics import Metrics
from tests.processes import ROOT

SAFETY_SECONDS = 30.0
LARGE = LARGE_PIXELS + 1


class Slow:
    """A job that runs until it is told to end, and notes that it ran."""

    def __init__(self) -> None:
        self.began, self.may_end = threading.Event(), threading.Event()

    def __call__(self) -> str:
        self.began.set()
        assert self.may_end.wait(SAFETY_SECONDS)
        return "slow"


@pytest.fixture
async def decoders() -> AsyncIterator[Decoders]:
    """Two threads, one of which takes large images: 3 million pixels at a time."""
    made = Decoders(2, 3 * LARGE_PIXELS, Metrics())
    yield made
    made.close()


async def occupy(
    decoders: Decoders, context: RpcContext, pixels: int = LARGE
) -> tuple[Slow, "asyncio.Task[list[str]]"]:
    """Let a job run that does not end."""
    slow = Slow()
    task = asyncio.create_task(decoders.run([(slow, pixels)], context))
    assert await asyncio.to_thread(slow.began.wait, SAFETY_SECONDS)
    return slow, task


def noting(notes: list[str], name: str) -> Callable[[], str]:
    """A job that notes when it ran."""

    def note() -> str:
        notes.append(name)
        return name

    return note


def fail() -> str:
    """What a damaged image is."""
    raise ValueError("damaged")


async def test_a_small_image_does_not_wait_for_large_ones(decoders: Decoders) -> None:
    """Though as many wait as there may be."""
    greedy = RpcContext()
    slow, task = await occupy(decoders, greedy)
    waiting = asyncio.create_task(decoders.run([(Slow(), LARGE)] * 5, greedy))
    assert await decoders.run([(lambda: "small", LARGE_PIXELS)], RpcContext()) == ["small"]
    assert not task.done()
    slow.may_end.set()
    assert await task == ["slow"]
    waiting.cancel()


@pytest.mark.parametrize("same_client", [True, False])
async def test_callers_take_turns(decoders: Decoders, same_client: bool) -> None:
    """One image of each, though one of them has asked for many before; so do the requests of a client."""
    first = Client("first")
    greedy = RpcContext(caller=first)
    others = [RpcContext(caller=first if same_client else Client(name)) for name in "ab"]
    slow, _ = await occupy(decoders, greedy)
    notes = list[str]()
    tasks = [asyncio.create_task(decoders.run([(noting(notes, f"greedy {i}"), LARGE) for i in range(3)], greedy))]
    await asyncio.sleep(0)
    for name, context in zip("ab", others, strict=True):
        jobs = [(noting(notes, f"{name} {i}"), LARGE) for i in range(2)]
        tasks.append(asyncio.create_task(decoders.run(jobs, context)))
        await asyncio.sleep(0)
    slow.may_end.set()
    results = await asyncio.gather(*tasks)
    assert notes == ["greedy 0", "a 0", "b 0", "greedy 1", "a 1", "b 1", "greedy 2"]
    assert results == [["greedy 0", "greedy 1", "greedy 2"], ["a 0", "a 1"], ["b 0", "b 1"]]


@pytest.mark.parametrize("known", [True, False])
async def test_a_client_with_many_requests_has_one_turn(*, known: bool) -> None:
    """Three requests of one, one of another; an address is a client where nobody is known."""

    def context_of(name: str) -> RpcContext:
        return RpcContext(caller=Client(name)) if known else RpcContext(address=name)

    decoders = Decoders(2, LARGE, Metrics())
    slow, _ = await occupy(decoders, context_of("many"))
    notes, tasks = list[str](), []
    for i, name in enumerate(("many", "many", "many", "one")):
        context, jobs = context_of(name), [(noting(notes, f"{name} {i}"), LARGE)] * 2
        tasks.append(asyncio.create_task(decoders.run(jobs, context)))
        await asyncio.sleep(0)
    slow.may_end.set()
    await asyncio.gather(*tasks)
    assert notes == ["many 0", "one 3", "many 1", "one 3", "many 2", "many 0", "many 1", "many 2"]
    decoders.close()


async def test_large_images_together_have_no_more_pixels_than_one_may_have() -> None:
    """Three threads for large ones: a second one of half the pixels fits, a third does not."""
    decoders = Decoders(4, 4 * LARGE_PIXELS, Metrics())
    first, _ = await occupy(decoders, RpcContext(), 2 * LARGE_PIXELS)
    second, _ = await occupy(decoders, RpcContext(), 2 * LARGE_PIXELS)
    notes = list[str]()
    third = asyncio.create_task(decoders.run([(noting(notes, "third"), LARGE)], RpcContext()))
    await decoders.run([(lambda: None, 0)], RpcContext())
    assert notes == []
    second.may_end.set()
    assert await third == ["third"]
    first.may_end.set()
    assert await decoders.run([(lambda: "all", 4 * LARGE_PIXELS)], RpcContext()) == ["all"]
    decoders.close()


async def test_what_nobody_waits_for_is_not_decoded(decoders: Decoders) -> None:
    """The caller has hung up, its deadline has passed, or another of its images cannot be used."""
    slow, _ = await occupy(decoders, RpcContext())
    notes = list[str]()
    hung_up = asyncio.create_task(decoders.run([(noting(notes, "hung up"), LARGE)], RpcContext()))
    await asyncio.sleep(0)
    hung_up.cancel()
    with pytest.raises(DeadlinePassed, match="the deadline passed while inputs were decoded"):
        await decoders.run([(noting(notes, "late"), LARGE)], RpcContext(deadline=0.0))
    broken = asyncio.create_task(decoders.run([(fail, LARGE), (noting(notes, "b"), LARGE)], RpcContext()))
    behind = asyncio.create_task(decoders.run([(noting(notes, "behind"), LARGE)], RpcContext()))
    await asyncio.sleep(0)
    slow.may_end.set()
    with pytest.raises(ValueError, match="damaged"):
        await broken
    assert await behind == ["behind"]
    assert await decoders.run([(noting(notes, "last"), LARGE)], RpcContext()) == ["last"]
    assert [note for note in notes if note != "b"] == ["behind", "last"]


async def test_a_deadline_ends_the_wait_for_an_image_that_is_being_decoded(decoders: Decoders) -> None:
    """The caller is answered, though the thread goes on."""
    slow, task = await occupy(decoders, RpcContext(deadline=time.monotonic() + 0.2))
    with pytest.raises(DeadlinePassed, match="the deadline passed while inputs were decoded"):
        await task
    slow.may_end.set()


async def test_time_is_charged_to_who_asked_though_it_hung_up() -> None:
    """And counted; what one request was charged does not refuse it later."""
    metrics, quota = Metrics(), Quota("client", compute_seconds_per_second=1e-9, clock=lambda: 0.0)
    decoders, context = Decoders(2, LARGE, metrics), RpcContext(caller=Client("client", quota=quota))
    await decoders.run([(lambda: sum(range(10**5)), 0)], context)
    assert context.decoding_seconds > 0
    with pytest.raises(Exception, match="client has used its quota"):
        quota.admit()
    quota.reserve(0.0, context.decoding_seconds)
    slow, task = await occupy(decoders, context)
    before = context.decoding_seconds
    task.cancel()
    slow.may_end.set()
    await decoders.run([(lambda: None, LARGE)], RpcContext())
    assert context.decoding_seconds > before
    found = metrics.registry.get_sample_value("regard_client_decoding_seconds_total", {"client": "client"})
    assert found == pytest.approx(context.decoding_seconds)
    decoders.close()


async def test_closing_answers_everybody_at_once(decoders: Decoders) -> None:
    """What runs, what waits, and what comes; the waiting are counted until then."""
    slow, running = await occupy(decoders, RpcContext())
    waiting = asyncio.create_task(decoders.run([(Slow(), LARGE)], RpcContext()))
    await asyncio.sleep(0)
    decoders.close()
    for late in (running, waiting, decoders.run([(Slow(), 0)], RpcContext())):
        with pytest.raises(ShuttingDown, match="the server is stopping"):
            await late
    slow.may_end.set()


def test_a_process_ends_though_an_image_is_being_decoded() -> None:
    """Nobody waits for the threads: with exit code 0."""
    code = """
import asyncio, threading
from server.context import RpcContext
from server.inference.decoding import Decoders
from server.telemetry.metrics import Metrics

async def main():
    began, decoders = threading.Event(), Decoders(2, 100, Metrics())
    hang = lambda: (began.set(), threading.Event().wait())
    task = asyncio.create_task(decoders.run([(hang, 0)], RpcContext()))
    await asyncio.to_thread(began.wait)
    decoders.close()
    await asyncio.gather(task, return_exceptions=True)

asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=4 * SAFETY_SECONDS, check=True)
