"""What a request is counted as on its way behind the protocol."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from artifact.images import ImageLimits
from artifact.text import Tokens
from server.attention.planning import AttentionLimits
from server.attention.request import AttentionRequest
from server.auth.clients import Client
from server.context import RpcContext, Timings
from server.errors import InvalidInput, NotPossible, PermissionDenied, TooBusy
from server.hidden_states.request import HiddenStatesRequest
from server.inference.attention_samples import AttentionSamples
from server.inference.decoding import Decoders
from server.inference.pipeline import Pipeline
from server.inference.preprocess import InputLimits
from server.inference.request import InferenceRequest, Tensors, Texts
from server.inference.response_cache import ResponseCache
from server.inference.workers import Workers
from server.ledger import Account, Ledger
from server.repository.limits import Usage
from server.repository.loading import LoadedModel
from server.repository.settings import ModelSettings
from server.telemetry.metrics import Metrics
from server.telemetry.tracing import Tracing
from tests.server.fakes import CONTRACT, EchoGraph, make_model, scheduling

MAX_NS = 60 * 10**9
IDS = np.full((2, 4), 3, dtype=np.int64)
TOKENS = Tokens(IDS[0], ["a"] * 4, [(0, 1)] * 4, [False] * 4, truncated=False)
INPUTS = Tensors({"input_ids": IDS, "attention_mask": np.ones_like(IDS)})


class Spans(Tracing):
    """Remembers what was told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[Any, Timings, Mapping[str, str | int]]] = []

    def stages(self, span: Any, timings: Timings, attributes: Mapping[str, str | int]) -> None:
        self.told.append((span, timings, attributes))


@pytest.fixture
async def pipeline() -> AsyncIterator[Pipeline]:
    """One whose graphs echo."""
    metrics = Metrics()
    async with scheduling(metrics=metrics) as scheduler:
        decoders = Decoders(2, 100, metrics)
        with ThreadPoolExecutor(1) as executor:
            workers, attention = Workers(executor), AttentionLimits(10**6, 10**6)
            yield Pipeline(
                workers,
                decoders,
                ResponseCache(scheduler.submit, scheduler.submit_all, 0, metrics),
                InputLimits(8, 100, ImageLimits(100), 100),
                attention,
                metrics,
                Spans(),
                AttentionSamples(scheduler.compute_spare, workers, attention, metrics),
            )
            decoders.close()


def echo(settings: ModelSettings | None = None) -> LoadedModel:
    """A model with all three graphs."""
    engine = SimpleNamespace(plain=EchoGraph(), tapped=EchoGraph(), contributing=EchoGraph())
    return make_model(CONTRACT, engine=engine, usage=Usage(settings or ModelSettings()))


def wanted(model: LoadedModel, attention: AttentionRequest | None = None) -> InferenceRequest:
    """A request for two rows of four tokens."""
    return InferenceRequest(model, INPUTS, ("embedding",), attention)


def sample(pipeline: Pipeline, name: str, **labels: str) -> float:
    """A figure of the metrics."""
    return pipeline.metrics.registry.get_sample_value(name, {"model": "tiny-text", **labels}) or 0.0


async def test_an_answer_is_told_with_its_stages(pipeline: Pipeline) -> None:
    """To the metrics, the trace and the log; without attention nothing of it is counted."""
    context = RpcContext(span=object())
    async with pipeline.run(wanted(echo()), context) as found:
        assert found.outputs["embedding"].shape == (2, 1)
        assert found.is_batched
        assert list(found.attention()) == []
        assert found.timings.encode_ns == 0
        assert context.timings is None
    assert context.timings is found.timings
    timings = found.timings
    for duration in (timings.decode_ns, timings.queue_ns, timings.compute_ns, timings.encode_ns):
        assert 0 < duration < MAX_NS
    assert timings.batch_size == 2
    for stage in ("decode", "queue", "compute", "encode"):
        assert sample(pipeline, "regard_stage_seconds_count", stage=stage, graph="plain") == 1
    assert sample(pipeline, "regard_attention_sent_bytes_total") == 0
    counts = pipeline.metrics.counts.of("tiny-text", "1")
    assert (counts.answered, counts.failed.count) == (1, 0)
    assert sum((timings.decode_ns, timings.queue_ns, timings.compute_ns)) < counts.total_ns < MAX_NS
    assert isinstance(pipeline.tracing, Spans)
    ((span, told, attributes),) = pipeline.tracing.told
    assert (span, told) == (context.span, timings)
    assert attributes == {"regard.model": "tiny-text", "regard.graph": "plain"}


async def test_a_stream_counts_its_own_time_of_encoding(pipeline: Pipeline) -> None:
    """Without what its caller takes to read."""
    async with pipeline.run(wanted(echo()), RpcContext()) as found:
        found.timings.encode_ns = 7
    assert found.timings.encode_ns == 7


@pytest.mark.parametrize(
    ("measure", "graph", "weights"),
    [("weights", "tapped", 2 * 2 * 4 * 4 * 4), ("contribution", "contributions", 2 * 2 * 4 * 4)],
)
async def test_attention_comes_from_the_graph_that_gives_it(
    pipeline: Pipeline, measure: Any, graph: str, weights: int
) -> None:
    """And its bytes are counted: two layers of 4 x 4 float32 for two rows, of four heads or of their sum."""
    engine = SimpleNamespace(plain=EchoGraph(), tapped=EchoGraph(), contributing=EchoGraph())
    used = engine.contributing if measure == "contribution" else engine.tapped
    fetched, run = list[str](), used.run

    def keep(inputs: Any, names: Any, **how: Any) -> Any:
        fetched.extend(names)
        return run(inputs, names, **how)

    used.run = keep
    model = make_model(CONTRACT, engine=engine)
    async with pipeline.run(wanted(model, AttentionRequest(measure=measure)), RpcContext()) as found:
        assert found.plan is not None
        assert [one.layer.layer for one in found.attention()] == [0, 1]
    assert sample(pipeline, "regard_attention_sent_bytes_total") == found.plan.answer_bytes(2) == weights * 4
    assert sample(pipeline, "regard_stage_seconds_count", stage="encode", graph=graph) == 1
    assert set(found.plan.outputs) < set(fetched)


async def test_what_fails_is_counted_as_failed(pipeline: Pipeline) -> None:
    """Whoever may not see attention or hidden states, what the model has not, and an answer that cannot be written."""
    model, blind = echo(), Client("blind", allow=("infer",))
    without = make_model(CONTRACT.model_copy(update={"attention": (), "hidden_states": ()}))
    with pytest.raises(PermissionDenied, match="attention: blind may not"):
        async with pipeline.run(wanted(model, AttentionRequest()), RpcContext(caller=blind)):
            raise AssertionError
    with pytest.raises(NotPossible, match="exported without attention"):
        async with pipeline.run(wanted(without, AttentionRequest()), RpcContext()):
            raise AssertionError
    states = InferenceRequest(model, INPUTS, (), hidden_states=HiddenStatesRequest())
    with pytest.raises(PermissionDenied, match="hidden_states: blind may not; expected a client with 'attention'"):
        async with pipeline.run(states, RpcContext(caller=blind)):
            raise AssertionError
    with pytest.raises(NotPossible, match="exported without hidden states"):
        async with pipeline.run(replace(states, model=without), RpcContext()):
            raise AssertionError
    with pytest.raises(asyncio.CancelledError):
        async with pipeline.run(wanted(model), RpcContext(caller=blind)):
            raise asyncio.CancelledError
    counts = pipeline.metrics.counts.of("tiny-text", "1")
    assert (counts.answered, counts.failed.count) == (0, 5)
    assert 0 < counts.failed.ns < MAX_NS
    assert isinstance(pipeline.tracing, Spans)
    assert pipeline.tracing.told == []


async def test_long_texts_are_read_in_pieces_in_turn(pipeline: Pipeline) -> None:
    """As images are, between which others have their turn; what is short goes straight through."""
    pieces, run = list[int](), pipeline.decoders.run

    async def count(jobs: Sequence[Any], context: RpcContext) -> Any:
        pieces.append(len(jobs))
        return await run(jobs, context)

    reader: Any = SimpleNamespace(read=lambda text, second, **how: TOKENS)
    model = replace(echo(), reader=reader)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline.decoders, "run", count)
        for texts in (["a" * 40_000] * 8, ["a" * 8000] * 8, ["a" * 200_000] * 2, ["a"] * 8):
            asked = InferenceRequest(model, Texts(tuple(texts), truncate=True), ("embedding",), None)
            async with pipeline.run(asked, RpcContext()) as found:
                assert found.prepared.rows == len(texts)
    assert pieces == [8, 1, 2]


async def test_what_fails_is_in_the_server_no_more(pipeline: Pipeline) -> None:
    """Else its model would be full some day, and never idle: whatever fails, wherever."""
    model = echo(ModelSettings(max_requests=1))
    blind = Client("blind", allow=("infer",))
    for _ in range(2):
        with pytest.raises(PermissionDenied):
            async with pipeline.run(wanted(model, AttentionRequest()), RpcContext(caller=blind)):
                raise AssertionError
        with pytest.raises(asyncio.CancelledError):
            async with pipeline.run(wanted(model), RpcContext()):
                raise asyncio.CancelledError
        computing = asyncio.create_task(pipeline.run(wanted(model), RpcContext()).__aenter__())
        await asyncio.sleep(0)
        assert model.usage.requests == 1
        computing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await computing
        assert model.usage.requests == 0


async def test_what_fails_holds_nothing(pipeline: Pipeline) -> None:
    """Its caller may take long to read why."""
    ledger = Ledger(10**6)
    context = RpcContext(account=Account(ledger))
    context.account.hold("request", 7)
    with pytest.raises(asyncio.CancelledError):
        async with pipeline.run(wanted(echo(), AttentionRequest()), context):
            assert ledger.held_bytes > 7 + 4 * 4 * 4
            context.account.hold("answer", 1000)
            raise asyncio.CancelledError
    assert ledger.held_bytes == 7


async def test_a_model_is_in_use_until_its_answer_is_written(pipeline: Pipeline) -> None:
    """Its own limit holds for what is being written, too; its inputs are held until they are computed."""
    model = echo(ModelSettings(max_requests=1, max_input_bytes=1))
    async with pipeline.run(wanted(model), RpcContext()):
        with pytest.raises(TooBusy, match="the model is full: 1 requests"):
            async with pipeline.run(wanted(model), RpcContext()):
                raise AssertionError
    async with pipeline.run(wanted(model), RpcContext()):
        pass
    model.usage.hold(1)
    with pytest.raises(TooBusy, match="bytes of inputs"):
        async with pipeline.run(wanted(model), RpcContext()):
            raise AssertionError


async def test_whether_layers_are_sent_together_decides_how_large_they_may_be(pipeline: Pipeline) -> None:
    """Two layers of 512 bytes: refused in one message, unless it was said that each has its own."""
    small = replace(pipeline, attention=AttentionLimits(1000, 10**6))
    with pytest.raises(InvalidInput, match="an answer of 1024 bytes"):
        async with small.run(wanted(echo(), AttentionRequest()), RpcContext()):
            raise AssertionError
    request = InferenceRequest(echo(), INPUTS, (), AttentionRequest(), layer_by_layer=True)
    async with small.run(request, RpcContext()) as found:
        assert len(list(found.attention())) == 2


async def test_outputs_that_no_message_may_hold_are_refused_before_they_are_computed(pipeline: Pipeline) -> None:
    """Two rows of four times 32 numbers and of 32 take 1280 bytes; what goes to shared memory is in no message."""
    request = InferenceRequest(echo(), INPUTS, ("last_hidden_state", "embedding"))
    small = replace(pipeline, attention=AttentionLimits(1279, 10**6))
    with pytest.raises(InvalidInput, match=r"outputs: an answer of 1280 bytes; .*fewer outputs or rows"):
        async with small.run(request, RpcContext()):
            raise AssertionError
    assert pipeline.metrics.submitted.value == 0.0
    async with replace(pipeline, attention=AttentionLimits(1280, 10**6)).run(request, RpcContext()) as found:
        assert found.outputs.keys() == set(request.outputs)
    exact = replace(pipeline, attention=AttentionLimits(256, 10**6))
    there = replace(request, unsent=frozenset(["last_hidden_state"]))
    async with exact.run(there, RpcContext()) as found:
        assert found.outputs.keys() == set(request.outputs)
