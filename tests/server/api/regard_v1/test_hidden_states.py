"""Hidden states through regard.v1, from a request to what its caller reads."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from regard.v1 import regard_pb2 as api
from regard.v1 import types_pb2 as pb
from server.api.regard_v1.tensors import read_tensor, write_tensor
from tests.server.api.reference import TOLERANCE, run_graph
from tests.server.asking import refused, samples
from tests.server.conftest import Running, Serve

CLOTHING = Path(__file__).parents[4] / "examples" / "clothing" / "sandal.png"
TEXTS = ["the cat sat on the mat", "a dog", "it was not a very good film and the dog ran", "one bad mat"]
CLS, MEAN = pb.HIDDEN_STATES_POOLING_CLS, pb.HIDDEN_STATES_POOLING_MEAN


def states(message: pb.HiddenStates, layer: int = 0) -> np.ndarray:
    """The values of one entry."""
    return read_tensor("values", message.layers[layer].values)


async def test_texts_in_one_batch_get_their_own_states(running: Running) -> None:
    """Every layer and position as the graph alone gives them: the padding of a shared run never shows."""
    wanted = pb.HiddenStatesRequest()
    requests = [api.EmbedRequest(model="tiny-text", text=text, hidden_states=wanted) for text in TEXTS]
    answers = await asyncio.gather(*(running.stub.Embed(request) for request in requests))
    for text, answer in zip(TEXTS, answers, strict=True):
        alone = run_graph(text, "hidden.onnx")
        assert [layer.layer for layer in answer.hidden_states.layers] == [0, 1, 2]
        for layer in range(3):
            found = states(answer.hidden_states, layer)
            np.testing.assert_allclose(found, alone[f"hidden_states.{layer}"][0], rtol=0, atol=TOLERANCE)
        assert list(answer.hidden_states.layers[0].axes) == ["position", "dim"]
        tokens = answer.hidden_states.tokens.tokens
        assert [token.text for token in tokens] == ["[CLS]", *text.split(), "[SEP]"]
        np.testing.assert_allclose(read_tensor("v", answer.vector), alone["embedding"][0], atol=TOLERANCE)
        assert not answer.HasField("attention")


async def test_several_texts_get_what_each_alone_gets(running: Running) -> None:
    """Pooled, in 8 bits, of chosen layers; an input that fails has its error."""
    wanted = pb.HiddenStatesRequest(layers=[-1, 1], pooling=MEAN, drop_special=True, dtype=pb.DATA_TYPE_UINT8)
    many = api.ClassifyRequest(model="tiny-text", texts=pb.Texts(items=[*TEXTS, ""]), hidden_states=wanted)
    answer = await running.stub.Classify(many)
    for text, result in zip(TEXTS, answer.results, strict=False):
        alone = run_graph(text, "hidden.onnx")
        last, first = result.hidden_states.layers
        assert (last.layer, first.layer, list(last.axes)) == (2, 1, ["dim"])
        assert list(last.positions) == list(range(1, len(text.split()) + 1))
        assert result.hidden_states.WhichOneof("positions") is None
        scale, offset = read_tensor("scales", last.scales), read_tensor("offsets", last.offsets)
        expected = alone["hidden_states.2"][0, 1:-1].mean(axis=0)
        read = read_tensor("values", last.values) * scale + offset
        np.testing.assert_allclose(read, expected, rtol=0, atol=float(scale) / 2 + TOLERANCE)
    assert answer.results[-1].error.message == "texts[4]: empty; expected a text with something in it"


async def test_predict_keeps_the_rows_and_leaves_their_padding_out_of_means(running: Running) -> None:
    """Two rows, of five tokens and of three."""
    ids = np.array([[2, 8, 9, 10, 3], [2, 8, 3, 0, 0]])
    inputs = {"input_ids": write_tensor(ids), "attention_mask": write_tensor((ids > 0).astype(np.int64))}
    request = api.PredictRequest(model="tiny-text", inputs=inputs, outputs=["last_hidden_state"])
    request.hidden_states.CopyFrom(pb.HiddenStatesRequest(layers=[2], pooling=MEAN))
    answer = await running.stub.Predict(request)
    hidden = read_tensor("last_hidden_state", answer.outputs["last_hidden_state"])
    assert list(answer.hidden_states.layers[0].axes) == ["batch", "dim"]
    expected = [hidden[0].mean(axis=0), hidden[1, :3].mean(axis=0)]
    np.testing.assert_allclose(states(answer.hidden_states), expected, rtol=0, atol=TOLERANCE)


async def test_an_image_has_the_states_of_its_patches(running: Running) -> None:
    """With the grid; of the class token alone without."""
    content = CLOTHING.read_bytes()
    request = api.EmbedRequest(model="fashion", image=content, hidden_states=pb.HiddenStatesRequest(layers=[3]))
    answer = await running.stub.Embed(request)
    grid = answer.hidden_states.patches
    assert states(answer.hidden_states).shape == (grid.prefix_tokens + grid.rows * grid.cols, 64)
    request.hidden_states.pooling, request.hidden_states.normalize = CLS, True
    pooled = states((await running.stub.Embed(request)).hidden_states)
    first = states(answer.hidden_states)[0]
    np.testing.assert_allclose(pooled, first / np.linalg.norm(first), rtol=0, atol=TOLERANCE)


async def test_a_model_says_which_states_it_has(running: Running) -> None:
    """Layers, what enters the first one included, and how wide."""
    model = (await running.stub.GetModel(api.GetModelRequest(model="tiny-text"))).model
    assert [(layer.layer, layer.dim) for layer in model.hidden_state_layers] == [(0, 32), (1, 32), (2, 32)]


async def test_what_is_sent_is_counted(alone: Running) -> None:
    """Apart from attention, and as runs of a graph of its own."""
    await alone.stub.Embed(api.EmbedRequest(model="tiny-text", text="a dog"))
    assert ("regard_hidden_states_sent_bytes_total", "tiny-text") not in await samples(alone)
    wanted = pb.HiddenStatesRequest(layers=[1], pooling=CLS)
    await alone.stub.Embed(api.EmbedRequest(model="tiny-text", text="a dog", hidden_states=wanted))
    found = await samples(alone)
    assert found[("regard_hidden_states_sent_bytes_total", "tiny-text")] == 32 * 4
    assert found[("regard_batch_seconds_count", "hidden", "tiny-text")] == 1
    assert ("regard_attention_sent_bytes_total", "tiny-text") not in found


async def test_together_with_attention_they_are_refused(running: Running) -> None:
    """In each call; a call for each gets both."""
    both: dict[str, Any] = {"attention": pb.AttentionRequest(), "hidden_states": pb.HiddenStatesRequest()}
    calls = [
        running.stub.Embed(api.EmbedRequest(model="tiny-text", text="a dog", **both)),
        running.stub.Classify(api.ClassifyRequest(model="tiny-text", texts=pb.Texts(items=TEXTS), **both)),
    ]
    for call in calls:
        code = await refused(call, "hidden_states: beside attention; expected one of both, or a call for each")
        assert code == grpc.StatusCode.INVALID_ARGUMENT


async def test_several_inputs_share_the_bounds_of_one_answer(start: Serve) -> None:
    """Of what is computed: 4 texts of some 8 tokens x 3 layers x 32 float32."""
    many = api.EmbedRequest(model="tiny-text", texts=pb.Texts(items=TEXTS), hidden_states=pb.HiddenStatesRequest())
    async with start(max_attention_bytes=9000) as server:
        expected = r"hidden_states: \d+ bytes to compute for 4 inputs; expected at most 9000 .*: fewer inputs or layers"
        assert await refused(server.stub.Embed(many), expected) == grpc.StatusCode.INVALID_ARGUMENT
        many.hidden_states.layers.append(1)
        assert len((await server.stub.Embed(many)).results) == 4
