"""ONNX Runtime's sessions for the steps of an export: on the CPU, and silent."""

from collections.abc import Mapping
from pathlib import Path

import onnxruntime

from artifact.dtypes import Array
from export.errors import ProbeError
from server.errors import first_line

_SPINNING = "session.intra_op.allow_spinning"
_FATAL_ONLY = 4  # errors are raised as well as logged, and warnings are for whoever wrote the graph's operators


def make_options() -> onnxruntime.SessionOptions:
    """Options with which what is wrong is raised, and not printed besides.

    Several sessions are open at once, and torch runs between them: threads that spin would take their cores.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    options.add_session_config_entry(_SPINNING, "0")
    return options


def open_session(
    graph: Path | bytes, options: onnxruntime.SessionOptions | None = None
) -> onnxruntime.InferenceSession:
    """Load a graph from a file, or from the bytes of one without external weights.

    Raises:
        ProbeError: ONNX Runtime cannot load it.
    """
    try:
        return onnxruntime.InferenceSession(graph, options or make_options(), providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        name = graph.name if isinstance(graph, Path) else "the graph"
        raise ProbeError(f"{name}: ONNX Runtime cannot load it: {first_line(error)}") from error


def run_session(session: onnxruntime.InferenceSession, feed: Mapping[str, Array]) -> dict[str, Array]:
    """Run a graph; returns every output by name."""
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, feed), strict=True))
