"""What the engine's time costs a client: its share of what ran, whether or not it waited for the answer."""

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from artifact.dtypes import Array
from server.auth.clients import Client
from server.auth.quota import Quota
from server.context import RpcContext
from server.engine.cost import CostModel
from server.engine.faults import judge_gpu
from server.errors import DeviceFailed, InternalFault, TooBusy
from server.scheduling.admission import Admission
from server.scheduling.batch import BatchLimits
from server.scheduling.scheduler import Scheduler
from server.telemetry.metrics import Metrics
from tests.server.fakes import POISON, Clock, GatedGraph, SumGraph, make_item, occupy, queue, scheduling

FREE = CostModel(run_seconds=0.0)
A_SECOND = CostModel(run_seconds=1.0)


def greedy(compute_seconds_per_second: float) -> RpcContext:
    """A request of a client with a quota, whose clock stands: nothing comes back by itself."""
    quota = Quota("greedy", compute_seconds_per_second=compute_seconds_per_second, clock=Clock())
    return RpcContext(caller=Client("greedy", quota=quota))


async def test_who_hangs_up_while_its_batch_runs_is_charged() -> None:
    """Otherwise short deadlines would make the engine free."""
    context, graph = greedy(1e-9), GatedGraph(FREE)
    async with scheduling() as scheduler:
        running = await occupy(scheduler, graph, context)
        context.caller.quota.admit()
        running.cancel()
        await asyncio.wait([running])
        graph.gate.set()
    await asyncio.sleep(0)  # what the instance has handed over as it ended
    with pytest.raises(TooBusy, match="greedy has used its quota"):
        context.caller.quota.admit()


async def test_a_burst_is_refused_before_any_of_it_has_run() -> None:
    """Two of a second each fit into a second and a half; what they really took leaves room again."""
    graph = GatedGraph(A_SECOND)
    context = greedy(1.5)
    async with scheduling() as scheduler:
        first = await occupy(scheduler, graph, context)
        second, third = await queue(scheduler, graph, 2, 3, context=context)
        with pytest.raises(TooBusy, match=r"greedy has used its quota of 1.5 seconds of the engine a second"):
            await third
        graph.gate.set()
        await asyncio.gather(first, second)
        await scheduler.submit(make_item(graph, 4, context=context))


async def test_who_hangs_up_while_waiting_gets_back_what_was_reserved() -> None:
    """Nothing of it was computed."""
    graph = GatedGraph(A_SECOND)
    context = greedy(1.5)
    async with scheduling() as scheduler:
        first = await occupy(scheduler, graph, context)
        (waiting,) = await queue(scheduler, graph, 2, context=context)
        waiting.cancel()
        await asyncio.wait([waiting])
        (next_one,) = await queue(scheduler, graph, 3, context=context)
        with pytest.raises(TooBusy):
            context.caller.quota.admit()
        graph.gate.set()
        await asyncio.gather(first, next_one)


async def test_what_fails_in_the_engine_costs_what_was_expected() -> None:
    """Requests that break are not free."""
    context, graph = greedy(0.5), GatedGraph(A_SECOND)
    graph.gate.set()
    async with scheduling() as scheduler:
        with pytest.raises(InternalFault):
            await scheduler.submit(make_item(graph, POISON, context=context))
        with pytest.raises(TooBusy):
            context.caller.quota.admit()


async def test_what_a_failed_device_could_not_compute_costs_nothing() -> None:
    """Nor is it a batch of no time for whoever looks at how long batches take."""
    context, graph, metrics = greedy(0.5), FailingGraph(A_SECOND), Metrics()
    admission = Admission(6, 10**6, 10.0)
    scheduler = Scheduler(BatchLimits(4, 1024, 10**9), admission, 1, metrics, judge=judge_gpu)
    scheduler.start()
    with pytest.raises(DeviceFailed):
        await scheduler.submit(make_item(graph, context=context))
    context.caller.quota.admit()
    counted = [sample.value for family in metrics.batch_rows.collect() for sample in family.samples]
    assert not any(counted)
    assert await scheduler.close(30)


class FailingGraph(SumGraph):
    """Its device has failed."""

    def run(
        self, inputs: Mapping[str, Array], names: Sequence[str], *, all_threads: bool = False, device: int = 0
    ) -> dict[str, Array]:
        raise RuntimeError("CUDA failure 214: uncorrectable ECC error encountered ; GPU=0 ; hostname=here")
