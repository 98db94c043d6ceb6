"""One packed copy of the weights for all sessions of a model."""

import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from artifact.contract import CONTRIBUTIONS_GRAPH, PLAIN_GRAPH, TAPPED_GRAPH, WEIGHTS_FILE
from server.engine.external_data import ExternalData, Piece
from server.engine.prepacked_weights import _share as share
from server.engine.prepacked_weights import packed
from tests.golden import GOLDEN_MODELS

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
