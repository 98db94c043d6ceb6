"""The way of several texts or images of one request: an answer or an error each, together in the engine's runs."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from artifact.images import Pixels
from server.attention.planning import AttentionLimits
from server.context import RpcContext, Timings
from server.errors import InvalidInput, ServerError
from server.inference.attention_samples import AttentionSamples
from server.inference.decoding import Decoders
from server.inference.items import join_rows, make_item, plan_request, rows_of, settle
from server.inference.many_bounds import Ready, check_together, reserve_together
from server.inference.many_reading import Read, count_inputs, prepare_one, read_each
from server.inference.preprocess import InputLimits
from server.inference.request import InferenceRequest, InferenceResponse, ManyResponses, PreparedInput
from server.inference.response_cache import ResponseCache
from server.inference.workers import Workers
from server.scheduling.batch import BatchItem, Result
from server.scheduling.grouping import Each

Outcomes = dict[int, InferenceResponse | ServerError]
_NO_PIXELS = np.empty((0, 0, 0), dtype=np.float32)


@dataclass(frozen=True)
class ManyInputs:
    """Computes requests of many inputs.

    Attributes:
        workers: For planning.
        decoders: For reading.
        cache: Stands before the scheduler.
        inputs: Most of what a request may bring.
        attention: Most of the attention, or the hidden states, that may be computed and sent, of all inputs together.
        samples: Of attention, from inputs that did not ask for it.
    """

    workers: Workers
    decoders: Decoders
    cache: ResponseCache
    inputs: InputLimits
    attention: AttentionLimits
    samples: AttentionSamples

    async def compute(self, request: InferenceRequest, context: RpcContext, started_ns: int) -> ManyResponses:
        """Compute a request of texts or images.

        Args:
            request: What is wanted.
            context: For whom, by when, before whom.
            started_ns: When it came, on time.perf_counter_ns().

        Raises:
            ServerError: What concerns all of it; what concerns one input is in its place.
        """
        count = count_inputs(request)
        context.caller.quota.count(count - 1)  # the first was counted when it was admitted
        found = ManyResponses(request.model, [], Timings())
        outcomes, computing_ns = Outcomes(), 0
        async for rows in read_each(request, self.inputs, self.decoders, context):
            prepared = await self.workers.run(partial(_prepare, request, rows, self.attention, context))
            ready = {number: one for number, one in prepared.items() if isinstance(one, Ready)}
            outcomes |= {number: one for number, one in prepared.items() if isinstance(one, ServerError)}
            del rows, prepared  # they hold images, and so will the next
            began_ns = time.perf_counter_ns()
            if ready:
                check_together(request, list(ready.values()), count, self.attention)
                reserve_together(request, list(ready.values()), count, context.account)
                outcomes |= await self._compute(request, ready, count - len(outcomes) - len(ready), found)
                computed = [one.prepared for number, one in ready.items() if _is_answered(outcomes[number])]
                found.sampled += [computed[place] for place in self.samples.choose(request, context, len(computed))]
            computing_ns += time.perf_counter_ns() - began_ns
        found.each = [outcomes[number] for number in range(count)]
        found.timings.decode_ns = time.perf_counter_ns() - started_ns - computing_ns
        context.account.hold("input", 0)
        return found

    async def _compute(
        self, request: InferenceRequest, ready: Mapping[int, Ready], later: int, found: ManyResponses
    ) -> Outcomes:
        """Compute what is ready, so many being read later; how long the longest took goes into the timings of all."""
        goes_on = found.timings.batch_size > 0  # some were computed, and with them all were admitted
        outcomes, left = Outcomes(), dict(ready)
        while left:
            found.graph = next(iter(left.values())).item.graph_kind
            computed = await self._run(request, [one.item for one in left.values()], later, goes_on=goes_on)
            further = dict[int, Ready]()
            for (number, one), result in zip(left.items(), computed, strict=True):
                if not isinstance(result, Result):
                    outcomes[number] = result
                    continue
                _observe(result, found.timings)
                if plan := settle(one.plan, result):
                    further[number] = replace(
                        one, plan=plan, item=make_item(request, one.prepared, plan, one.item.context)
                    )
                    continue
                source = _source(one.prepared)
                outcomes[number] = InferenceResponse(request.model, source, one.plan, result, Timings())
            left = further
        return outcomes

    async def _run(
        self, request: InferenceRequest, items: Sequence[BatchItem], later: int, *, goes_on: bool
    ) -> list[Each]:
        """Compute inputs, of which each may be several rows, so many inputs being read later."""
        rows = [rows_of(item) for item in items]
        usage, held_bytes = request.model.usage, sum(item.held_bytes for item in items)
        usage.hold(held_bytes)
        try:
            flat = [row for own in rows for row in own]
            later_rows = later * max(map(len, rows))
            computed = iter(await self.cache.compute_all(flat, later_rows, goes_on=goes_on))
        finally:
            usage.release(held_bytes)
        return [join_rows([next(computed) for _ in own]) for own in rows]


def _prepare(
    request: InferenceRequest, rows: Mapping[int, Read], limits: AttentionLimits, context: RpcContext
) -> dict[int, Ready | ServerError]:
    """Make the item of each input, its attention or hidden states planned.

    Raises:
        ServerError: None of them can have what was asked for.
    """
    outcomes, errors = dict[int, Ready | ServerError](), list[ServerError]()
    for number, row in rows.items():
        if isinstance(row, InvalidInput):
            outcomes[number] = row
            continue
        prepared = prepare_one(request.model, row)
        try:
            plan = plan_request(request, prepared, limits)
            outcomes[number] = Ready(prepared, plan, make_item(request, prepared, plan, context))
        except ServerError as error:
            outcomes[number] = error
            errors.append(error)
    if errors and not any(isinstance(outcome, Ready) for outcome in outcomes.values()):
        raise errors[0]
    return outcomes


def _is_answered(outcome: InferenceResponse | ServerError) -> bool:
    return isinstance(outcome, InferenceResponse)


def _observe(result: Result, timings: Timings) -> None:
    timings.queue_ns = max(timings.queue_ns, result.queue_ns)
    timings.compute_ns = max(timings.compute_ns, result.compute_ns)
    timings.batch_size = max(timings.batch_size, result.batch_size)


def _source(prepared: PreparedInput) -> PreparedInput:
    """Keep of an input that was computed what its answer tells: all but its numbers."""
    source = prepared.source
    if isinstance(source, Pixels):
        source = replace(source, values=_NO_PIXELS)
    return replace(prepared, inputs={}, source=source)
