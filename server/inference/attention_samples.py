"""Attention of some of the inputs that come, as metrics: computed behind everything that anybody waits for.

Of an input a few numbers a layer are kept, and nothing else of it once they are made.
"""

import asyncio
import math
import random
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from artifact.contract import BATCH_AXIS, SEQUENCE_AXIS, Contract, PatchContract
from artifact.dtypes import Array
from server.attention.plan import AttentionPlan
from server.attention.planning import AttentionLimits, plan_attention
from server.attention.positions import Positions
from server.attention.reduce import Reduced, reduce_attention
from server.attention.request import AttentionRequest, Statistic
from server.attention.statistics_planning import those_of
from server.auth.clients import Client
from server.context import LAST_PRIORITY, RpcContext
from server.errors import ServerError
from server.inference.request import InferenceRequest, InferenceResponse, ManyResponses, PreparedInput
from server.inference.workers import Workers
from server.repository.loading import LoadedModel
from server.scheduling.batch import Result, SpareItem
from server.telemetry.metrics import Metrics

_WANTED: tuple[Statistic, ...] = ("entropy", "sink", "distance")
_MAX_WAITING = 8
_MAX_WAITING_BYTES = 64 * 2**20
_MAX_WAIT_SECONDS = 30.0  # until when an engine without a free moment is waited for; a model is kept as long
_SAMPLER = Client("attention samples", allow=())


class AttentionSamples:
    """Chooses inputs and counts their attention; lives in the event loop."""

    def __init__(
        self,
        compute: Callable[[SpareItem], Awaitable[Result]],
        workers: Workers,
        limits: AttentionLimits,
        metrics: Metrics,
        *,
        chance: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make what samples of models whose settings say so.

        Args:
            compute: Scheduler.compute_spare.
            workers: Where weights are reduced, a layer at a time.
            limits: Most of the attention that may be computed of an input.
            metrics: Where it is counted.
            chance: Gives a number from 0 to below 1 for each input: it is chosen where that is below its model's share.
            clock: In seconds.
        """
        self._compute, self._workers, self._limits, self._metrics = compute, workers, limits, metrics
        self._chance, self._clock = chance, clock
        self._next_seconds = dict[str, float]()  # by model, when the next may be taken
        self._waiting = dict[asyncio.Task[None], int]()  # bytes of each
        self._max_wait_seconds = _MAX_WAIT_SECONDS

    def choose(self, request: InferenceRequest, context: RpcContext, rows: int) -> Sequence[int]:
        """Say which rows of a request are sampled, by chance; none where model, caller or request do not let them."""
        share = request.model.usage.settings.sample_attention
        if not share or not context.caller.may_be_sampled or request.further_field:
            return ()
        return [row for row in range(rows) if self._chance() < share] if request.model.contract.attention else ()

    def take(self, request: InferenceRequest, response: InferenceResponse | ManyResponses, context: RpcContext) -> None:
        """Sample of a request that was answered; of one with many inputs what was chosen while they were there."""
        if isinstance(response, ManyResponses):
            for prepared in response.sampled:
                self._take(response.model, prepared, 0)
            return
        for row in self.choose(request, context, response.rows):
            self._take(response.model, response.prepared, row)

    def _take(self, model: LoadedModel, prepared: PreparedInput, row: int) -> None:
        now = self._clock()
        if now < self._next_seconds.get(model.name, -math.inf):
            self._drop(model, "rate")
            return
        if len(self._waiting) >= _MAX_WAITING:
            self._drop(model, "busy")
            return
        alone = _one_row(model.contract, prepared, row)
        size_bytes = sum(array.nbytes for array in alone.inputs.values()) if alone else 0
        if alone is None or sum(self._waiting.values()) + size_bytes > _MAX_WAITING_BYTES:
            self._drop(model, "busy" if alone else "refused")
            return
        self._next_seconds[model.name] = now + 1 / model.usage.settings.max_samples_per_second
        task = asyncio.create_task(self._sample(model, alone))
        self._waiting[task] = size_bytes
        task.add_done_callback(self._waiting.pop)

    async def _sample(self, model: LoadedModel, prepared: PreparedInput) -> None:
        try:
            plans = _plan(model.contract, prepared, self._limits)
            item = _make_item(model, prepared, [name for plan in plans for name in plan.outputs])
        except ServerError:
            self._drop(model, "refused")
            return
        try:
            async with asyncio.timeout(self._max_wait_seconds):
                result = await self._compute(item)
            for plan in plans:
                await self._count(model, plan, result)
        except TimeoutError:
            self._drop(model, "busy")
        except ServerError:
            self._drop(model, "failed")
        else:
            self._metrics.attention_samples.of[model.name,].value += 1

    async def _count(self, model: LoadedModel, plan: AttentionPlan, result: Result) -> None:
        left = dict(result.further)
        keys = [left[layer.output].shape[-1] for layer in plan.layers]
        layers = reduce_attention(plan, left, lambda name: left.pop(name, None))
        for index, count in zip(plan.indices, keys, strict=True):
            reduced = await self._workers.run(partial(next, layers))
            self._observe(model, plan, index, reduced, count)

    def _observe(self, model: LoadedModel, plan: AttentionPlan, index: int, reduced: Reduced, keys: int) -> None:
        places = plan.places
        assert places is not None  # noqa: S101 -- as there are statistics
        largest = {"entropy": math.log(keys), "sink": 1.0, "distance": _longest(places.count, places.patches)}
        labels = model.name, _input_of(model.contract), str(index)
        for statistic, value in zip(plan.statistics, reduced.values[0].tolist(), strict=True):
            if largest[statistic] and math.isfinite(value):
                self._metrics.attention_statistics[statistic].of[labels].observe(value / largest[statistic])

    def _drop(self, model: LoadedModel, reason: str) -> None:
        self._metrics.attention_samples_dropped.of[model.name, reason].value += 1


def _one_row(contract: Contract, prepared: PreparedInput, row: int) -> PreparedInput | None:
    """Copy a row, its padding left out; None where its size is fixed and holds some."""
    inputs, kept = dict[str, Array](), None
    specs = [spec for spec in contract.inputs if spec.name in prepared.inputs]
    for spec in specs:
        array = prepared.inputs[spec.name]
        inputs[spec.name] = array[row : row + 1].copy() if spec.axes[:1] == (BATCH_AXIS,) else array.copy()
        if spec.mask and not inputs[spec.name].all():
            if spec.axes != (BATCH_AXIS, SEQUENCE_AXIS):
                return None
            kept = np.flatnonzero(inputs[spec.name][0])
    if kept is None:
        return replace(prepared, inputs=inputs, rows=1, source=None, axis_sizes=None)
    for spec in specs:
        if SEQUENCE_AXIS in spec.axes:
            inputs[spec.name] = inputs[spec.name].take(kept, axis=spec.axes.index(SEQUENCE_AXIS))
    return replace(prepared, inputs=inputs, rows=1, length=len(kept), source=None, axis_sizes=None)


def _plan(contract: Contract, prepared: PreparedInput, limits: AttentionLimits) -> list[AttentionPlan]:
    """Plan what each layer has of the statistics; layers that have the same together.

    Raises:
        ServerError: As plan_attention.
    """
    sizes, count = contract.axis_sizes(prepared.inputs), prepared.length
    groups = defaultdict[tuple[Statistic, ...], list[int]](list)
    for index, layer in enumerate(contract.attention):
        groups[those_of(_WANTED, layer, layer.shape(sizes, count), count)].append(index)
    groups.pop((), None)
    positions = Positions(1, sizes, count)
    requests = [AttentionRequest(tuple(found), head_reduction="mean", statistics=one) for one, found in groups.items()]
    return [plan_attention(request, contract, positions, limits, layer_by_layer=False) for request in requests]


def _make_item(model: LoadedModel, prepared: PreparedInput, outputs: Sequence[str]) -> SpareItem:
    graph, context = model.engine.tapped or model.engine.plain, RpcContext(caller=_SAMPLER, priority=LAST_PRIORITY)
    return SpareItem(graph, model.contract, prepared.inputs, 1, prepared.length, (), tuple(outputs), context)


def _longest(count: int, patches: PatchContract | None) -> float:
    """The longest distance between positions: in pixels of the network's input for patches, else in positions."""
    if patches is None:
        return count - 1
    return math.hypot(patches.rows - 1, patches.cols - 1) * patches.patch_size


def _input_of(contract: Contract) -> str:
    """What a model's layers are of; of two towers with one name each has its own."""
    return "text" if contract.text else "image" if contract.image else "other"
