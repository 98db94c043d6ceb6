"""Which form of a graph an engine runs on a device that loads the fused one and refuses it when it is run."""

import shutil
from pathlib import Path

import onnx
import pytest
from onnx import helper

import server.engine.session
from artifact.contract import CONTRACT_FILE, LOWERED_GRAPH, TAPPED_GRAPH, Contract, read_contract
from server.engine.device import CPU, Device, Instances
from server.engine.engine import Engine
from server.errors import StartError
from tests.golden import GOLDEN_MODELS

_GOLDEN = GOLDEN_MODELS / "tiny-text" / "1"
GPU = Device("CUDA:0", (CPU,), "for the test", gpu=0)


@pytest.fixture
def artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The golden artifact, whose tapped graph loads and cannot be run; nodes may be anywhere."""
    monkeypatch.setattr(server.engine.session, "check_placement", lambda device, providers, subgraphs: None)
    folder = tmp_path / "1"
    shutil.copytree(_GOLDEN, folder)
    break_at_run(folder / TAPPED_GRAPH, "attention.0")
    return folder


def break_at_run(path: Path, output: str) -> None:
    """Reshape an output to more numbers than it has."""
    model = onnx.load(path, load_external_data=False)
    graph = model.graph
    (maker,) = (node for node in graph.node if output in node.output)
    maker.output[list(maker.output).index(output)] = "before"
    one = helper.make_tensor("one", onnx.TensorProto.INT64, [1], [1])
    graph.node.extend(
        [
            helper.make_node("Shape", ["before"], ["shape"]),
            helper.make_node("Add", ["shape", "one"], ["larger"]),
            helper.make_node("Reshape", ["before", "larger"], [output]),
        ]
    )
    graph.initializer.append(one)
    path.write_bytes(model.SerializeToString())


def contract_of(folder: Path) -> Contract:
    """Its contract."""
    return read_contract(folder / CONTRACT_FILE)


def test_an_engine_on_a_gpu_runs_the_lowered_form_where_the_fused_one_only_loads(
    artifact: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """CUDA of ONNX Runtime 1.31 takes fused attention that gives its weights, and refuses it at the first run."""
    engine = Engine(artifact, contract_of(artifact), (GPU,), Instances(1, 1))
    assert f"{artifact / TAPPED_GRAPH}: loads, but cannot be run: " in caplog.text
    assert "its lowered form is tried" in caplog.text
    engine.warm_up()


def test_without_a_lowered_form_the_engine_says_that_the_fused_one_cannot_be_run(artifact: Path) -> None:
    """At the start, not at a caller's request."""
    contract = contract_of(artifact)
    files = {name: digest for name, digest in contract.files.items() if name != LOWERED_GRAPH}
    with pytest.raises(StartError, match=rf"{TAPPED_GRAPH}: loads, but cannot be run: "):
        Engine(artifact, contract.model_copy(update={"files": files}), (GPU,), Instances(1, 1))
