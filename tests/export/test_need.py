"""What a longer run takes is told by what shorter ones took, in a process of its own."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from artifact.contract import PLAIN_GRAPH, TAPPED_GRAPH, WEIGHTS_FILE
from export.compare import LIMITS, Graphs
from export.errors import VerificationError
from export.graph import externalize
from export.longest import find_longest_case
from export.need import Need, measure
from export.reach import Reach
from export.served import environment
from export.session import make_options, open_session
from export.tapping.tap import tap
from export.traits import InputSpec, Traits
from tests.export.tapping import graph, node, numbers

MIB = 2**20
WIDTH, WORDS, HELD, LONGEST = 8, 16384, 512, 2500
AXES = ("batch", "seq_len", WIDTH)


@pytest.mark.parametrize(
    ("shorter", "longer", "expected"),
    [
        (1000, 2000, (10.0, 0.0)),
        (20000, 80000, (0.0, 1.0)),
        (21000, 82000, (10.0, 1.0)),
        (2000, 2500, (12.5, 0.0)),
        (10000, 80000, (0.0, 1.0)),
        (0, 0, (0.0, 0.0)),
    ],
    ids=["positions", "weights", "both", "less than either", "more than either", "nothing"],
)
def test_growth_is_put_down_to_positions_and_weights(shorter: int, longer: int, expected: tuple[float, float]) -> None:
    """Of 100 and 200 positions with two heads; neither part is negative, and the longer run is met."""
    need = Need.fit(7, ([(2, 100, 100), (1, 100, 100)], shorter), ([(2, 200, 200)], longer))
    assert (need.fixed_bytes, need.position_bytes, need.weight_bytes) == (7, *expected)
    assert need.grown_bytes([(2, 200, 200)]) == longer
    assert need.grown_bytes([(1, 7, 9), (2, 300, 100)]) == expected[0] * 300 + expected[1] * 60000


def test_of_lengths_that_tell_nothing_apart_all_is_put_down_to_weights() -> None:
    """Where keys are of one size there is no square."""
    assert Need.fit(0, ([(2, 100, 5)], 500), ([(2, 200, 5)], 1000)) == Need(0, 0.0, 0.5)


def layers(**further: Any) -> onnx.ModelProto:
    """Make a graph of one layer, and the weight of each word, of which the largest over the positions leaves."""
    nodes = [
        node("Attention", "x x x", "a", q_num_heads=1, kv_num_heads=1),
        *([node("Cast", "stored", "words", to=TensorProto.FLOAT)] if "stored" in further else []),
        node("MatMul", "a words", "logits"),
        node("ReduceMax", "logits one", "y", keepdims=0),
    ]
    return graph(nodes, {"x": list(AXES)}, ["y"], {**further, "one": np.array([1])})


def write(model: onnx.ModelProto, folder: Path) -> Graphs:
    """Write plain and tapped graph as an export does."""
    plain = externalize(model, folder / WEIGHTS_FILE)
    onnx.save_model(plain, folder / PLAIN_GRAPH)
    onnx.save_model(tap(plain, folder)[0], folder / TAPPED_GRAPH)
    traits = Traits((InputSpec("x", AXES),), longest=LONGEST)
    reach = Reach(traits, {"y": ("batch", None), "attention.0": ("batch", 1, "seq_len", "seq_len")})
    return Graphs({PLAIN_GRAPH: open_session(folder / PLAIN_GRAPH)}, reach, LIMITS["float32"])


def find(model: onnx.ModelProto, folder: Path) -> int:
    """Length of the longest case; 0 where there is none."""
    folder.mkdir()
    case = find_longest_case(write(model, folder), folder)
    return case.positions if case else 0


def test_logits_of_a_vocabulary_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both graphs make [positions, words], in half of what is free; with few words all that is served fits."""
    monkeypatch.setattr("export.cases.MAX_WEIGHTS", HELD**2)
    monkeypatch.setattr("export.longest.free_bytes", lambda: 512 * MIB)
    assert find(layers(words=numbers(WIDTH, 16)), tmp_path / "few") == LONGEST
    length = find(layers(words=numbers(WIDTH, WORDS)), tmp_path / "many")
    assert HELD < length < 256 * MIB // (2 * WORDS * 4)


def test_weights_count_as_they_are_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stored in half precision they take twice their file, and as many products."""
    monkeypatch.setattr("export.cases.MAX_WEIGHTS", HELD**2)
    monkeypatch.setattr("export.longest.MAX_PRODUCTS", 1000 * WIDTH * WORDS + 128 * 1000**2)
    words = numbers(WIDTH, WORDS)
    monkeypatch.setattr("export.longest.free_bytes", lambda: 2**40)
    models = {"32": layers(words=words), "16": layers(stored=words.astype(np.float16))}
    # The axis to sum over is a number more.
    assert [find(model, tmp_path / name) for name, model in models.items()] == [999, 999]
    large = numbers(2048, 4096)
    model = graph(
        [node("Cast", "stored", "words", to=TensorProto.FLOAT), node("MatMul", "x words", "y")],
        {"x": ["batch", 2048]},
        ["y"],
        {"stored": large.astype(np.float16)},
    )
    onnx.save_model(model, tmp_path / "large.onnx")
    ((session, run, _),) = measure([(tmp_path / "large.onnx", {"x": np.ones((1, 2048), np.float32)})])
    assert session > 0.9 * large.nbytes
    assert run < large.nbytes


def test_a_run_that_fails_says_why(tmp_path: Path) -> None:
    """As every other does."""
    onnx.save_model(layers(words=numbers(WIDTH, 16)), tmp_path / "one.onnx")
    with pytest.raises(VerificationError, match=r"while the memory of a run is measured, the export fails: .*rank"):
        measure([(tmp_path / "one.onnx", {"x": np.ones((1, 2), np.float32)})])


def test_processes_that_run_graphs_take_no_torch() -> None:
    """Which takes longer to import than they run."""
    code = "import export.need, export.served, sys; print(sorted({'torch', 'onnx', 'transformers'} & set(sys.modules)))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_threads_of_a_session_do_not_spin() -> None:
    """They would take the cores of the other sessions, and of torch."""
    assert make_options().get_session_config_entry("session.intra_op.allow_spinning") == "0"
