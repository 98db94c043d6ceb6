"""Relevance by layer through regard.v1, from a request to what its caller reads."""

import asyncio

import grpc
import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from regard.v1 import regard_pb2 as api
from regard.v1 import types_pb2 as pb
from server.api.regard_v1.tensors import read_tensor
from tests.golden import GOLDEN_MODELS, GOLDEN_NETWORK
from tests.server.api.reference import TOLERANCE
from tests.server.api.regard_v1.test_relevance import CLOTHING
from tests.server.asking import refused, values_of
from tests.server.conftest import Running

TEXTS = ["the cat sat on the mat", "a dog", "it was not a very good film and the dog ran", "one bad mat"]


def explain_alone(text: str) -> dict[str, np.ndarray]:
    """What the graph gives for one text and its most probable label, by ONNX Runtime itself."""
    session = onnxruntime.InferenceSession(GOLDEN_MODELS / "tiny-text" / "1" / "relevance.layers.onnx")
    ids = np.array([Tokenizer.from_file(str(GOLDEN_NETWORK / "tokenizer.json")).encode(text).ids])
    names = [value.name for value in session.get_outputs()]
    found = session.run(names, {"input_ids": ids, "attention_mask": np.ones_like(ids)})
    return dict(zip(names, found, strict=True))


def layers_of(why: pb.Relevance) -> np.ndarray:
    """The numbers of each depth."""
    return np.asarray(read_tensor("values", why.by_layer.values))


def assert_complete(why: pb.Relevance) -> None:
    """Every depth makes up the score, and says so."""
    held, layers = layers_of(why), why.by_layer
    total = held.sum(1) + np.array(layers.unsent) + np.array(layers.added)
    np.testing.assert_allclose(total, np.full(len(held), why.score), rtol=0, atol=TOLERANCE)
    assert len(layers.relative_error) == len(held)
    assert max(layers.relative_error) < TOLERANCE


async def test_texts_in_one_batch_are_told_by_layer_each_as_alone(running: Running) -> None:
    """Of lengths that differ, beside those that ask for no layers: no padding shows, and nobody else gets any."""
    asked = [
        api.ClassifyRequest(model="tiny-text", text=text, relevance=pb.RelevanceRequest(by_layer=by_layer))
        for by_layer in (True, False)
        for text in TEXTS
    ]
    answers = [one.relevance for one in await asyncio.gather(*(running.stub.Classify(request) for request in asked))]
    for text, why, without in zip(TEXTS, answers, answers[len(TEXTS) :], strict=False):
        alone = explain_alone(text)
        np.testing.assert_allclose(layers_of(why), alone["relevance.by_layer"][0], rtol=0, atol=TOLERANCE)
        np.testing.assert_allclose(why.by_layer.added, alone["relevance.added"][0], rtol=0, atol=TOLERANCE)
        assert layers_of(why).shape == (3, len(text.split()) + 2)
        assert_complete(why)
        np.testing.assert_allclose(values_of(why), values_of(without), rtol=0, atol=TOLERANCE)
        assert not without.HasField("by_layer")
        assert why.method == pb.RELEVANCE_METHOD_UNSPECIFIED


async def test_what_is_left_out_is_told_at_each_depth(running: Running) -> None:
    """As one number, and the score is the same."""
    request = api.ClassifyRequest(
        model="fashion", image=CLOTHING.read_bytes(), relevance=pb.RelevanceRequest(by_layer=True)
    )
    whole = (await running.stub.Classify(request)).relevance
    request.relevance.drop_special = True
    part = (await running.stub.Classify(request)).relevance
    assert (layers_of(whole).shape, layers_of(part).shape) == ((5, 50), (5, 49))
    np.testing.assert_allclose(part.by_layer.unsent, layers_of(whole)[:, 0], rtol=0, atol=TOLERANCE)
    for one in (whole, part):
        assert_complete(one)


async def test_several_labels_have_layers_of_their_own(running: Running) -> None:
    """Of several inputs, too."""
    one, two = (CLOTHING.with_name(name).read_bytes() for name in ("sandal.png", "bag.png"))
    request = api.ClassifyRequest(
        model="fashion", images=pb.Images(items=[one, two]), relevance=pb.RelevanceRequest(top=2, by_layer=True)
    )
    for image, result in zip((one, two), (await running.stub.Classify(request)).results, strict=True):
        assert len(result.relevances) == 2
        for why in result.relevances:
            asked = pb.RelevanceRequest(label=why.label, by_layer=True)
            alone = await running.stub.Classify(api.ClassifyRequest(model="fashion", image=image, relevance=asked))
            np.testing.assert_allclose(layers_of(why), layers_of(alone.relevance), rtol=0, atol=TOLERANCE)
            assert_complete(why)


async def test_layers_by_another_method_are_refused(running: Running) -> None:
    """Though the model has it."""
    wanted = pb.RelevanceRequest(method=pb.RELEVANCE_METHOD_GENATT, by_layer=True)
    request = api.ClassifyRequest(model="fashion", image=CLOTHING.read_bytes(), relevance=wanted)
    message = "relevance.by_layer: true; expected none but with libra, not with genatt"
    assert await refused(running.stub.Classify(request), message) == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_model_says_whether_it_tells_layers(running: Running) -> None:
    """Where it was exported with them; they are no method."""
    models = {one.name: one for one in (await running.stub.ListModels(api.ListModelsRequest())).models}
    assert [name for name, one in models.items() if one.can_explain_layers] == ["fashion", "tiny-text"]
    assert len(models["fashion"].relevance_methods) == 5
