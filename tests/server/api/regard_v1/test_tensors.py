from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from artifact.contract import read_contract
from regard.v1 import types_pb2 as pb
from server.api.regard_v1.tensors import read_tensor, read_tensors, write_tensor
from server.config import EMBEDDED_MODELS
from server.errors import InvalidInput
from server.inference.validation import check_inputs
from tests.server.fakes import CONTRACT

FASHION = read_contract(EMBEDDED_MODELS / "fashion" / "1" / "contract.json")


def text_inputs(ids: Any, mask: Any = None, dtype: type[Any] = np.int64) -> dict[str, pb.Tensor]:
    """Token ids and their mask, all ones if not given."""
    array: NDArray[Any] = np.array(ids, dtype=dtype)
    mask_array = np.ones(array.shape, dtype=np.int64) if mask is None else np.array(mask, dtype=np.int64)
    return {"input_ids": write_tensor(array), "attention_mask": write_tensor(mask_array)}


@pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "int32", "uint8", "bool"])
def test_every_dtype_survives_the_wire(dtype: str) -> None:
    """Odd strides included."""
    array = np.arange(24).reshape(2, 3, 4).astype(dtype).transpose(2, 0, 1)
    assert np.array_equal(read_tensor("x", write_tensor(array)), array)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (pb.Tensor(shape=[1], data=b"1234"), "x.dtype: 0; expected one of float32"),
        (pb.Tensor(dtype=99, shape=[1], data=b"1234"), "x.dtype: 99; expected one of"),  # type: ignore[arg-type]
        (pb.Tensor(dtype=1, shape=[2], data=b"1234"), r"x.data: 4 bytes; expected 8 bytes for float32 \[2\]"),  # type: ignore[arg-type]
        (pb.Tensor(dtype=1, shape=[-1], data=b""), r"x.shape: \[-1\]; expected at most 8 sizes, none negative"),  # type: ignore[arg-type]
        (pb.Tensor(dtype=1, shape=[1] * 9, data=b"1234"), "x.shape"),  # type: ignore[arg-type]
        (pb.Tensor(dtype=1, shape=[2**62, 2**62], data=b""), "x.data: 0 bytes; expected"),  # type: ignore[arg-type]
    ],
)
def test_a_malformed_tensor_is_refused_by_field(tensor: pb.Tensor, message: str) -> None:
    """Dtype, shape and data are checked before anything is allocated."""
    with pytest.raises(InvalidInput, match=message):
        read_tensor("x", tensor)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, r"inputs\[input_ids\]: missing; expected int64 \[batch, seq_len\]"),
        (text_inputs([[1]]) | {"extra": pb.Tensor()}, "inputs: 'extra'; expected attention_mask and input_ids"),
        (text_inputs([[1]], dtype=np.int32), r"inputs\[input_ids\].dtype: int32; expected int64"),
        (text_inputs([1, 2]), r"inputs\[input_ids\].shape: \[2\]; expected \[batch, seq_len\]"),
        (text_inputs([[1, 2]], [[1]]), r"attention_mask\].shape: \[1, 1\]; expected .* with batch 1, seq_len 2"),
        (text_inputs([[5000]]), r"inputs\[input_ids\]: a value of 5000; expected values from 0 to \d+"),
        (text_inputs([[-1]]), r"inputs\[input_ids\]: a value of -1; expected values from 0"),
        (text_inputs([[1, 1], [1, 1]], [[1, 1], [0, 0]]), "only zeros in row 1; expected at least one 1 in every row"),
        (text_inputs([[1]], [[2]]), r"attention_mask\]: a value of 2; expected values from 0 to 1"),
        (text_inputs([[1]] * 9), "inputs: 9 rows; expected at most 8 "),
        (text_inputs([[1] * 65]), "inputs: 65 tokens; expected at most 64"),
        (text_inputs(np.ones((0, 3))), r"shape: \[0, 3\]; expected at least one element"),
        (text_inputs(np.ones((3, 0))), r"shape: \[3, 0\]; expected at least one element"),
    ],
)
def test_inputs_that_would_harm_a_batch_are_refused(inputs: dict[str, pb.Tensor], message: str) -> None:
    """The message names the input, what came and what was expected."""
    with pytest.raises(InvalidInput, match=message):
        check_inputs(read_tensors(inputs, CONTRACT), CONTRACT, max_batch_size=8)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused_with_their_place(bad: float) -> None:
    """NaN would come back as NaN; the caller learns where it was."""
    pixels = np.zeros((2, 1, 28, 28), dtype=np.float32)
    pixels[1, 0, 3, 4] = bad
    with pytest.raises(
        InvalidInput, match=rf"inputs\[pixel_values\]: {bad} at \[1, 0, 3, 4\]; expected finite numbers"
    ):
        check_inputs({"pixel_values": pixels}, FASHION, max_batch_size=8)


def test_right_inputs_share_the_bytes_of_the_message() -> None:
    """Reading does not copy."""
    arrays = check_inputs(read_tensors(text_inputs([[1, 2, 3]]), CONTRACT), CONTRACT, max_batch_size=8)
    assert arrays["input_ids"].tolist() == [[1, 2, 3]]
    assert not arrays["input_ids"].flags.owndata


def test_bytes_of_a_boolean_are_true_unless_they_are_zero() -> None:
    """2 and 255 are true, and 1 in memory: a graph that counts them counts each once."""
    message = pb.Tensor(dtype=pb.DATA_TYPE_BOOL, shape=[4], data=bytes([0, 1, 2, 255]))
    read = read_tensor("x", message)
    assert read.dtype == np.bool_
    assert read.view(np.uint8).tolist() == [0, 1, 1, 1]
