from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

from artifact.dtypes import Array
from export.errors import TapError
from export.tapping.packed import part_packed_attention
from tests.export.tapping import MICROSOFT, Feed, by_head, compare_tapped, graph, node, numbers, run, weigh

BATCH, LENGTH, HEADS, WIDTH = 2, 5, 2, 8
REAL = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], dtype=np.int32)
ADDED = np.where(REAL, 0, -1e4)[:, None, None]


def packed(inputs: str = "x w b", opset: int = 17, width: int = 3 * WIDTH, **attributes: Any) -> ModelProto:
    """One Attention of ONNX Runtime, which projects by itself."""
    given: dict[str, Any] = {
        "x": ["batch", "n", WIDTH],
        "mask": ("int32", ["batch", "n"]),
        "rows": ("int32", ["batch", "n", "n"]),
        "counts": ("int32", ["batch"]),
        "scores": ["batch", HEADS, "n", "n"],
    }
    taken = {name: axes for name, axes in given.items() if name in inputs.split()}
    one = node("Attention", inputs, "y", MICROSOFT, num_heads=HEADS, **attributes)
    weights = {"w": numbers(WIDTH, width), "b": numbers(width)}
    return graph([one], taken, ["y"], {name: weights[name] for name in weights if name in inputs.split()}, opset)


def parted(model: ModelProto, feed: Feed) -> Feed:
    """Part it, check that it still gives the same, and tap it."""
    expected = run(model, feed)["y"]
    assert part_packed_attention(model) == 1
    taps, got = compare_tapped(model, feed)
    np.testing.assert_allclose(got["y"], expected, atol=1e-5)
    assert taps[0].node.startswith("my Attention/")
    return got


def expected_weights(model: ModelProto, x: Array, mask: Array | None = None, **how: Any) -> Array:
    """Project and weigh in float64."""
    weights, bias = numbers(WIDTH, 3 * WIDTH), numbers(3 * WIDTH)
    query, key, _ = np.split(x @ weights.astype(np.float64) + bias, 3, axis=-1)
    return weigh(by_head(query, HEADS), by_head(key, HEADS), mask, **how)


@pytest.mark.parametrize("opset", [11, 17])
@pytest.mark.parametrize(
    ("name", "mask", "added"),
    [
        ("", None, None),
        ("mask", REAL, ADDED),
        ("rows", np.stack([REAL] * LENGTH, 1), ADDED),
        ("counts", np.array([3, 5], dtype=np.int32), ADDED),
        ("- scores", numbers(BATCH, HEADS, LENGTH, LENGTH), numbers(BATCH, HEADS, LENGTH, LENGTH)),
    ],
)
def test_it_becomes_a_projection_and_a_multi_head_attention(
    name: str, mask: Array | None, added: Array | None, opset: int
) -> None:
    """With masks of every form; outputs within 1e-5, weights within 1e-6 of float64."""
    inputs = f"x w b {name.replace('-', '- -')}"
    feed = {"x": numbers(BATCH, LENGTH, WIDTH)} | ({} if mask is None else {name.split()[-1]: mask})
    got = parted(packed(inputs, opset), feed)
    np.testing.assert_allclose(got["attention.0"], expected_weights(packed(), feed["x"], added), atol=1e-6)


@pytest.mark.parametrize(
    ("attributes", "how"), [({"scale": 0.2}, {"scale": 0.2}), ({"unidirectional": 1}, {"causal": True})]
)
def test_scale_and_direction_are_kept(attributes: dict[str, Any], how: dict[str, Any]) -> None:
    """As the node has them."""
    feed = {"x": numbers(BATCH, LENGTH, WIDTH)}
    got = parted(packed(**attributes), feed)
    np.testing.assert_allclose(got["attention.0"], expected_weights(packed(), feed["x"], **how), atol=1e-6)


def test_values_may_have_a_width_of_their_own() -> None:
    """qkv_hidden_sizes."""
    model = packed(width=2 * WIDTH + 6, qkv_hidden_sizes=[WIDTH, WIDTH, 6])
    assert parted(model, {"x": numbers(BATCH, LENGTH, WIDTH)})["y"].shape == (BATCH, LENGTH, 6)


def test_there_may_be_no_bias() -> None:
    """ONNX Runtime 1.31 dies on such a node; parted, it runs."""
    model, x = packed("x w"), numbers(BATCH, LENGTH, WIDTH)
    assert part_packed_attention(model) == 1
    _, got = compare_tapped(model, {"x": x})
    query, key, value = np.split(x @ numbers(WIDTH, 3 * WIDTH), 3, axis=-1)
    weights = weigh(by_head(query, HEADS), by_head(key, HEADS))
    np.testing.assert_allclose(got["attention.0"], weights, atol=1e-6)
    np.testing.assert_allclose(by_head(got["y"], HEADS), weights @ by_head(value, HEADS), atol=1e-5)


def test_a_graph_without_such_a_node_stays_as_it_is() -> None:
    """ONNX's own Attention is another operator."""
    model = graph([node("Attention", "q q q", "y")], {"q": ["batch", 2, "n", 4]}, ["y"])
    before = model.SerializeToString()
    assert part_packed_attention(model) == 0
    assert model.SerializeToString() == before


@pytest.mark.parametrize(
    ("inputs", "outputs", "attributes", "reason"),
    [
        ("x w b - past", "y present", {}, "works on a key-value cache"),
        ("x w b", "y present", {}, "works on a key-value cache"),
        ("x w b", "y", {"do_rotary": 1}, "turns query and key by their positions"),
        ("x computed b", "y", {}, "its projection is computed; expected a weight"),
    ],
)
def test_what_cannot_be_parted_is_refused_by_name(
    inputs: str, outputs: str, attributes: dict[str, Any], reason: str
) -> None:
    """Caches, rotations, and projections that are no weights."""
    given = {"x": ["batch", "n", WIDTH], "past": [2, "batch", HEADS, "p", 4], "computed": [WIDTH, 3 * WIDTH]}
    weights = {"w": numbers(WIDTH, 3 * WIDTH), "b": numbers(3 * WIDTH)}
    one = node("Attention", inputs, outputs, MICROSOFT, num_heads=HEADS, **attributes)
    with pytest.raises(TapError, match=f"my Attention: {reason}"):
        part_packed_attention(graph([one], given, outputs.split(), weights, opset=17))
