"""Turns numpy arrays into regard.v1 tensors and back."""

from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from regard.checks import describe, text
from regard.errors import InvalidCall, RegardError
from regard.v1 import types_pb2 as pb

DTYPES: dict[str, pb.DataType] = {
    "float32": pb.DATA_TYPE_FLOAT32,
    "float16": pb.DATA_TYPE_FLOAT16,
    "int64": pb.DATA_TYPE_INT64,
    "int32": pb.DATA_TYPE_INT32,
    "uint8": pb.DATA_TYPE_UINT8,
    "bool": pb.DATA_TYPE_BOOL,
    "float64": pb.DATA_TYPE_FLOAT64,
    "int8": pb.DATA_TYPE_INT8,
    "int16": pb.DATA_TYPE_INT16,
    "uint16": pb.DATA_TYPE_UINT16,
    "uint32": pb.DATA_TYPE_UINT32,
    "uint64": pb.DATA_TYPE_UINT64,
}
"""numpy's name of every element type that can travel."""

DTYPE_NAMES = {number: name for name, number in DTYPES.items()}


def write_tensor(name: str, array: NDArray[Any]) -> pb.Tensor:
    """Write an array of any shape, strides and byte order as row-major little-endian bytes.

    Args:
        name: What the caller calls it, for the error.
        array: One of the `DTYPES`.

    Raises:
        InvalidCall: The array is of another type, or none at all.
    """
    text("inputs", name)
    try:
        array = np.asarray(array)
    except (TypeError, ValueError, RuntimeError) as error:  # lists of uneven lengths, or a tensor of another library
        raise InvalidCall.of(f"inputs: {name!r} is {describe(array)}; expected an array: {error}") from error
    dtype = DTYPES.get(array.dtype.name)
    if dtype is None:
        raise InvalidCall.of(f"inputs: {name!r} is {array.dtype}; expected one of {', '.join(DTYPES)}")
    little_endian = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return pb.Tensor(dtype=dtype, shape=array.shape, data=little_endian.tobytes(order="C"))


def read_tensor(tensor: pb.Tensor) -> NDArray[Any]:
    """Return a read-only array over the tensor's own bytes.

    Raises:
        RegardError: The server sent an unknown type, or bytes that do not fill the shape (INTERNAL).
    """
    name = DTYPE_NAMES.get(tensor.dtype)
    if name is None:
        raise RegardError(grpc.StatusCode.INTERNAL, f"the answer holds a tensor of unknown type {tensor.dtype}")
    try:
        return np.frombuffer(tensor.data, np.dtype(name).newbyteorder("<")).reshape(tuple(tensor.shape))
    except ValueError as error:
        size = f"{len(tensor.data)} bytes for {name} {list(tensor.shape)}"
        raise RegardError(grpc.StatusCode.INTERNAL, f"the answer holds a tensor of {size}") from error
