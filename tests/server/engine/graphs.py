"""Small graphs whose packed weights lie awkwardly, and a program that packs, loads and runs them."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from artifact.dtypes import Array

# Packs the graphs of a folder as the server does, runs each from its packed file and from its own, and compares.
_COMPARE = """
import sys
from collections.abc import Mapping
from pathlib import Path
import numpy as np
import onnxruntime
from server.engine.prepacked_weights import packed
from server.engine.session import make_options

folder, graphs = Path(sys.argv[1]), sys.argv[2:]
load = lambda path: onnxruntime.InferenceSession(path, make_options(), providers=["CPUExecutionProvider"])
with packed(folder, graphs, make_options) as sources:
    assert all(path.parent != folder for path in sources.values()), "not packed"
    sessions = {graph: load(path) for graph, path in sources.items()}
for graph, session in sessions.items():
    size = session.get_inputs()[0].shape[1]
    for rows in (1, 3, 17):
        inputs = {"x": np.random.default_rng(rows).standard_normal((rows, size)).astype(np.float32)}
        inputs |= {"row": np.array([rows], np.int64)} if len(session.get_inputs()) > 1 else {}
        for got, expected in zip(session.run(None, inputs), load(folder / graph).run(None, inputs), strict=True):
            np.testing.assert_array_equal(got, expected)
print("the same")
"""


def compare_in_child(folder: Path, *graphs: str) -> "subprocess.CompletedProcess[str]":
    """Pack, load and run some graphs in a process of their own, which may die of it."""
    command = [sys.executable, "-c", _COMPARE, str(folder), *graphs]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def write_after_a_constant(path: Path, hidden: int, classes: int, constant_type: int = TensorProto.FLOAT) -> None:
    """Write a classifier whose matrices ONNX Runtime packs behind a constant of `classes` numbers.

    x [batch, hidden] -> y [batch, classes]; row [1] -> constant[row], which keeps the constant in its own type.
    """
    random = np.random.default_rng(0)
    values = random.integers(-9, 9, classes).astype(helper.tensor_dtype_to_np_dtype(constant_type))
    weights = {
        "a_constant": values,
        "bias": random.standard_normal(classes).astype(np.float32),
        "hidden": random.standard_normal((hidden, hidden)).astype(np.float32),
        "head": random.standard_normal((hidden, classes)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Gather", ["a_constant", "row"], ["picked"]),
        helper.make_node("MatMul", ["x", "hidden"], ["h"]),
        helper.make_node("MatMul", ["h", "head"], ["scores"]),
        helper.make_node("Add", ["scores", "bias"], ["y"]),
    ]
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", hidden]),
        helper.make_tensor_value_info("row", TensorProto.INT64, [1]),
    ]
    outputs = [
        helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", classes]),
        helper.make_tensor_value_info("picked", constant_type, [1]),
    ]
    _write(path, nodes, inputs, outputs, weights)


def write_with_bodies(path: Path, hidden: int) -> None:
    """Write a graph whose matrices lie in the two bodies of an If, under one name."""
    random = np.random.default_rng(1)

    def body(name: str) -> onnx.GraphProto:
        weights = random.standard_normal((hidden, hidden)).astype(np.float32)
        bias = random.standard_normal(301).astype(np.float32)
        wide = random.standard_normal((hidden, 301)).astype(np.float32)
        nodes = [
            helper.make_node("MatMul", ["x", "weights"], [f"{name}_h"]),
            helper.make_node("MatMul", [f"{name}_h", "wide"], [f"{name}_s"]),
            helper.make_node("Add", [f"{name}_s", "a_bias"], [f"{name}_y"]),
        ]
        given = {"a_bias": bias, "weights": weights, "wide": wide}
        stored = [numpy_helper.from_array(value, key) for key, value in given.items()]
        result = helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, ["batch", 301])
        return helper.make_graph(nodes, name, [], [result], stored)

    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "zero"], ["positive"]),
        helper.make_node("If", ["positive"], ["y"], then_branch=body("then"), else_branch=body("else")),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", hidden])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 301])]
    _write(path, nodes, inputs, outputs, {"zero": np.zeros((), np.float32)})


def write_small(path: Path, hidden: int) -> None:
    """Write a graph without a weight that is large enough to lie outside its file."""
    weights = {"bias": np.ones(hidden, np.float32)}
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", hidden])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", hidden])]
    _write(path, [helper.make_node("Add", ["x", "bias"], ["y"])], inputs, outputs, weights)


def _write(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    weights: Mapping[str, Array],
) -> None:
    stored = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
