"""A contract for an ONNX file that has none, read from its inputs and outputs.

Rows of different requests share a batch where one name stands for the first axis of every input and output and for no
other; what else is symbolic has to be equal then, since only a contract can say what padding would mean.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnxruntime
from pydantic import ValidationError

from artifact.contract import BARE_ONNX, BATCH_AXIS, PLAIN_GRAPH, SEQUENCE_AXIS, Contract, TensorContract
from artifact.errors import explain
from server.engine.agreement import DTYPES
from server.engine.device import ERRORS_ONLY
from server.errors import StartError, first_line


def describe_graph(folder: Path) -> Contract:
    """Make the contract of a version's folder that holds a model.onnx alone.

    Raises:
        StartError: ONNX Runtime cannot load it, or a value is no tensor of a type that can be served.
    """
    path = folder / PLAIN_GRAPH
    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        raise StartError(f"{path}: ONNX Runtime cannot load it: {first_line(error)}") from error
    inputs, outputs = session.get_inputs(), session.get_outputs()
    batched = _is_batched([value.shape for value in (*inputs, *outputs)])
    types = {value.type for value in (*inputs, *outputs)}
    if types >= {"tensor(bfloat16)", "tensor(string)"}:
        raise StartError(f"{path}: has strings and bfloat16, which ONNX Runtime does not exchange together")
    described = [[_describe(path, value, batched=batched) for value in values] for values in (inputs, outputs)]
    try:
        return Contract(
            name=folder.parent.name,
            version=int(folder.name),
            family=BARE_ONNX,
            description="an ONNX file without a contract",
            inputs=tuple(described[0]),
            outputs=tuple(described[1]),
            files={},
        )
    except ValidationError as error:
        raise StartError(f"{folder}: {explain(error)}") from error


def _is_batched(shapes: Sequence[Sequence[Any]]) -> bool:
    """Whether one name stands for the first axis of everything, and for no other axis."""
    first = {shape[0] if shape else None for shape in shapes}
    others = {size for shape in shapes for size in shape[1:]}
    return len(first) == 1 and all(isinstance(name, str) and name for name in first) and not first & others


def _describe(path: Path, value: Any, *, batched: bool) -> TensorContract:
    if value.type not in DTYPES:
        raise StartError(f"{path}: {value.name} is a {value.type}; expected a tensor of {', '.join(DTYPES)}")
    axes = _name_axes(value.name, value.shape)
    if batched:
        axes = (BATCH_AXIS, *axes[1:])
    return TensorContract(name=value.name, dtype=DTYPES[value.type], axes=axes, finite=False)  # type: ignore[arg-type]


def _name_axes(name: str, shape: Sequence[Any]) -> tuple[int | str, ...]:
    """Give symbolic axes names: their own, but for those with a meaning here; anonymous ones each another."""
    meant = itertools.count()
    return tuple(
        size
        if isinstance(size, int)
        else f"{name}_{next(meant)}"
        if not size or size in (BATCH_AXIS, SEQUENCE_AXIS)
        else str(size)
        for size in shape
    )
