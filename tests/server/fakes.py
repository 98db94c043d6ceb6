"""Graphs, requests and schedulers for tests that need no ONNX Runtime, and what several tests ask with."""

import asyncio
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import onnxruntime

from artifact.contract import Contract, read_contract
from artifact.dtypes import Array
from artifact.text import TextReader
from regard.v1 import types_pb2 as pb
from server.api.regard_v1.attention import read_attention, write_layers
from server.attention.plan import AttentionPlan
from server.attention.planning import AttentionLimits, plan_attention
from server.attention.positions import Positions
from server.attention.reduce import reduce_attention
from server.context import DEFAULT_PRIORITY, RpcContext
from server.engine.cost import CostModel
from server.engine.device import Device
from server.engine.device_ops import DeviceArray, measures_on
from server.repository.limits import Usage
from server.repository.loading import LoadedModel
from server.repository.settings import ModelSettings
from server.scheduling.admission import Admission
from server.scheduling.batch import BatchItem, BatchLimits, Result, Runner
from server.scheduling.scheduler import Scheduler
from server.telemetry.metrics import Metrics
from tests.golden import GOLDEN_MODELS

CONTRACT = read_contract(GOLDEN_MODELS / "tiny-text" / "1" / "contract.json")
BOUND = Device("CPU", ("CPUExecutionProvider",), "for the test", bound=True)
POISON = 99
_LIMITS = BatchLimits(rows=4, tokens=1024, attention_bytes=10**9)
_ROOM = AttentionLimits(10**9, 10**9)


class Clock:
    """Time that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class EchoGraph:
    """Gives back what it was sent: hidden states and attention that tell row and position."""

    can_use_all_threads = False

    def __init__(self, cost: CostModel | None = None) -> None:
        self.cost = self.all_threads_cost = cost or CostModel()
        self.token = object()

    def run(
        self, inputs: Mapping[str, Array], names: Sequence[str], *, all_threads: bool = False, device: int = 0
    ) -> dict[str, Array]:
        del all_threads
        ids = inputs["input_ids"].astype(np.float32)
        fetched: dict[str, Array] = {
            "last_hidden_state": np.repeat(ids[:, :, None], 3, axis=2),
            "embedding": ids[:, :1],
        }
        weights = ids[:, None, :, None] + 1000 * ids[:, None, None, :]
        fetched |= dict.fromkeys(("attention.0", "attention.1"), np.repeat(weights, 4, axis=1))
        fetched |= dict.fromkeys(("contributions.0", "contributions.1"), weights[:, 0])
        return {name: fetched[name] for name in names}


class SumGraph:
    """Computes a row's sum at once, or fails on poison."""

    can_use_all_threads = False

    def __init__(self, cost: CostModel | None = None) -> None:
        self.cost = self.all_threads_cost = cost or CostModel()
        self.token = object()
        self.batches: list[list[int]] = []

    def run(
        self, inputs: Mapping[str, Array], names: Sequence[str], *, all_threads: bool = False, device: int = 0
    ) -> dict[str, Array]:
        ids = inputs["input_ids"]
        if (ids == POISON).any():
            raise RuntimeError("poisoned")
        self.batches.append(ids[:, 0].tolist())
        return {"embedding": ids.sum(axis=1, keepdims=True).astype(np.float32)}


class GatedGraph(SumGraph):
    """The same, but waits for the gate first, and remembers whether it had all threads."""

    can_use_all_threads = True

    def __init__(self, cost: CostModel | None = None) -> None:
        super().__init__(cost)
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.had_all_threads: list[bool] = []

    def run(
        self, inputs: Mapping[str, Array], names: Sequence[str], *, all_threads: bool = False, device: int = 0
    ) -> dict[str, Array]:
        self.had_all_threads.append(all_threads)
        self.entered.set()
        assert self.gate.wait(timeout=30)
        return super().run(inputs, names, all_threads=all_threads)


class SteppedGraph(GatedGraph):
    """Opens its gate for one run at a time."""

    def run(
        self, inputs: Mapping[str, Array], names: Sequence[str], *, all_threads: bool = False, device: int = 0
    ) -> dict[str, Array]:
        """Run when the gate is open, and close it."""
        found = super().run(inputs, names, all_threads=all_threads)
        self.gate.clear()
        return found

    async def let_run(self) -> None:
        """Let the next run, which has begun or will, end."""
        assert await asyncio.to_thread(self.entered.wait, 30)
        self.entered.clear()
        self.gate.set()


def make_model(
    contract: Contract, reader: TextReader | None = None, *, engine: Any = None, usage: Usage | None = None
) -> LoadedModel:
    """A model that was not loaded."""
    return LoadedModel(contract, engine, reader, usage or Usage(ModelSettings()))


def make_item(
    graph: Runner,
    value: int = 1,
    *,
    length: int = 4,
    rows: int = 1,
    outputs: tuple[str, ...] = ("embedding",),
    attentions: tuple[str, ...] = (),
    deadline: float | None = None,
    priority: int = DEFAULT_PRIORITY,
    context: RpcContext | None = None,
) -> BatchItem:
    """A request of some rows of `length` tokens, all `value`."""
    ids = np.full((rows, length), value, dtype=np.int64)
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    context = context or RpcContext(deadline=deadline, priority=priority)
    return BatchItem(graph, CONTRACT, inputs, rows, length, outputs, attentions, context)


@asynccontextmanager
async def scheduling(
    *,
    requests: int = 6,
    input_bytes: int = 10**6,
    seconds: float = 10.0,
    instances: int = 1,
    metrics: Metrics | None = None,
) -> AsyncIterator[Scheduler]:
    """A scheduler for batches of four rows that runs."""
    scheduler = Scheduler(_LIMITS, Admission(requests, input_bytes, seconds), instances, metrics or Metrics())
    scheduler.start()
    yield scheduler
    await scheduler.close()


async def occupy(scheduler: Scheduler, graph: GatedGraph, context: RpcContext | None = None) -> "asyncio.Task[Result]":
    """Keep the engine busy with a request of value 1 until the gate opens."""
    task = asyncio.create_task(scheduler.submit(make_item(graph, 1, context=context)))
    assert await asyncio.to_thread(graph.entered.wait, 30)
    return task


async def queue(
    scheduler: Scheduler, graph: GatedGraph, *values: int, context: RpcContext | None = None
) -> list["asyncio.Task[Result]"]:
    """Submit requests and return once they wait."""
    tasks = [asyncio.create_task(scheduler.submit(make_item(graph, value, context=context))) for value in values]
    await asyncio.sleep(0)
    return tasks


def value_of(result: Result) -> float:
    """The sum that the engine gave for a request."""
    return float(result.outputs["embedding"][0, 0])


def on_device(arrays: Mapping[str, Array]) -> dict[str, DeviceArray]:
    """Put arrays on a device, which is the CPU."""
    make = onnxruntime.OrtValue.ortvalue_from_numpy
    return {name: DeviceArray(make(np.ascontiguousarray(one)), measures_on(BOUND)) for name, one in arrays.items()}


def plan_for(
    message: pb.AttentionRequest,
    contract: Contract,
    *,
    sizes: Mapping[str, int],
    positions: int,
    special: Sequence[int] | None = None,
    limits: AttentionLimits = _ROOM,
    layer_by_layer: bool = False,
) -> AttentionPlan:
    """Plan what a message asks for, for an input of one row."""
    what = Positions(1, sizes, positions, special)
    return plan_attention(read_attention(message), contract, what, limits, layer_by_layer=layer_by_layer)


def write_attention(plan: AttentionPlan, weights: Mapping[str, Any], *, batched: bool) -> list[pb.LayerAttention]:
    """Reduce weights as planned, and write them into messages."""
    return list(write_layers(plan, reduce_attention(plan, weights), batched=batched))
