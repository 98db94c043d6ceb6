"""Pooling by attention: weights score positions, which are summed by their softmax; however written, it is a layer."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from onnx import NodeProto, TensorProto

from artifact.dtypes import Array
from export.errors import TapError
from export.tapping.tap import FUSED_RULES, tap
from tests.export.tapping import MICROSOFT, graph, node, numbers, run

WIDTH, LENGTH, QUERIES = 8, 5, 4
X = ["batch", "n", WIDTH]
FIRST = node("Attention", "x x x", "a", q_num_heads=2, kv_num_heads=2)
w, queries = numbers(WIDTH, 1), numbers(WIDTH, QUERIES, seed=1)
CONSTANTS: dict[str, Array] = {
    "w": w,
    "w_flat": w[:, 0],
    "w_row": w.T.copy(),
    "w_of_all": w.T[np.newaxis].copy(),
    "w_by_head": w[np.newaxis],
    "w_filter": w.T[:, :, np.newaxis].copy(),
    "b": numbers(1),
    "Q": queries,
    "Q_rows": queries.T.copy(),
    "Q_by_row": queries[np.newaxis],
    "one": np.array([1]),
    "two": np.array([2]),
    "last": np.array([-1]),
    "flat": np.array([-1, WIDTH]),
    "scaled": np.array(1, np.float32),
    "experts": numbers(3, WIDTH, WIDTH),
    "route": numbers(WIDTH, 3),
    "route_by_row": numbers(1, WIDTH, 3),
    "route_filter": numbers(3, WIDTH, 1),
    "square": numbers(WIDTH, WIDTH),
    "route_by_head": numbers(WIDTH, 12),
    "by_head": np.array([0, 0, 3, 4]),
}
TURNED = node("Transpose", "x", "xt", perm=[0, 2, 1])
BY_COLUMN = [
    node("Softmax", "s", "p", axis=1),
    node("Transpose", "p", "pt", perm=[0, 2, 1]),
    node("MatMul", "pt x", "y"),
]
BY_ROW = [node("Softmax", "s", "p", axis=-1), node("MatMul", "p x", "y")]
FLAT = [node("Softmax", "s", "p", axis=-1), node("Unsqueeze", "p one", "u"), node("MatMul", "u x", "y")]
BY_ELEMENTS = [node("Softmax", "s", "p", axis=1), node("Mul", "p x", "m"), node("ReduceSum", "m one", "y", keepdims=1)]
LENGTHS = [node("Shape", "x", "by_row", end=2), node("Reshape", "flat_scores by_row", "s")]
EINSUM = node("Einsum", "p x", "y", equation="bn,bnd->bd")

OF_ONE: dict[str, list[NodeProto]] = {
    "x w": [node("MatMul", "x w", "s"), *BY_COLUMN],
    "x w, by elements": [node("MatMul", "x w", "s"), *BY_ELEMENTS],
    "x w, masked": [node("MatMul", "x w", "r"), node("Mul", "r scaled", "t"), node("Tanh", "t", "s"), *BY_COLUMN],
    "x w of three axes": [node("MatMul", "x w_by_head", "s"), *BY_COLUMN],
    "x w of one axis": [node("MatMul", "x w_flat", "s"), *FLAT],
    "x w, squeezed": [node("MatMul", "x w", "r"), node("Squeeze", "r last", "s"), *FLAT],
    "x w, turned": [node("MatMul", "x w", "r"), node("Transpose", "r", "s", perm=[0, 2, 1]), *BY_ROW],
    "w x^T": [TURNED, node("MatMul", "w_row xt", "s"), *BY_ROW],
    "w x^T of one axis": [TURNED, node("MatMul", "w_flat xt", "s"), *FLAT],
    "fused": [node("FusedMatMul", "x w_row", "s", MICROSOFT, transB=1), *BY_COLUMN],
    "Gemm": [node("Reshape", "x flat", "f"), node("Gemm", "f w b", "flat_scores"), *LENGTHS, *FLAT],
    "Gemm, turned": [
        node("Reshape", "x flat", "f"),
        node("Gemm", "f w_row b", "flat_scores", transB=1),
        *LENGTHS,
        *FLAT,
    ],
    "Einsum": [node("Einsum", "x w_flat", "s", equation="bnd,d->bn"), *FLAT],
    "Einsum, weights first": [node("Einsum", "w_flat x", "s", equation="d,...d->..."), *FLAT],
    "Einsum twice": [node("Einsum", "x w_flat", "s", equation="bnd,d->bn"), FLAT[0], EINSUM],
    "Einsum twice, weights first": [node("Einsum", "w_flat x", "s", equation="d,bnd->bn"), FLAT[0], EINSUM],
    "by elements": [node("Mul", "x w_flat", "q"), node("ReduceSum", "q last", "s", keepdims=0), *FLAT],
    "by elements of three axes": [
        node("Mul", "x w_of_all", "q"),
        node("ReduceSum", "q last", "s", keepdims=1),
        *BY_COLUMN,
    ],
    "a convolution": [TURNED, node("Conv", "xt w_filter", "s", kernel_shape=[1]), *BY_ROW],
}
OF_FOUR: dict[str, list[NodeProto]] = {
    "x Q": [node("MatMul", "x Q", "s"), *BY_COLUMN],
    "x Q of three axes": [node("MatMul", "x Q_by_row", "s"), *BY_COLUMN],
    "x Q, turned": [node("MatMul", "x Q", "r"), node("Transpose", "r", "s", perm=[0, 2, 1]), *BY_ROW],
    "Q x^T": [TURNED, node("MatMul", "Q_rows xt", "s"), *BY_ROW],
    "Einsum": [node("Einsum", "Q_rows x", "s", equation="qd,bnd->bqn"), *BY_ROW],
    "beside a gate": [  # Shen et al. 2021, "Efficient Attention"
        node("MatMul", "x Q", "r"),
        node("Transpose", "r", "s", perm=[0, 2, 1]),
        node("Softmax", "r", "gate", axis=-1),
        node("Softmax", "s", "p", axis=-1),
        node("MatMul", "p x", "context"),
        node("MatMul", "gate context", "y"),
    ],
    "Gemm": [
        node("Reshape", "x flat", "f"),
        node("Gemm", "f Q", "flat_scores"),
        node("Shape", "x", "lengths", end=2),
        node("Concat", "lengths last", "by_row", axis=0),
        node("Reshape", "flat_scores by_row", "s"),
        *BY_COLUMN,
    ],
}
WAYS = [(name, nodes, w, "masked" in name) for name, nodes in OF_ONE.items()]
WAYS += [(f"four: {name}", nodes, queries, False) for name, nodes in OF_FOUR.items()]


@pytest.mark.parametrize(("nodes", "scored", "bent"), [way[1:] for way in WAYS], ids=[way[0] for way in WAYS])
def test_pooling_by_attention_is_a_layer(nodes: Sequence[NodeProto], scored: Array, bent: bool) -> None:
    """Its weights are [B, 1, Q, K], behind those of the layer before it."""
    model = graph([FIRST, *nodes], {"x": X}, ["y", "a"], CONSTANTS)
    tapped, taps = tap(model, Path())
    assert [one.node.rstrip("1 ") for one in taps] == ["my Attention", "my Softmax"]
    x = numbers(3, LENGTH, WIDTH, seed=7)
    scores = np.swapaxes(x.astype(np.float64) @ scored, 1, 2)
    exponentials = np.exp(np.tanh(scores) if bent else scores)
    expected = (exponentials / exponentials.sum(-1, keepdims=True))[:, np.newaxis]
    np.testing.assert_allclose(run(tapped, {"x": x})["attention.1"], expected, atol=1e-5)


OTHERS: dict[str, list[NodeProto]] = {
    "a gate of channels": [
        node("MatMul", "x square", "s"),
        node("Softmax", "s", "p", axis=-1),
        node("Mul", "p x", "y"),
    ],
    "a gate whose products are summed": [
        node("MatMul", "x square", "s"),
        node("Softmax", "s", "p", axis=-1),
        node("Mul", "p x", "m"),
        node("ReduceSum", "m last", "y"),
    ],
    "a router of experts": [
        node("MatMul", "x route", "s"),
        node("Softmax", "s", "p", axis=-1),
        node("Unsqueeze", "x one", "xs"),
        node("MatMul", "xs experts", "e"),
        node("Transpose", "e", "by_token", perm=[0, 2, 1, 3]),
        node("Unsqueeze", "p two", "u"),
        node("MatMul", "u by_token", "y"),
    ],
    "a router with an axis of rows": [
        node("MatMul", "x route_by_row", "s"),
        node("Softmax", "s", "p", axis=-1),
        node("Unsqueeze", "x one", "xs"),
        node("MatMul", "xs experts", "e"),
        node("Transpose", "e", "by_token", perm=[0, 2, 1, 3]),
        node("Unsqueeze", "p two", "u"),
        node("MatMul", "u by_token", "y"),
    ],
    "a router by an Einsum": [
        node("Einsum", "x route", "s", equation="bnd,de->bne"),
        node("Softmax", "s", "p", axis=-1),
        node("Einsum", "x experts", "e", equation="bnd,edf->bnef"),
        node("Einsum", "p e", "y", equation="bne,bnef->bnf"),
    ],
    "a router by a Gemm": [
        node("Reshape", "x flat", "f"),
        node("Gemm", "f route", "s"),
        node("Softmax", "s", "p", axis=-1),
        node("Einsum", "f experts", "e", equation="nd,edf->nef"),
        node("Einsum", "p e", "y", equation="ne,nef->nf"),
    ],
    "a router of turned features": [
        TURNED,
        node("Conv", "xt route_filter", "s", kernel_shape=[1]),
        node("Softmax", "s", "p", axis=1),
        node("Einsum", "x experts", "e", equation="bnd,edf->bnef"),
        node("Einsum", "p e", "y", equation="ben,bnef->bnf"),
    ],
    "a router with a bias of each position": [
        node("MatMul", "x route", "r"),
        node("MatMul", "x w", "bias"),
        node("Add", "r bias", "s"),
        node("Softmax", "s", "p", axis=-1),
        node("Einsum", "x experts", "e", equation="bnd,edf->bnef"),
        node("Einsum", "p e", "y", equation="bne,bnef->bnf"),
    ],
    "a router by exponentials": [
        node("MatMul", "x route", "s"),
        node("Exp", "s", "g"),
        node("ReduceSum", "g last", "sums", keepdims=1),
        node("Div", "g sums", "p"),
        node("Einsum", "x experts", "e", equation="bnd,edf->bnef"),
        node("Einsum", "p e", "y", equation="bne,bnef->bnf"),
    ],
    "a gate of points by head": [  # Zhu et al. 2021, "Deformable DETR"
        node("MatMul", "x route_by_head", "r"),
        node("Reshape", "r by_head", "s"),
        node("Softmax", "s", "p", axis=-1),
        node("Einsum", "x experts", "e", equation="bnd,edf->bnef"),
        node("Einsum", "p e", "y", equation="bnep,bnef->bnpf"),
    ],
    "scores that weigh nothing": [node("MatMul", "x w", "s"), node("Softmax", "s", "y", axis=1)],
}


@pytest.mark.parametrize("nodes", OTHERS.values(), ids=OTHERS)
def test_gates_and_routers_are_no_attention(nodes: Sequence[NodeProto]) -> None:
    """What weights make of one position is weighed, not positions."""
    model = graph([FIRST, *nodes], {"x": X}, ["y", "a"], CONSTANTS)
    assert run(model, {"x": numbers(3, LENGTH, WIDTH)})["y"].size
    _, taps = tap(model, Path())
    assert [one.node for one in taps] == ["my Attention"]


REFUSED: dict[str, list[NodeProto]] = {
    "weights that are changed": [
        node("MatMul", "x w", "s"),
        node("Softmax", "s", "r", axis=1),
        node("Relu", "r", "p"),
        *BY_ELEMENTS[1:],
    ],
    "exponentials": [
        node("MatMul", "x w", "s"),
        node("Exp", "s", "e"),
        node("ReduceSum", "e one", "sums", keepdims=1),
        node("Div", "e sums", "p"),
        *BY_ELEMENTS[1:],
    ],
    "five axes": [
        node("Unsqueeze", "x axes", "x5"),
        node("MatMul", "x5 w", "s"),
        node("Softmax", "s", "p", axis=3),
        node("Mul", "p x5", "m"),
        node("ReduceSum", "m three", "y"),
    ],
    "scores of pairs": [  # Bahdanau et al. 2015
        node("Unsqueeze", "x one", "keys"),
        node("Unsqueeze", "x two", "from"),
        node("Add", "keys from", "pairs"),
        node("Tanh", "pairs", "bent"),
        node("MatMul", "bent w", "r"),
        node("Squeeze", "r last", "f"),
        node("Softmax", "f", "t", axis=-1),
        node("Relu", "t", "p"),
        node("MatMul", "p x", "y"),
    ],
}


@pytest.mark.parametrize("nodes", REFUSED.values(), ids=REFUSED)
def test_other_forms_refuse_the_file(nodes: Sequence[NodeProto]) -> None:
    """As any attention does that cannot be tapped."""
    weights = {**CONSTANTS, "axes": np.array([1, 2]), "three": np.array([3])}
    model = graph([FIRST, *nodes], {"x": X}, ["y", "a"], weights)
    assert run(model, {"x": numbers(3, LENGTH, WIDTH)})["y"].size
    with pytest.raises(TapError, match=r"my (Softmax|Div): is a \w+.* between two products"):
        tap(model, Path())


def test_additive_attention_is_a_layer() -> None:
    """Its scores are weights times what a query and a key make together (Bahdanau et al. 2015)."""
    nodes = [one for one in REFUSED["scores of pairs"] if one.op_type not in ("Softmax", "Relu")]
    model = graph([*nodes[:6], node("Softmax", "f", "p", axis=-1), nodes[6]], {"x": X}, ["y"], CONSTANTS)
    tapped, (one,) = tap(model, Path())
    x = numbers(2, LENGTH, WIDTH)
    scores = (np.tanh(x[:, np.newaxis] + x[:, :, np.newaxis]) @ w)[..., 0]
    expected = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    np.testing.assert_allclose(run(tapped, {"x": x})[one.output][:, 0], expected, atol=1e-5)


def test_half_precision_is_told_in_float32() -> None:
    """As the weights of every layer."""
    nodes = [
        node("Cast", "x", "h", to=TensorProto.FLOAT16),
        node("MatMul", "h half", "s"),
        node("Softmax", "s", "p", axis=1),
        node("Mul", "p h", "m"),
        node("ReduceSum", "m one", "r"),
        node("Cast", "r", "y", to=TensorProto.FLOAT),
    ]
    weights = {**CONSTANTS, "half": w.astype(np.float16)}
    tapped, (one,) = tap(graph(nodes, {"x": X}, ["y"], weights), Path())
    assert run(tapped, {"x": numbers(2, LENGTH, WIDTH)})[one.output].dtype == np.float32


def test_beside_the_fused_attention_of_a_network_it_is_refused() -> None:
    """Networks tell nothing of it, so nothing could be compared."""
    with pytest.raises(TapError, match="between two products"):
        tap(graph([FIRST, *OF_ONE["x w"]], {"x": X}, ["y", "a"], CONSTANTS), Path(), FUSED_RULES)
