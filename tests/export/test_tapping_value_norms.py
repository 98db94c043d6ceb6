from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, NodeProto

from artifact.dtypes import Array
from tests.export.tapping import (
    MICROSOFT,
    Feed,
    by_head,
    compare_lowered,
    compare_tapped,
    graph,
    node,
    numbers,
)

BATCH, LENGTH, HEADS, KEY_HEADS, HEAD_DIM, WIDTH = 2, 5, 4, 2, 3, 7
FLAT = HEADS * HEAD_DIM
OUT = numbers(FLAT, WIDTH)
MERGE = [node("Transpose", "y", "t", perm=[0, 2, 1, 3]), node("Reshape", "t merged", "f")]
PROJECT = [*MERGE, node("MatMul", "f out", "z")]
GEMM = [
    node("Transpose", "y", "t", perm=[2, 0, 1, 3]),
    node("Reshape", "t rows", "f"),
    node("Gemm", "f turned", "z", transB=1, alpha=0.5),
]
SCALED = [*MERGE, node("MatMul", "f out", "p"), node("Add", "p bias", "b"), node("Mul", "b layer_scale", "z")]


def projected(after: list[NodeProto], key_heads: int = HEADS, outputs: tuple[str, ...] = ("z",)) -> ModelProto:
    """Attention of values by head, and what becomes of the attended values."""
    axes = {"q": HEADS, "k": key_heads, "v": key_heads}
    inputs: dict[str, Any] = {name: ["batch", heads, "n", HEAD_DIM] for name, heads in axes.items()}
    weights = {
        "merged": np.array([0, 0, FLAT]),
        "rows": np.array([-1, FLAT]),
        "out": OUT,
        "turned": np.ascontiguousarray(OUT.T),
        "bias": numbers(WIDTH),
        "layer_scale": numbers(WIDTH, seed=1),
        "one_head": numbers(HEAD_DIM, WIDTH),
    }
    nodes = [node("Attention", "q k v", "y"), *after]
    taken = {name for one in nodes for name in one.input}
    if "computed" in taken:
        inputs["computed"] = [FLAT, WIDTH]
    return graph(nodes, inputs, list(outputs), {name: weights[name] for name in weights if name in taken})


def feed_of(key_heads: int = HEADS) -> Feed:
    """Query, key and value by head."""
    heads = {"q": HEADS, "k": key_heads, "v": key_heads}
    return {name: numbers(BATCH, count, LENGTH, HEAD_DIM, seed=ord(name)) for name, count in heads.items()}


def lengths(values: Array, out: Array = OUT) -> Array:
    """Compute ||v_k W_h|| in float64, [B, H, K], from values [B, H or fewer, K, d] and the projection [H * d, D]."""
    by_query_head = np.repeat(values.astype(np.float64), HEADS // values.shape[1], axis=1)
    vectors = np.einsum("bhkd,hde->bhke", by_query_head, out.astype(np.float64).reshape(HEADS, -1, out.shape[1]))
    return np.asarray(np.linalg.norm(vectors, axis=-1))


@pytest.mark.parametrize("key_heads", [HEADS, KEY_HEADS, 1])
@pytest.mark.parametrize(
    ("after", "factor"), [(PROJECT, 1), (GEMM, 0.5), (SCALED, 1)], ids=["MatMul", "Gemm", "layer scale"]
)
def test_norms_are_of_the_values_behind_each_heads_part_of_the_projection(
    after: list[NodeProto], factor: float, key_heads: int
) -> None:
    """By group of heads, through MatMul or Gemm; what scales the whole layer behind it is not part of it."""
    model, feed = projected(after, key_heads), feed_of(key_heads)
    taps, got = compare_tapped(model, feed)
    assert taps[0].value_norms == "value_norms.0"
    assert got["value_norms.0"].dtype == np.float32
    np.testing.assert_allclose(got["value_norms.0"], factor * lengths(feed["v"]), rtol=1e-5)
    assert compare_lowered(model, feed) is not None


def test_a_projection_narrower_than_a_head_has_norms_too() -> None:
    """Its R is no square."""
    narrow = numbers(FLAT, 2)
    model = projected(PROJECT)
    for tensor in model.graph.initializer:
        if tensor.name == "out":
            tensor.CopyFrom(graph([], {}, [], {"out": narrow}).graph.initializer[0])
    feed = feed_of()
    _, got = compare_tapped(model, feed)
    np.testing.assert_allclose(got["value_norms.0"], lengths(feed["v"], narrow), rtol=1e-5)


def test_values_with_their_heads_in_one_axis_have_norms_too() -> None:
    """Of ONNX's Attention, and of ONNX Runtime's with a bias of its own."""
    inputs = {name: ["batch", "n", FLAT] for name in "qkv"}
    feed = {name: numbers(BATCH, LENGTH, FLAT, seed=ord(name)) for name in "qkv"}
    onnx_node = node("Attention", "q k v", "y", q_num_heads=HEADS, kv_num_heads=HEADS)
    fused = node("MultiHeadAttention", "q k v bias", "y", MICROSOFT, num_heads=HEADS)
    bias = numbers(3 * FLAT)
    for one, weights, added in ((onnx_node, {}, 0.0), (fused, {"bias": bias}, bias[2 * FLAT :])):
        model = graph([one, node("MatMul", "y out", "z")], inputs, ["z"], {"out": OUT, **weights})
        _, got = compare_tapped(model, feed)
        np.testing.assert_allclose(got["value_norms.0"], lengths(by_head(feed["v"] + added, HEADS)), rtol=1e-5)


@pytest.mark.parametrize("opset", [11, 14, 18])
def test_values_of_eager_attention_have_norms_too(opset: int) -> None:
    """For every opset."""
    nodes = [
        node("Transpose", "k", "kt", perm=[0, 1, 3, 2]),
        node("MatMul", "q kt", "s"),
        node("Softmax", "s", "w", axis=-1),
        node("MatMul", "w v", "y"),
    ]
    inputs = {name: ["batch", HEADS, "n", HEAD_DIM] for name in "qkv"}
    weights = {"merged": np.array([0, 0, FLAT]), "out": OUT}
    feed = feed_of()
    _, got = compare_tapped(graph([*nodes, *PROJECT], inputs, ["z"], weights, opset), feed)
    np.testing.assert_allclose(got["value_norms.0"], lengths(feed["v"]), rtol=1e-5)


@pytest.mark.parametrize("key_heads", [HEADS, 1])
def test_values_whose_heads_only_a_run_counts_have_norms_too(key_heads: int) -> None:
    """As many as there are weights, or one for all."""
    nodes = [
        node("Transpose", "k", "kt", perm=[0, 1, 3, 2]),
        node("MatMul", "q kt", "s"),
        node("Softmax", "s", "w", axis=-1),
        node("MatMul", "w v", "y"),
    ]
    inputs = {"q": ["batch", HEADS, "n", HEAD_DIM]} | {name: ["batch", "heads", "n", HEAD_DIM] for name in "kv"}
    weights = {"merged": np.array([0, 0, FLAT]), "out": OUT}
    feed = feed_of(key_heads)
    _, got = compare_tapped(graph([*nodes, *PROJECT], inputs, ["z"], weights, 17), feed)
    np.testing.assert_allclose(got["value_norms.0"], lengths(feed["v"]), rtol=1e-5)


def test_attended_values_that_are_an_output_too_have_norms() -> None:
    """An output changes nothing about where they go."""
    assert compare_tapped(projected(PROJECT, outputs=("z", "y")), feed_of())[0][0].value_norms


ELSEWHERE = {
    "the values go to two places": [*PROJECT, node("Relu", "f", "r")],
    "they are changed before": [*MERGE, node("Relu", "f", "r"), node("MatMul", "r out", "z")],
    "they meet others before": [*MERGE, node("Concat", "f f", "c", axis=-1), node("ReduceSum", "c", "z")],
    "heads are interleaved": [
        node("Transpose", "y", "t", perm=[0, 2, 3, 1]),
        node("Reshape", "t merged", "f"),
        node("MatMul", "f out", "z"),
    ],
    "heads are turned back": [
        node("Transpose", "y", "a", perm=[0, 2, 1, 3]),
        node("Transpose", "a", "t", perm=[0, 2, 1, 3]),
        node("Reshape", "t rows", "f"),
        node("MatMul", "f out", "z"),
    ],
    "heads share one projection": [node("MatMul", "y one_head", "z")],
    "the projection is the left side": [
        *MERGE,
        node("Transpose", "f", "ft", perm=[0, 2, 1]),
        node("MatMul", "turned ft", "z"),
    ],
    "the projection is computed": [*MERGE, node("MatMul", "f computed", "z")],
    "the projection is quantised": [
        node("QuantizeLinear", "out step", "small"),
        node("DequantizeLinear", "small step", "back"),
        *MERGE,
        node("MatMul", "f back", "z"),
    ],
    "there is none": [node("Relu", "y", "z")],
}


@pytest.mark.parametrize("way", ELSEWHERE)
def test_where_the_graph_does_not_show_one_projection_there_are_no_norms(way: str) -> None:
    """Rather none than wrong ones; the weights are there all the same."""
    model, feed = projected(ELSEWHERE[way], outputs=("z", "r") if "r" in way.split() else ("z",)), feed_of()
    if "quantised" in way:
        model.graph.initializer.append(graph([], {}, [], {"step": np.array(0.1, np.float32)}).graph.initializer[0])
    if "computed" in way:
        feed["computed"] = OUT
    taps, got = compare_tapped(model, feed)
    assert taps[0].value_norms is None
    assert sorted(name for name in got if "." in name) == ["attention.0"]
