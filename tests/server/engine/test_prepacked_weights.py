"""One packed copy of the weights for all sessions of a model."""

import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto

from artifact.contract import CONTRIBUTIONS_GRAPH, PLAIN_GRAPH, TAPPED_GRAPH, WEIGHTS_FILE
from server.engine.external_data import ExternalData, Piece
from server.engine.prepacked_weights import _share as share
from server.engine.prepacked_weights import packed
from tests.golden import GOLDEN_MODELS
from tests.server.engine import graphs

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
    before, size = bytes_of(other), first.with_name("packed.bin").stat().st_size
    changed = next(iter(before))
    with other.with_name("packed.bin").open("r+b") as file:
        file.seek(dict(ExternalData(other).tensors())[changed][0].offset)
        file.write(b"changed!")
    wanted = bytes_of(other)
    assert wanted != before
    share(first, other)
    assert bytes_of(other) == wanted
    assert bytes_of(first) == before
    added = first.with_name("packed.bin").stat().st_size - size
    assert len(wanted[changed][0]) <= added <= len(wanted[changed][0]) + 4096


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


@pytest.mark.parametrize("constant", [TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT8])
@pytest.mark.parametrize(("hidden", "classes"), [(384, 301), (48, 1301), (100, 1003)])
def test_matrices_packed_behind_a_constant_of_odd_size_do_not_end_the_process(
    tmp_path: Path, hidden: int, classes: int, constant: int
) -> None:
    """Whatever the constant holds; the result is that of the graph itself, bit for bit."""
    graphs.write_after_a_constant(tmp_path / PLAIN_GRAPH, hidden, classes, constant)
    child = graphs.compare_in_child(tmp_path, PLAIN_GRAPH)
    assert (child.returncode, child.stdout) == (0, "the same\n"), child.stderr


def test_graphs_that_share_a_pool_are_aligned_all_of_them(tmp_path: Path) -> None:
    """The first, one that has the same weights in another place, and one whose weights are others."""
    graphs.write_after_a_constant(tmp_path / PLAIN_GRAPH, 384, 301)
    graphs.write_after_a_constant(tmp_path / TAPPED_GRAPH, 384, 301, TensorProto.INT8)
    graphs.write_after_a_constant(tmp_path / CONTRIBUTIONS_GRAPH, 48, 1301)
    child = graphs.compare_in_child(tmp_path, *GRAPHS)
    assert (child.returncode, child.stdout) == (0, "the same\n"), child.stderr


def test_the_first_graph_may_have_no_large_weights(tmp_path: Path) -> None:
    """The others' make the pool then."""
    graphs.write_small(tmp_path / PLAIN_GRAPH, 48)
    graphs.write_after_a_constant(tmp_path / TAPPED_GRAPH, 48, 1301)
    child = graphs.compare_in_child(tmp_path, PLAIN_GRAPH, TAPPED_GRAPH)
    assert (child.returncode, child.stdout) == (0, "the same\n"), child.stderr


def test_weights_in_the_bodies_of_an_if_are_aligned_too(tmp_path: Path) -> None:
    """Each body's own, though both use one name."""
    graphs.write_with_bodies(tmp_path / PLAIN_GRAPH, 384)
    child = graphs.compare_in_child(tmp_path, PLAIN_GRAPH)
    assert (child.returncode, child.stdout) == (0, "the same\n"), child.stderr


@pytest.mark.parametrize("first", [PLAIN_GRAPH, TAPPED_GRAPH])
def test_weights_in_bodies_are_not_shared(tmp_path: Path, caplog: pytest.LogCaptureFixture, first: str) -> None:
    """ONNX Runtime reads them from no file with several names; the graphs are loaded from where they are."""
    second = TAPPED_GRAPH if first == PLAIN_GRAPH else PLAIN_GRAPH
    graphs.write_with_bodies(tmp_path / PLAIN_GRAPH, 48)
    graphs.write_after_a_constant(tmp_path / TAPPED_GRAPH, 48, 301)
    with packed(tmp_path, (first, second), onnxruntime.SessionOptions) as sources:
        assert sources == {graph: tmp_path / graph for graph in (first, second)}
    assert "the body of an If, Loop or Scan has weights of its own" in caplog.text
