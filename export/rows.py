"""Finds the node by which rows of a batch depend on each other: a server batches requests that know nothing of it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import ValueInfoProto

from artifact.contract import PLAIN_GRAPH
from artifact.dtypes import Array
from export.session import make_options, open_session, run_session
from export.tapping.view import name_of
from export.traits import Feed

_EVERYTHING = ".everything.onnx"
_TOLERANCE = 1e-3  # of the largest magnitude; what depends on other rows is off by far more


def find_mixing_node(folder: Path, feed: Feed) -> str:
    """Say at which node of the plain graph a row first differs from what it is alone.

    Args:
        folder: Holds the plain graph and its weights.
        feed: Two rows or more, all of one length.

    Returns:
        A few words on it; empty where there is none.
    """
    try:
        graph, session = _give_everything(folder)
        together = _run(session, feed)
        alone = [_run(session, {name: array[row : row + 1] for name, array in feed.items()}) for row in (0, 1)]
    except Exception:  # ONNX Runtime's exceptions have no common base; what is said then says it without the node
        return ""
    for node in graph.node:
        for name in filter(together.__contains__, node.output):
            if any(not _is_same(together[name], one[name], row) for row, one in enumerate(alone)):
                return f"rows of a batch depend on each other, first at {name_of(node)} ({node.op_type})"
    return ""


def _give_everything(folder: Path) -> tuple[onnx.GraphProto, onnxruntime.InferenceSession]:
    """Open the plain graph with all its values as outputs."""
    model, path = onnx.load(folder / PLAIN_GRAPH, load_external_data=False), folder / _EVERYTHING
    given = {value.name for value in model.graph.output}
    made = (name for node in model.graph.node for name in node.output if name and name not in given)
    model.graph.output.extend(ValueInfoProto(name=name) for name in made)
    options = make_options()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        onnx.save_model(model, path)
        return model.graph, open_session(path, options)
    finally:
        path.unlink(missing_ok=True)


def _run(session: onnxruntime.InferenceSession, feed: Feed) -> dict[str, Array]:
    return {name: array for name, array in run_session(session, feed).items() if _is_float(array)}


def _is_float(array: object) -> bool:
    """Whether a value holds what is computed; whole numbers are mostly shapes, which tell of the batch rightly."""
    return isinstance(array, np.ndarray) and array.dtype.kind == "f"


def _is_same(together: Array, alone: Array, row: int) -> bool:
    """Whether a row is the same in the batch; a value whose rows cannot be told apart counts as the same."""
    rows = list(_rows(together, alone, row))
    return not rows or any(_is_close(one, alone) for one in rows)


def _rows(together: Array, alone: Array, row: int) -> Iterator[Array]:
    """Yield what may be the row: heads and the like may be folded into its axis, behind rows or before them."""
    if together.shape == alone.shape:
        yield together
        return
    if together.ndim != alone.ndim:
        return
    grown = [axis for axis in range(alone.ndim) if together.shape[axis] != alone.shape[axis]]
    if len(grown) == 1 and (own := alone.shape[grown[0]]) and together.shape[grown[0]] % own == 0:
        count = together.shape[grown[0]] // own
        yield np.take(together, range(row * own, (row + 1) * own), axis=grown[0])
        yield np.take(together, range(row, count * own, count), axis=grown[0])


def _is_close(one: Array, other: Array) -> bool:
    a, b = one.astype(np.float64), other.astype(np.float64)
    scale = np.abs(b[np.isfinite(b)]).max(initial=0)
    return bool(np.allclose(a, b, rtol=0, atol=_TOLERANCE * scale + np.finfo(np.float32).tiny, equal_nan=True))
