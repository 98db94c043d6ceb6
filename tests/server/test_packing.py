"""One packed copy of the weights for all sessions of a model."""

import filecmp
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from server.contract import (
    CONTRACT_FILE,
    CONTRIBUTIONS_GRAPH,
    PLAIN_GRAPH,
    TAPPED_GRAPH,
    WEIGHTS_FILE,
    read_contract,
)
from server.packing import packed
from tests.golden import GOLDEN_MODELS

ARTIFACT = GOLDEN_MODELS / "tiny-text" / "1"
GRAPHS = (PLAIN_GRAPH, TAPPED_GRAPH, CONTRIBUTIONS_GRAPH)
INLINE_BYTES = read_contract(ARTIFACT / CONTRACT_FILE).inline_bytes
IDS = np.array([[2, 5, 9, 3]])
INPUTS = {"input_ids": IDS, "attention_mask": np.ones_like(IDS)}
Usage = namedtuple("Usage", ("total", "used", "free"))


def load(path: Path) -> onnxruntime.InferenceSession:
    """A session."""
    return onnxruntime.InferenceSession(path, onnxruntime.SessionOptions(), providers=["CPUExecutionProvider"])


def test_packed_graphs_compute_the_same_and_share_one_file() -> None:
    """Bit for bit, though the folder is gone by the time they run."""
    with packed(ARTIFACT, GRAPHS, INLINE_BYTES, onnxruntime.SessionOptions) as sources:
        weights = [path.with_name("packed.bin") for path in sources.values()]
        assert all(weights[0].samefile(other) for other in weights)
        assert weights[0].stat().st_size >= (ARTIFACT / WEIGHTS_FILE).stat().st_size
        sessions = [load(path) for path in sources.values()]
    assert not any(path.exists() for path in weights)
    for session, graph in zip(sessions, GRAPHS, strict=True):
        for got, expected in zip(session.run(None, INPUTS), load(ARTIFACT / graph).run(None, INPUTS), strict=True):
            np.testing.assert_array_equal(got, expected)


def test_graphs_whose_packed_weights_differ_keep_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Should ONNX Runtime ever optimise the tapped graph otherwise."""
    monkeypatch.setattr(filecmp, "cmp", lambda *files, shallow: False)
    with packed(ARTIFACT, GRAPHS, INLINE_BYTES, onnxruntime.SessionOptions) as sources:
        weights = [path.with_name("packed.bin") for path in sources.values()]
        assert not weights[0].samefile(weights[1])


def test_without_room_the_artifact_itself_is_loaded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each session then keeps its own copy, and the log says so."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(1, 1, 0))
    with packed(ARTIFACT, GRAPHS, INLINE_BYTES, onnxruntime.SessionOptions) as sources:
        assert sources == {graph: ARTIFACT / graph for graph in GRAPHS}
    assert "each session keeps its own copy of the weights" in caplog.text
    assert "has no room for" in caplog.text
