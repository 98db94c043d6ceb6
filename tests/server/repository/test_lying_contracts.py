"""A contract that does not say what its graphs are is refused when it is loaded."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from artifact.contract import Contract, read_contract
from server.config import EMBEDDED_MODELS
from server.engine.agreement import check_contract, check_declared, check_given
from server.errors import StartError
from tests.golden import GOLDEN_MODELS
from tests.server.repository.folders import edit_contract, load

HERE = Path("models")
CONTRACT = read_contract(GOLDEN_MODELS / "tiny-text" / "1" / "contract.json")
IMAGES = read_contract(EMBEDDED_MODELS / "fashion" / "1" / "contract.json")
INPUTS = dict.fromkeys(("input_ids", "attention_mask"), np.ones((2, 3), dtype=np.int64))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A models folder with a copy of the golden model."""
    shutil.copytree(GOLDEN_MODELS, tmp_path / "models")
    return tmp_path / "models"


def change_limit(contract: dict[str, Any], limit: int) -> None:
    """Allow longer texts, everywhere."""
    contract["text"]["max_tokens"] = contract["limits"]["seq_len"] = limit


@pytest.mark.parametrize(
    ("lie", "message"),
    [
        (
            lambda c: c["embedding"].update(dim=7),
            r"embedding\.dim: \[batch, 7\]; model\.onnx has \[batch, 32\]",
        ),
        (
            lambda c: c["attention"][1].update(num_heads=10**6),
            r"attention: attention\.1: \[batch, 1000000, seq_len, seq_len\]; attention.onnx has \[batch, 4, seq_len, ",
        ),
        (lambda c: c["attention"][0].update(layer=999_999_999), r"attention\[0\]\.layer: 999999999; expected 0, its"),
        (
            lambda c: c["hidden_states"][1].update(dim=33),
            r"hidden_states: hidden_states\.1: \[batch, seq_len, 33\]; hidden\.onnx has \[batch, seq_len, 32\]",
        ),
        (
            lambda c: c["hidden_states"][1].update(layer=7),
            r"hidden_states\[1\]\.layer: 7; expected 1, its place in the",
        ),
        (lambda c: c["text"].update(max_tokens=10**9), r"text\.max_tokens: 1000000000; limits say 64 positions"),
        (lambda c: change_limit(c, 10**9), r"text\.max_tokens: 1000000000; the graph cannot run that: .*"),
        (lambda c: change_limit(c, 65), r"text\.max_tokens: 65; the graph cannot run that: .*"),
        (
            lambda c: c["inputs"][0].update(maximum=10**9),
            r"inputs\[input_ids\]\.maximum: 1000000000; the graph cannot run that: .* idx=1000000000 ",
        ),
        (lambda c: c["inputs"][0].update(maximum=1e30), r"inputs\[input_ids\]\.maximum: 1e\+30; the graph cannot run"),
        (
            lambda c: c["inputs"][0].update(minimum=-200),
            r"inputs\[input_ids\]\.minimum: -200; the graph cannot run that: .* idx=-200 ",
        ),
        (lambda c: c["inputs"][0].update(maximum=100), r"\.maximum: 100; the tokenizer's largest is 159"),
        (lambda c: c["inputs"][0].update(pad_value=10**9), r"\.pad_value: 1000000000; its bounds are 0 and 159"),
        (
            lambda c: c["outputs"][1].update(dtype="int64"),
            r"embedding, its dtype: int64; model\.onnx has tensor\(float\)",
        ),
        (
            lambda c: c["inputs"][0].update(dtype="float32"),
            r"input_ids, its dtype: float32; model\.onnx has tensor\(int64\)",
        ),
        (
            lambda c: c["inputs"][0].update(axes=["batch", "seq_len", 2]),
            r"inputs\[input_ids\]\.axes: \[batch, seq_len, 2\]; model.onnx has \[batch, seq_len\]",
        ),
        (lambda c: c.update(labels=["a", "b", "c"]), r"labels: \[batch, 3\]; model\.onnx has \[batch, 2\]"),
        (lambda c: c["outputs"][0]["axes"].__setitem__(1, "batch"), r"outputs\[last_hidden_state\]\.axes: \[batch, b"),
    ],
)
def test_a_contract_that_lies_stops_the_start(
    folder: Path, lie: Callable[[dict[str, Any]], None], message: str
) -> None:
    """The line names the field, what it says and what the graph has."""
    edit_contract(folder, lie)
    with pytest.raises(StartError, match=r"1/contract\.json: .*" + message):
        load(folder)


def without(contract: Contract, **changes: Any) -> Contract:  # fields of any kind
    """It with some fields changed."""
    return contract.model_copy(update=changes)


def test_what_an_image_becomes_must_be_what_the_graph_takes() -> None:
    """Its edge in pixels, and a mean and a deviation for each channel."""
    assert IMAGES.image is not None
    taken = {"pixel_values": ("tensor(float)", ("batch", 1, 28, 28))}
    check_declared(HERE, IMAGES, "model.onnx", taken)
    larger = without(IMAGES, image=IMAGES.image.model_copy(update={"crop_size": 32}))
    with pytest.raises(StartError, match=r"image\.crop_size: \[batch, 1, 32, 32\]; model\.onnx has \[batch, 1, 28, 28"):
        check_declared(HERE, larger, "model.onnx", taken)
    with pytest.raises(StartError, match=r"image\.std: 2 numbers; expected 1"):
        check_contract(HERE, without(IMAGES, image=IMAGES.image.model_copy(update={"std": (1.0, 1.0)})))


def test_an_input_of_one_size_is_not_said_to_be_of_any(tmp_path: Path) -> None:
    """Of an output its name may be better known to the contract."""
    one = ("tensor(int64)", (1, "seq_len"))
    with pytest.raises(StartError, match=r"inputs\[input_ids\]\.axes: \[batch, seq_len\]; model\.onnx has \[1, seq"):
        check_declared(tmp_path, CONTRACT, "model.onnx", {"input_ids": one})
    check_declared(tmp_path, CONTRACT, "model.onnx", {"embedding": ("tensor(float)", (1, None))})


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"embedding": np.ones((2, 32), np.float64)}, "embedding, its dtype: float32; model.onnx gives float64"),
        (
            {"embedding": np.ones((1, 32), np.float32)},
            r"outputs\[embedding\].axes: \[batch, 32\]; model.onnx gives \[1, 32\] for batch 2, seq_len 3",
        ),
        ({"embedding": np.ones((2, 7), np.float32)}, r"\[batch, 32\]; model.onnx gives \[2, 7\] for batch 2, seq_len"),
        (
            {"attention.0": np.ones((2, 4, 3, 1), np.float32)},
            r"attention: attention.0: \[batch, 4, seq_len, seq_len\]; model.onnx gives \[2, 4, 3, 1\]",
        ),
    ],
)
def test_what_a_graph_does_not_say_its_first_runs_do(found: dict[str, Any], message: str) -> None:
    """Older exporters leave most axes unknown."""
    with pytest.raises(StartError, match=message):
        check_given(HERE, CONTRACT, "model.onnx", INPUTS, found)
    right = {"embedding": np.ones((2, 32), np.float32), "attention.0": np.ones((2, 4, 3, 3), np.float32)}
    check_given(HERE, CONTRACT, "model.onnx", INPUTS, right)


def test_a_text_too_long_for_the_graph_is_told_while_costs_are_measured(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a fast machine a long text is run there first; the line is the same."""
    monkeypatch.setattr("server.engine.engine._MEASURING_SECONDS", 60.0)
    edit_contract(folder, lambda c: change_limit(c, 65))
    with pytest.raises(StartError, match=r"text\.max_tokens: 65; the graph cannot run that: .*"):
        load(folder)
