"""What a request of many inputs is charged, may hold, and leaves behind."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast, get_args

import numpy as np
import pytest

from artifact.contract import RelevanceMethod, read_contract
from artifact.errors import InputError
from artifact.images import ImageLimits, Pixels
from artifact.text import Tokens
from server.attention.planning import AttentionLimits
from server.attention.request import AttentionRequest
from server.auth.clients import Client
from server.auth.quota import Quota
from server.config import EMBEDDED_MODELS
from server.context import RpcContext
from server.errors import InvalidInput, PermissionDenied, TooBusy
from server.inference.attention_samples import AttentionSamples
from server.inference.decoding import Decoders
from server.inference.many_bounds import Ready, images_bytes, reserve_together, texts_bytes
from server.inference.pipeline import Pipeline
from server.inference.preprocess import InputLimits
from server.inference.request import Images, InferenceRequest, InferenceResponse, PreparedInput, Texts
from server.inference.response_cache import ResponseCache
from server.inference.vectors import VectorFormat, VectorRequest
from server.inference.workers import Workers
from server.ledger import Account, Ledger
from server.relevance.request import RelevanceRequest
from server.repository.loading import LoadedModel
from server.repository.settings import ModelSettings
from server.scheduling.batch import BatchItem, Result
from server.telemetry.metrics import Metrics
from server.telemetry.tracing import Tracing
from tests.server.fakes import CONTRACT, Clock, EchoGraph, make_model, scheduling
from tests.server.inference.test_image_rows import picture

FASHION = read_contract(EMBEDDED_MODELS / "fashion" / "1" / "contract.json")
TEXTS = ("a", "a b c", "a b")


def read(text: str, second: str | None = None, *, positions: bool, **_: Any) -> Tokens:
    """A token a word, that says where it came from if it is asked."""
    words = text.split()
    count = len(words) if positions else 0
    ids = np.arange(1, len(words) + 1, dtype=np.int64)
    return Tokens(ids, words[:count], [(0, 1)] * count, [False] * count, truncated=False)


def echo(**parts: Any) -> LoadedModel:
    """A model of texts whose graphs echo."""
    engine = SimpleNamespace(plain=EchoGraph(), tapped=EchoGraph(), contributing=EchoGraph())
    return replace(make_model(CONTRACT, engine=engine), **({"reader": SimpleNamespace(read=read)} | parts))


def wanted(*texts: str, attention: AttentionRequest | None = None) -> InferenceRequest:
    """A request for the vector of each text."""
    return InferenceRequest(echo(), Texts(texts, truncate=False), ("embedding",), attention)


@pytest.fixture
async def pipeline() -> AsyncIterator[Pipeline]:
    """One whose batches have four rows."""
    metrics = Metrics()
    async with scheduling(metrics=metrics) as scheduler:
        decoders = Decoders(2, 10**6, metrics)
        with ThreadPoolExecutor(1) as executor:
            cache = ResponseCache(scheduler.submit, scheduler.submit_all, 0, metrics)
            inputs, attention = InputLimits(4, 100, ImageLimits(), 10**6), AttentionLimits(10**6, 10**6)
            workers = Workers(executor)
            samples = AttentionSamples(scheduler.compute_spare, workers, attention, metrics, chance=lambda: 0.0)
            yield Pipeline(workers, decoders, cache, inputs, attention, metrics, Tracing(), samples)
            decoders.close()


async def test_a_quota_counts_every_input(pipeline: Pipeline) -> None:
    """As requests, and their time."""
    quota = Quota("alice", requests_per_second=2, clock=Clock())
    quota.admit()
    async with pipeline.run_each(wanted(*TEXTS), RpcContext(caller=Client("alice", quota=quota))) as found:
        assert found.rows == 3
    with pytest.raises(TooBusy) as refused:
        quota.admit()
    assert refused.value.retry_seconds == pytest.approx(1.0)


@pytest.mark.parametrize(("method", "rows"), [("libra", [3, 6]), ("integrated-gradients", [3, 30])])
async def test_what_is_known_only_after_a_first_run_is_admitted_as_such(
    pipeline: Pipeline, method: RelevanceMethod, rows: list[int]
) -> None:
    """The most probable labels: their rows are many more than those of the logits that tell which they are."""
    asked_for = list[tuple[int, int, bool]]()

    class Telling:
        is_on = False

        async def compute_all(self, items: Sequence[BatchItem], later_rows: int, *, goes_on: bool) -> list[Result]:
            asked_for.append((len(items), later_rows, goes_on))
            names = [*items[0].outputs, *items[0].further]
            return [Result({name: np.zeros((1, 2), dtype=np.float32) for name in names}, {}) for _ in items]

    engine = SimpleNamespace(plain=EchoGraph(), explaining={"libra": EchoGraph(), "gradient": EchoGraph()})
    assert CONTRACT.relevance
    gradient = CONTRACT.relevance.model_copy(update={"graph": "gradient", "rest": None, "scale": "relevance.scale"})
    model = echo(contract=CONTRACT.model_copy(update={"other_relevance": (gradient,)}), engine=engine)
    steps = 3 if method == "integrated-gradients" else 0
    relevance = RelevanceRequest(top=2, method=method, steps=steps)
    asked = InferenceRequest(model, Texts(TEXTS, truncate=False), ("logits",), relevance=relevance)
    async with replace(pipeline, cache=cast("ResponseCache", Telling())).run_each(asked, RpcContext()) as found:
        assert found.rows == 3
    assert asked_for == [(rows[0], 0, False), (rows[1], 0, False)]


async def test_rows_that_images_become_count_before_they_are_read(pipeline: Pipeline) -> None:
    """Four of nine are read; each of the five that come later is two rows."""
    later = list[int]()

    class Telling:
        is_on = False

        async def compute_all(self, items: Sequence[BatchItem], later_rows: int, *, goes_on: bool) -> list[Result]:
            later.append(later_rows)
            return [Result({"logits": np.zeros((1, 10), dtype=np.float32)}, {}) for _ in items]

    engine = SimpleNamespace(plain=EchoGraph(), explaining={"libra": EchoGraph()})
    model = echo(contract=FASHION, engine=engine, reader=None)
    images = Images(tuple(picture(grey) for grey in range(9)))
    asked = InferenceRequest(model, images, ("logits",), relevance=RelevanceRequest(labels=FASHION.labels[:2]))
    async with replace(pipeline, cache=cast("ResponseCache", Telling())).run_each(asked, RpcContext()):
        assert later == [10, 2, 0]


async def test_attention_needs_its_permission(pipeline: Pipeline) -> None:
    """As with a single input."""
    blind = RpcContext(caller=Client("blind", allow=("infer",)))
    with pytest.raises(PermissionDenied, match="attention: blind may not"):
        async with pipeline.run_each(wanted(*TEXTS, attention=AttentionRequest()), blind):
            raise AssertionError


@pytest.mark.parametrize("attention", [None, AttentionRequest()])
async def test_what_is_held_is_counted_and_given_back(pipeline: Pipeline, attention: AttentionRequest | None) -> None:
    """Results until they are written; inputs no longer than they are needed."""
    ledger = Ledger(10**6)
    context = RpcContext(account=Account(ledger))
    async with pipeline.run_each(wanted(*TEXTS, attention=attention), context) as found:
        results = [one.result.size_bytes for one in found.each if isinstance(one, InferenceResponse)]
        assert ledger.held_bytes >= sum(results) > 0
        assert all(not one.prepared.inputs for one in found.each if isinstance(one, InferenceResponse))
    context.account.hold("answer", 0)
    assert ledger.held_bytes == 0
    with pytest.raises(asyncio.CancelledError):
        async with pipeline.run_each(wanted(*TEXTS, attention=attention), context):
            raise asyncio.CancelledError
    assert ledger.held_bytes == 0


async def test_inputs_for_which_there_is_no_room_are_refused_before_they_are_read(pipeline: Pipeline) -> None:
    """Beside what others hold."""
    ledger = Ledger(10**4)
    Account(ledger).hold("request", 9000)
    context = RpcContext(account=Account(ledger))
    with pytest.raises(TooBusy, match="--max-held-bytes"):
        async with pipeline.run_each(wanted(*["a" * 99] * 99), context):
            raise AssertionError
    assert ledger.held_bytes == 9000


async def test_attention_of_all_inputs_has_the_bounds_of_one_answer(pipeline: Pipeline) -> None:
    """What is sent of it, and what is computed, though each alone is small."""
    asked = wanted(*["a b c d"] * 9, attention=AttentionRequest())
    one = 2 * 4 * 4 * 4 * 4  # two layers, four heads, four positions
    for limits, what in (
        (AttentionLimits(9 * one, 10**6), "an answer of"),
        (AttentionLimits(10**6, 9 * one - 1), "to"),
    ):
        narrow = replace(pipeline, attention=limits)
        with pytest.raises(InvalidInput, match=rf"{what} .*for 9 inputs"):
            async with narrow.run_each(asked, RpcContext()):
                raise AssertionError
    enough = replace(pipeline, attention=AttentionLimits(10**6, 9 * one))
    async with enough.run_each(asked, RpcContext()) as found:
        assert found.rows == 9
        assert found.further_bytes == 9 * one


async def test_results_for_which_there_is_no_room_are_refused_before_they_are_computed(pipeline: Pipeline) -> None:
    """Beside what others hold; there is room for the texts, but not for what becomes of them."""
    asked = wanted(*["a b c d"] * 9, attention=AttentionRequest())
    assert isinstance(asked.inputs, Texts)
    ledger = Ledger(texts_bytes(asked.model, asked.inputs, "", positions=True) + 1000)
    Account(ledger).hold("request", 500)
    with pytest.raises(TooBusy, match="--max-held-bytes"):
        async with pipeline.run_each(asked, RpcContext(account=Account(ledger))):
            raise AssertionError
    assert pipeline.metrics.submitted.value == 0.0


async def test_attention_of_images_that_are_read_later_counts_too(pipeline: Pipeline) -> None:
    """Four are read at a time: nine are refused before the first is computed."""
    assert FASHION.patches
    one = sum(layer.num_heads for layer in FASHION.attention) * FASHION.patches.positions**2 * 4
    model = echo(contract=FASHION, reader=None)
    images = Images(tuple(picture(grey) for grey in range(9)))
    asked = InferenceRequest(model, images, ("embedding",), AttentionRequest(cls_only=True))
    narrow = replace(pipeline, attention=AttentionLimits(10**8, 9 * one - 1))
    with pytest.raises(InvalidInput, match=f"{9 * one} bytes to compute for 9 inputs"):
        async with narrow.run_each(asked, RpcContext()):
            raise AssertionError


async def test_of_many_images_no_more_are_held_than_a_batch_has_rows(pipeline: Pipeline) -> None:
    """Four at a time are decoded and computed; of each is kept what its answer tells."""
    batches = list[int]()

    class Counting(EchoGraph):
        def run(self, inputs: Any, names: Any, *, all_threads: bool = False, device: int = 0) -> Any:
            (pixels,) = inputs.values()
            batches.append(len(pixels))
            return {"embedding": pixels.reshape(len(pixels), -1)[:, :1]}

    model = echo(contract=FASHION, engine=SimpleNamespace(plain=Counting()), reader=None)
    images = Images(tuple(picture(grey) for grey in range(0, 180, 20)))
    async with pipeline.run_each(InferenceRequest(model, images, ("embedding",)), RpcContext()) as found:
        answers = [one for one in found.each if isinstance(one, InferenceResponse)]
    assert batches == [4, 4, 1]
    assert [float(one.outputs["embedding"].item()) for one in answers] == sorted(
        float(one.outputs["embedding"].item()) for one in answers
    )
    assert all(isinstance(one.prepared.source, Pixels) and not one.prepared.source.values.size for one in answers)
    assert images_bytes(model, 4) == 2 * 4 * 28 * 28 * 4


async def test_images_that_are_too_large_together_are_refused(pipeline: Pipeline) -> None:
    """Before any is decoded."""
    model = echo(contract=FASHION, reader=None)
    narrow = replace(pipeline, inputs=replace(pipeline.inputs, request_pixels=2 * 28 * 28))
    images = Images(tuple(picture(grey) for grey in (1, 2, 3)))
    with pytest.raises(InvalidInput, match="images: 2352 pixels in 3 images; expected at most 1568"):
        async with narrow.run_each(InferenceRequest(model, images, ("embedding",)), RpcContext()):
            raise AssertionError


def test_tokens_are_bounded_by_what_the_model_takes() -> None:
    """However long texts are; where each came from takes more."""
    model = echo()
    assert model.contract.text
    most = model.contract.text.max_tokens
    plain, told = (texts_bytes(model, Texts(("a" * 10**5,) * 3, False), "", positions=one) for one in (False, True))
    assert plain == 3 * most * 8 * 5
    assert told == plain + 3 * most * 200


def test_vectors_are_held_as_they_are_computed_and_sent_as_they_are_rounded() -> None:
    """32 floats each: bits of them take 4 bytes; of images those that are not read yet count, too."""
    tokens = Tokens(np.arange(3), [], [], [], truncated=False)
    held, sizes = dict[str, list[int]](), {"float32": 32, "float16": 16, "int8": 12, "binary": 1}
    for inputs, count in ((Texts(("a", "b"), truncate=False), 2), (Images((b"", b"")), 4)):
        for number_format in get_args(VectorFormat):
            request = InferenceRequest(echo(), inputs, ("embedding",), vectors=VectorRequest(8, number_format))
            ready = [SimpleNamespace(plan=None, prepared=PreparedInput({}, 1, 3, tokens)) for _ in range(2)]
            account = Account(Ledger(10**6))
            reserve_together(request, cast("list[Ready]", ready), count, account)
            held.setdefault(number_format, []).append(account._parts["result"])
            assert account._parts["answer"] == 2 * count * sizes[number_format]
    assert held == {name: [2 * 128, 4 * 128] for name in held}


async def test_inputs_that_were_answered_may_be_sampled_each(pipeline: Pipeline) -> None:
    """Here each is; without what could not be read or computed."""

    def reads(text: str, second: str | None = None, **how: Any) -> Tokens:
        if text == "bad":
            raise InputError("text", text, "a good one")
        return read(text, second, **how)

    class Failing(EchoGraph):
        def run(self, inputs: Any, names: Any, **how: Any) -> Any:
            if inputs["input_ids"].shape[1] == 4:
                raise RuntimeError("broken")
            return super().run(inputs, names, **how)

    engine = SimpleNamespace(plain=Failing(), tapped=EchoGraph())
    model = echo(reader=SimpleNamespace(read=reads), engine=engine)
    request = replace(wanted("one two", "bad", "this one breaks it", "three"), model=model)
    request.model.usage.settings = ModelSettings(sample_attention=1, max_samples_per_second=1e6)
    async with pipeline.run_each(request, RpcContext()) as found:
        assert [list(one.inputs["input_ids"].shape) for one in found.sampled] == [[1, 2], [1, 1]]
        assert not pipeline.samples._waiting
    await asyncio.wait(list(pipeline.samples._waiting))
    name = "regard_attention_entropy_ratio_count"
    labels = {"model": "tiny-text", "input": "text", "layer": "0"}
    assert pipeline.metrics.registry.get_sample_value("regard_attention_samples_total", {"model": "tiny-text"}) == 2
    assert pipeline.metrics.registry.get_sample_value(name, labels) == 1  # log 1 is no scale
