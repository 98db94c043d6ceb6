"""ONNX Runtime's sessions for the steps of an export: on the CPU, and silent."""

from pathlib import Path

import onnxruntime

_FATAL_ONLY = 4  # errors are raised as well as logged, and warnings are for whoever wrote the graph's operators


def make_options() -> onnxruntime.SessionOptions:
    """Options with which what is wrong is raised, and not printed besides."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    return options


def open_session(
    graph: Path | bytes, options: onnxruntime.SessionOptions | None = None
) -> onnxruntime.InferenceSession:
    """Load a graph from a file, or from the bytes of one without external weights."""
    return onnxruntime.InferenceSession(graph, options or make_options(), providers=["CPUExecutionProvider"])
