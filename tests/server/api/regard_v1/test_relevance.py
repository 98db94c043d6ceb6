"""Relevance through regard.v1, from a request to what its caller reads."""

import asyncio
from pathlib import Path

import grpc
import numpy as np
import onnxruntime
import pytest
from tokenizers import Tokenizer

from regard.v1 import regard_pb2 as api
from regard.v1 import types_pb2 as pb
from server.api.regard_v1.tensors import read_tensor
from tests.golden import GOLDEN_MODELS, GOLDEN_NETWORK
from tests.server.api.reference import TOLERANCE
from tests.server.asking import refused, samples
from tests.server.conftest import Running

CLOTHING = Path(__file__).parents[4] / "examples" / "clothing" / "sandal.png"
TEXTS = ["the cat sat on the mat", "a dog", "it was not a very good film and the dog ran", "one bad mat"]


def explain_alone(text: str, label: int | None = None, against: int | None = None) -> dict[str, np.ndarray]:
    """What the relevance graph gives for one text, by ONNX Runtime itself."""
    session = onnxruntime.InferenceSession(GOLDEN_MODELS / "tiny-text" / "1" / "relevance.onnx")
    ids = np.array([Tokenizer.from_file(str(GOLDEN_NETWORK / "tokenizer.json")).encode(text).ids])
    names = [value.name for value in session.get_outputs()]
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    (logits,) = session.run(["logits"], feed)
    weights = np.zeros_like(logits)
    weights[0, logits.argmax() if label is None else label] = 1
    if against is not None:
        weights[0, against] = -1
    return dict(zip(names, session.run(names, {**feed, "relevance.weights": weights}), strict=True))


def values_of(message: pb.Relevance) -> np.ndarray:
    """What each position did."""
    return read_tensor("values", message.values)


async def test_texts_in_one_batch_are_explained_each_as_alone(running: Running) -> None:
    """Of lengths and labels that differ, beside those that ask for none: no padding, no other's label shows."""
    labels = (await running.stub.GetModel(api.GetModelRequest(model="tiny-text"))).model.labels
    wanted = [(None, None), (0, None), (1, 0), (0, 1)]
    requests = []
    for text, (label, against) in zip(TEXTS, wanted, strict=True):
        why = pb.RelevanceRequest(
            label="" if label is None else labels[label], against="" if against is None else labels[against]
        )
        requests.append(api.ClassifyRequest(model="tiny-text", text=text, relevance=why))
    plain = [api.ClassifyRequest(model="tiny-text", text=text) for text in TEXTS]
    answers = await asyncio.gather(*(running.stub.Classify(request) for request in (*requests, *plain)))
    for text, pair, answer, without in zip(TEXTS, wanted, answers, answers[len(TEXTS) :], strict=False):
        alone, why = explain_alone(text, *pair), answer.relevance
        np.testing.assert_allclose(values_of(why), alone["relevance.positions"][0], rtol=0, atol=TOLERANCE)
        assert why.score == pytest.approx(float(alone["relevance.score"][0]), abs=TOLERANCE)
        assert why.rest == pytest.approx(float(alone["relevance.rest"][0]), abs=TOLERANCE)
        assert float(values_of(why).sum()) + why.rest == pytest.approx(why.score, abs=TOLERANCE)
        assert why.error < TOLERANCE
        assert why.relative_error < TOLERANCE
        assert why.label == (labels[pair[0]] if pair[0] is not None else answer.labels[0].name)
        assert labels[why.index] == why.label
        assert why.against == ("" if pair[1] is None else labels[pair[1]])
        assert [token.text for token in why.tokens.tokens] == ["[CLS]", *text.split(), "[SEP]"]
        assert [one.name for one in answer.labels] == [one.name for one in without.labels]
        assert answer.labels[0].probability == pytest.approx(without.labels[0].probability, abs=TOLERANCE)
        assert not without.HasField("relevance")


async def test_what_is_not_sent_is_told(running: Running) -> None:
    """Without special tokens, what they did is one number."""
    request = api.ClassifyRequest(model="tiny-text", text=TEXTS[0], relevance=pb.RelevanceRequest())
    whole = (await running.stub.Classify(request)).relevance
    request.relevance.drop_special = True
    part = (await running.stub.Classify(request)).relevance
    assert list(part.positions) == list(range(1, len(TEXTS[0].split()) + 1))
    np.testing.assert_allclose(values_of(part), values_of(whole)[1:-1], rtol=0, atol=TOLERANCE)
    assert part.unsent == pytest.approx(float(values_of(whole)[[0, -1]].sum()), abs=TOLERANCE)
    assert (whole.unsent, part.score) == (0.0, pytest.approx(whole.score, abs=TOLERANCE))


async def test_several_inputs_are_explained_each(running: Running) -> None:
    """One that fails has its error."""
    many = api.ClassifyRequest(
        model="tiny-text", texts=pb.Texts(items=[*TEXTS, ""]), relevance=pb.RelevanceRequest(drop_special=True)
    )
    answer = await running.stub.Classify(many)
    assert not answer.HasField("relevance")
    for text, result in zip(TEXTS, answer.results, strict=False):
        alone = explain_alone(text)["relevance.positions"][0]
        np.testing.assert_allclose(values_of(result.relevance), alone[1:-1], rtol=0, atol=TOLERANCE)
    assert answer.results[-1].error.message == "texts[4]: empty; expected a text with something in it"


async def test_an_image_is_explained_by_patches(running: Running) -> None:
    """With its grid; the class token is a position, too."""
    request = api.ClassifyRequest(model="fashion", image=CLOTHING.read_bytes(), relevance=pb.RelevanceRequest())
    why = (await running.stub.Classify(request)).relevance
    grid = why.patches
    assert values_of(why).shape == (grid.prefix_tokens + grid.rows * grid.cols,)
    assert (grid.image_width, grid.image_height) == (28, 28)
    assert why.error < TOLERANCE
    request.relevance.drop_special = True
    patches = (await running.stub.Classify(request)).relevance
    assert values_of(patches).shape == (grid.rows * grid.cols,)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (
            pb.RelevanceRequest(label="x" * 500),
            "relevance.label: 'x{80,100}.{1,20}; expected one of Model.labels: T-shirt/top, ",
        ),
        (pb.RelevanceRequest(label="no"), "relevance.label: 'no'; expected one of Model.labels: T-shirt/top, "),
        (pb.RelevanceRequest(against="Bag"), "relevance.against: 'Bag'; expected none without relevance.label"),
        (
            pb.RelevanceRequest(label="Bag", against="Bag"),
            "relevance.against: 'Bag'; expected another label than relevance.label",
        ),
    ],
    ids=["too long", "unknown", "against alone", "against itself"],
)
async def test_a_request_that_makes_no_sense_is_refused(
    running: Running, wanted: pb.RelevanceRequest, message: str
) -> None:
    """The field, the value, and what was expected."""
    request = api.ClassifyRequest(model="fashion", image=CLOTHING.read_bytes(), relevance=wanted)
    assert await refused(running.stub.Classify(request), message) == grpc.StatusCode.INVALID_ARGUMENT


async def test_it_goes_beside_neither_attention_nor_hidden_states(running: Running) -> None:
    """Each has a graph of its own."""
    request = api.ClassifyRequest(model="tiny-text", text="a dog", relevance=pb.RelevanceRequest())
    request.attention.CopyFrom(pb.AttentionRequest())
    message = "relevance: beside attention; expected one of both, or a call for each"
    assert await refused(running.stub.Classify(request), message) == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_model_says_whether_it_can_explain(running: Running) -> None:
    """Where its logits have a relevance graph."""
    models = {one.name: one for one in (await running.stub.ListModels(api.ListModelsRequest())).models}
    assert models["fashion"].can_explain
    assert models["tiny-text"].can_explain


async def test_what_is_explained_is_counted_as_such(running: Running) -> None:
    """By the name of its graph."""
    await running.stub.Classify(api.ClassifyRequest(model="tiny-text", text="a dog", relevance=pb.RelevanceRequest()))
    assert any("relevance" in labels for labels in await samples(running))
