import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import ModelProto
from safetensors.torch import load_file
from typer.testing import CliRunner

import export.build
from artifact.contract import read_contract
from artifact.files import hash_file
from export.__main__ import app
from export.build import build
from export.errors import PublishError, VerificationError
from export.known import WEIGHTS
from export.publish import publish, staging_folder
from export.relevance.graph import Relevance, add_relevance
from export.sources import Source, load_folder
from model.text import TextNetwork
from tests.golden import GOLDEN_MODELS, GOLDEN_NETWORK


def everything_below(folder: Path) -> list[str]:
    """Names of all files and folders, hidden ones too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) if folder.exists() else []


def nudged(source: Source) -> Source:
    """The same source whose fused and explained networks differ in one weight."""
    assert isinstance(source.network, TextNetwork)

    class Nudged(TextNetwork):
        def explain(
            self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
        ) -> tuple[dict[str, torch.Tensor], list[torch.Tensor]]:
            outputs, attentions = super().explain(input_ids, attention_mask, token_type_ids)
            return outputs, [attentions[0], attentions[1] + 0.01]

    network = Nudged(source.network.config).eval()
    network.load_state_dict(source.network.state_dict())
    return replace(source, network=network)


def test_an_artifact_holds_all_that_the_server_needs(source: Source, out: Path) -> None:
    """Eight graphs, one weights file, tokenizer, contract with true hashes and a verification table."""
    steps: list[str] = []
    built = build(source, out, steps.append)
    assert (built.folder, built.unchanged) == (out / "tiny-text" / "1", False)
    graphs = ["attention.lowered.onnx", "attention.onnx", "contributions.onnx", "hidden.onnx", "model.onnx"]
    files = sorted(
        [*graphs, "relevance.onnx", "similarity.onnx", "parts.onnx", "contract.json", "tokenizer.json", "weights.bin"]
    )
    assert everything_below(built.folder) == files
    contract = read_contract(built.folder / "contract.json")
    assert contract == built.contract
    assert contract.files == {name: hash_file(built.folder / name) for name in files if name != "contract.json"}
    assert contract.labels == ("negative", "positive")
    assert contract.text
    assert contract.text.max_tokens == 64
    checks = {(line.tensor, line.check) for line in contract.verification}
    for tensor in ("last_hidden_state", "embedding", "logits", "attention.0", "attention.1"):
        assert {(tensor, "against torch"), (tensor, "row alone")} <= checks
    assert {("attention.0", "rows sum to 1"), ("logits", "against plain"), ("attention.1", "lowered form")} <= checks
    assert {("relevance.score", "adds up"), ("relevance.positions", "row alone")} <= checks
    assert {("parts.part", "as relevance"), ("parts.part", "row alone"), ("similarity.score", "adds up")} <= checks
    assert [layer.value_norms for layer in contract.attention] == ["value_norms.0", "value_norms.1"]
    assert all(line.max_abs <= line.limit for line in contract.verification)
    assert set(contract.made_with) == {"regard", "torch", "onnx", "onnxscript"}
    verified = ["tracing the network", "tapping attention", "verifying against the network"]
    assert steps == [*verified, "explaining", "publishing"]
    assert built.left_out == ()


@pytest.mark.usefixtures("traced_anew")
def test_the_same_network_twice_is_published_once(source: Source, out: Path) -> None:
    """And a changed one becomes the next version."""
    build(source, out)
    again = build(source, out)
    assert (again.folder, again.unchanged) == (out / "tiny-text" / "1", True)
    changed = build(replace(source, description="another"), out)
    assert (changed.folder.name, changed.contract.version) == ("2", 2)
    assert sorted(path.name for path in (out / "tiny-text").iterdir()) == ["1", "2"]


def test_relevance_that_does_not_add_up_is_left_out(source: Source, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest is published, other methods too, and it is said why."""

    def wrong(*args: Any) -> tuple[ModelProto, Relevance]:
        graph, names = add_relevance(*args)
        for node in graph.graph.node:
            if "relevance.rest" in node.output:
                node.op_type = "Neg"
        return graph, names

    monkeypatch.setattr("export.write_relevance.add_relevance", wrong)
    steps: list[str] = []
    built = build(source, out, steps.append, relevance=("libra", "genatt"))
    assert len(built.left_out) == 1
    assert re.match(r"no relevance of logits by libra: relevance\.score: adds up: .*, limit ", built.left_out[0])
    assert built.left_out[0] in steps
    assert built.contract.relevance is None
    assert [one.graph for one in built.contract.other_relevance] == ["genatt"]
    assert {"relevance.genatt.onnx"} == {name for name in everything_below(built.folder) if "relevance" in name}
    checks = {(line.tensor, line.check) for line in built.contract.verification}
    assert ("genatt.positions", "row alone") in checks
    assert not any(tensor == "relevance.score" for tensor, _ in checks)


def test_no_relevance_is_written_where_none_is_wanted(source: Source, out: Path) -> None:
    """Nor is that said to be left out."""
    built = build(source, out, relevance=())
    assert (built.contract.explained, built.left_out) == ((), ())
    assert not any("relevance" in name for name in everything_below(built.folder))


def test_a_failed_verification_publishes_nothing_and_says_what_differs(source: Source, out: Path) -> None:
    """Tensor, check, difference and limit; not a file is left."""
    with pytest.raises(VerificationError, match=r"attention\.1: against torch: 0\.01, limit 0\.0001"):
        build(nudged(source), out)
    assert everything_below(out) == []


def test_numbers_that_are_none_fail_the_verification(source: Source, out: Path) -> None:
    """NaN is below no limit."""
    assert isinstance(source.network, TextNetwork)
    with torch.no_grad():
        next(iter(source.network.parameters()))[5] = float("nan")
    with pytest.raises(VerificationError, match="nan, limit"):
        build(source, out)


def test_a_number_that_is_none_in_a_later_row_alone_fails_the_verification(source: Source, out: Path) -> None:
    """The first row of a batch does not speak for the others."""
    assert isinstance(source.network, TextNetwork)

    class Faulty(TextNetwork):
        def forward(
            self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
        ) -> dict[str, torch.Tensor]:
            outputs = super().forward(input_ids, attention_mask, token_type_ids)
            if not torch.compiler.is_exporting() and len(input_ids) > 1:
                outputs["logits"][-1] = float("nan")
            return outputs

    network = Faulty(source.network.config).eval()
    network.load_state_dict(source.network.state_dict())
    with pytest.raises(VerificationError, match="logits: against torch: nan"):
        build(replace(source, network=network), out)


def test_an_interrupted_export_leaves_nothing_half_written(
    source: Source, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C while it verifies."""

    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(export.build, "verify", interrupt)
    with pytest.raises(KeyboardInterrupt):
        build(source, out)
    assert everything_below(out) == []


def test_a_version_that_exists_is_not_overwritten(source: Source, out: Path) -> None:
    """Had another export been faster."""
    contract = build(source, out).contract
    before = (out / "tiny-text" / "1" / "contract.json").read_bytes()
    with staging_folder(out, "tiny-text") as staging, pytest.raises(PublishError, match="tiny-text/1: cannot be"):
        publish(staging, out, contract)
    assert (out / "tiny-text" / "1" / "contract.json").read_bytes() == before
    assert [path.name for path in (out / "tiny-text").iterdir()] == ["1"]


def test_the_golden_artifact_still_is_what_an_export_gives(source: Source, out: Path) -> None:
    """Within 1e-5: the server's tests run on what today's exporter would write."""
    built = build(source, out)
    ids = np.arange(4, 20)[None]
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    sessions = [
        onnxruntime.InferenceSession(folder / "attention.onnx", providers=["CPUExecutionProvider"])
        for folder in (built.folder, GOLDEN_MODELS / "tiny-text" / "1")
    ]
    for got, expected in zip(*(session.run(None, feed) for session in sessions), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "further"), [("fashion", {"adds up", "as relevance"}), ("g2p", {"one step in torch", "adds up"})]
)
def test_an_embedded_artifact_is_the_committed_checkpoint(name: str, further: set[str]) -> None:
    """Its hashes are the files', and its verification compared it with the network."""
    from server.config import EMBEDDED_MODELS

    folder = EMBEDDED_MODELS / name / "1"
    contract = read_contract(folder / "contract.json")
    assert contract.files == {name: hash_file(folder / name) for name in contract.files}
    checks = {"against torch", "against plain", "rows sum to 1", "lowered form", "row alone", "as served"}
    assert {line.check for line in contract.verification} == checks | further


def test_the_embedded_weights_that_writes_are_those_of_the_checkpoint() -> None:
    """Number by number: the step's in order of the graph, and the embeddings of both graphs."""
    from server.config import EMBEDDED_MODELS

    stored = load_file(WEIGHTS / "g2p" / "model.safetensors")
    folder = EMBEDDED_MODELS / "g2p" / "1"
    for graph in ("model.onnx", "decoder.onnx", "decoder.lowered.onnx"):
        tensors = [onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(folder / graph).graph.initializer]
        held = {array.tobytes() for array in tensors if array.dtype == np.float16}
        held |= {array.T.tobytes() for array in tensors if array.dtype == np.float16 and array.ndim == 2}
        of_graph = "encoder." if graph == "model.onnx" else "decoder."
        named = [name for name in stored if name.startswith(of_graph) and stored[name].ndim == 2]
        if graph != "model.onnx":
            named = [
                name for name in named if "cross_attention.key" not in name and "cross_attention.value" not in name
            ]
        missing = [name for name in (*named, "tokens.weight") if stored[name].numpy().tobytes() not in held]
        assert not missing, graph


def test_the_command_line_prints_the_table_and_where_the_artifact_lies(out: Path) -> None:
    """Every tensor, or the worst of each check."""
    arguments = [str(GOLDEN_NETWORK), "--out", str(out), "--name", "mine"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "attention.1" in done.output
    assert f"published {out / 'mine' / '1'}" in done.output
    again = CliRunner().invoke(app, [*arguments, "--summary"])
    assert f"unchanged {out / 'mine' / '1'}" in again.output
    assert again.output.count("against torch") == 1


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("nowhere", "error: nowhere: neither a folder, nor an ONNX file, nor an id of the hub (owner/name), nor one"),
        (".", "config.json: not found; expected a checkpoint folder with config.json"),
    ],
)
def test_a_source_that_is_none_is_one_clear_line(argument: str, message: str, out: Path, tmp_path: Path) -> None:
    """With exit code 1."""
    done = CliRunner().invoke(app, [str(tmp_path) if argument == "." else argument, "--out", str(out)])
    assert done.exit_code == 1
    assert message in done.output.replace("\n", "")
    assert "Traceback" not in done.output


@pytest.mark.parametrize("name", ["../odd", "odd\n", "", ".hidden"])
def test_a_name_that_is_no_folder_name_is_refused(name: str, source: Source, out: Path) -> None:
    """Names become folders and metrics labels."""
    with pytest.raises(PublishError, match="; expected letters, digits, dots"):
        build(replace(source, name=name), out)
    assert everything_below(out.parent) == []


def test_an_image_size_for_a_text_network_is_refused(out: Path) -> None:
    """Rather than ignored."""
    done = CliRunner().invoke(app, [str(GOLDEN_NETWORK), "--image-size", "128", "--out", str(out)])
    assert done.exit_code == 1
    assert "--image-size: 128; tiny-text takes text" in done.output


def test_loading_a_folder_takes_its_name() -> None:
    """Unless another is given."""
    assert load_folder(GOLDEN_NETWORK).name == "tiny-text"


def test_relevance_graphs_that_there_are_not_are_refused(tmp_path: Path) -> None:
    """With those that there are; before anything is loaded."""
    done = CliRunner().invoke(app, ["nowhere", "--out", str(tmp_path), "--relevance", "libra,lrp"])
    assert done.exit_code == 1
    expected = "--relevance: 'lrp'; expected some of libra, gradient, genatt, legrad, layers with commas, all, or none"
    assert expected in " ".join(done.output.split())
