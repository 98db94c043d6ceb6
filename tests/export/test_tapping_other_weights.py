"""A softmax that weighs by more than what is tapped refuses the file; what uses the same weights again does not."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from onnx import NodeProto

from artifact.dtypes import Array
from export.errors import TapError
from export.tapping.tap import Tap, tap
from tests.export.tapping import graph, node, numbers, run

HEADS, LENGTH, WIDTH = 3, 5, 4
INPUTS = {name: ["batch", HEADS, LENGTH, WIDTH] for name in "qkvu"}
ATTENDED = [
    node("Transpose", "k", "kt", perm=[0, 1, 3, 2]),
    node("MatMul", "q kt", "s"),
    node("Softmax", "s", "a", axis=-1),
]
PLAIN, MIXED = [node("MatMul", "a v", "y")], [node("Conv", "a kernel", "w"), node("MatMul", "w v", "y")]
WEIGHTS: dict[str, Array] = {
    "kernel": numbers(HEADS, HEADS, 1, 1),
    "other": numbers(HEADS, HEADS, 1, 1, seed=1),
    "keys": numbers(LENGTH, LENGTH),
    "heads": np.array([1]),
    "last": np.array([-1]),
    "eye": np.eye(LENGTH, dtype=np.float32),
    "zero": np.array([0]),
    "one": np.array([1]),
    "two": np.array([2]),
    "small": np.array(1e-9, dtype=np.float32),
    "half": np.array(0.5, dtype=np.float32),
    "none": np.array(0, dtype=np.float32),
    "more": np.zeros((1, HEADS, LENGTH, LENGTH), dtype=np.float32),
    "pads": np.array([0, 0, 0, 1, 0, 0, 0, 0]),
}


def taps_of(nodes: Sequence[NodeProto], outputs: Sequence[str]) -> list[Tap]:
    """Tap a graph, which then runs."""
    taken = {name for one in nodes for name in one.input}
    weights = {name: array for name, array in WEIGHTS.items() if name in taken}
    model, taps = tap(graph(nodes, {name: INPUTS[name] for name in "qkvu" if name in taken}, outputs, weights), Path())
    feed = {name: numbers(2, HEADS, LENGTH, WIDTH, seed=seed) for seed, name in enumerate("qkvu") if name in taken}
    assert set(run(model, feed)) >= {*outputs, *(one.output for one in taps)}
    return taps


@pytest.mark.parametrize("first", [PLAIN, MIXED], ids=["eager", "talking heads"])
@pytest.mark.parametrize(
    "other",
    [
        [node("Relu", "a", "r"), node("MatMul", "r v", "z")],
        [node("Conv", "a other", "m"), node("Relu", "m", "r"), node("MatMul", "r u", "z")],
        [node("Mul", "a keys", "r"), node("Identity", "r", "i"), node("MatMul", "i v", "z")],
        [node("Relu", "a", "r"), node("Transpose", "r", "t", perm=[0, 1, 3, 2]), node("MatMul", "t v", "z")],
        [node("Relu", "a", "r"), node("Einsum", "r v", "z", equation="bhqk,bhkd->bhqd")],
    ],
    ids=["an activation", "of another map", "masked", "turned", "an Einsum"],
)
def test_other_weights_of_one_softmax_refuse_the_file(first: list[NodeProto], other: list[NodeProto]) -> None:
    """Half of what it weighs would be served as the whole layer."""
    with pytest.raises(TapError, match=r"my Softmax: my \w+( \d)? \(\w+\) weighs by what is made of its weights"):
        taps_of([*ATTENDED, *first, *other], ["y", "z"])


@pytest.mark.parametrize(
    "uses",
    [
        [node("MatMul", "a u", "z")],
        [node("Transpose", "a", "t", perm=[0, 1, 3, 2]), node("MatMul", "t u", "z")],
        [node("Slice", "a zero one two", "part"), node("MatMul", "part u", "z")],
        [node("Slice", "a zero last last", "part"), node("Pad", "part pads", "moved"), node("MatMul", "moved u", "z")],
        [node("Log", "a", "l"), node("Mul", "a l", "p"), node("ReduceSum", "p last", "z", keepdims=0)],
        [
            node("ReduceMean", "a heads", "mean", keepdims=1),
            node("Add", "mean eye", "with_residual"),
            node("MatMul", "with_residual u", "z"),
        ],
        [node("Einsum", "a u", "z", equation="bhqk,bhkd->bhqd")],
        [
            node("Clip", "a small", "p"),
            node("Log", "p", "l"),
            node("Mul", "p l", "m"),
            node("ReduceSum", "m last", "z"),
        ],
        [node("Neg", "a", "n"), node("Log", "a", "l"), node("Mul", "n l", "m"), node("ReduceSum", "m last", "z")],
        [
            node("ReduceL2", "a last", "norm"),
            node("Div", "a norm", "d"),
            node("Transpose", "d", "t", perm=[0, 1, 3, 2]),
            node("MatMul", "d t", "z"),
        ],
        [
            node("Mul", "a half", "z1"),
            node("Transpose", "a", "t", perm=[0, 1, 3, 2]),
            node("MatMul", "z1 t", "z2"),
            node("Sub", "eye z2", "z3"),
            node("MatMul", "z1 z3", "z"),
        ],
        [node("IsNaN", "a", "i"), node("Where", "i none a", "w2"), node("MatMul", "w2 u", "z")],
        [node("Concat", "a more", "c", axis=0), node("Slice", "c zero one zero", "w2"), node("MatMul", "w2 u", "z")],
        [
            node("Conv", "a kernel", "carried"),
            node("MatMul", "u kt", "s2"),
            node("Add", "carried s2", "t2"),
            node("Softmax", "t2", "a2", axis=-1),
            node("MatMul", "a2 v", "z"),
        ],
    ],
    ids=[
        "twice",
        "turned",
        "a part",
        "moved",
        "an entropy",
        "a mean of heads",
        "an Einsum",
        "entropy of what is clipped",
        "entropy of what is negated",
        "cosines of rows",
        "an inverse",
        "without what is no number",
        "beside zeros",
        "a bias of the next layer",
    ],
)
def test_the_same_weights_used_again_refuse_nothing(uses: list[NodeProto]) -> None:
    """As relative positions of values, sums over the heads and maps that are handed on do."""
    layers = 1 + sum(one.op_type == "Softmax" for one in uses)
    assert len(taps_of([*ATTENDED, *PLAIN, *uses], ["y", "z"])) == layers


def test_mixed_weights_that_weigh_several_values_are_one_layer() -> None:
    """In whatever form, and where the file gives them itself, too."""
    uses = [node("MatMul", "w u", "z"), node("Identity", "w", "same"), node("MatMul", "same q", "x")]
    for outputs in (["y", "z", "x"], ["y", "z", "x", "w"]):
        assert [one.mixes_heads for one in taps_of([*ATTENDED, *MIXED, *uses], outputs)] == [True]
