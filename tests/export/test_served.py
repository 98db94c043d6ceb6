"""What an export is checked for beside the network: that it runs as it will be served, and answers twice the same."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from export.build import build
from export.cases import MAX_WEIGHTS, make_cases
from export.errors import VerificationError
from export.graph_source import load_graph
from export.reach import Reach
from export.served import AsServed
from export.sources import Source
from tests.export.families import FAMILIES, shallow, write_folder
from tests.export.networks import Images, spread, write_images
from tests.export.tapping import node
from tests.golden import GOLDEN_MODELS, GOLDEN_NETWORK

FEED = {"input_ids": np.ones((1, 3), dtype=np.int64), "attention_mask": np.ones((1, 3), dtype=np.int64)}
ARTIFACT = GOLDEN_MODELS / "tiny-text" / "1"


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes are started as an export starts them, not forked."""
    monkeypatch.setattr("export.served.subprocess", subprocess)


def test_graphs_are_run_with_packed_weights_in_another_process(source: Source, out: Path) -> None:
    """Every output of every graph has a line of the table that says so."""
    contract = build(source, out).contract
    lines = {line.tensor: line.cases for line in contract.verification if line.check == "as served"}
    assert {"logits", "embedding", "attention.0", "attention.1", "value_norms.1", "contributions.1"} <= lines.keys()
    assert lines["logits"] == 2 * 5  # two cases of five graphs
    assert lines["contributions.1"] == lines["hidden_states.2"] == 2


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "the export ends the process with SIGSEGV"),
        ("raise ValueError('no such kernel')", "the export fails: ValueError: no such kernel"),
    ],
)
def test_a_process_that_dies_makes_the_export_fail(code: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the reason, instead of ending it."""
    popen = subprocess.Popen

    def start(command: list[str], **options: object) -> object:
        return popen([command[0], "-c", code], **options)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "Popen", start)
    with AsServed(ARTIFACT, [FEED]) as served, pytest.raises(VerificationError, match=f"as it is served, {message}"):
        list(served.results())


def test_graphs_that_give_something_else_as_served_are_not_published(
    source: Source, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a packed weight that went wrong."""

    def wrong(self: AsServed) -> object:
        for graph, place, found in results(self):
            yield graph, place, {name: array + np.float32(0.01) for name, array in found.items()}

    results = AsServed.results
    monkeypatch.setattr(AsServed, "results", wrong)
    with pytest.raises(VerificationError, match=r"logits: as served: 0\.01"):
        build(source, out)
    assert not list(out.rglob("*.onnx"))


@pytest.mark.parametrize(
    "nodes",
    [
        [node("RandomNormalLike", "exact", "noise", scale=0.001), node("Add", "exact noise", "logits")],
        [node("Dropout", "exact share training", "logits")],
    ],
    ids=lambda nodes: nodes[0].op_type,
)
def test_a_graph_that_draws_random_numbers_is_refused_with_the_kind_of_its_node(
    nodes: list[onnx.NodeProto], out: Path, tmp_path: Path
) -> None:
    """Two callers would get two answers to one question; dropout as in training is one such."""
    model = write_images(spread(Images()))
    logits = next(one for one in model.graph.node if "logits" in one.output)
    logits.output[0] = "exact"
    model.graph.node.extend(nodes)
    for name, value in {"share": np.array(0.5, np.float32), "training": np.array(True)}.items():
        if name in nodes[0].input:
            model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    onnx.save_model(model, tmp_path / "odd.onnx")
    message = f"gives other outputs when it is run again; it has {nodes[0].op_type}; expected none of these"
    with pytest.raises(VerificationError, match=message):
        build(load_graph(tmp_path / "odd.onnx"), out)


def test_a_norm_that_is_still_in_training_is_refused(out: Path, tmp_path: Path) -> None:
    """It normalises by the batch, and goes on learning from it."""
    model = write_images(spread(Images()))
    first = next(one for one in model.graph.node if one.op_type == "MatMul")
    place, weights = list(model.graph.node).index(first), {"one": np.ones(17), "zero": np.zeros(17)}
    norm = node("BatchNormalization", f"{first.input[0]} one zero zero one", "normed m v", training_mode=1)
    first.input[0] = "normed"
    model.graph.node.insert(place, norm)
    for name, array in weights.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(np.float32), name))
    onnx.save_model(model, tmp_path / "odd.onnx")
    with pytest.raises(VerificationError, match=r"it has BatchNormalization|first at my BatchNormalization"):
        build(load_graph(tmp_path / "odd.onnx"), out)


def test_an_artifact_that_a_server_does_not_take_is_not_published(
    source: Source, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the exporter wrote into its contract."""
    monkeypatch.setattr("export.contracts.Source.token_limit", 10**6)
    with pytest.raises(VerificationError, match=r"loaded by a server, .*text\.max_tokens: 1000000; limits"):
        build(source, out)
    assert not list(out.rglob("*.onnx"))


def test_the_longest_text_is_tried_within_a_bound(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside a short one: all positions where that is affordable; 2**26 weights a text at most, but for 9 tokens."""
    monkeypatch.setattr("export.cases.MAX_WEIGHTS", MAX_WEIGHTS)
    few, many = (
        {f"attention.{layer}": ("batch", heads, "seq_len", "seq_len") for layer in range(16)} for heads in (2, 2**20)
    )
    assert make_cases(Reach(source.traits, few))[-1].lengths == (source.traits.longest, 9)
    assert make_cases(Reach(source.traits, many))[-1].lengths == (9, 9)
    assert MAX_WEIGHTS == 2**26


def test_the_exporter_leaves_standard_error_empty(out: Path, tmp_path: Path) -> None:
    """No warning of ONNX Runtime, torch or onnxscript: Whisper's graph had a weight that no node takes."""
    folder = write_folder(shallow(FAMILIES["whisper"]), tmp_path / "sound")
    for path in (folder, GOLDEN_NETWORK):
        command = [sys.executable, "-m", "export", str(path), "--out", str(out), "--summary"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        assert "[W:onnxruntime" not in done.stdout
    for file in out.rglob("*.onnx"):
        graph = onnx.load(file, load_external_data=False).graph
        taken = {name for one in graph.node for name in one.input}
        assert {tensor.name for tensor in graph.initializer} <= taken, file
