"""Many texts or images in a call: each has the answer that it alone would have, or an error of its own."""

import asyncio
import io
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from regard.v1 import regard_pb2 as api
from regard.v1 import types_pb2 as pb
from server.api.regard_v1.messages import read_contents
from server.api.regard_v1.tensors import read_tensor
from server.inference.request import Texts
from tests.server.api.reference import TOLERANCE
from tests.server.asking import CODES, refused, samples
from tests.server.conftest import Running, Serve

CLOTHING = [path.read_bytes() for path in sorted((Path(__file__).parents[4] / "examples" / "clothing").glob("*.png"))]
TEXTS = ["the cat sat on the mat", "a dog", "it was not a very good film and the dog ran", "one bad mat", "a dog"]


def of_texts(*texts: str, **fields: Any) -> api.EmbedRequest:
    """A call of texts."""
    return api.EmbedRequest(model="tiny-text", texts=pb.Texts(items=texts), **fields)


def of_images(*images: bytes, **fields: Any) -> api.ClassifyRequest:
    """A call of images."""
    return api.ClassifyRequest(model="fashion", images=pb.Images(items=images), **fields)


def assert_equal(found: pb.Tensor, expected: pb.Tensor) -> None:
    """The same numbers, but for rounding."""
    np.testing.assert_allclose(read_tensor("found", found), read_tensor("expected", expected), atol=TOLERANCE)


def assert_close(found: pb.Attention, expected: pb.Attention) -> None:
    """The same positions, and the same weights but for rounding."""
    assert found.WhichOneof("positions") == expected.WhichOneof("positions")
    assert (found.tokens, found.patches) == (expected.tokens, expected.patches)
    assert len(found.layers) == len(expected.layers) > 0
    for one, other in zip(found.layers, expected.layers, strict=True):
        assert (one.layer, one.axes, one.queries, one.keys) == (other.layer, other.axes, other.queries, other.keys)
        assert_equal(one.weights, other.weights)


@pytest.mark.parametrize("attention", [None, pb.AttentionRequest(), pb.AttentionRequest(drop_special=True, layers=[1])])
async def test_each_text_has_the_answer_that_it_has_alone(
    running: Running, attention: pb.AttentionRequest | None
) -> None:
    """In their order, whatever their lengths, its attention over its own positions."""
    answer = await running.stub.Embed(of_texts(*TEXTS, attention=attention))
    assert (answer.model, answer.version) == ("tiny-text", "1")
    assert not answer.HasField("vector")
    assert not answer.HasField("attention")
    for text, result in zip(TEXTS, answer.results, strict=True):
        alone = await running.stub.Embed(api.EmbedRequest(model="tiny-text", text=text, attention=attention))
        assert_equal(result.vector, alone.vector)
        assert not result.HasField("error")
        assert result.HasField("attention") == (attention is not None)
        if attention is not None:
            assert_close(result.attention, alone.attention)
    timings = answer.timings
    assert min(timings.decode_ns, timings.compute_ns, timings.encode_ns) > 0
    assert 2 <= timings.batch_size <= len(TEXTS)


async def test_each_image_has_the_labels_that_it_has_alone(running: Running) -> None:
    """More than a batch has rows, of several sizes, with the attention of each on its own picture."""
    wide = io.BytesIO()
    Image.new("L", (90, 40), 200).save(wide, "PNG")
    images = [*CLOTHING, wide.getvalue()] * 6
    wanted = pb.AttentionRequest(layers=[-1], cls_only=True)
    assert len(images) > 32
    answer = await running.stub.Classify(of_images(*images, top_k=2, attention=wanted))
    kinds = [
        await running.stub.Classify(api.ClassifyRequest(model="fashion", image=image, top_k=2, attention=wanted))
        for image in images[: len(CLOTHING) + 1]
    ]
    for number, result in enumerate(answer.results):
        alone = kinds[number % len(kinds)]
        assert [label.name for label in result.labels] == [label.name for label in alone.labels]
        assert result.labels[0].probability == pytest.approx(alone.labels[0].probability, abs=1e-4)
        assert_close(result.attention, alone.attention)
    assert len(answer.results) == len(images)


async def test_an_input_that_cannot_be_used_has_an_error_of_its_own(alone: Running) -> None:
    """It names field and index; the others are answered, and it is counted."""
    answer = await alone.stub.Embed(of_texts("a dog", " ", "one bad mat", "dog " * 99))
    assert [result.HasField("vector") for result in answer.results] == [True, False, True, False]
    errors = [result.error for result in answer.results]
    assert [error.code for error in errors] == [0, 3, 0, 3]
    assert errors[1].message == "texts[1]: empty; expected a text with something in it"
    assert errors[3].message.startswith("texts[3]: 101 tokens; expected at most")
    pictures = await alone.stub.Classify(of_images(b"no image", CLOTHING[0], CLOTHING[0][:200]))
    assert [bool(result.labels) for result in pictures.results] == [False, True, False]
    assert [result.error.message[:10] for result in pictures.results] == ["images[0]:", "", "images[2]:"]
    assert (await samples(alone))[("regard_failed_inputs_total", "INVALID_ARGUMENT")] == 4


async def test_a_call_whose_inputs_all_have_errors_is_answered(running: Running) -> None:
    """So do texts and images."""
    answer = await running.stub.Embed(of_texts("", "\n"))
    assert [result.error.code for result in answer.results] == [3, 3]
    pictures = await running.stub.Classify(of_images(b"", b"no"))
    assert [result.error.code for result in pictures.results] == [3, 3]


async def test_long_texts_are_cut_each(running: Running) -> None:
    """Where the call says so."""
    answer = await running.stub.Embed(of_texts("a dog", "dog " * 99, truncate=True))
    assert [result.truncated for result in answer.results] == [False, True]


async def test_attention_that_one_input_cannot_have_is_its_own_error(running: Running) -> None:
    """What none of them can have is the call's."""
    wanted = pb.AttentionRequest(rows=[6])
    answer = await running.stub.Embed(of_texts("a dog", TEXTS[0], attention=wanted))
    assert [result.HasField("attention") for result in answer.results] == [False, True]
    assert answer.results[0].error.message == "texts[0]: attention.rows: 6; expected from -4 to 3"
    call = running.stub.Embed(of_texts("a dog", "one bad mat", attention=pb.AttentionRequest(layers=[9])))
    assert await refused(call, r"\"attention\.layers: 9; expected from -2 to 1") == CODES.INVALID_ARGUMENT


async def test_what_concerns_the_whole_call_fails_it(running: Running) -> None:
    """Unknown models, what they do not take, and how many there are."""
    stub = running.stub
    none, many = of_texts(), of_texts(*["a dog"] * 257)
    assert await refused(stub.Embed(none), "texts: 0 of them; expected 1 to 256") == CODES.INVALID_ARGUMENT
    assert await refused(stub.Embed(many), "texts: 257 of them; expected 1 to 256") == CODES.INVALID_ARGUMENT
    unknown = api.EmbedRequest(model="nobody", texts=pb.Texts(items=["a"]))
    assert await refused(stub.Embed(unknown), "nobody") == CODES.NOT_FOUND
    wrong = api.EmbedRequest(model="tiny-text", images=pb.Images(items=CLOTHING))
    assert await refused(stub.Embed(wrong), "takes no images") == CODES.FAILED_PRECONDITION
    wrong = api.EmbedRequest(model="fashion", texts=pb.Texts(items=TEXTS))
    assert await refused(stub.Embed(wrong), "takes no text") == CODES.FAILED_PRECONDITION
    assert len((await stub.Embed(of_texts(*["a dog"] * 256))).results) == 256


async def test_all_inputs_share_the_bounds_of_one_answer(start: Serve) -> None:
    """Attention that is sent, or computed; labels; outputs."""
    async with start(max_message_bytes=32768) as server:
        every = of_texts(*[TEXTS[2]] * 16, attention=pb.AttentionRequest())
        code = await refused(server.stub.Embed(every), r"attention: an answer of \d+ bytes for 16 inputs; expected")
        assert code == CODES.INVALID_ARGUMENT
        assert len((await server.stub.Embed(of_texts(*[TEXTS[2]] * 16))).results) == 16
        images = of_images(*[b"no image"] * 256, top_k=10)
        assert await refused(server.stub.Classify(images), r"top_k: an answer of \d+ bytes for 256 inputs")
    async with start(max_attention_bytes=5 * 2 * 4 * 4 * 4 * 4) as server:  # two layers, four heads, four positions
        wanted = pb.AttentionRequest(layers=[0, 1], cls_only=True)
        assert len((await server.stub.Embed(of_texts(*["a dog"] * 5, attention=wanted))).results) == 5
        call = server.stub.Embed(of_texts(*["a dog"] * 6, attention=wanted))
        assert await refused(call, "bytes to compute for 6 inputs") == CODES.INVALID_ARGUMENT


async def test_the_server_says_how_many_it_takes(start: Serve) -> None:
    """In the description of a model, and in the refusal."""
    async with start(max_inputs=3) as server:
        model = await server.stub.GetModel(api.GetModelRequest(model="tiny-text"))
        assert model.model.max_inputs == 3
        assert await refused(server.stub.Embed(of_texts(*TEXTS[:4])), r"expected 1 to 3 \(the server's --max-inputs\)")
        assert len((await server.stub.Embed(of_texts(*TEXTS[:3]))).results) == 3


async def test_answers_that_are_kept_serve_single_and_many(start: Serve) -> None:
    """A call of several takes what is there, and computes the rest."""
    async with start(cache_bytes=10**6) as server:
        await server.stub.Embed(api.EmbedRequest(model="tiny-text", text=TEXTS[0]))
        first = await server.stub.Embed(of_texts(*TEXTS[:3]))
        again = await server.stub.Embed(of_texts(*TEXTS[:3]))
        assert [result.vector.data for result in again.results] == [result.vector.data for result in first.results]
        assert again.timings.compute_ns == 0
        found = await samples(server)
        lookups = {outcome: found[("regard_cache_lookups_total", outcome)] for outcome in ("hit", "miss")}
        assert lookups == {"hit": 4, "miss": 3}


async def test_many_callers_of_many_texts_get_their_own(running: Running) -> None:
    """Beside single ones."""
    alone = {
        text: read_tensor("v", (await running.stub.Embed(api.EmbedRequest(model="tiny-text", text=text))).vector)
        for text in TEXTS
    }
    orders = [np.random.default_rng(seed).permutation(TEXTS * 9).tolist() for seed in range(8)]
    answers = await asyncio.gather(*(running.stub.Embed(of_texts(*order)) for order in orders))
    for order, answer in zip(orders, answers, strict=True):
        for text, result in zip(order, answer.results, strict=True):
            np.testing.assert_allclose(read_tensor("v", result.vector), alone[text], atol=TOLERANCE)


async def test_statistics_are_those_of_each_text_alone(running: Running) -> None:
    """Whatever the lengths of those beside it: padding is no key, no query and no repeated token."""
    wanted: list[Any] = [number for number in pb.AttentionStatistic.values() if number not in (0, 5, 13, 14)]
    asked = pb.AttentionRequest(statistics=wanted)
    answer = await running.stub.Embed(of_texts(*TEXTS, attention=asked))
    assert answer.timings.batch_size > 1
    for text, result in zip(TEXTS, answer.results, strict=True):
        alone = await running.stub.Embed(api.EmbedRequest(model="tiny-text", text=text, attention=asked))
        assert_close(result.attention, alone.attention)
        for layer in result.attention.layers:
            assert list(layer.statistics) == wanted
            assert read_tensor("statistics", layer.weights).shape == (4, len(wanted))


async def test_a_region_is_counted_in_each_input_by_itself(running: Running) -> None:
    """A text without such characters has an error of its own; a box of a picture is in its pixels."""
    asked = pb.AttentionRequest(statistics=[pb.ATTENTION_STATISTIC_REGION], spans=[pb.TextSpan(start=6, end=9)])
    answer = await running.stub.Embed(of_texts("one bad mat", "a dog", attention=asked))
    assert [result.error.code for result in answer.results] == [0, 3]
    assert answer.results[1].error.message.startswith("texts[1]: attention.spans: 6 to 9; expected one that holds some")
    full = await running.stub.Embed(of_texts("one bad mat", attention=pb.AttentionRequest()))
    positions = [
        place
        for place, token in enumerate(full.results[0].attention.tokens.tokens)
        if token.end > 6 and token.start < 9
    ]
    for layer, maps in zip(answer.results[0].attention.layers, full.results[0].attention.layers, strict=True):
        expected = read_tensor("maps", maps.weights)[..., positions].sum(-1).mean(-1)
        np.testing.assert_allclose(read_tensor("region", layer.weights)[:, 0], expected, atol=TOLERANCE)
    whole = pb.AttentionRequest(
        statistics=[pb.ATTENTION_STATISTIC_REGION, pb.ATTENTION_STATISTIC_SPECIAL],
        boxes=[pb.Box(left=0, top=0, right=10**6, bottom=10**6)],
    )
    pictures = await running.stub.Classify(of_images(CLOTHING[0], attention=whole))
    for layer in pictures.results[0].attention.layers:
        np.testing.assert_allclose(read_tensor("both", layer.weights).sum(-1), 1, atol=TOLERANCE)


def test_ids_of_tokens_are_not_copied_before_they_are_bounded() -> None:
    """An object for each would be 15 times what came, which nobody has counted."""
    lists = pb.TokenIdLists(items=[pb.TokenIds(items=range(10**5))] * 4)
    request = api.EmbedRequest(model="tiny-text", token_ids=lists)
    tracemalloc.start()
    try:
        found = read_contents(request, 4)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(found, Texts)
    assert found.sizes == [10**5] * 4
    assert most < 10**5
