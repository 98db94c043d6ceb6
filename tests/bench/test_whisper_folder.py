"""Whisper files of CTranslate2: which of their tensors are weights that a folder may have."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bench.whisper_folder import read_model

TYPES = {"float32": 0, "int8": 1, "int16": 2, "float16": 4}


def name_of(text: str) -> bytes:
    """Write a name: its length with the zero at its end, then both."""
    return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"


def write_model(file: Path, tensors: dict[str, NDArray[np.generic]], as_type: int | None = None) -> Path:
    """Write such a file; its tensors are of their own types unless another is said."""
    content = struct.pack("<I", 6) + name_of("WhisperSpec") + struct.pack("<II", 3, len(tensors))
    for name, array in tensors.items():
        content += name_of(name) + struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape)
        content += struct.pack("<BI", TYPES[array.dtype.name] if as_type is None else as_type, array.nbytes)
        content += array.tobytes()
    file.write_bytes(content)
    return file


def test_weights_are_read_as_float32(tmp_path: Path) -> None:
    """From either kind of floats; numbers that are no weights stay whole."""
    weights = np.array([[0.5, -2.0], [1.0, 3.0]])
    given = {name: weights.astype(name) for name in ("float32", "float16")} | {"num_heads": np.array(4, np.int16)}
    kind, found = read_model(write_model(tmp_path / "model.bin", given))
    assert kind == "WhisperSpec"
    for name in ("float32", "float16"):
        assert found[name].dtype == torch.float32
        np.testing.assert_array_equal(found[name], weights)
    assert int(found["num_heads"]) == 4


@pytest.mark.parametrize("dtype", ["int8", "int16"])
def test_quantised_weights_are_refused(dtype: str, tmp_path: Path) -> None:
    """They would need their scales."""
    file = write_model(tmp_path / "model.bin", {"encoder/conv1/weight": np.ones((2, 3, 4), dtype)})
    with pytest.raises(SystemExit, match=f"model.bin: encoder/conv1/weight is {dtype}; expected float32 or float16"):
        read_model(file)


def test_an_unknown_type_is_refused(tmp_path: Path) -> None:
    """Bfloat16, which NumPy has not."""
    file = write_model(tmp_path / "model.bin", {"a/weight": np.ones((2, 2), np.int16)}, as_type=5)
    with pytest.raises(SystemExit, match=r"model.bin: a/weight is of type 5; expected float32 or float16"):
        read_model(file)
