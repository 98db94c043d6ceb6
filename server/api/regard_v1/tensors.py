"""Tensors of regard.v1, on the wire and in memory."""

import sys
from collections.abc import Mapping

import numpy as np

from artifact.contract import Contract
from artifact.dtypes import Array, name_of
from regard.v1 import types_pb2 as pb
from server.errors import InvalidInput, NotPossible
from server.inference.validation import check_names, count_elements

_DTYPES: dict[int, str] = {
    pb.DATA_TYPE_FLOAT32: "float32",
    pb.DATA_TYPE_FLOAT16: "float16",
    pb.DATA_TYPE_INT64: "int64",
    pb.DATA_TYPE_INT32: "int32",
    pb.DATA_TYPE_UINT8: "uint8",
    pb.DATA_TYPE_BOOL: "bool",
    pb.DATA_TYPE_FLOAT64: "float64",
    pb.DATA_TYPE_INT8: "int8",
    pb.DATA_TYPE_INT16: "int16",
    pb.DATA_TYPE_UINT16: "uint16",
    pb.DATA_TYPE_UINT32: "uint32",
    pb.DATA_TYPE_UINT64: "uint64",
}
WIRE_DTYPES = {name: number for number, name in _DTYPES.items()}
_MAX_AXES = 8


def write_tensor(array: Array, message: pb.Tensor | None = None) -> pb.Tensor:
    """Write an array into a message.

    Args:
        array: Of any shape.
        message: Where it lies in an answer: put there afterwards it would be copied whole. None makes one.

    Returns:
        The message.

    Raises:
        NotPossible: Its dtype does not travel through this protocol.
    """
    name = name_of(array.dtype)
    if name not in WIRE_DTYPES:
        raise NotPossible(f"outputs: {name} does not travel through regard.v1; ask through inference.ModelInfer")
    if sys.byteorder == "big":
        array = array.astype(array.dtype.newbyteorder("<"))
    message = pb.Tensor() if message is None else message
    message.dtype = WIRE_DTYPES[name]  # type: ignore[assignment]
    message.shape.extend(array.shape)
    message.data = array.tobytes()
    return message


def read_tensor(field: str, tensor: pb.Tensor) -> Array:
    """Turn a message into an array, which shares the message's bytes but for BOOL.

    Raises:
        InvalidInput: An unknown dtype, an impossible shape, or data of another size than they say.
    """
    if tensor.dtype not in _DTYPES:
        raise InvalidInput(f"{field}.dtype", tensor.dtype, f"one of {', '.join(_DTYPES.values())}")
    dtype = np.dtype(_DTYPES[tensor.dtype]).newbyteorder("<")
    if len(tensor.shape) > _MAX_AXES or any(size < 0 for size in tensor.shape):
        raise InvalidInput(f"{field}.shape", tensor.shape[:20], f"at most {_MAX_AXES} sizes, none negative")
    shape, data = tuple(tensor.shape), tensor.data  # which is copied whenever it is looked at
    expected_bytes = count_elements(f"{field}.shape", shape) * dtype.itemsize
    if len(data) != expected_bytes:
        expected = f"{expected_bytes} bytes for {dtype.name} {list(shape)}"
        raise InvalidInput(f"{field}.data", f"{len(data)} bytes", expected)
    if dtype == np.bool_:  # any byte but 0 is true, and 1 in memory
        return np.frombuffer(data, dtype=np.uint8).astype(np.bool_).reshape(shape)
    return np.frombuffer(data, dtype=dtype).reshape(shape)


def read_tensors(tensors: Mapping[str, pb.Tensor], contract: Contract) -> dict[str, Array]:
    """Turn everything that Predict was sent into arrays by name.

    Raises:
        InvalidInput: The model has no such input, or see read_tensor.
    """
    check_names(tensors, contract)
    return {name: read_tensor(f"inputs[{name}]", tensor) for name, tensor in tensors.items()}
