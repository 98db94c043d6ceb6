"""The trivial graph: 16 floats in, their doubles out, with no work to speak of; and what callers send for it."""

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from server.api.open_inference import open_inference_pb2 as pb

NAME, INPUT, OUTPUT, FLOATS = "trivial", "x", "embedding", 16  # the output's name is what the peers' scripts ask for


def save_graph(models: Path) -> Path:
    """Write it into a models folder as a bare ONNX file; returns the file."""
    takes, gives = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", FLOATS]) for name in (INPUT, OUTPUT)
    )
    graph = helper.make_graph([helper.make_node("Add", [INPUT, INPUT], [OUTPUT])], NAME, [takes], [gives])
    path = models / NAME / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


def make_arrays() -> dict[str, NDArray[np.float32]]:
    """One row, float32 [1, 16]."""
    return {INPUT: np.arange(FLOATS, dtype=np.float32)[np.newaxis]}


def make_request() -> pb.ModelInferRequest:
    """One row as a message of the Open Inference Protocol, its tensor raw."""
    tensor = pb.ModelInferRequest.InferInputTensor(name=INPUT, datatype="FP32", shape=[1, FLOATS])
    return pb.ModelInferRequest(model_name=NAME, inputs=[tensor], raw_input_contents=[make_arrays()[INPUT].tobytes()])
