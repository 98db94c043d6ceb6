"""What an output is read from at fixed positions is computed for these alone, with the same numbers."""

from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from artifact.contract import RelevanceGraph
from export.relevance.flow import find_embedded, find_weights
from export.relevance.graph import WEIGHTS, add_relevance
from export.relevance.rows import read_rows
from export.tapping.tap import sort_nodes
from export.tapping.view import GraphView
from tests.export.relevance.graphs import run_graph
from tests.export.relevance.test_networks import image_network, lowered_graph, weights_like

_ATTENTION = ("attention.0", "attention.1")
_PIXELS = np.random.default_rng(1).standard_normal((2, 3, 12, 12)).astype(np.float32)


def products(model: ModelProto) -> int:
    """Multiplications of all matrix products, of two images of ten positions."""
    made = {name for node in model.graph.node if node.op_type == "MatMul" for name in (*node.input, *node.output)}
    copied = ModelProto()
    copied.CopyFrom(model)
    named = {value.name for value in copied.graph.output}
    weights = {tensor.name: tuple(tensor.dims) for tensor in copied.graph.initializer}
    wanted = sorted(made - weights.keys() - named)
    for name in wanted:
        copied.graph.output.add().name = name
    given = {value.name for value in copied.graph.input}
    feed = {name: array for name, array in (("pixel_values", _PIXELS), (WEIGHTS, weights_like(2))) if name in given}
    found = dict(zip(wanted, run_graph(copied, wanted, feed), strict=True))
    shapes = weights | {name: array.shape for name, array in found.items()}
    return sum(
        int(np.prod(shapes[node.output[0]])) * shapes[node.input[0]][-1]
        for node in model.graph.node
        if node.op_type == "MatMul" and node.output[0] in shapes
    )


@pytest.mark.parametrize(("method", "bound"), [("legrad", 1.3), ("genatt", 1.6)])
def test_a_class_token_costs_the_gradient_of_its_own_row(method: RelevanceGraph, bound: float, tmp_path: Path) -> None:
    """In matrix products of two layers, against the network's: with all rows they are 1.53 and 1.81."""
    graph = lowered_graph(image_network(), tmp_path, 12)
    explained, _ = add_relevance(graph, Path(), "logits", method, _ATTENTION)
    assert 1 < products(explained) / products(graph) < bound


@pytest.mark.parametrize("name", ["class token", "pooler"])
def test_rows_give_the_same_logits(name: str, tmp_path: Path) -> None:
    """And the last layer's attention is that of one query."""
    graph = lowered_graph(image_network(name), tmp_path, 12)
    (expected,) = run_graph(graph, ["logits"], {"pixel_values": _PIXELS})
    view = GraphView(graph, tmp_path)
    first, last = find_weights(view, "logits", _ATTENTION, find_embedded(view, "logits"))
    rows = read_rows(view, "logits")
    assert rows.of(first) == first
    assert rows.of(last) != last
    sort_nodes(graph)
    graph.graph.output.add().name = rows.of(last)
    found, weights = run_graph(graph, ["logits", rows.of(last)], {"pixel_values": _PIXELS})
    assert weights.shape == (2, 4, 1, 10)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * float(np.abs(expected).max()))


def test_what_is_read_from_all_positions_stays(tmp_path: Path) -> None:
    """A class token beside a mean."""
    graph = lowered_graph(image_network("class token and mean"), tmp_path, 12)
    before = graph.SerializeToString(deterministic=True)
    rows = read_rows(GraphView(graph, tmp_path), "logits")
    assert not rows.places
    assert not rows.made
    assert graph.SerializeToString(deterministic=True) == before


def test_positions_stay_the_same_axis_of_a_product_with_a_vector(tmp_path: Path) -> None:
    """[B, N, H, D] by [D] is [B, N, H]: an axis less behind the positions."""
    graph = ModelProto(ir_version=8)
    graph.opset_import.add(version=18)
    graph.graph.name = "vector"
    graph.graph.input.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 2, 4]))
    graph.graph.output.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2]))
    graph.graph.initializer.append(numpy_helper.from_array(np.arange(4, dtype=np.float32), "vector"))
    graph.graph.initializer.append(numpy_helper.from_array(np.array(-1), "place"))
    graph.graph.node.append(helper.make_node("MatMul", ["x", "vector"], ["state"]))
    graph.graph.node.append(helper.make_node("Gather", ["state", "place"], ["logits"], axis=1))
    given = {"x": np.random.default_rng(2).standard_normal((2, 3, 2, 4)).astype(np.float32)}
    (expected,) = run_graph(graph, ["logits"], given)
    read_rows(GraphView(graph, tmp_path), "logits")
    sort_nodes(graph)
    (found,) = run_graph(graph, ["logits"], given)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
