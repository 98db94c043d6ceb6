"""Attention that no rule takes refuses the whole file: layers are numbered, and a hole would number them wrongly."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, NodeProto, TensorProto, helper
from torch import Tensor, nn

from artifact.dtypes import Array
from export.errors import TapError
from export.tapping.tap import tap
from tests.export.networks import Eager, spread, write_onnx
from tests.export.tapping import graph, node, numbers

HEADS, LENGTH, WIDTH = 3, 5, 4
AXES: list[str | int | None] = ["batch", HEADS, "n", WIDTH]
INPUTS = dict.fromkeys("qkv", AXES)
TURNED = node("Transpose", "k", "kt", perm=[0, 1, 3, 2])
SCORES = node("MatMul", "q kt", "s")
WEIGHED = node("MatMul", "w v", "y")
FIRST = [node("Attention", "q k v", "a")]  # a layer that can be tapped, before the one that cannot
WEIGHTS: dict[str, Array] = {
    "mixer": numbers(HEADS, HEADS),
    "kernel": numbers(HEADS, HEADS, 1, 1),
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
        [
            TURNED,
            SCORES,
            node("Transpose", "s", "f", perm=[0, 2, 3, 1]),
            node("MatMul", "f mixer", "m"),
            node("Transpose", "m", "t", perm=[0, 3, 1, 2]),
            node("Softmax", "t", "w", axis=-1),
            WEIGHED,
        ],
        [
            TURNED,
            SCORES,
            node("Softmax", "s", "r", axis=-1),
            node("Transpose", "r", "f", perm=[0, 2, 3, 1]),
            node("MatMul", "f mixer", "m"),
            node("Transpose", "m", "w", perm=[0, 3, 1, 2]),
            WEIGHED,
        ],
        [TURNED, SCORES, node("Softmax", "s", "r", axis=-1), node("Conv", "r kernel", "w"), WEIGHED],
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
        "heads mixed before",
        "heads mixed after",
        "heads mixed by a convolution",
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
    """A classifier's, a router's and a pooling's beside attention: scores of weights, or nothing weighed."""
    nodes = [
        *WHOLE,
        node("ReduceMean", "z", "pooled", axes=[1, 2], keepdims=0),
        node("MatMul", "pooled classes", "logits"),
        node("Softmax", "logits", "c", axis=-1),
        node("MatMul", "z route", "gates"),
        node("Softmax", "gates", "g", axis=-1),
        node("MatMul", "g experts", "e"),
        node("MatMul", "z score", "scores"),
        node("Softmax", "scores", "p", axis=2),
        node("Transpose", "p", "pt", perm=[0, 1, 3, 2]),
        node("MatMul", "pt e", "y"),
    ]
    weights = {"classes": numbers(WIDTH, 7), "route": numbers(WIDTH, 6), "experts": numbers(6, WIDTH)}
    _, taps = tap(graph(nodes, INPUTS, ["y", "c"], {**weights, "score": numbers(WIDTH, 1)}, opset=17), Path())
    assert [one.node for one in taps] == ["my Softmax"]


class ClassAttention(nn.Module):
    """Touvron et al. 2021, "Going deeper with Image Transformers" (CaiT): its talking heads."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.before, self.after = Eager(), nn.Linear(4, 4), nn.Linear(4, 4)
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.first(x)
        query, key, value = self.qkv(x).view(*x.shape[:2], 3, 4, 4).permute(2, 0, 3, 1, 4)
        scores = self.before((query @ key.transpose(-1, -2) / 2).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        weights = self.after(scores.softmax(-1).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        mixed: Tensor = x + self.out((weights @ value).transpose(1, 2).flatten(2))
        return mixed


@pytest.mark.parametrize("opset", [13, 17])
def test_talking_heads_as_torch_writes_them_refuse_the_file(opset: int) -> None:
    """The layer before them is tapped; the file was served with one layer of two."""
    x = torch.randn(2, 5, 16)
    model = write_onnx(spread(ClassAttention()), {"x": x}, {"x": {0: "batch", 1: "n"}}, opset, ["y"])
    with pytest.raises(TapError, match="between two products, as attention is, but cannot be tapped"):
        tap(model, Path())
