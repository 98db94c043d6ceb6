from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from artifact.contract import WEIGHTS_FILE
from export.graph import externalize
from export.half_storage import store_halves

ROWS, WIDTH = 40, 16
HALVES = ((np.arange(ROWS * WIDTH) - 300) / 8).astype(np.float32).reshape(ROWS, WIDTH)
GRAPHS = ("first.onnx", "second.onnx")


def write(folder: Path, weights: NDArray[np.float32]) -> None:
    """Two graphs that take a row of the weights, with one file of these."""
    beside = None
    for name in GRAPHS:
        x, y = (
            helper.make_tensor_value_info(one, TensorProto.FLOAT, [1, size])
            for one, size in (("x", ROWS), ("y", WIDTH))
        )
        nodes = [helper.make_node("MatMul", ["x", "weights"], ["y"])]
        graph = helper.make_graph(nodes, "g", [x], [y], [numpy_helper.from_array(weights, "weights")])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)
        beside = externalize(model, folder / WEIGHTS_FILE, beside)
        onnx.save_model(beside, folder / name)


def ask(file: Path) -> NDArray[np.float32]:
    """Add up the rows, each times another number."""
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    answer: NDArray[np.float32] = session.run(None, {"x": np.linspace(-1, 1, ROWS, dtype=np.float32)[None]})[0]
    return answer


def test_weights_that_are_float16_numbers_take_half_the_bytes(tmp_path: Path) -> None:
    """Once for both graphs, which answer to the last bit as before."""
    write(tmp_path, HALVES)
    before = [ask(tmp_path / name) for name in GRAPHS]
    store_halves(tmp_path, GRAPHS)
    assert (tmp_path / WEIGHTS_FILE).read_bytes() == HALVES.astype(np.float16).tobytes()
    assert [array.tobytes() for array in before] == [ask(tmp_path / name).tobytes() for name in GRAPHS]
    assert {file.name for file in tmp_path.iterdir()} == {*GRAPHS, WEIGHTS_FILE}


@pytest.mark.parametrize("odd", [0.1, 1e-9, 1e6, np.inf, np.nan])
def test_others_stay_as_they_are(odd: float, tmp_path: Path) -> None:
    """One number is enough that a float16 cannot hold; infinite ones it can."""
    weights = HALVES.copy()
    weights[3, 5] = odd
    write(tmp_path, weights)
    store_halves(tmp_path, GRAPHS)
    stored = weights if np.isfinite(odd) or np.isnan(odd) else weights.astype(np.float16)
    assert (tmp_path / WEIGHTS_FILE).read_bytes() == stored.tobytes()
