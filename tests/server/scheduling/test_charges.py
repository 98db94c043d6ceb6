"""What the engine's time costs a client: its share of what ran, whether or not it waited for the answer."""

import asyncio

import pytest

from server.auth.clients import Client, current
from server.auth.quota import Quota
from server.engine.cost import CostModel
from server.errors import InternalFault, TooBusy
from tests.server.auth.test_quota import Clock
from tests.server.scheduling.test_scheduler import POISON, GatedGraph, make_work, occupy, queue, scheduling

FREE = CostModel(run_seconds=0.0)
A_SECOND = CostModel(run_seconds=1.0)


def become(compute_seconds_per_second: float) -> Quota:
    """Be a client with a quota, whose clock stands: nothing comes back by itself."""
    quota = Quota("greedy", compute_seconds_per_second=compute_seconds_per_second, clock=Clock())
    current.set(Client("greedy", quota=quota))
    return quota


async def test_who_hangs_up_while_its_batch_runs_is_charged() -> None:
    """Otherwise short deadlines would make the engine free."""
    quota, graph = become(1e-9), GatedGraph(FREE)
    async with scheduling() as scheduler:
        running = await occupy(scheduler, graph)
        quota.admit()
        running.cancel()
        await asyncio.wait([running])
        graph.gate.set()
    await asyncio.sleep(0)  # what the lane has handed over as it ended
    with pytest.raises(TooBusy, match="greedy has used its quota"):
        quota.admit()


async def test_a_burst_is_refused_before_any_of_it_has_run() -> None:
    """Two of a second each fit into a second and a half; what they really took leaves room again."""
    graph = GatedGraph(A_SECOND)
    become(1.5)
    async with scheduling() as scheduler:
        first = await occupy(scheduler, graph)
        second, third = await queue(scheduler, graph, 2, 3)
        with pytest.raises(TooBusy, match=r"greedy has used its quota of 1.5 seconds of the engine a second"):
            await third
        graph.gate.set()
        await asyncio.gather(first, second)
        await scheduler.submit(make_work(graph, 4))


async def test_who_hangs_up_while_waiting_gets_back_what_was_held() -> None:
    """Nothing of it was computed."""
    graph = GatedGraph(A_SECOND)
    become(1.5)
    async with scheduling() as scheduler:
        first = await occupy(scheduler, graph)
        (waiting,) = await queue(scheduler, graph, 2)
        waiting.cancel()
        await asyncio.wait([waiting])
        (next_one,) = await queue(scheduler, graph, 3)
        graph.gate.set()
        await asyncio.gather(first, next_one)


async def test_what_fails_in_the_engine_costs_what_was_expected() -> None:
    """Requests that break are not free."""
    quota, graph = become(0.5), GatedGraph(A_SECOND)
    graph.gate.set()
    async with scheduling() as scheduler:
        with pytest.raises(InternalFault):
            await scheduler.submit(make_work(graph, POISON))
        with pytest.raises(TooBusy):
            quota.admit()
