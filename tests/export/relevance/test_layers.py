"""Relevance by layer: equal to autograd with hooks, complete at every depth, and alone as in a batch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import ModelProto

from artifact.contract import read_contract
from export.build import build
from export.errors import RelevanceError
from export.relevance.graph import WEIGHTS, add_relevance
from export.sources import load_folder
from export.tapping.tap import tap
from model.encoder import EncoderConfig
from model.text import TextConfig, TextNetwork
from tests.export.families import write_folder
from tests.export.networks import spread
from tests.export.relevance.graphs import Floats, run_graph
from tests.export.relevance.libra import explain_layers
from tests.export.relevance.test_networks import (
    IMAGES,
    TEXTS,
    assert_complete,
    assert_equal,
    image_network,
    lowered_graph,
    old_images,
    old_texts,
    text_network,
    weights_like,
)
from tests.export.small.family import LABELS, TEXT, Family

_IDS = np.array([[5, 7, 9, 11, 3], [8, 2, 4, 0, 0]])
_MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
_TEXTS = {"input_ids": _IDS, "attention_mask": _MASK}
_PIXELS = np.random.default_rng(1).standard_normal((2, 3, 12, 12)).astype(np.float32)
_ATTENTION = ("attention.0", "attention.1")
_SMALL_BERT = Family("bert", TEXT | LABELS, task="SequenceClassification")


def layers_of(
    graph: ModelProto, feed: dict[str, Floats], weights: Floats, output: str = "logits"
) -> tuple[Floats, Floats]:
    """By layer [B, L + 1, N], and what is added behind [B, L + 1]; both make up the score at every depth."""
    explained, names = add_relevance(graph, Path(), output, "layers", _ATTENTION)
    given = {value.name for value in explained.graph.input}
    taken = {name: array for name, array in {**feed, WEIGHTS: weights}.items() if name in given}
    wanted = [names.by_layer, names.added, names.score, names.positions, names.rest]
    held, added, score, positions, rest = run_graph(explained, wanted, taken)
    assert_complete(positions, rest, score, float(np.abs(positions).max()))
    for depth in range(held.shape[1]):
        assert_complete(held[:, depth], added[:, depth], score, float(np.abs(held).max()))
    assert np.abs(held).max() > 1e-3
    return held, added


def assert_autograd(network: Any, found: tuple[Floats, Floats], given: tuple[Floats, ...], weights: Floats) -> None:
    """Both are those of autograd, padding's being 0."""
    seed = torch.from_numpy(weights)
    tensors = tuple(map(torch.from_numpy, given))
    expected = explain_layers(network, tensors, lambda made: (made["logits"] * seed).sum(-1))
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.shape == theirs.shape
        assert_equal(mine, theirs.numpy())


@pytest.mark.parametrize("name", TEXTS)
def test_texts_have_the_layers_of_autograd(name: str, tmp_path: Path) -> None:
    """Of one label against another, norms before or behind; a short text beside a longer one."""
    network, weights = text_network(name), weights_like(2)
    held, added = layers_of(lowered_graph(network, tmp_path), _TEXTS, weights)
    assert_autograd(network, (held, added), (_IDS, _MASK), weights)
    assert not held[1, :, 3:].any()


@pytest.mark.parametrize("name", IMAGES)
def test_images_have_the_layers_of_autograd(name: str, tmp_path: Path) -> None:
    """Likewise."""
    network, weights = image_network(name), weights_like(2)
    found = layers_of(lowered_graph(network, tmp_path, 12), {"pixel_values": _PIXELS}, weights)
    assert_autograd(network, found, (_PIXELS,), weights)


def test_of_a_class_token_alone_the_last_layer_holds_it_all(tmp_path: Path) -> None:
    """Nothing else is read behind it, and something else was before."""
    held, _ = layers_of(lowered_graph(text_network("norms before, class token"), tmp_path), _TEXTS, weights_like(2))
    assert not held[:, -1, 1:].any()
    assert (np.abs(held[:, :-1, 1:]).sum(2) > 1e-3).all()


def test_a_row_alone_has_the_layers_that_it_has_in_a_batch(tmp_path: Path) -> None:
    """Shorter than the other, whose padding it then lacks."""
    graph = lowered_graph(text_network("norms behind, mean"), tmp_path)
    both, behind = layers_of(graph, _TEXTS, weights_like(2))
    alone, added = layers_of(graph, {"input_ids": _IDS[1:, :3], "attention_mask": _MASK[1:, :3]}, weights_like(1))
    assert_equal(alone, both[1:, :, :3])
    assert_equal(added, behind[1:])


@pytest.mark.parametrize("make", [old_texts, old_images])
def test_a_graph_of_unknown_origin_is_complete_at_every_depth(
    make: Callable[[], tuple[ModelProto, dict[str, Floats], int]], tmp_path: Path
) -> None:
    """Whatever its operators."""
    model, feed, width = make()
    tapped, taps = tap(model, tmp_path)
    held, _ = layers_of(tapped, feed, weights_like(2, width), "mean")
    assert held.shape[1] == len(taps) + 1


def test_one_layer_is_refused(tmp_path: Path) -> None:
    """Nothing tells its end from what follows."""
    config = EncoderConfig(24, 1, 4, 32, max_positions=32)
    network = spread(TextNetwork(TextConfig(config, vocab_size=60, num_classes=3)))
    with pytest.raises(RelevanceError, match="one layer, so that nothing tells where it ends"):
        add_relevance(lowered_graph(network, tmp_path), Path(), "logits", "layers", _ATTENTION[:1])


def test_an_artifact_has_layers_where_they_were_asked_for(tmp_path: Path) -> None:
    """Verified at every depth, and described."""
    source = load_folder(write_folder(_SMALL_BERT, tmp_path / "checkpoint"))
    built = build(source, tmp_path / "models", relevance=("libra", "layers"))
    contract = read_contract(built.folder / "contract.json")
    found = contract.label_layers
    assert found is not None
    assert (found.file, found.num_layers, found.position_axis) == ("relevance.layers.onnx", 2, "seq_len")
    assert contract.further_axes["relevance.by_layer"] == ("batch", 3, "seq_len")
    assert list(contract.label_methods) == ["libra"]
    checked = [line.tensor for line in contract.verification if line.check == "adds up"]
    depths = [f"layers.by_layer.{depth}" for depth in range(3)]
    assert checked == ["relevance.score", "layers.score", *depths, "similarity.score"]
    alone = [line.tensor for line in contract.verification if line.check == "row alone"]
    assert {"layers.by_layer", "layers.added"} <= set(alone)
