"""Lets ONNX Runtime fold the constants of a graph that comes from elsewhere.

Otherwise each session would fold them for itself at each start, and rules would meet weights that are still computed.
"""

import tempfile
from pathlib import Path

import onnx
import onnxruntime
from onnx import ModelProto

from export.errors import ProbeError
from export.session import make_options, open_session

_MAX_BYTES = 2**31 - 2**20  # of a message in memory; larger graphs stay as they are


def fold_constants(model: ModelProto) -> ModelProto:
    """Return the graph with what does not depend on its inputs computed; operators stay ONNX's own.

    Raises:
        ProbeError: It cannot be loaded, or computes nothing of its inputs.
    """
    options = make_options()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    if model.ByteSize() > _MAX_BYTES:
        return model
    with tempfile.TemporaryDirectory(prefix="regard-") as folder:
        target = Path(folder, "folded.onnx")
        options.optimized_model_filepath = str(target)
        open_session(model.SerializeToString(), options)
        folded = onnx.load(target)
    if not folded.graph.node:
        raise ProbeError("the graph gives the same whatever it is given; expected outputs that depend on its inputs")
    return folded
