"""Writes texts: reads the source by the encoder, lets the text be written with others, and hands on what comes.

request -> encoder, batched as every request -> rows of the model's steps -> tokens, as they are made -> the end
"""

import math
import time
import weakref
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import numpy as np

from artifact.contract import NUMBER_BYTES
from artifact.dtypes import Array
from artifact.generation import GenerationContract
from artifact.text import Tokens
from server.context import RpcContext, Timings
from server.errors import DeadlinePassed, InvalidInput, TooBusy, refusing_inputs
from server.generation.group import Group, tokens_of
from server.generation.plan import GenerationPlan
from server.generation.request import (
    GenerationEnd,
    GenerationEvent,
    GenerationRequest,
    GenerationStart,
    GenerationTimings,
    size_of,
)
from server.generation.validation import GenerationLimits, check_request, check_target_length, plan_request
from server.generation.writing import BeamWriting, StraightWriting, Writing
from server.inference import items
from server.inference.pipeline import Pipeline
from server.inference.request import Audio, InferenceRequest, InferenceResponse, Texts
from server.inference.sound import Sound
from server.inference.workers import DECODE_INLINE_BYTES
from server.relevance.tokens import TokenRelevanceRequest, TokenRelevances, least_tokens
from server.repository.loading import LoadedModel
from server.scheduling.scheduler import Scheduler
from server.telemetry.metrics import Metrics

_MAX_RETRY_SECONDS = 10.0
_TOKEN_BYTES = 512  # of one that was written, as an object, with its text


class Generator:
    """Writes texts for all models; lives in the event loop."""

    def __init__(
        self,
        pipeline: Pipeline,
        scheduler: Scheduler,
        limits: GenerationLimits,
        instances: int,
        max_rows: int,
        metrics: Metrics,
        devices: int = 1,
    ) -> None:
        """Begin without any.

        Args:
            pipeline: Encodes what is read.
            scheduler: Gives turns.
            limits: Of a request.
            instances: Of each device, if the model may have all: so many groups of its rows are written at a time.
            max_rows: Of a group.
            metrics: Where everything is counted.
            devices: How many there are.
        """
        self._devices = devices
        self._pipeline, self._scheduler, self._limits = pipeline, scheduler, limits
        self._instances, self._max_rows, self._metrics = instances, max(max_rows, limits.max_beams), metrics
        self._groups = weakref.WeakKeyDictionary[LoadedModel, list[Group]]()
        self._known: tuple[weakref.ref[Group], ...] = ()  # of all models; never changed, since scrapes read it
        metrics.generation_cache_bytes.set_function(
            lambda: float(sum(group.steps.cache_bytes for group in self._all()))
        )
        metrics.generation_rows.set_function(lambda: float(sum(group.steps.num_rows for group in self._all())))

    async def generate(
        self, request: GenerationRequest, context: RpcContext, *, streams: bool
    ) -> AsyncGenerator[GenerationEvent]:
        """Yield the start, each token as it is made where it `streams` and one beam is kept, then the end.

        Args:
            request: What is wanted.
            context: For whom, by when, before whom.
            streams: Whether tokens are wanted before the end.

        Raises:
            ServerError: As it is refused, or fails.
        """
        began_ns = time.perf_counter_ns()
        model = request.model
        with self._failing(model, context, began_ns):  # who has no room is told so before anything is encoded
            check_request(request, self._limits)
            plan = plan_request(request)
            target = await self._read_target(request, plan, context)
            group = self._group_for(model)
            self._check_wait(group, context)
            need_bytes = partial(self._need_bytes, group, plan, streams=streams)
            context.account.reserve(writing=need_bytes(plan.generation.source_positions or 1))
        response = await self._encode(request, context)  # which the pipeline counts where it fails
        with self._failing(model, context, began_ns):
            context.account.hold("input", len(request.audio or b""))  # which its caller's call still has
            encoded_ns = time.perf_counter_ns()
            read = response.prepared.source
            assert isinstance(read, (Tokens, Sound))  # noqa: S101 -- of a single text or sound
            source = read.length if isinstance(read, Sound) else read
            stages = response.timings
            if request.relevance is not None:  # who asks for too much, whatever is written, is told so before it is
                beginning = next(iter(plan.starts.values()))
                least = TokenRelevanceRequest(beginning, tuple(target), request.relevance)
                least = least if target else least_tokens(beginning, request.relevance)
                items.plan_request(_explaining(request, least), response.prepared, self._pipeline.attention)
            kept = await self._keep_source(plan.generation, response)
            writing = _make_writing(request, plan, kept, context, target=target, streams=streams, limits=self._limits)
            del response, read, kept  # which have the keys and values of the whole batch, and a spectrogram
            model.usage.enter()
            try:
                most_tokens = len(target) or plan.max_tokens
                writing.reserved_seconds = _reserve_steps(group, writing, most_tokens, stages, context)
                context.account.reserve(writing=need_bytes(writing.source_length))
                group.join(writing)
                yield GenerationStart(source)
                async for event in tokens_of(writing):
                    yield event
                timings, start = _timings(stages, writing, began_ns, encoded_ns), plan.name_start(writing.start)
                end = GenerationEnd(writing.results, timings, start)
                if request.relevance is None:
                    yield end
                    self._observe(model, writing, stages, end, context)
            finally:
                writing.cancel()
                model.usage.leave()
                context.caller.quota.charge(writing.release(), 0.0)  # it was charged for the steps that it had
                _hold_nothing(context)
        if request.relevance is None:
            return
        written_ns = time.perf_counter_ns()
        context.account.hold("writing", size_of(end))  # while it waits to be explained
        relevance = await self._explain(request, writing, request.relevance, context)
        with self._failing(model, context, began_ns):
            ended_ns = time.perf_counter_ns()
            told = replace(timings, total_ns=ended_ns - began_ns, explain_ns=ended_ns - written_ns)
            end = replace(end, timings=told, relevance=relevance)
            context.account.reserve(writing=size_of(end))
            context.account.answer()
            yield end
            self._observe(model, writing, stages, end, context)
            _hold_nothing(context)

    async def _explain(
        self, request: GenerationRequest, writing: Writing, chosen: tuple[int, ...], context: RpcContext
    ) -> TokenRelevances:
        """Say why tokens of the best result were written; the pipeline counts where that fails, as _encode."""
        written = tuple(one.token for one in writing.results[0].tokens)
        wanted = TokenRelevanceRequest(writing.start, written, chosen)
        async with self._pipeline.run(_explaining(request, wanted), context) as response:
            return await self._pipeline.workers.encode(response.token_relevance, response.result.size_bytes)

    async def _encode(self, request: GenerationRequest, context: RpcContext) -> InferenceResponse:
        """Compute the keys and values of the source."""
        generation = request.model.contract.generation
        assert generation is not None  # noqa: S101 -- checked
        names = tuple(generation.source_names)
        wanted = InferenceRequest(request.model, _source(request), names, is_first_part=True)
        async with self._pipeline.run(wanted, context) as response:
            return response

    @contextmanager
    def _failing(self, model: LoadedModel, context: RpcContext, began_ns: int) -> Iterator[None]:
        """Where a text fails, hold nothing for it, and count it."""
        try:
            yield
        except BaseException:
            _hold_nothing(context)
            self._metrics.observe_failure(model.name, model.version, time.perf_counter_ns() - began_ns)
            raise

    async def _read_target(
        self, request: GenerationRequest, plan: GenerationPlan, context: RpcContext
    ) -> Sequence[int]:
        """Read the text that is scored; a long one where long texts are read, in turns and at its client's cost."""
        read = partial(_read_target, request, plan)
        if len(request.target or "") <= DECODE_INLINE_BYTES:
            return read()
        (target,) = await self._pipeline.decoders.run([(read, 0)], context)
        return target

    async def _keep_source(self, generation: GenerationContract, response: InferenceResponse) -> list[Array]:
        """Copy the keys and values of the source, which are views of a batch; many in a thread."""
        copy = partial(_copy_source, generation, response)
        return await self._pipeline.workers.copy(copy, response.result.size_bytes)

    def _group_for(self, model: LoadedModel) -> "Group":
        """Return the group with the fewest rows, of as many as the model's settings let run now."""
        count = self._devices * min(self._instances, model.usage.settings.instances or self._instances)
        groups = self._groups.setdefault(model, [])
        if len(groups) < count:
            decoder = model.engine.decoder
            assert decoder is not None  # noqa: S101 -- checked
            more = [
                Group(model.contract, decoder, self._scheduler, self._max_rows, self._metrics)
                for _ in range(count - len(groups))
            ]
            groups += more
            self._known = (*map(weakref.ref, self._all()), *map(weakref.ref, more))
        return min(groups[:count], key=lambda group: group.steps.num_rows)

    def _check_wait(self, group: Group, context: RpcContext) -> None:
        """Refuse at once who would wait for rows longer than is offered, or wanted."""
        seconds, left = group.steps.wait_seconds(context.share), math.inf
        if context.deadline is not None:
            left = max(context.deadline - time.monotonic(), 0.0)
        if seconds > left:
            raise DeadlinePassed(f"the deadline is {left:.3f} s away and a place to be written takes {seconds:.3f} s")
        if seconds > self._scheduler.max_wait_seconds:
            what = f"a place to be written would take about {seconds:.1f} s (the server's --max-queue-seconds)"
            raise TooBusy(f"the queue is full: {what}; retry later", min(seconds, _MAX_RETRY_SECONDS), "seconds")

    def _need_bytes(self, group: Group, plan: GenerationPlan, source_length: int, *, streams: bool) -> int:
        """What a text may add to the caches, and its tokens, with all that is told of them, may come to.

        One answer is no larger than a message.
        """
        of_step = _attention_bytes(plan, source_length)
        attention_bytes = plan.max_tokens * of_step
        if not streams:
            attention_bytes = min(attention_bytes, self._limits.answer_bytes + of_step)
        told_bytes = plan.max_tokens * _TOKEN_BYTES * (plan.num_beams + plan.alternatives) + attention_bytes
        return group.steps.more_bytes(plan.num_beams, plan.max_length, source_length) + told_bytes

    def _all(self) -> list[Group]:
        """Return every group, but for those of models that were unloaded; may be called in any thread."""
        return [group for known in self._known if (group := known()) is not None]

    def _observe(
        self,
        model: LoadedModel,
        writing: Writing,
        stages: Timings,
        end: GenerationEnd,
        context: RpcContext,
    ) -> None:
        """Count a text; for the statistics, writing and explaining it is computing."""
        metrics, name, timings = self._metrics, model.name, end.timings
        metrics.generated_tokens.labels(name).inc(sum(len(result.tokens) for result in writing.results))
        metrics.first_token_seconds.labels(name).observe(timings.first_token_ns / 1e9)
        if writing.steps > 1:
            later_ns = timings.total_ns - timings.explain_ns - timings.first_token_ns
            metrics.token_seconds.labels(name).observe(later_ns / 1e9 / (writing.steps - 1))
        for result in writing.results:
            metrics.finished.labels(name, result.finish_reason).inc()
        stages.compute_ns = timings.total_ns - stages.decode_ns - stages.queue_ns
        context.timings = stages
        metrics.observe_answer(
            name,
            model.version,
            "decoder",
            rows=1,
            total_ns=timings.total_ns,
            timings=stages,
            further_bytes=writing.attention_bytes + (end.relevance.size_bytes if end.relevance else 0),
            cached=False,
        )


def _source(request: GenerationRequest) -> Texts | Audio:
    return Texts((request.text,), request.truncate) if request.audio is None else Audio(request.audio)


def _explaining(request: GenerationRequest, wanted: TokenRelevanceRequest) -> InferenceRequest:
    return InferenceRequest(request.model, _source(request), (), token_relevance=wanted, is_first_part=True)


def _hold_nothing(context: RpcContext) -> None:
    """Give back what was held for a text; whoever is refused may take long to read that."""
    context.account.hold("writing", 0)
    context.account.hold("input", 0)


def _timings(stages: Timings, writing: Writing, began_ns: int, encoded_ns: int) -> GenerationTimings:
    return GenerationTimings(
        stages.decode_ns,
        encoded_ns - began_ns - stages.decode_ns,
        writing.first_token_ns - began_ns,
        time.perf_counter_ns() - began_ns,
        writing.steps,
    )


def _copy_source(generation: GenerationContract, response: InferenceResponse) -> list[Array]:
    return [np.array(response.result.outputs[name]) for name in generation.source_names]


def _make_writing(
    request: GenerationRequest,
    plan: GenerationPlan,
    source: Sequence[Array],
    context: RpcContext,
    *,
    target: Sequence[int],
    streams: bool,
    limits: GenerationLimits,
) -> Writing:
    writer = request.model.writer
    assert writer is not None  # noqa: S101 -- checked
    writing: Writing
    if plan.num_beams > 1:
        writing = BeamWriting(plan, source, writer, context)
    else:
        writing = StraightWriting(
            plan, source, writer, context, target=target, streams=streams, max_told_bytes=limits.answer_bytes
        )
    writing.is_explained = request.relevance is not None
    return writing


def _read_target(request: GenerationRequest, plan: GenerationPlan) -> list[int]:
    """Return the tokens of the text that is scored, the end token behind them; none where none is.

    Raises:
        InvalidInput: They are too many, or none, or a part of it is no token.
    """
    if request.target is None:
        return []
    writer = request.model.writer
    assert writer is not None  # noqa: S101 -- checked
    with refusing_inputs("target"):
        tokens = writer.tokens(request.target)
    check_target_length(len(tokens) + 1 if tokens else 0, plan.max_tokens)
    if outside := [token for token in tokens if token >= plan.generation.vocab_size]:
        expected = f"tokens below {plan.generation.vocab_size}, which the model can write"
        raise InvalidInput("target", f"token {outside[0]}", expected)
    return [*tokens, plan.end_tokens[0]]


def _reserve_steps(group: Group, writing: Writing, max_tokens: int, stages: Timings, context: RpcContext) -> float:
    """Set aside what the steps of a text are expected to take of its client's quota; returns how much.

    Raises:
        TooBusy: It is used.
    """
    seconds = group.steps.expected_seconds(writing.num_rows, max_tokens)
    encoding_seconds = stages.compute_ns / 1e9 / max(stages.batch_size, 1)  # of this very request, about
    context.caller.quota.reserve(seconds, context.decoding_seconds + encoding_seconds)
    return seconds


def _attention_bytes(plan: GenerationPlan, source_length: int) -> int:
    """What is told of the attention of one step, at most."""
    told_bytes = 0
    for one in plan.attention:
        keys = source_length if one.kind == "cross" else plan.max_length
        told_bytes += keys * NUMBER_BYTES * (1 if one.head_reduction else len(one.heads))
    return told_bytes
