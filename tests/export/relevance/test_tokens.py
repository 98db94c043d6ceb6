"""Written tokens: equal to an independent implementation by autograd, complete, and alone as in a batch."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from onnx import ModelProto

from artifact.contract import TOKEN_RELEVANCE_GRAPH
from artifact.generation import TOKEN_RELEVANCE
from export.build import build
from export.encoder_decoder import load_own
from export.errors import RelevanceError
from export.next_token import OwnNextToken, trace_next_token, traits_of_tokens
from export.relevance import tokens
from export.relevance.rules import RULES
from export.relevance.tokens import LOGIT, add_token_relevance
from export.sources import load_folder
from export.traits import Feed
from model.checkpoint import save_encoder_decoder
from model.encoder import Positions
from model.encoder_decoder import EncoderDecoder
from tests.export.encoder_decoders import VOCABULARY, write_checkpoint
from tests.export.relevance.graphs import Floats, run_graph
from tests.export.relevance.libra import explain_tokens
from tests.export.relevance.test_networks import assert_equal
from tests.model.encoder_decoders import make_network

_NAMES = TOKEN_RELEVANCE
FEED: Feed = {
    "input_ids": np.array([[5, 7, 9, 11, 2], [8, 12, 2, 0, 0], [4, 2, 0, 0, 0]]),
    "attention_mask": np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 0, 0, 0]]),
    _NAMES.target_ids: np.array([[1, 14, 15, 18, 16, 13], [3, 13, 17, 0, 0, 0], [1, 0, 0, 0, 0, 0]]),
    _NAMES.target_lengths: np.array([6, 3, 1]),
    _NAMES.token: np.array([2, 15, 14]),
}


def traced(network: EncoderDecoder, folder: Path) -> ModelProto:
    """What relevance is made from."""
    _, traits, writing = load_own(write_checkpoint_of(network, folder))
    own = traits_of_tokens(traits, writing.generation, writing.max_positions)
    return trace_next_token(OwnNextToken(network), own)


def write_checkpoint_of(network: EncoderDecoder, folder: Path) -> Path:
    """Save it."""
    save_encoder_decoder(network, folder, VOCABULARY)
    return folder


def explained(graph: ModelProto, feed: Feed) -> dict[str, Floats]:
    """All outputs by name."""
    return dict(zip(_NAMES.outputs, run_graph(graph, list(_NAMES.outputs), feed), strict=True))


def row_alone(row: int) -> Feed:
    """One row, without padding."""
    source, target = int(FEED["attention_mask"][row].sum()), int(FEED[_NAMES.target_lengths][row])
    lengths = {"input_ids": source, "attention_mask": source, _NAMES.target_ids: target}
    return {
        name: array[row : row + 1, : lengths[name]] if name in lengths else array[row : row + 1]
        for name, array in FEED.items()
    }


@pytest.mark.parametrize(
    ("positions", "norm", "settings"),
    [
        ("rotary", "pre", {}),
        ("learned", "post", {"tie_output": False, "output_bias": True}),
        ("sinusoidal_interleaved", "pre", {"scale_embeddings": False}),
    ],
)
def test_tokens_have_the_relevance_of_autograd(
    positions: Positions, norm: Literal["pre", "post"], settings: dict[str, Any], tmp_path: Path
) -> None:
    """Of source and target, at other places of other texts in one batch; complete; a row alone has the same."""
    network = make_network(positions, norm, **settings)
    graph = add_token_relevance(traced(network, tmp_path), Path())
    found = explained(graph, FEED)
    expected = explain_tokens(network, *map(torch.from_numpy, FEED.values()))
    for name, tensor in zip(_NAMES.outputs, expected, strict=True):
        assert_equal(found[name], tensor.numpy())
    total = found[_NAMES.source].sum(1) + found[_NAMES.target].sum(1) + found[_NAMES.rest]
    largest = max(float(np.abs(found[name]).sum(1).max()) for name in (_NAMES.source, _NAMES.target))
    np.testing.assert_allclose(total, found[_NAMES.score], atol=1e-5 * max(largest, 1.0))
    for row in range(3):
        for name, array in explained(graph, row_alone(row)).items():
            together = found[name][row : row + 1]
            assert_equal(array, together[:, : array.shape[1]] if array.ndim > 1 else together)
    assert not found[_NAMES.source][1, 3:].any()
    assert not found[_NAMES.target][1, 3:].any()


def test_what_is_not_written_yet_changes_nothing(tmp_path: Path) -> None:
    """Tokens behind those that are read are padding, whatever they are."""
    graph = add_token_relevance(traced(make_network("rotary"), tmp_path), Path())
    found, others = explained(graph, FEED), FEED[_NAMES.target_ids].copy()
    others[1, 3:], others[2, 1:] = 9, 11
    for name, array in explained(graph, {**FEED, _NAMES.target_ids: others}).items():
        np.testing.assert_allclose(array, found[name], atol=1e-6)


def test_an_operator_without_a_rule_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the artifact is made without the graph, with a line that says so."""
    monkeypatch.setattr(tokens, "RULES", {name: rule for name, rule in RULES.items() if name != "MatMul"})
    network = make_network("rotary")
    with pytest.raises(RelevanceError, match="MatMul has no reverse rule"):
        add_token_relevance(traced(network, tmp_path / "traced"), Path())
    built = build(load_folder(write_checkpoint(tmp_path / "network"), name="small"), tmp_path / "models")
    assert len(built.left_out) == 1
    assert built.left_out[0].startswith("no relevance of written tokens: ")
    assert TOKEN_RELEVANCE_GRAPH not in built.contract.files
    assert not built.contract.explains_tokens
    with pytest.raises(ValueError, match="explains no tokens"):
        _ = built.contract.of_tokens


def test_a_graph_that_does_not_add_up_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is verified once it is written, and taken away again."""

    def doubled(reverse: Any, node: Any, given: Any) -> None:
        twice = [name and reverse.add("Add", [name, name]) for name in given]
        RULES["MatMul"](reverse, node, twice)

    monkeypatch.setattr(tokens, "RULES", {**RULES, "MatMul": doubled})
    built = build(load_folder(write_checkpoint(tmp_path / "network"), name="small"), tmp_path / "models")
    assert "relevance.score: adds up" in built.left_out[0]
    assert TOKEN_RELEVANCE_GRAPH not in built.contract.files


def test_a_logit_of_one_input_alone_is_refused(tmp_path: Path) -> None:
    """There is nothing of the source to be told."""
    graph = traced(make_network("rotary"), tmp_path)
    for node in graph.graph.node:
        node.output[:] = ["other" if name == LOGIT else name for name in node.output]
    node = graph.graph.node.add(op_type="ReduceSum", input=["attention_mask"], output=[LOGIT])
    node.attribute.add(name="keepdims", type=2, i=0)
    with pytest.raises(RelevanceError, match="the logit does not depend on it"):
        add_token_relevance(graph, Path())
