"""Which products stay in float32, and how well the others are chosen and scaled."""

from collections.abc import Sequence

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper

from artifact.dtypes import Array
from export.quantize import Quantizer, _error, _scale
from tests.export.tapping import graph, node, numbers

WIDTH = 8


def two_products() -> ModelProto:
    """One on normal numbers; one that gives small differences of large numbers, as its weights' columns sum to 0."""
    tame, wild = numbers(WIDTH, WIDTH), numbers(WIDTH, WIDTH, seed=1)
    wild -= wild.mean(axis=0)
    nodes = [node("MatMul", "x tame", "a"), node("MatMul", "y wild", "b")]
    inputs = {"x": ["batch", WIDTH], "y": ["batch", WIDTH]}
    return graph(nodes, inputs, ["a", "b"], {"tame": tame, "wild": wild}, opset=17)


def in_float32(model: ModelProto) -> list[str]:
    """Outputs of products whose weight was not quantised."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [one.output[0] for one in model.graph.node if one.op_type == "MatMul" and one.input[1] in weights]


def feeds() -> Sequence[dict[str, Array]]:
    """Eight rows, each normal for one product and nearly the same everywhere for the other."""
    rows = [numbers(1, WIDTH, seed=seed) for seed in range(8)]
    return [{"x": row, "y": 1 + row / 100} for row in rows]


def test_the_product_that_suffers_most_stays_in_float32() -> None:
    """Not the one that suffers least."""
    quantizer = Quantizer(two_products(), feeds())
    assert quantizer.products == 2
    assert [in_float32(quantizer.quantize(left_out)) for left_out in (0, 1, 2)] == [[], ["b"], ["a", "b"]]


def test_the_error_of_a_product_is_that_of_8_bits() -> None:
    """Rows and columns on the grid have none; a column's outlier rounds the others away."""
    rows = np.array([[255, 0, 1], [0, 128, 3]], dtype=np.float32)
    on_grid = np.array([[127, 1], [-3, -127], [0, 64]], dtype=np.float32)
    assert _error(rows, on_grid) == pytest.approx(0, abs=1e-6)
    outlier = np.array([[0.4, 1], [127, 1], [0.4, 1]], dtype=np.float32)
    lost = np.array([[255, 0, 1]], dtype=np.float32)
    assert _error(lost, outlier[:, :1]) == pytest.approx(1, abs=1e-6)  # everything the result is made of
    negative = np.array([[-255, 0, -1], [0, -128, -3]], dtype=np.float32)
    assert _error(negative, on_grid) == pytest.approx(0, abs=1e-6)


def test_scales_move_outliers_of_activations_into_the_weights() -> None:
    """SmoothQuant, equation 4, with a strength of 0.65, and a geometric mean of 1."""
    activations, columns = np.array([100, 1], dtype=np.float32), np.array([1, 4], dtype=np.float32)
    raw = np.array([100**0.65, 4**-0.35])
    np.testing.assert_allclose(_scale(activations, columns), raw / np.sqrt(raw.prod()), rtol=1e-5)


def test_products_of_one_input_share_the_scale_of_the_larger_weights() -> None:
    """And every column of a weight has a step of its own."""
    small, large = (
        numbers(WIDTH, WIDTH),
        numbers(WIDTH, WIDTH, seed=1) * np.linspace(2, 9, WIDTH, dtype=np.float32)[:, None],
    )
    nodes = [node("MatMul", "x small", "a"), node("MatMul", "x large", "b")]
    model = graph(nodes, {"x": ["batch", WIDTH]}, ["a", "b"], {"small": small, "large": large}, opset=17)
    quantizer = Quantizer(model, feeds_of_x := [{"x": feed["x"]} for feed in feeds()])
    weights = {one.name: numpy_helper.to_array(one) for one in quantizer.quantize(0).graph.initializer}
    largest = np.abs(np.concatenate([feed["x"] for feed in feeds_of_x])).max(axis=0)
    columns = np.maximum(np.abs(small).max(axis=1), np.abs(large).max(axis=1))
    np.testing.assert_allclose(1 / weights["x.inverse_scale"], _scale(largest, columns), rtol=1e-5)
    assert {weights[name].shape for name in weights if name.startswith(("small", "large")) and "scale" in name} == {
        (WIDTH,)
    }
