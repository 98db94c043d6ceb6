"""Whole networks: equal to an independent implementation by autograd, complete, and alone as in a batch."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, TensorProto, helper

from export.errors import RelevanceError
from export.graph import to_onnx
from export.relevance.graph import WEIGHTS, Relevance, add_relevance
from export.tapping.tap import tap, tap_lowered
from export.traits import own_traits
from model.encoder import EncoderConfig
from model.text import TextConfig, TextNetwork
from model.vit import VisionTransformer, ViTConfig
from tests.export.networks import Images, Texts, spread, write_onnx
from tests.export.relevance.graphs import Floats, run_graph
from tests.export.relevance.libra import explain

_TOLERANCE = 1e-5  # of the score, or of the largest relevance
_IDS = np.array([[5, 7, 9, 11, 3], [8, 2, 4, 0, 0]])
_MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
_PIXELS = np.random.default_rng(1).standard_normal((2, 3, 12, 12)).astype(np.float32)

TEXTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "norms behind, mean": ({"norm": "post", "positions": "learned"}, {}),
    "norms before, class token": ({"norm": "pre", "positions": "sinusoidal"}, {"pooling": "cls"}),
    "rotary, silu, layer scale": ({"positions": "rotary", "activation": "silu", "layer_scale": True}, {}),
    "relu, pooler": (
        {"activation": "relu", "positions": "learned", "norm": "post"},
        {"bert_pooler": True, "classify_from": "pooler", "num_segments": 2},
    ),
}
IMAGES: dict[str, dict[str, Any]] = {
    "class token": {},
    "class token and mean": {"classify_from": "cls_and_mean"},
    "pooler": {"vit_pooler": True},
}


def text_network(name: str) -> TextNetwork:
    """One of TEXTS."""
    encoder, options = TEXTS[name]
    config = EncoderConfig(24, 2, 4, 32, max_positions=32, **encoder)
    return spread(TextNetwork(TextConfig(config, vocab_size=60, num_classes=3, **options)))


def image_network(name: str = "class token") -> VisionTransformer:
    """One of IMAGES."""
    config = EncoderConfig(24, 2, 4, 32, layer_scale=True)
    return spread(VisionTransformer(ViTConfig(config, image_size=12, patch_size=4, num_classes=3, **IMAGES[name])))


def lowered_graph(network: Any, folder: Path, image_size: int | None = None) -> ModelProto:
    """The network's tapped graph without Attention nodes."""
    tapped, _ = tap(to_onnx(network, own_traits(network, image_size)), folder)
    return tap_lowered(tapped, folder) or tapped


def relevance_of(
    graph: ModelProto,
    feed: dict[str, Floats],
    weights: Floats | None,
    output: str = "logits",
) -> tuple[Floats, Floats, Floats]:
    """Relevance of positions [B, N], the rest [B] and the score [B]."""
    explained, names = add_relevance(graph, Path(), output)
    given = {value.name for value in explained.graph.input}
    taken = {name: array for name, array in feed.items() if name in given}
    if weights is not None:
        taken[WEIGHTS] = weights
    positions, rest, score = run_graph(explained, [names.positions, names.rest, names.score], taken)
    return positions, rest, score


def assert_complete(positions: Floats, rest: Floats, score: Floats, largest: float) -> None:
    """Positions and the rest make up the score."""
    np.testing.assert_allclose(positions.sum(1) + rest, score, atol=_TOLERANCE * max(largest, 1.0))


def weights_like(rows: int, classes: int = 3) -> Floats:
    """The last label against the first, in every row."""
    weights = np.zeros((rows, classes), dtype=np.float32)
    weights[:, -1], weights[:, 0] = 1, -1
    return weights


def assert_equal(found: Floats, expected: Floats) -> None:
    """Within a share of the largest."""
    np.testing.assert_allclose(found, expected, atol=_TOLERANCE * max(float(np.abs(expected).max()), 1.0))


@pytest.mark.parametrize("output", ["logits", "embedding"])
@pytest.mark.parametrize("name", TEXTS)
def test_texts_have_the_relevance_of_autograd(name: str, output: str, tmp_path: Path) -> None:
    """Of one label against another, or along a vector; a short text beside a longer one; and it is complete."""
    network, feed = text_network(name), {"input_ids": _IDS, "attention_mask": _MASK}
    weights = weights_like(2, 3 if output == "logits" else 24)
    found, rest, score = relevance_of(lowered_graph(network, tmp_path), feed, weights, output)
    tensors = (torch.from_numpy(_IDS), torch.from_numpy(_MASK))
    expected, others = explain(network, tensors, lambda made: (made[output] * torch.from_numpy(weights)).sum(-1))
    assert_equal(found, expected.numpy())
    assert_equal(rest, others.numpy())
    assert not found[1, 3:].any()
    with torch.no_grad():
        assert_equal(score, (network(*tensors)[output].numpy() * weights).sum(1))
    assert_complete(found, rest, score, float(np.abs(found).max()))


@pytest.mark.parametrize("name", IMAGES)
def test_images_have_the_relevance_of_autograd(name: str, tmp_path: Path) -> None:
    """Likewise."""
    network, weights = image_network(name), weights_like(2)
    found, rest, score = relevance_of(lowered_graph(network, tmp_path, 12), {"pixel_values": _PIXELS}, weights)
    pixels = (torch.from_numpy(_PIXELS),)
    expected, others = explain(network, pixels, lambda made: (made["logits"] * torch.from_numpy(weights)).sum(-1))
    assert_equal(found, expected.numpy())
    assert_equal(rest, others.numpy())
    assert_complete(found, rest, score, float(np.abs(found).max()))


def test_a_row_alone_has_the_relevance_that_it_has_in_a_batch(tmp_path: Path) -> None:
    """Shorter than the other, whose padding it then lacks."""
    graph = lowered_graph(text_network("norms behind, mean"), tmp_path)
    both, _, _ = relevance_of(graph, {"input_ids": _IDS, "attention_mask": _MASK}, weights_like(2))
    alone, _, _ = relevance_of(graph, {"input_ids": _IDS[1:, :3], "attention_mask": _MASK[1:, :3]}, weights_like(1))
    np.testing.assert_allclose(alone, both[1:, :3], atol=1e-5 * float(np.abs(both).max()))


def test_without_weights_the_largest_logit_is_explained(tmp_path: Path) -> None:
    """Of each row its own, be they left out, or 0 in that row."""
    graph, feed = (
        lowered_graph(text_network("norms behind, mean"), tmp_path),
        {"input_ids": _IDS, "attention_mask": _MASK},
    )
    (logits,) = run_graph(graph, ["logits"], feed)
    first = np.eye(3, dtype=np.float32)[logits.argmax(1)]
    expected, rest, score = relevance_of(graph, feed, first)
    assert_equal(score, logits.max(1))
    for weights in (None, np.stack([np.zeros(3, dtype=np.float32), first[1]])):
        found, others, also = relevance_of(graph, feed, weights)
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal((others, also), (rest, score))


def test_the_gradient_is_that_of_autograd_and_what_it_gives_is_not_complete(tmp_path: Path) -> None:
    """Attention's weights are differentiated too."""
    network, weights = text_network("norms behind, mean"), weights_like(2)
    feed = {"input_ids": _IDS, "attention_mask": _MASK, WEIGHTS: weights}
    explained, names = add_relevance(lowered_graph(network, tmp_path), Path(), "logits", "gradient")
    taken = {value.name: feed[value.name] for value in explained.graph.input if value.name in feed}
    found, score = run_graph(explained, [names.positions, names.score], taken)
    outputs, states = network.show_states(torch.from_numpy(_IDS), torch.from_numpy(_MASK))
    total = (outputs["logits"] * torch.from_numpy(weights)).sum()
    (gradient,) = torch.autograd.grad(total, states[0])
    assert_equal(found, (states[0] * gradient).sum(-1).detach().numpy())
    assert not names.rest
    assert np.abs(found.sum(1) - score).max() > 0.1


def old_texts() -> tuple[ModelProto, dict[str, Floats], int]:
    """Attention and norms as they were written before there were nodes for them."""
    network, feed = spread(Texts()), {"input_ids": _IDS, "attention_mask": _MASK, "token_type_ids": _IDS % 2}
    axes = {name: {0: "batch", 1: "sequence"} for name in feed} | {
        "last": {0: "batch", 1: "sequence"},
        "mean": {0: "batch"},
    }
    tensors = {name: torch.from_numpy(array) for name, array in feed.items()}
    return write_onnx(network, tensors, axes, outputs=["last", "mean"]), feed, 16


def old_images() -> tuple[ModelProto, dict[str, Floats], int]:
    """Likewise."""
    pixels = np.random.default_rng(2).standard_normal((2, 3, 32, 32)).astype(np.float32)
    axes = {"pixel_values": {0: "batch"}, "mean": {0: "batch"}}
    return (
        write_onnx(spread(Images()), {"pixel_values": torch.from_numpy(pixels)}, axes, outputs=["mean"]),
        {"pixel_values": pixels},
        3,
    )


@pytest.mark.parametrize("make", [old_texts, old_images])
def test_a_graph_of_unknown_origin_has_complete_relevance(make: Any, tmp_path: Path) -> None:
    """Whatever its operators."""
    model, feed, width = make()
    tapped, _ = tap(model, tmp_path)
    found, rest, score = relevance_of(tapped, feed, weights_like(2, width), "mean")
    assert_complete(found, rest, score, float(np.abs(found).max()))
    assert np.abs(found).max() > 1e-3


def test_what_enters_the_layers_is_found(tmp_path: Path) -> None:
    """It is the first hidden state: what the relevance of positions is of."""
    graph = lowered_graph(text_network("norms behind, mean"), tmp_path)
    _, names = add_relevance(graph, Path(), "logits")
    assert isinstance(names, Relevance)
    graph.graph.output.append(helper.make_tensor_value_info(names.embedded, TensorProto.FLOAT, None))
    (found,) = run_graph(graph, [names.embedded], {"input_ids": _IDS, "attention_mask": _MASK})
    with torch.no_grad():
        _, states = text_network("norms behind, mean").show_states(torch.from_numpy(_IDS), torch.from_numpy(_MASK))
    assert_equal(found, states[0].numpy())


def two_tables(opset: int = 20, others: tuple[str, ...] = ("other",)) -> ModelProto:
    """Attention of one table's rows to another's, which go past the first value."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["one"]),
        helper.make_node("Gather", [others[0], "ids"], ["two"]),
        helper.make_node("Softmax", ["one"], ["held"]),
        helper.make_node("MatMul", ["held", "two"], ["mixed"]),
        helper.make_node("Add", ["mixed", "one"], ["y"]),
    ]
    table = np.ones((4, 3), dtype=np.float32)
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3, 3])],
        [onnx.numpy_helper.from_array(table, name) for name in ("table", *others)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


@pytest.mark.parametrize(
    ("model", "output", "message"),
    [
        (two_tables(), "y", "through which all of the input goes"),
        (two_tables(), "z", "output: 'z'; expected one of y"),
        (two_tables(12), "y", "opset: 12; expected 13 or later"),
        (two_tables(20, (WEIGHTS,)), "y", "relevance.weights: a name that this adds"),
    ],
)
def test_a_graph_without_relevance_is_refused(model: ModelProto, output: str, message: str) -> None:
    """Where input goes past the first layer, relevance of its positions would leave that out."""
    with pytest.raises(RelevanceError, match=message):
        add_relevance(model, Path(), output)
