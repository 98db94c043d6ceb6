"""Relevance through regard.v1, from a request to what its caller reads."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import onnxruntime
import pytest
from tokenizers import Tokenizer

import server
from artifact.contract import read_contract
from artifact.images import ImageLimits, read_image
from artifact.text import Tokens
from regard.v1 import regard_pb2 as api
from regard.v1 import types_pb2 as pb
from server.api.regard_v1.relevance import _number_words
from tests.golden import GOLDEN_MODELS, GOLDEN_NETWORK
from tests.server.api.reference import TOLERANCE
from tests.server.asking import refused, samples, values_of
from tests.server.conftest import Running

CLOTHING = Path(__file__).parents[4] / "examples" / "clothing" / "sandal.png"
EMBEDDED = Path(server.__file__).parent / "embedded"
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


METHODS = {
    pb.RELEVANCE_METHOD_GRADIENT: "relevance.gradient.onnx",
    pb.RELEVANCE_METHOD_INTEGRATED_GRADIENTS: "relevance.gradient.onnx",
    pb.RELEVANCE_METHOD_GENATT: "relevance.genatt.onnx",
    pb.RELEVANCE_METHOD_LEGRAD: "relevance.legrad.onnx",
}
Explain = Callable[[pb.RelevanceMethod, int, int], tuple[np.ndarray, float]]


@pytest.fixture(scope="module")
def explain_image() -> Explain:
    """What the embedded graphs give for the image of a sandal, by ONNX Runtime itself."""
    folder = EMBEDDED / "fashion" / "1"
    contract = read_contract(folder / "contract.json")
    assert contract.image
    pixels = read_image(CLOTHING.read_bytes(), contract.image, ImageLimits()).values[None]

    def explain(method: pb.RelevanceMethod, label: int, steps: int) -> tuple[np.ndarray, float]:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(folder / METHODS[method], options)
        weights = np.zeros((1, len(contract.labels)), dtype=np.float32)
        weights[0, label] = 1
        feed = {session.get_inputs()[0].name: pixels, "relevance.weights": weights}
        names = ["relevance.positions", "relevance.score"]
        if method != pb.RELEVANCE_METHOD_INTEGRATED_GRADIENTS:
            positions, score = session.run(names, feed)
            return positions[0], float(score[0])
        places, shares = np.polynomial.legendre.leggauss(steps)
        total = np.zeros(50)
        for place, share in zip((places + 1) / 2, shares, strict=True):
            scaled = {**feed, "relevance.scale": np.array([place**2], dtype=np.float32)}
            total += session.run(names, scaled)[0][0] * place * share
        return total, float(session.run(names, feed)[1][0])

    return explain


@pytest.mark.parametrize("method", METHODS)
async def test_other_methods_are_answered_as_their_graphs_give_them(
    running: Running, method: pb.RelevanceMethod, explain_image: Explain
) -> None:
    """With the method's name; what makes up no score says nothing of how far."""
    is_integrated = method == pb.RELEVANCE_METHOD_INTEGRATED_GRADIENTS
    wanted = pb.RelevanceRequest(method=method, steps=40 if is_integrated else 0)
    request = api.ClassifyRequest(model="fashion", image=CLOTHING.read_bytes(), relevance=wanted)
    answer = await running.stub.Classify(request)
    why = answer.relevance
    expected, score = explain_image(method, answer.labels[0].index, 40)
    np.testing.assert_allclose(values_of(why), expected, rtol=0, atol=TOLERANCE * max(1, np.abs(expected).max()))
    assert (why.method, why.label) == (method, answer.labels[0].name)
    assert (why.score, why.rest, why.unsent) == (pytest.approx(score, abs=TOLERANCE), 0, 0)
    told = [why.HasField(name) for name in ("error", "relative_error", "baseline")]
    assert told == [is_integrated] * 3
    if is_integrated:
        assert abs(float(values_of(why).sum()) + why.baseline - why.score) == pytest.approx(why.error, abs=TOLERANCE)
        assert why.relative_error < 0.05


async def test_integrated_gradients_add_up_the_better_the_more_points_there_are(running: Running) -> None:
    """To the score's distance from that of the baseline."""
    request = api.ClassifyRequest(model="fashion", image=CLOTHING.read_bytes())
    errors = []
    for steps in (4, 128):
        request.relevance.CopyFrom(
            pb.RelevanceRequest(method=pb.RELEVANCE_METHOD_INTEGRATED_GRADIENTS, steps=steps, label="Sandal")
        )
        errors.append((await running.stub.Classify(request)).relevance.relative_error)
    assert errors[1] < 1e-4 < errors[0]


async def test_several_labels_are_explained_each_as_alone(running: Running) -> None:
    """Those that are named, in their order; in one run."""
    labels = ["Sandal", "Bag", "Sneaker"]
    request = api.ClassifyRequest(model="fashion", image=CLOTHING.read_bytes())
    for method in (pb.RELEVANCE_METHOD_UNSPECIFIED, pb.RELEVANCE_METHOD_LEGRAD):
        request.relevance.CopyFrom(pb.RelevanceRequest(labels=labels, method=method))
        together = await running.stub.Classify(request)
        assert not together.HasField("relevance")
        assert [why.label for why in together.relevances] == labels
        assert together.timings.batch_size == 3
        for why in together.relevances:
            request.relevance.CopyFrom(pb.RelevanceRequest(label=why.label, method=method))
            alone = (await running.stub.Classify(request)).relevance
            np.testing.assert_allclose(values_of(why), values_of(alone), rtol=0, atol=TOLERANCE)
            assert why.score == pytest.approx(alone.score, abs=TOLERANCE)
            assert why.patches == alone.patches


async def test_the_most_probable_labels_are_explained(running: Running) -> None:
    """Of one input and of several, each its own; by a method of many points, too, and no more labels than there are."""
    request = api.ClassifyRequest(model="fashion", image=CLOTHING.read_bytes(), relevance=pb.RelevanceRequest(top=3))
    answer = await running.stub.Classify(request)
    assert [why.label for why in answer.relevances] == [one.name for one in answer.labels[:3]]
    method = pb.RELEVANCE_METHOD_INTEGRATED_GRADIENTS
    many = api.ClassifyRequest(
        model="fashion",
        images=pb.Images(items=[CLOTHING.read_bytes(), (CLOTHING.parent / "sneaker.png").read_bytes(), b""]),
        relevance=pb.RelevanceRequest(top=2, method=method, steps=5),
    )
    first, second, bad = (await running.stub.Classify(many)).results
    assert bad.HasField("error") and not bad.relevances
    for result in (first, second):
        assert [why.label for why in result.relevances] == [one.name for one in result.labels[:2]]
        for why in result.relevances:
            assert why.HasField("baseline") and values_of(why).shape == (50,)
    alone = api.ClassifyRequest(model="fashion", image=(CLOTHING.parent / "sneaker.png").read_bytes())
    alone.relevance.CopyFrom(pb.RelevanceRequest(label=second.relevances[1].label, method=method, steps=5))
    expected = (await running.stub.Classify(alone)).relevance
    np.testing.assert_allclose(values_of(second.relevances[1]), values_of(expected), rtol=0, atol=10 * TOLERANCE)
    text = api.ClassifyRequest(model="tiny-text", text="a dog", relevance=pb.RelevanceRequest(top=32))
    assert len((await running.stub.Classify(text)).relevances) == 2


async def test_methods_that_a_model_lacks_are_refused(running: Running) -> None:
    """With those that it has, which GetModel names."""
    fashion = (await running.stub.GetModel(api.GetModelRequest(model="fashion"))).model
    assert list(fashion.relevance_methods) == [pb.RELEVANCE_METHOD_UNSPECIFIED, *METHODS]
    wanted = pb.RelevanceRequest(method=pb.RELEVANCE_METHOD_GENATT)
    request = api.ClassifyRequest(model="tiny-text", text="a dog", relevance=wanted)
    message = "relevance.method: tiny-text was exported without genatt; expected libra"
    assert await refused(running.stub.Classify(request), message) == grpc.StatusCode.FAILED_PRECONDITION
    request.relevance.method = 99  # type: ignore[assignment]
    message = "relevance.method: 99; expected one of the values of RelevanceMethod"
    assert await refused(running.stub.Classify(request), message) == grpc.StatusCode.INVALID_ARGUMENT


async def test_tokens_say_of_which_word_they_are(running: Running) -> None:
    """As the tokenizer splits a text; those of a pair's second text go on; special tokens are of none."""
    request = api.ClassifyRequest(model="tiny-text", text="the catdog, ran", relevance=pb.RelevanceRequest())
    why = (await running.stub.Classify(request)).relevance
    spelt = [token.text for token in why.tokens.tokens]
    assert len(spelt) == len(why.words)
    grouped = dict[int, str]()
    for word, text in zip(why.words, spelt, strict=True):
        grouped[word] = grouped.get(word, "") + text.removeprefix("##")
    assert grouped == {-1: "[CLS][SEP]", 0: "the", 1: "catdog", 2: ",", 3: "ran"}
    request.relevance.drop_special = True
    part = (await running.stub.Classify(request)).relevance
    assert list(part.words) == [word for word in why.words if word >= 0]
    image = api.ClassifyRequest(model="fashion", image=CLOTHING.read_bytes(), relevance=pb.RelevanceRequest())
    assert not (await running.stub.Classify(image)).relevance.words


def test_words_of_a_pair_are_numbered_as_one() -> None:
    """The second text's behind the first's."""
    tokens = Tokens(
        ids=np.arange(6),
        texts=[""] * 6,
        offsets=[(0, 0)] * 6,
        special=[False] * 6,
        truncated=False,
        parts=(None, 0, 0, None, 1, 1),
        words=(None, 0, 1, None, 0, 0),
    )
    assert _number_words(tokens) == [-1, 0, 1, -1, 2, 2]
