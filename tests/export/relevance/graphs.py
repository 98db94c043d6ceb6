"""Graphs of a few nodes, and their gradients by reverse rules."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from export.relevance.reverse import Method, Reverse
from export.relevance.rules import RULES
from export.session import make_options
from export.tapping.tap import sort_nodes
from export.tapping.view import GraphView

Floats = NDArray[Any]


def make_graph(
    nodes: Sequence[NodeProto], x: Floats, given: Mapping[str, Floats] | None = None, opset: int = 20
) -> ModelProto:
    """Make a graph of an input x, constants, and nodes of which the last makes y; its batch is symbolic."""
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *x.shape[1:]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in (given or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def run_graph(model: ModelProto, outputs: Sequence[str], feed: Mapping[str, Floats]) -> list[Floats]:
    """Run it."""
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), make_options(), providers=["CPUExecutionProvider"]
    )
    return list(session.run(list(outputs), dict(feed)))


def gradient_of(model: ModelProto, x: Floats, seed: Floats, method: Method = "gradient") -> tuple[Floats, Floats]:
    """Return the gradient of sum(y * seed) with respect to x, and what all terms add to that sum."""
    view = GraphView(model, Path())
    reverse = Reverse(view, method, "x")
    given = helper.make_tensor_value_info("seed", TensorProto.FLOAT, list(seed.shape))
    model.graph.input.append(given)
    reverse.walk("y", "seed", RULES)
    view.add("Identity", [reverse.gradient("x")], "gradient")
    shares = [
        reverse.add("ReduceSum", [reverse.add("Mul", [term, made])], keepdims=0) for term, made, _ in reverse.terms
    ]
    shares.append(view.add_constant(np.zeros((), dtype=np.float32), "nothing"))
    view.add("Sum", shares, "terms")
    for name in ("gradient", "terms"):
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    sort_nodes(model)
    gradient, terms = run_graph(model, ["gradient", "terms"], {"x": x, "seed": seed})
    return gradient, terms
