import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from server.device import Device, Lanes, choose_device
from server.errors import InvalidInput, ModelNotFound, StartError
from server.repository import Repository, load_repository
from tests.golden import GOLDEN_MODELS

DEVICE: Device = choose_device("cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A models folder with a copy of the golden model."""
    shutil.copytree(GOLDEN_MODELS, tmp_path / "models")
    return tmp_path / "models"


def artifact(folder: Path, version: int = 1) -> Path:
    """The folder of a version."""
    return folder / "tiny-text" / str(version)


def edit_contract(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the contract of version 1."""
    path = artifact(folder) / "contract.json"
    contract = json.loads(path.read_text())
    change(contract)
    path.write_text(json.dumps(contract))


def load(folder: Path) -> Repository:
    """Load everything with one thread."""
    return load_repository(folder, DEVICE, Lanes(1, 1))


def add_version(folder: Path, version: int) -> None:
    """Copy version 1 to another."""
    shutil.copytree(artifact(folder), artifact(folder, version))
    path = artifact(folder, version) / "contract.json"
    path.write_text(path.read_text().replace('"version": 1', f'"version": {version}'))


def test_the_newest_version_is_served_by_number_not_by_spelling(folder: Path) -> None:
    """10 is newer than 9; a hidden folder and a word are no versions."""
    add_version(folder, 9)
    add_version(folder, 10)
    (folder / "tiny-text" / ".unfinished-x").mkdir()
    (folder / "tiny-text" / "notes").mkdir()
    assert [model.contract.version for model in load(folder).all()] == [10]


def test_a_model_is_found_by_name_and_version(folder: Path) -> None:
    """An empty name means the only one there is."""
    repository = load(folder)
    assert repository.find("tiny-text", "1") is repository.find("", "")


@pytest.mark.parametrize(("name", "version"), [("nope", ""), ("tiny-text", "2"), ("tiny-text", "v1")])
def test_an_unknown_model_or_version_is_not_found(folder: Path, name: str, version: str) -> None:
    """With what there is."""
    with pytest.raises(ModelNotFound, match="is not served; expected"):
        load(folder).find(name, version)


def test_an_empty_name_among_several_models_is_a_question(folder: Path) -> None:
    """The message lists them."""
    model = load(folder).find("", "")
    with pytest.raises(InvalidInput, match="model: empty; expected one of a, b"):
        Repository({"b": model, "a": model}).find("", "")


def damage(path: Path) -> None:
    """Change one byte."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda folder: shutil.rmtree(folder), "--models: .*: not a folder"),
        (lambda folder: shutil.rmtree(folder / "tiny-text"), "--models: .*: holds no artifact"),
        (lambda folder: (artifact(folder) / "contract.json").unlink(), r"contract\.json: cannot be read: No such file"),
        (lambda folder: (artifact(folder) / "contract.json").write_text("{"), r"contract\.json: content: Invalid JSON"),
        (lambda folder: damage(artifact(folder) / "weights.bin"), r"weights\.bin: sha256 .* changed or damaged"),
        (lambda folder: (artifact(folder) / "model.onnx").unlink(), r"model\.onnx: cannot be read: No such file"),
        (lambda folder: artifact(folder).rename(artifact(folder, 3)), "holds tiny-text/1; expected its own name"),
        (lambda folder: edit_contract(folder, lambda c: c.update(format=2)), r"contract\.json: format: "),
        (lambda folder: edit_contract(folder, lambda c: c.pop("inputs")), r"contract\.json: inputs: Field required"),
        (lambda folder: edit_contract(folder, lambda c: c.update(extra=1)), r"contract\.json: extra: Extra inputs"),
        (
            lambda folder: edit_contract(folder, lambda c: c["outputs"].pop(0)),
            r"model\.onnx: has the inputs and outputs",
        ),
        (lambda folder: edit_contract(folder, lambda c: c["outputs"].pop()), "labels: given without an output named"),
        (
            lambda folder: edit_contract(folder, lambda c: c["embedding"].update(output="x")),
            "embedding.output: 'x' is no output",
        ),
        (
            lambda folder: edit_contract(folder, lambda c: c["text"].update(tokenizer_file="/etc/passwd")),
            "text.tokenizer_file: '/etc/passwd' is none of files",
        ),
        (
            lambda folder: edit_contract(folder, lambda c: c["attention"].pop()),
            r"attention\.onnx: has the inputs and outputs",
        ),
    ],
)
def test_an_artifact_that_cannot_be_trusted_stops_the_start(
    folder: Path, harm: Callable[[Path], object], message: str
) -> None:
    """The line names the file and what is wrong with it."""
    harm(folder)
    with pytest.raises(StartError, match=message):
        load(folder)


def test_a_graph_that_is_no_graph_stops_the_start(folder: Path) -> None:
    """Even if its hash is right."""
    import hashlib

    (artifact(folder) / "model.onnx").write_bytes(b"not a graph")
    digest = hashlib.sha256(b"not a graph").hexdigest()
    edit_contract(folder, lambda contract: contract["files"].update({"model.onnx": digest}))
    with pytest.raises(StartError, match=r"model\.onnx: ONNX Runtime cannot load it"):
        load(folder)


def test_what_computes_in_bfloat16_is_not_started_on_a_cpu(folder: Path) -> None:
    """ONNX Runtime has no kernels for it there; the message says what to do."""
    edit_contract(folder, lambda contract: contract.update(precision="bfloat16"))
    with pytest.raises(StartError, match="bfloat16, which ONNX Runtime cannot do on the CPU; expected --device cuda"):
        load(folder)
