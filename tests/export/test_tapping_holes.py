"""Attention that no rule takes refuses the whole file: layers are numbered, and a hole would number them wrongly."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper

from artifact.dtypes import Array
from export.errors import TapError
from export.tapping.tap import tap
from tests.export.tapping import graph, node, numbers, run

HEADS, LENGTH, WIDTH = 3, 5, 4
AXES: list[str | int | None] = ["batch", HEADS, "n", WIDTH]
INPUTS = dict.fromkeys("qkv", AXES)
TURNED = node("Transpose", "k", "kt", perm=[0, 1, 3, 2])
SCORES = node("MatMul", "q kt", "s")
WEIGHED = node("MatMul", "w v", "y")
FIRST = [node("Attention", "q k v", "a")]  # a layer that can be tapped, before the one that cannot
WEIGHTS: dict[str, Array] = {
    "mixer": numbers(HEADS, HEADS),
    "eps": np.array(1e-6, np.float32),
    "last": np.array([-1]),
    "scale": np.ones(1, np.float32),
}


def after_one_that_is_tapped(nodes: Sequence[NodeProto]) -> ModelProto:
    """Make a graph of two layers."""
    return graph([*FIRST, *nodes], INPUTS, ["y", "a"], WEIGHTS)


@pytest.mark.parametrize(
    "nodes",
    [
        [TURNED, SCORES, node("Softmax", "s", "w", axis=2), WEIGHED],
        [TURNED, SCORES, node("Softmax", "s", "w", axis=1), WEIGHED],
        [TURNED, SCORES, node("Softmax", "s", "r", axis=-1), node("Mul", "r s", "w"), WEIGHED],
        [
            TURNED,
            SCORES,
            node("Exp", "s", "e"),
            node("ReduceSum", "e last", "sums", keepdims=1),
            node("Add", "sums eps", "safe"),
            node("Div", "e safe", "w"),
            WEIGHED,
        ],
        [node("Mul", "q k", "p"), node("ReduceSum", "p last", "s"), node("Softmax", "s", "w", axis=2), WEIGHED],
        [
            TURNED,
            SCORES,
            node("Softmax", "s", "w", axis=-1),
            node("Mul", "w v", "p"),
            node("ReduceSum", "p last", "y", keepdims=0),
        ],
        [TURNED, SCORES, node("LogSoftmax", "s", "l", axis=-1), node("Exp", "l", "w"), WEIGHED],
        [
            TURNED,
            SCORES,
            node("Exp", "s", "e"),
            node("ReduceL1", "e last", "sums", keepdims=1),
            node("Reciprocal", "sums", "one"),
            node("Mul", "one e", "w"),
            WEIGHED,
        ],
        [TURNED, SCORES, node("Exp", "s", "e"), node("LpNormalization", "e", "w", p=1), WEIGHED],
        [TURNED, SCORES, node("Elu", "s", "t"), node("Softmax", "t", "w", axis=-1), WEIGHED],
        [TURNED, SCORES, node("Sum", "s s", "t"), node("Softmax", "t", "w", axis=-1), WEIGHED],
        [TURNED, SCORES, node("Trilu", "s", "t", upper=0), node("Softmax", "t", "w", axis=-1), WEIGHED],
        [TURNED, SCORES, node("Softmax", "s", "r", axis=-1), node("Trilu", "r", "w", upper=0), WEIGHED],
        [
            TURNED,
            SCORES,
            node("LayerNormalization", "s scale", "t", axis=-1),
            node("Softmax", "t", "w", axis=-1),
            WEIGHED,
        ],
    ],
    ids=[
        "over queries",
        "over heads",
        "gated",
        "written with exponentials",
        "products by elements",
        "values weighed by elements",
        "by its logarithm",
        "with a reciprocal",
        "normalised",
        "an activation between",
        "a sum of several between",
        "a triangle of the scores",
        "a triangle of the weights",
        "a norm of the scores",
    ],
)
def test_a_layer_that_cannot_be_tapped_refuses_the_file(nodes: list[NodeProto]) -> None:
    """The one before it would else be served as the only one."""
    with pytest.raises(TapError, match=r"my \w+: .*(between two products|its weights enter)"):
        tap(after_one_that_is_tapped(nodes), Path())


@pytest.mark.parametrize(
    "nodes",
    [
        [TURNED, SCORES, node("Sigmoid", "s", "w"), WEIGHED],
        [TURNED, SCORES, node("Relu", "s", "r"), node("Div", "r scale", "w"), WEIGHED],
        [TURNED, SCORES, node("Relu", "s", "r"), node("Mul", "r r", "w"), WEIGHED],
        [
            TURNED,
            SCORES,
            node("Add", "s eps", "t"),
            node("Softplus", "t", "r"),
            node("ReduceSum", "r last", "sums", keepdims=1),
            node("Div", "r sums", "w"),
            WEIGHED,
        ],
        [TURNED, SCORES, node("Sigmoid", "s", "w"), node("Einsum", "w v", "y", equation="bhqk,bhkd->bhqd")],
        [
            TURNED,
            SCORES,
            node("Softmax", "s", "u", axis=-1),
            node("MatMul", "u v", "o"),
            node("MatMul", "o kt", "t"),
            node("Sigmoid", "t", "w"),
            WEIGHED,
        ],
    ],
    ids=["sigmoid", "relu over the length", "squared relu", "over its sum", "by an Einsum", "of a layer's own"],
)
def test_attention_without_a_softmax_refuses_the_file(nodes: list[NodeProto]) -> None:
    """Ramapuram et al. 2024 (sigmoid), Wortsman et al. 2023 (ReLU), Hua et al. 2022 (squared ReLU)."""
    with pytest.raises(TapError, match=r"my (\w+): is a \1 between two products, as attention is"):
        tap(after_one_that_is_tapped(nodes), Path())


ATTENDED = [TURNED, SCORES, node("Softmax", "s", "w", axis=-1), node("MatMul", "w v", "z")]


@pytest.mark.parametrize(
    "nodes",
    [
        [node("MatMul", "z inner", "i"), node("Relu", "i", "r"), node("MatMul", "r outer", "y")],
        [node("MatMul", "z square", "i"), node("Sigmoid", "i", "g"), node("Mul", "g z", "y")],
        [
            node("ReduceMean", "z two", "m", keepdims=1),
            node("MatMul", "m square", "i"),
            node("Sigmoid", "i", "g"),
            node("Mul", "g z", "y"),
        ],
        [
            node("MatMul", "z square", "i"),
            node("Relu", "i", "r"),
            node("Transpose", "r", "rt", perm=[0, 1, 3, 2]),
            node("MatMul", "rt v", "kv"),
            node("MatMul", "i kv", "y"),
        ],
        [
            node("Relu", "z", "r"),
            node("Transpose", "r", "rt", perm=[0, 1, 3, 2]),
            node("MatMul", "r rt", "s2"),
            node("Softmax", "s2", "w2", axis=-1),
            node("MatMul", "w2 z", "y"),
        ],
        [node("MatMul", "z kt", "t"), node("Sigmoid", "t", "y")],
        [
            node("MatMul", "z kt", "t"),
            node("Tanh", "t", "capped"),
            node("Softmax", "capped", "w2", axis=-1),
            node("MatMul", "w2 v", "y"),
        ],
        [
            node("MatMul", "z kt", "t"),
            node("Relu", "t", "bias"),
            node("MatMul", "q kt", "s2"),
            node("Add", "s2 bias", "s3"),
            node("Softmax", "s3", "w2", axis=-1),
            node("MatMul", "w2 v", "y"),
        ],
        [
            node("MatMul", "z kt", "t"),
            node("Sigmoid", "t", "g"),
            node("ReduceMean", "g last", "m", keepdims=1),
            node("Greater", "m eps", "seen"),
            node("Where", "seen z v", "x2"),
            node("MatMul", "x2 square", "y"),
        ],
    ],
    ids=[
        "an MLP",
        "a gate",
        "a gate of channels",
        "features of linear attention",
        "between layers without projections",
        "similarities that are the answer",
        "a cap of scores",
        "a bias of scores",
        "a mask",
    ],
)
def test_other_activations_do_not_refuse_a_file(nodes: list[NodeProto]) -> None:
    """What weights made is activated, or what a softmax weighed; or nothing is weighed by it."""
    own = {"inner": numbers(WIDTH, 9), "outer": numbers(9, WIDTH), "square": numbers(WIDTH, WIDTH)}
    own |= {"two": np.array([2]), "last": WEIGHTS["last"], "eps": WEIGHTS["eps"]}
    taken = {name for one in nodes for name in one.input}
    weights = {name: array for name, array in own.items() if name in taken}
    _, taps = tap(graph([*ATTENDED, *nodes], INPUTS, ["y"], weights, opset=17), Path())
    assert len(taps) == 1 + sum(one.op_type == "Softmax" for one in nodes)


EXPERTS, HIDDEN = 3, 6
PICKED = [
    node("ReduceMean", "z two", "mean", keepdims=0),
    node("MatMul", "mean route", "gates"),
    node("Sigmoid", "gates", "shares"),
    node("TopK", "shares one", "top chosen"),
    node("Gather", "inner chosen", "up"),
    node("Gather", "outer chosen", "back"),
    node("Unsqueeze", "z four", "z5"),
]
BY_EXPERTS = [*PICKED, node("MatMul", "z5 up", "i")]


@pytest.mark.parametrize(
    "nodes",
    [
        [*BY_EXPERTS, node("Sigmoid", "i", "g"), node("Mul", "i g", "silu"), node("MatMul", "silu back", "y")],
        [*BY_EXPERTS, node("Relu", "i", "r"), node("MatMul", "r back", "y")],
        [
            *BY_EXPERTS,
            node("Mul", "back bend", "scaled"),
            node("Sigmoid", "i", "g"),
            node("Mul", "i g", "silu"),
            node("MatMul", "silu scaled", "y"),
        ],
    ],
    ids=["SiLU", "ReLU", "scaled weights"],
)
def test_experts_that_a_router_picks_do_not_refuse_a_file(nodes: list[NodeProto]) -> None:
    """As DeepSeek-V3, GLM-4-MoE and GraniteMoE: both products of an expert have weights that depend on the input."""
    own: dict[str, Array] = {
        "two": np.array([2]),
        "route": numbers(WIDTH, EXPERTS),
        "one": np.array([1]),
        "four": np.array([2]),
        "inner": numbers(EXPERTS, WIDTH, HIDDEN),
        "outer": numbers(EXPERTS, HIDDEN, WIDTH),
        "bend": numbers(WIDTH),
    }
    taken = {name for one in nodes for name in one.input}
    weights = {name: array for name, array in own.items() if name in taken}
    _, taps = tap(graph([*ATTENDED, *nodes], INPUTS, ["y"], weights, opset=18), Path())
    assert [one.node for one in taps] == ["my Softmax"]


def test_places_that_scores_choose_are_no_way_from_scores_to_values() -> None:
    """A head is picked by what activated scores say of it: nothing is weighed by these."""
    nodes = [
        node("MatMul", "q kt", "t"),
        node("Sigmoid", "t", "g"),
        node("ReduceMax", "g axes", "best", keepdims=0),
        node("TopK", "best one", "top chosen"),
        node("Gather", "kt chosen", "picked", axis=1),
        node("MatMul", "z picked", "y"),
    ]
    weights: dict[str, Array] = {"axes": np.array([0, 2, 3]), "one": np.array([1])}
    _, taps = tap(graph([*ATTENDED, *nodes], INPUTS, ["y"], weights, opset=18), Path())
    assert [one.node for one in taps] == ["my Softmax"]


@pytest.mark.parametrize(
    "nodes",
    [
        [
            node("MatMul", "z square", "up"),
            node("MatMul", "z up", "i"),
            node("Relu", "i", "r"),
            node("MatMul", "r z", "y"),
        ],
        [
            node("MatMul", "z kt", "pixels"),
            node("Sigmoid", "pixels", "masks"),
            node("MatMul", "z classes", "logits"),
            node("Softmax", "logits", "c", axis=-1),
            node("Einsum", "c masks", "y", equation="bhqc,bhqp->bhcp"),
        ],
    ],
    ids=["an MLP whose weights are computed", "MaskFormer's semantic inference"],
)
def test_what_a_graph_cannot_tell_from_attention_is_refused(nodes: list[NodeProto]) -> None:
    """As docs/attention.md says of both."""
    own = {"square": numbers(WIDTH, WIDTH), "classes": numbers(WIDTH, 6)}
    weights = {name: array for name, array in own.items() if any(name in one.input for one in nodes)}
    sizes = {name: [2, HEADS, WIDTH, WIDTH] for name in "qkv"}  # as many positions as channels: all products fit
    with pytest.raises(TapError, match=r"my (Relu|Sigmoid): is a \1 between two products, as attention is"):
        tap(graph([*ATTENDED, *nodes], sizes, ["y"], weights, opset=18), Path())


def test_filters_that_a_network_computes_are_no_attention() -> None:
    """Convolutions by computed filters, with a ReLU between (Chen et al. 2020, "Dynamic Convolution")."""
    nodes = [node("Conv", "z filters", "c"), node("Relu", "c", "r"), node("Conv", "r filters", "y")]
    inputs = {**INPUTS, "filters": [HEADS, HEADS, 1, 1]}
    _, taps = tap(graph([*ATTENDED, *nodes], inputs, ["y"], opset=18), Path())
    assert [one.node for one in taps] == ["my Softmax"]


def body(nodes: Sequence[NodeProto], outputs: Sequence[str], inputs: Sequence[onnx.ValueInfoProto] = ()) -> object:
    """Make the body of a branch or a loop."""
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    return helper.make_graph(list(nodes), "body", list(inputs), results)


SOFTMAX = node("Softmax", "s", "w", axis=-1)
WHOLE = [TURNED, SCORES, SOFTMAX, node("MatMul", "w v", "z")]


def test_attention_in_a_branch_is_found_wherever_its_products_are() -> None:
    """All of it within, the softmax alone within, or ONNX's own operator."""
    other = body([node("Identity", "q", "z")], ["z"])
    same = body([node("Identity", "s", "w")], ["w"])
    fused = body([node("Attention", "q k v", "z")], ["z"])
    cases = [
        [node("If", "flag", "y", then_branch=body(WHOLE, ["z"]), else_branch=other)],
        [TURNED, SCORES, node("If", "flag", "w", then_branch=body([SOFTMAX], ["w"]), else_branch=same), WEIGHED],
        [node("If", "flag", "y", then_branch=other, else_branch=fused)],
    ]
    for nodes in cases:
        model = graph([*FIRST, *nodes], {**INPUTS, "flag": ("bool", [])}, ["y", "a"])
        with pytest.raises(TapError, match=r"my (Softmax|Attention): is .* inside my If.* at the top of the graph"):
            tap(model, Path())


def test_attention_in_a_loop_is_found() -> None:
    """Layers that share their weights, as ALBERT's may be written."""
    number = helper.make_tensor_value_info("i", TensorProto.INT64, [])
    go_on = helper.make_tensor_value_info("more", TensorProto.BOOL, [])
    state = helper.make_tensor_value_info("x", TensorProto.FLOAT, AXES)
    inner = [
        node("Identity", "more", "still"),
        node("Transpose", "x", "xt", perm=[0, 1, 3, 2]),
        node("MatMul", "x xt", "s"),
        SOFTMAX,
        node("MatMul", "w x", "z"),
    ]
    results = [
        helper.make_tensor_value_info("still", TensorProto.BOOL, []),
        helper.make_tensor_value_info("z", TensorProto.FLOAT, None),
    ]
    loop = helper.make_graph(inner, "body", [number, go_on, state], results)
    model = graph([*FIRST, node("Loop", "count - q", "y", body=loop)], INPUTS, ["y", "a"], {"count": np.array(2)})
    with pytest.raises(TapError, match="my Softmax: is a Softmax inside my Loop between two products"):
        tap(model, Path())


def test_other_softmaxes_do_not_refuse_a_file() -> None:
    """A classifier's and a router's beside attention: scores of weights, or nothing weighed."""
    nodes = [
        *WHOLE,
        node("ReduceMean", "z", "pooled", axes=[1, 2], keepdims=0),
        node("MatMul", "pooled classes", "logits"),
        node("Softmax", "logits", "c", axis=-1),
        node("MatMul", "z route", "gates"),
        node("Softmax", "gates", "g", axis=-1),
        node("MatMul", "g experts", "y"),
    ]
    weights = {"classes": numbers(WIDTH, 7), "route": numbers(WIDTH, 6), "experts": numbers(6, WIDTH)}
    _, taps = tap(graph(nodes, INPUTS, ["y", "c"], weights, opset=17), Path())
    assert [one.node for one in taps] == ["my Softmax"]


GATED = 8  # channels, as few as there may be heads
X = ["batch", "n", GATED]


def attend(taken: str, given: str) -> list[NodeProto]:
    """Make a layer of one head between two projections, written out."""
    steps = [
        ("MatMul", f"{taken} square", "o"),
        ("Transpose", "o", "ot"),
        ("MatMul", "o ot", "s"),
        ("Softmax", "s", "w"),
        ("MatMul", "w o", "m"),
    ]
    named: dict[str, dict[str, Any]] = {"Transpose": {"perm": [0, 2, 1]}, "Softmax": {"axis": -1}}
    own = dict.fromkeys(["o", "ot", "s", "w", "m"])
    nodes = [
        node(
            op_type,
            " ".join(f"{given}.{name}" if name in own else name for name in inputs.split()),
            f"{given}.{output}",
            **named.get(op_type, {}),
        )
        for op_type, inputs, output in steps
    ]
    return [*nodes, node("MatMul", f"{given}.m square", given)]


def attend_twice(gate: Sequence[NodeProto], weights: dict[str, Array]) -> ModelProto:
    """Make a narrow network of two layers, with something between that makes "gated" [batch, n, GATED] of "z"."""
    constants = {"square": numbers(GATED, GATED), **weights}
    return graph([*attend("x", "z"), *gate, *attend("gated", "y")], {"x": X}, ["y"], constants)


@pytest.mark.parametrize(
    ("gate", "weights"),
    [
        ([node("MatMul", "z square", "g"), node("Softmax", "g", "s", axis=-1), node("Mul", "s z", "gated")], {}),
        (
            [
                node("ReduceMean", "z one", "m", keepdims=0),
                node("Gemm", "m square", "g"),
                node("Softmax", "g", "s", axis=-1),
                node("Unsqueeze", "s one", "u"),
                node("Mul", "u z", "gated"),
            ],
            {"one": np.array([1])},
        ),
        (
            [
                node("MatMul", "z square", "g"),
                node("Softmax", "g", "s", axis=-1),
                node("Unsqueeze", "s last", "u"),
                node("Mul", "z first", "e"),
                node("Unsqueeze", "e last", "v"),
                node("Mul", "u v", "p"),
                node("ReduceSum", "p last", "gated", keepdims=0),
            ],
            {"last": np.array([-1]), "first": numbers(1, seed=3)},
        ),
        (
            [
                node("Transpose", "z", "t", perm=[0, 2, 1]),
                node("Unsqueeze", "t two", "i"),
                node("Conv", "i kernel", "g"),
                node("ReduceMean", "g three", "m", keepdims=1),
                node("Softmax", "m", "s", axis=1),
                node("Mul", "s i", "j"),
                node("Squeeze", "j two", "k"),
                node("Transpose", "k", "gated", perm=[0, 2, 1]),
            ],
            {"two": np.array([2]), "three": np.array([3]), "kernel": numbers(GATED, GATED, 1, 1)},
        ),
    ],
    ids=["of channels", "of squeezed channels", "of as many experts", "of the channels of an image"],
)
def test_a_gate_in_a_narrow_network_is_no_attention(gate: list[NodeProto], weights: dict[str, Array]) -> None:
    """Its square matrices project channels; of one no larger than 64 it was said to mix heads."""
    _, taps = tap(attend_twice(gate, weights), Path())
    assert len(taps) == 2


def test_heads_that_are_mixed_and_then_folded_refuse_the_file() -> None:
    """The softmax has three axes, the product with the matrix four."""
    nodes = [
        TURNED,
        SCORES,
        node("Transpose", "s", "f", perm=[0, 2, 3, 1]),
        node("MatMul", "f mixer", "m"),
        node("Transpose", "m", "t", perm=[0, 3, 1, 2]),
        node("Reshape", "t folded", "u"),
        node("Softmax", "u", "w", axis=-1),
        node("Reshape", "v values", "vf"),
        node("MatMul", "w vf", "y"),
    ]
    weights = {**WEIGHTS, "folded": np.array([-1, LENGTH, LENGTH]), "values": np.array([-1, LENGTH, WIDTH])}
    with pytest.raises(TapError, match="my Softmax: is a Softmax between two products"):
        tap(graph([*FIRST, *nodes], INPUTS, ["y", "a"], weights), Path())


VALUES = "bhqk,bhkd->bhqd"
QUERIES: dict[str, Array] = {
    "seeds": numbers(1, HEADS, 2, WIDTH),
    "few": numbers(HEADS, 2, WIDTH),
    "turned": numbers(HEADS, WIDTH, 2),
    "one": numbers(2, WIDTH),
}
BY_EINSUM = [SOFTMAX, node("Einsum", "w v", "y", equation=VALUES)]
PAST_RULES = [node("Transpose", "t", "w", perm=[0, 1, 3, 2]), node("MatMul", "w v", "y")]


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Einsum", "few k", "s", equation="hqd,bhkd->bhqk"), *BY_EINSUM],
        [node("Einsum", "k few", "s", equation="bhkd,hqd->bhqk"), *BY_EINSUM],
        [node("Einsum", "one k", "s", equation="qd,bhkd->bhqk"), *BY_EINSUM],
        [node("MatMul", "k turned", "s"), node("Softmax", "s", "t", axis=2), *PAST_RULES],
        [TURNED, node("MatMul", "seeds kt", "s"), node("Elu", "s", "t"), node("Softmax", "t", "w", axis=-1), WEIGHED],
    ],
    ids=["by head", "by head, on the right", "of all heads", "turned, over the other axis", "with an activation"],
)
def test_learned_queries_by_head_are_tapped(nodes: list[NodeProto]) -> None:
    """A pooling by attention (Lee et al. 2019, "Set Transformer") is a layer of it, [B, H, Q, K]."""
    tapped, taps = tap(graph([*FIRST, *nodes], INPUTS, ["y", "a"], QUERIES), Path())
    assert [one.node for one in taps] == ["my Attention", "my Softmax"]
    given = run(tapped, {name: numbers(2, HEADS, LENGTH, WIDTH, seed=seed) for seed, name in enumerate("qkv")})
    weights, values = given["attention.1"], numbers(2, HEADS, LENGTH, WIDTH, seed=2)
    np.testing.assert_allclose(weights @ values, given["y"], atol=1e-5)


def test_learned_queries_in_the_usual_form_are_tapped() -> None:
    """Constant queries times turned keys, softmax, values."""
    nodes = [TURNED, node("MatMul", "seeds kt", "s"), SOFTMAX, WEIGHED]
    _, taps = tap(graph([*FIRST, *nodes], INPUTS, ["y", "a"], QUERIES), Path())
    assert [one.node for one in taps] == ["my Attention", "my Softmax"]


def test_queries_that_are_one_with_the_weights_of_the_keys_are_tapped() -> None:
    """One linear layer scores positions for each head; their values are weighed for all."""
    nodes = [
        node("Transpose", "k", "t", perm=[0, 2, 1, 3]),
        node("Reshape", "t flat", "x"),
        node("MatMul", "x folded", "scores"),
        node("Transpose", "scores", "s", perm=[0, 2, 1]),
        SOFTMAX,
        node("MatMul", "w x", "y"),
    ]
    weights = {"flat": np.array([0, 0, HEADS * WIDTH]), "folded": numbers(HEADS * WIDTH, HEADS)}
    tapped, taps = tap(graph([*FIRST, *nodes], INPUTS, ["y", "a"], weights), Path())
    assert [one.node for one in taps] == ["my Attention", "my Softmax"]
    given = run(tapped, {name: numbers(2, HEADS, LENGTH, WIDTH) for name in "qkv"})
    assert given["attention.1"].shape == (2, 1, HEADS, LENGTH)
