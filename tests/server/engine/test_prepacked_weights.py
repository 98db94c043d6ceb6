"""One packed copy of the weights for all sessions of a model."""

import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from artifact.contract import CONTRIBUTIONS_GRAPH, PLAIN_GRAPH, TAPPED_GRAPH, WEIGHTS_FILE
from server.engine.external_data import ExternalData, Piece
from server.engine.prepacked_weights import move_to_pool, packed
from tests.golden import GOLDEN_MODELS

ROOT = Path(__file__).parents[3]
ARTIFACT = GOLDEN_MODELS / "tiny-text" / "1"
GRAPHS = (PLAIN_GRAPH, TAPPED_GRAPH, CONTRIBUTIONS_GRAPH)
IDS = np.array([[2, 5, 9, 3]])
INPUTS = {"input_ids": IDS, "attention_mask": np.ones_like(IDS)}
Usage = namedtuple("Usage", ("total", "used", "free"))


def load(path: Path) -> onnxruntime.InferenceSession:
    """A session."""
    return onnxruntime.InferenceSession(path, onnxruntime.SessionOptions(), providers=["CPUExecutionProvider"])


def test_packed_graphs_compute_the_same_and_share_one_file() -> None:
    """Bit for bit, though the folder is gone by the time they run."""
    with packed(ARTIFACT, GRAPHS, onnxruntime.SessionOptions) as sources:
        weights = [path.with_name("packed.bin") for path in sources.values()]
        assert all(weights[0].samefile(other) for other in weights)
        assert weights[0].stat().st_size >= (ARTIFACT / WEIGHTS_FILE).stat().st_size
        sessions = [load(path) for path in sources.values()]
    assert not any(path.exists() for path in weights)
    for session, graph in zip(sessions, GRAPHS, strict=True):
        for got, expected in zip(session.run(None, INPUTS), load(ARTIFACT / graph).run(None, INPUTS), strict=True):
            np.testing.assert_array_equal(got, expected)


def bytes_of(graph: Path) -> dict[str, list[bytes]]:
    """What each external tensor of a graph holds, and what kernels have made of it."""
    content = graph.with_name("packed.bin").read_bytes()
    return {
        name: [content[piece.offset : piece.offset + piece.length] for piece in pieces]
        for name, pieces in ExternalData(graph).tensors()
    }


def test_weights_in_another_order_are_found_and_others_appended(tmp_path: Path) -> None:
    """The second graph's file holds the same tensors turned round, one that was changed, and one more."""
    with packed(ARTIFACT, GRAPHS[:1], onnxruntime.SessionOptions) as sources:
        (source,) = sources.values()
        for folder in ("first", "other"):
            shutil.copytree(source.parent, tmp_path / folder)
    first, other = (tmp_path / folder / PLAIN_GRAPH for folder in ("first", "other"))
    turn_round(other)
    kept, pool = bytes_of(first), tmp_path / "pool.bin"
    known = move_to_pool(first, pool, {})
    assert bytes_of(first) == kept
    before, size = bytes_of(other), pool.stat().st_size
    changed = next(iter(before))
    with other.with_name("packed.bin").open("r+b") as file:
        file.seek(dict(ExternalData(other).tensors())[changed][0].offset)
        file.write(b"changed!")
    wanted = bytes_of(other)
    assert wanted != before
    move_to_pool(other, pool, known)
    assert bytes_of(other) == wanted
    assert bytes_of(first) == kept
    added = pool.stat().st_size - size
    assert len(wanted[changed][0]) <= added <= len(wanted[changed][0]) + 64


def turn_round(graph: Path) -> None:
    """Write the weights of a packed graph in the opposite order."""
    data, file = ExternalData(graph), graph.with_name("packed.bin")
    content, places, written = file.read_bytes(), dict[str, list[int]](), b""
    for name, pieces in reversed(list(data.tensors())):
        places[name] = []
        for piece in pieces:
            assert isinstance(piece, Piece)
            written += bytes(-len(written) % 4096)
            places[name].append(len(written))
            written += content[piece.offset : piece.offset + piece.length]
    file.write_bytes(written)
    data.move(places)


def test_without_room_the_artifact_itself_is_loaded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each session then keeps its own copy, and the log says so."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(1, 1, 0))
    with packed(ARTIFACT, GRAPHS, onnxruntime.SessionOptions) as sources:
        assert sources == {graph: ARTIFACT / graph for graph in GRAPHS}
    assert "each session keeps its own copy of the weights" in caplog.text
    assert "has no room for" in caplog.text


_LOAD_AND_RUN = """
import sys
from pathlib import Path
import numpy as np, onnxruntime
from server.engine.prepacked_weights import packed
from server.engine.session import make_options
with packed(Path(sys.argv[1]), ["model.onnx"], make_options) as sources:
    assert sources["model.onnx"].parent != Path(sys.argv[1])
    session = onnxruntime.InferenceSession(sources["model.onnx"], make_options(), providers=["CPUExecutionProvider"])
    x = np.ones((3, 192), dtype=np.float32)
    given = session.run(None, {"x": x})
alone = onnxruntime.InferenceSession(Path(sys.argv[1]) / "model.onnx", providers=["CPUExecutionProvider"])
for got, expected in zip(given, alone.run(None, {"x": x}), strict=True):
    np.testing.assert_allclose(got, expected, rtol=1e-5)
"""


@pytest.mark.parametrize("width", [301, 390, 1000])
def test_matrices_behind_constants_of_odd_size_are_read_where_they_begin(tmp_path: Path, width: int) -> None:
    """Three biases of 301 floats come before the matrices, as a classifier's may: it ended the process that ran it.

    In a child, so that the tests survive it.
    """
    random = np.random.default_rng(0)
    nodes, constants = list[onnx.NodeProto](), list[onnx.TensorProto]()
    for index in range(3):
        nodes.append(helper.make_node("MatMul", ["x", f"w{index}"], [f"z{index}"]))
        nodes.append(helper.make_node("Add", [f"z{index}", f"b{index}"], [f"y{index}"]))
        for name, shape in ((f"b{index}", (width,)), (f"w{index}", (192, width))):
            constants.append(numpy_helper.from_array(random.random(shape, dtype=np.float32), name))
    takes = [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 192])]
    gives = [helper.make_tensor_value_info(f"y{index}", onnx.TensorProto.FLOAT, ["batch", width]) for index in range(3)]
    graph = helper.make_graph(nodes, "odd", takes, gives, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "model.onnx")
    command = [sys.executable, "-c", _LOAD_AND_RUN, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
