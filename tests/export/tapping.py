"""What the tests of the rules share: small graphs, a reference in float64, and the comparison of plain and tapped."""

from collections import Counter
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from artifact.dtypes import Array
from export.tapping.tap import Tap, tap, tap_lowered

Feed = dict[str, Array]
MICROSOFT = "com.microsoft"
_TYPES = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "int32": TensorProto.INT32}
_TYPES |= {"bool": TensorProto.BOOL, "int64": TensorProto.INT64}


def node(op_type: str, inputs: str, outputs: str, domain: str = "", **attributes: Any) -> NodeProto:
    """Make a node whose inputs and outputs are names between spaces; "-" stands for one that is left out."""
    taken, given = ([name.strip("-") for name in part.split()] for part in (inputs, outputs))
    return helper.make_node(op_type, taken, given, name=f"my {op_type}", domain=domain, **attributes)


def graph(
    nodes: Sequence[NodeProto],
    inputs: Mapping[str, Any],
    outputs: Sequence[str],
    weights: Mapping[str, Array] | None = None,
    opset: int = 23,
) -> ModelProto:
    """Make a model.

    Args:
        nodes: In order.
        inputs: Lists of axes by name; where they are not float32, tuples of the type and these.
        outputs: Names; float32, their axes are left to inference.
        weights: By name.
        opset: Of ONNX's operators.
    """
    typed = {name: given if isinstance(given, tuple) else ("float32", given) for name, given in inputs.items()}
    values = [helper.make_tensor_value_info(name, _TYPES[kind], list(axes)) for name, (kind, axes) in typed.items()]
    tensors = [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()]
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(MICROSOFT, 1)]
    names = Counter[str]()
    for one in (nodes := deepcopy(list(nodes))):
        one.name += f" {number}" if (number := names[one.op_type]) else ""
        names[one.op_type] += 1
    made = helper.make_graph(nodes, "graph", values, results, tensors)
    return helper.make_model(made, opset_imports=opsets, ir_version=10 if opset > 20 else 8)


def numbers(*shape: int, seed: int = 0) -> Array:
    """Normal numbers, float32."""
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def weigh(query: Array, key: Array, mask: Array | None = None, *, causal: bool = False, scale: float = 0) -> Array:
    """Compute softmax(Q K^T / sqrt(d) + mask) in float64, [B, H, Q, K].

    Args:
        query: [B, H, Q, d].
        key: [B, H or fewer, K, d].
        mask: Broadcastable; true or 0 where a key is seen.
        causal: Whether no query attends behind itself.
        scale: Instead of 1 / sqrt(d).
    """
    query, key = query.astype(np.float64), np.repeat(key.astype(np.float64), query.shape[1] // key.shape[1], axis=1)
    scores = np.einsum("bhqd,bhkd->bhqk", query, key) * (scale or query.shape[-1] ** -0.5)
    if mask is not None:
        scores = np.where(mask, scores, -np.inf) if mask.dtype == bool else scores + mask.astype(np.float64)
    if causal:
        scores = np.where(np.tri(*scores.shape[-2:]) > 0, scores, -np.inf)
    exponentials = np.exp(scores - scores.max(-1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(-1, keepdims=True))


def by_head(array: Array, heads: int) -> Array:
    """Split [B, N, H * d] into [B, H, N, d]."""
    return array.reshape(*array.shape[:2], heads, -1).transpose(0, 2, 1, 3)


def run(model: ModelProto, feed: Feed) -> Feed:
    """Return every output of a graph by name."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, feed), strict=True))


def compare_tapped(model: ModelProto, feed: Feed) -> tuple[list[Tap], Feed]:
    """Tap a graph, check that its ordinary outputs are the same to the bit, and return the taps and all outputs."""
    before = model.SerializeToString()
    tapped, taps = tap(model, Path())
    assert model.SerializeToString() == before
    taken = {name for one in tapped.graph.node for name in one.input}
    assert {tensor.name for tensor in tapped.graph.initializer} <= taken  # of others, ONNX Runtime warns
    plain, got = run(model, feed), run(tapped, feed)
    for name, array in plain.items():
        assert np.array_equal(array, got[name], equal_nan=True), name
    return taps, got


def compare_lowered(model: ModelProto, feed: Feed, atol: float = 1e-5) -> ModelProto | None:
    """Check that the lowered form has no Attention node and gives the same outputs; returns it, if there is one."""
    tapped, _ = tap(model, Path())
    lowered = tap_lowered(tapped, Path())
    if lowered is not None:
        assert "Attention" not in {one.op_type for one in lowered.graph.node}
        expected, got = run(tapped, feed), run(lowered, feed)
        assert list(got) == list(expected)
        for name, array in expected.items():
            np.testing.assert_allclose(got[name], array, atol=atol, err_msg=name)
    return lowered
