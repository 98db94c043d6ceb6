from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto, numpy_helper

from artifact.dtypes import Array
from export.errors import TapError
from export.tapping.tap import tap
from tests.export.tapping import MICROSOFT, Feed, compare_tapped, graph, node, numbers, weigh

BATCH, LENGTH, HEADS, WIDTH = 2, 5, 4, 8
INPUTS: dict[str, Any] = {name: ["batch", HEADS, "n", WIDTH] for name in "qkv"}
FEED = {name: numbers(BATCH, HEADS, LENGTH, WIDTH, seed=place) for place, name in enumerate("qkv")}
SEEN = np.array([[1, 1, 1, 1, 0], [1, 1, 0, 0, 0]], dtype=bool)[:, None, None]
SCALARS = {"root": np.float32(WIDTH**0.5), "scale": np.float32(WIDTH**-0.5), "half": np.float32(WIDTH**-0.25)}
SCALARS |= {"lowest": np.float32(-1e9), "zero": np.float32(0)}
WEIGHTS: Feed = {name: np.array(number) for name, number in SCALARS.items()}

# Ways from query and key to scores, and from weights to values; "s" are scaled scores, "w" weights.
SCORES = {
    "divided": [node("MatMul", "q kt", "p"), node("Div", "p root", "s")],
    "multiplied": [node("MatMul", "q kt", "p"), node("Mul", "scale p", "s")],
    "query scaled": [node("Mul", "q scale", "qs"), node("MatMul", "qs kt", "s")],
    "summed": [node("Einsum", "q kt", "p", equation="bhqd,bhdk->bhqk"), node("Mul", "p scale", "s")],
    "both scaled": [node("Mul", "q half", "a"), node("Mul", "kt half", "b"), node("MatMul", "a b", "s")],
}
SOFTMAX = [node("Softmax", "s", "w", axis=-1)]
MASKED: dict[str, list[NodeProto]] = {
    "added": [node("Add", "s float_mask", "m"), node("Softmax", "m", "w", axis=-1)],
    "chosen": [node("Where", "mask s lowest", "m"), node("Softmax", "m", "w", axis=-1)],
    "subtracted": [node("Mul", "hidden far", "h"), node("Sub", "s h", "m"), node("Softmax", "m", "w", axis=-1)],
    "at least": [node("Add", "s float_mask", "a"), node("Max", "a lowest", "m"), node("Softmax", "m", "w", axis=-1)],
    "cleaned": [
        node("Add", "s float_mask", "m"),
        node("Softmax", "m", "raw", axis=-1),
        node("IsNaN", "raw", "none"),
        node("Where", "none zero raw", "w"),
    ],
}


def written(before: list[NodeProto], after: list[NodeProto], **how: Any) -> ModelProto:
    """A graph of attention whose keys are turned before, and whose values are weighed behind."""
    nodes = [node("Transpose", "k", "kt", perm=[0, 1, 3, 2]), *before, *after, node("MatMul", "w v", "y")]
    taken = {name for one in nodes for name in one.input}
    masks = {"mask": ("bool", ["batch", 1, 1, "n"]), "float_mask": ["batch", 1, 1, "n"], "hidden": ["batch", 1, 1, "n"]}
    inputs = INPUTS | {name: axes for name, axes in masks.items() if name in taken}
    weights = WEIGHTS | {"far": np.array(1e9, dtype=np.float32)}
    return graph(nodes, inputs, ["y"], {name: weights[name] for name in weights if name in taken}, **how)


@pytest.mark.parametrize(
    ("way", "opset"),
    [(way, opset) for way in SCORES for opset in (11, 13, 17, 23) if way != "summed" or opset > 11],  # Einsum is of 12
)
def test_scores_may_be_scaled_in_every_way(way: str, opset: int) -> None:
    """Before the product, behind it, or on both sides."""
    taps, got = compare_tapped(written(SCORES[way], SOFTMAX, opset=opset), FEED)
    np.testing.assert_allclose(got["attention.0"], weigh(FEED["q"], FEED["k"]), atol=1e-6)
    assert [one.node for one in taps] == ["my Softmax"]


@pytest.mark.parametrize("way", MASKED)
def test_scores_may_be_masked_in_every_way(way: str) -> None:
    """By a sum, a choice, a difference, a bound; with torch's care for rows that see nothing."""
    model = written(SCORES["divided"], MASKED[way], opset=14)
    given = {
        "mask": SEEN,
        "float_mask": np.where(SEEN, 0, -np.inf).astype(np.float32),
        "hidden": (~SEEN).astype(np.float32),
    }
    feed = FEED | {name: array for name, array in given.items() if name in {one.name for one in model.graph.input}}
    _, got = compare_tapped(model, feed)
    np.testing.assert_allclose(got["attention.0"], weigh(FEED["q"], FEED["k"], SEEN), atol=1e-6)


def test_rows_that_see_nothing_are_taken_as_they_weigh_the_values() -> None:
    """Zeros, where torch makes zeros of what is no number."""
    mask = np.where(SEEN, 0, -np.inf).astype(np.float32)
    mask[1] = -np.inf
    _, got = compare_tapped(written(SCORES["divided"], MASKED["cleaned"]), FEED | {"float_mask": mask})
    assert not got["attention.0"][1].any()


@pytest.mark.parametrize(
    "after",
    [
        [node("Softmax", "s", "w", axis=3)],
        [node("Softmax", "s", "r", axis=-1), node("Dropout", "r", "w")],
        [node("Softmax", "s", "r", axis=-1), node("Identity", "r", "w")],
    ],
)
@pytest.mark.parametrize("opset", [11, 17])
def test_dropout_and_a_positive_axis_change_nothing(after: list[NodeProto], opset: int) -> None:
    """Before opset 13 an axis was where a flattening begins, which for the last comes to the same."""
    _, got = compare_tapped(written(SCORES["divided"], after, opset=opset), FEED)
    np.testing.assert_allclose(got["attention.0"], weigh(FEED["q"], FEED["k"]), atol=1e-6)


def test_a_softmax_that_flattens_all_heads_is_none_of_attention() -> None:
    """The default axis before opset 13 is 1: heads and queries share one sum."""
    flat = [node("Softmax", "s", "w")]
    with pytest.raises(TapError, match=r"my Softmax: is a Softmax over axis 1 between two products, .*cannot be"):
        tap(written(SCORES["divided"], flat, opset=11), Path())
    assert tap(written(SCORES["divided"], flat, opset=13), Path())[1]


def test_a_softmax_in_float32_amid_half_precision_is_taken_before_the_cast() -> None:
    """So that ONNX Runtime computes the rest as it does without."""
    nodes = [
        node("Transpose", "k", "kt", perm=[0, 1, 3, 2]),
        node("MatMul", "q kt", "p"),
        node("Cast", "p", "s", to=onnx.TensorProto.FLOAT),
        node("Softmax", "s", "r", axis=-1),
        node("Cast", "r", "w", to=onnx.TensorProto.FLOAT16),
        node("MatMul", "w v", "half"),
        node("Cast", "half", "y", to=onnx.TensorProto.FLOAT),
    ]
    model = graph(nodes, {name: ("float16", axes) for name, axes in INPUTS.items()}, ["y"])
    feed = {name: (array / 4).astype(np.float16) for name, array in FEED.items()}
    _, got = compare_tapped(model, feed)
    assert got["attention.0"].dtype == np.float32
    np.testing.assert_allclose(got["attention.0"], weigh(feed["q"], feed["k"], scale=1), atol=1e-3)


def test_weights_may_weigh_values_from_the_right() -> None:
    """V^T A^T, as convolutional networks write it."""
    nodes = [
        node("Transpose", "k", "kt", perm=[0, 1, 3, 2]),
        *SCORES["divided"],
        *SOFTMAX,
        node("Transpose", "w", "wt", perm=[0, 1, 3, 2]),
        node("Transpose", "v", "vt", perm=[0, 1, 3, 2]),
        node("MatMul", "vt wt", "y"),
    ]
    taps, got = compare_tapped(graph(nodes, INPUTS, ["y"], {"root": WEIGHTS["root"]}), FEED)
    np.testing.assert_allclose(got["attention.0"], weigh(FEED["q"], FEED["k"]), atol=1e-6)
    assert taps[0].value_norms is None


def test_products_that_onnx_runtime_has_fused_are_understood() -> None:
    """Scores with their scale and turned keys in one node, and scaled values, which then show no norms."""
    nodes = [
        node("FusedMatMul", "q k", "s", MICROSOFT, alpha=0.5, transB=1),
        *SOFTMAX,
        node("FusedMatMul", "w v", "y", MICROSOFT, alpha=2.0),
    ]
    taps, got = compare_tapped(graph(nodes, INPUTS, ["y"], opset=17), FEED)
    np.testing.assert_allclose(got["attention.0"], weigh(FEED["q"], FEED["k"], scale=0.5), atol=1e-6)
    assert taps[0].value_norms is None


def test_quantised_weights_are_taken_before_they_are_rounded() -> None:
    """In steps of 1/255, which rows that sum to 1 would not survive."""
    after = [node("Softmax", "s", "r", axis=-1), node("QuantizeLinear", "r step zero8", "small")]
    after.append(node("DequantizeLinear", "small step zero8", "w"))
    model = written(SCORES["divided"], after)
    steps: Feed = {"step": np.array(1 / 255, np.float32), "zero8": np.array(0, np.uint8)}
    for name, array in steps.items():
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    _, got = compare_tapped(model, FEED)
    np.testing.assert_allclose(got["attention.0"], weigh(FEED["q"], FEED["k"]), atol=1e-6)


def test_learned_queries_are_attention_too() -> None:
    """As in a pooling that asks with one query of its own."""
    nodes = [node("Transpose", "k", "kt", perm=[0, 1, 3, 2]), *SCORES["divided"], *SOFTMAX, node("MatMul", "w v", "y")]
    query = numbers(1, HEADS, 1, WIDTH)
    model = graph(nodes, {"k": INPUTS["k"], "v": INPUTS["v"]}, ["y"], {"q": query, "root": WEIGHTS["root"]})
    _, got = compare_tapped(model, {"k": FEED["k"], "v": FEED["v"]})
    np.testing.assert_allclose(got["attention.0"], weigh(np.repeat(query, BATCH, 0), FEED["k"]), atol=1e-6)


@pytest.mark.parametrize(
    ("nodes", "weights", "outputs"),
    [
        ([node("MatMul", "x w", "logits"), node("Softmax", "logits", "y", axis=-1)], {"w": (WIDTH, 3)}, ["y"]),
        (
            [
                node("MatMul", "x w", "logits"),
                node("Softmax", "logits", "gates", axis=-1),
                node("MatMul", "x experts", "e"),
                node("MatMul", "gates e", "y"),
            ],
            {"w": (WIDTH, LENGTH), "experts": (WIDTH, WIDTH)},
            ["y"],
        ),
        (
            [
                node("Transpose", "x", "xt", perm=[0, 2, 1]),
                node("MatMul", "x xt", "p"),
                node("Softmax", "p", "y", axis=-1),
            ],
            {},
            ["y"],
        ),
    ],
    ids=["a classifier", "a router", "similarities"],
)
def test_other_softmaxes_are_not_taken_for_attention(
    nodes: list[NodeProto], weights: dict[str, tuple[int, ...]], outputs: list[str]
) -> None:
    """Each lacks computed keys or weighed values; the message says what the graph has."""
    arrays = {name: numbers(*shape) for name, shape in weights.items()}
    model = graph(nodes, {"x": ["batch", LENGTH, WIDTH]}, outputs, arrays, opset=17)
    kinds = ", ".join(sorted({one.op_type for one in nodes}))
    with pytest.raises(TapError, match=f"no attention to tap; the graph has {kinds}"):
        tap(model, Path())


def test_weights_that_weigh_values_in_an_unknown_way_are_refused_by_name() -> None:
    """Passed over, they would leave a hole among the layers."""
    nodes = [*SCORES["divided"], *SOFTMAX, node("Einsum", "w v", "z", equation="bhqk,bhkd->bhqd")]
    model = graph([node("Transpose", "k", "kt", perm=[0, 1, 3, 2]), *nodes], INPUTS, ["z"], {"root": WEIGHTS["root"]})
    with pytest.raises(TapError, match=r"my Softmax: its weights enter my Einsum \(Einsum\); expected MatMul"):
        tap(model, Path())


def test_attention_between_channels_is_refused_by_name() -> None:
    """XCiT's weights say nothing of positions, which come last: [B, H, d, N]."""
    inputs = {name: ["batch", HEADS, WIDTH, "n"] for name in "qkv"}
    turned = [node("MatMul", "w v", "z"), node("Transpose", "z", "y", perm=[0, 3, 1, 2])]
    nodes = [node("Transpose", "k", "kt", perm=[0, 1, 3, 2]), *SCORES["divided"], *SOFTMAX, *turned]
    with pytest.raises(TapError, match="my Softmax: is attention between channels; expected it between positions"):
        tap(graph(nodes, inputs, ["y"], {"root": WEIGHTS["root"]}), Path())


def test_weights_of_five_axes_are_refused_by_name() -> None:
    """Windows with an axis of their own are no rows of a batch."""
    axes = ["batch", "windows", HEADS, "n", WIDTH]
    nodes = [node("Transpose", "k", "kt", perm=[0, 1, 2, 4, 3]), *SCORES["divided"], *SOFTMAX]
    model = graph(
        [*nodes, node("MatMul", "w v", "y")], {"q": axes, "k": axes, "v": axes}, ["y"], {"root": WEIGHTS["root"]}
    )
    with pytest.raises(TapError, match="my Softmax: its weights have 5 axes; expected batch, heads, query, key"):
        tap(model, Path())


def folded(projected: bool, batch: str = "rows", unfolded: Sequence[int] = (), turn: Sequence[int] = ()) -> ModelProto:
    """Attention of [B * H, N, d], with an output projection or without; heads may get an axis before merging."""
    nodes = [node("Transpose", "k", "kt", perm=[0, 2, 1]), *SCORES["divided"], *SOFTMAX, node("MatMul", "w v", "y")]
    weights, before = {"root": WEIGHTS["root"]}, "y"
    if unfolded:
        weights["unfolded"] = np.array([*unfolded, LENGTH, WIDTH])
        nodes.append(node("Reshape", "y unfolded", before := "u"))
    if projected:
        weights |= {"axes": np.array([-1, HEADS * WIDTH]), "out": numbers(HEADS * WIDTH, 6)}
        nodes += [
            node("Transpose", before, "t", perm=list(turn) or [1, 0, 2]),
            node("Reshape", "t axes", "f"),
            node("Gemm", "f out", "z"),
        ]
    inputs = {name: [batch, "n", WIDTH] for name in "qkv"}
    return graph(nodes, inputs, ["z" if projected else "y"], weights)


def test_folded_heads_are_counted_by_the_output_projection() -> None:
    """[B * H, Q, K] becomes [B, H, Q, K]; without a projection it is refused by name."""
    feed = {name: array.reshape(-1, LENGTH, WIDTH) for name, array in FEED.items()}
    _, got = compare_tapped(folded(projected=True), feed)
    np.testing.assert_allclose(got["attention.0"], weigh(FEED["q"], FEED["k"]), atol=1e-6)
    with pytest.raises(TapError, match="my Softmax: heads are folded into the batch, and no output projection says"):
        tap(folded(projected=False), Path())


def test_heads_that_are_folded_before_rows_are_refused() -> None:
    """Of [H * B, N, d], heads of several rows would be taken for those of one."""
    feed = {name: array.reshape(-1, LENGTH, WIDTH) for name, array in FEED.items()}
    _, got = compare_tapped(folded(projected=True, unfolded=[-1, HEADS], turn=[0, 2, 1, 3]), feed)
    np.testing.assert_allclose(got["attention.0"], weigh(FEED["q"], FEED["k"]), atol=1e-6)
    with pytest.raises(TapError, match="my Softmax: heads are folded into the batch before rows; expected rows before"):
        tap(folded(projected=True, unfolded=[HEADS, -1], turn=[1, 2, 0, 3]), Path())


def test_a_batch_axis_that_is_no_product_has_one_head() -> None:
    """Attention without heads."""
    feed = {name: array[:, 0] for name, array in FEED.items()}
    _, got = compare_tapped(folded(projected=False, batch="batch"), feed)
    np.testing.assert_allclose(got["attention.0"], weigh(FEED["q"][:, :1], FEED["k"][:, :1]), atol=1e-6)


def test_layers_are_counted_in_the_order_of_the_graph() -> None:
    """Whichever rule finds them."""
    nodes = [
        node("Attention", "x x x", "a"),
        node("Transpose", "a", "kt", perm=[0, 1, 3, 2]),
        node("MatMul", "a kt", "s"),
        *SOFTMAX,
        node("MatMul", "w a", "b"),
        node("Attention", "b b b", "y"),
    ]
    taps, got = compare_tapped(graph(nodes, {"x": INPUTS["q"]}, ["y", "a"]), {"x": FEED["q"]})
    assert [one.node for one in taps] == ["my Attention", "my Softmax", "my Attention 1"]
    second: Array = weigh(got["a"], got["a"], scale=1)
    np.testing.assert_allclose(got["attention.1"], second, atol=1e-6)
