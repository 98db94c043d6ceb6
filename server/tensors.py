"""Tensors on the wire and in memory, and the check of a caller's tensors against the contract; used by the service."""

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from regard.v1 import types_pb2 as pb
from server.contract import BATCH_AXIS, SEQUENCE_AXIS, Contract, TensorContract
from server.errors import InvalidInput, NotPossible

Array = NDArray[Any]

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
_MOST_IN_NOTHING = 2**31
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


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
    if name_of(array.dtype) not in WIRE_DTYPES:
        name = name_of(array.dtype)
        raise NotPossible(f"outputs: {name} does not travel through regard.v1; ask through inference.ModelInfer")
    if sys.byteorder == "big":
        array = array.astype(array.dtype.newbyteorder("<"))
    message = pb.Tensor() if message is None else message
    message.dtype = WIRE_DTYPES[array.dtype.name]  # type: ignore[assignment]
    message.shape.extend(array.shape)
    message.data = array.tobytes()
    return message


def read_tensor(field: str, tensor: pb.Tensor) -> Array:
    """Turn a message into a read-only array that shares the message's bytes.

    Raises:
        InvalidInput: An unknown dtype, an impossible shape, or data of another size than they say.
    """
    if tensor.dtype not in _DTYPES:
        raise InvalidInput(f"{field}.dtype", tensor.dtype, f"one of {', '.join(_DTYPES.values())}")
    dtype = np.dtype(_DTYPES[tensor.dtype]).newbyteorder("<")
    shape = tuple(tensor.shape)
    if len(shape) > _MAX_AXES or any(size < 0 for size in shape):
        raise InvalidInput(f"{field}.shape", list(shape)[:20], f"at most {_MAX_AXES} sizes, none negative")
    expected_bytes = count_elements(f"{field}.shape", shape) * dtype.itemsize
    if len(tensor.data) != expected_bytes:
        expected = f"{expected_bytes} bytes for {dtype.name} {list(shape)}"
        raise InvalidInput(f"{field}.data", f"{len(tensor.data)} bytes", expected)
    return np.frombuffer(tensor.data, dtype=dtype).reshape(shape)


def count_elements(field: str, shape: Sequence[int]) -> int:
    """Multiply sizes, none of them negative.

    Raises:
        InvalidInput: There are none, but of a shape that numpy cannot have.
    """
    if 0 in shape and math.prod(size for size in shape if size) > _MOST_IN_NOTHING:
        raise InvalidInput(field, list(shape), f"a product of at most {_MOST_IN_NOTHING} beside a size of 0")
    return math.prod(shape)


def read_tensors(tensors: Mapping[str, pb.Tensor], contract: Contract) -> dict[str, Array]:
    """Turn everything that Predict was sent into arrays by name.

    Raises:
        InvalidInput: The model has no such input, or see read_tensor.
    """
    check_names(tensors, contract)
    return {name: read_tensor(f"inputs[{name}]", tensor) for name, tensor in tensors.items()}


def check_names(names: Iterable[str], contract: Contract) -> None:
    """Refuse inputs that a model does not have.

    Raises:
        InvalidInput: Names the input.
    """
    known = sorted(spec.name for spec in contract.inputs)
    for name in names:
        if name not in known:
            raise InvalidInput("inputs", repr(name), f"{' and '.join(known)}, the inputs of {contract.name}")


def check_inputs(
    arrays: Mapping[str, Array], contract: Contract, max_batch_size: int, datatypes: Mapping[str, str] | None = None
) -> dict[str, Array]:
    """Check arrays against what a model takes.

    Args:
        arrays: By input name.
        contract: The model's.
        max_batch_size: Most rows.
        datatypes: What the protocol calls a dtype, for messages.

    Returns:
        The arrays in the contract's order, all with the same rows and the same length.

    Raises:
        InvalidInput: Names the input, what came and what was expected.
    """
    check_names(arrays, contract)
    checked: dict[str, Array] = {}
    sizes: dict[str, int] = {}
    for spec in contract.inputs:
        field = f"inputs[{spec.name}]"
        if spec.name not in arrays:
            dtype = (datatypes or {}).get(spec.dtype, spec.dtype)
            raise InvalidInput(field, "missing", f"{dtype} {_describe(spec)}")
        _check_dtype(field, arrays[spec.name], spec, datatypes or {})
        _check_shape(field, arrays[spec.name], spec, sizes)
        _check_values(field, arrays[spec.name], spec)
        checked[spec.name] = arrays[spec.name]
    _check_sizes(sizes, contract, max_batch_size)
    return checked


def name_of(dtype: "np.dtype[Any]") -> str:
    """The contract's name of a dtype: numpy's, but string for objects."""
    return "string" if dtype.kind in "OSU" else dtype.name


def _check_dtype(field: str, array: Array, spec: TensorContract, datatypes: Mapping[str, str]) -> None:
    found = name_of(array.dtype)
    if found != spec.dtype:
        label = "datatype" if datatypes else "dtype"
        raise InvalidInput(f"{field}.{label}", datatypes.get(found, found), datatypes.get(spec.dtype, spec.dtype))


def _check_shape(field: str, array: Array, spec: TensorContract, sizes: dict[str, int]) -> None:
    """Compare with the contract; `sizes` collects what each symbolic axis turned out to be."""
    fits = array.ndim == len(spec.axes) and all(
        size == (sizes.setdefault(axis, size) if isinstance(axis, str) else axis)
        for size, axis in zip(array.shape, spec.axes, strict=True)
    )
    if not fits:
        known = ", ".join(f"{axis} {size}" for axis, size in sizes.items() if axis in spec.axes)
        raise InvalidInput(f"{field}.shape", list(array.shape), _describe(spec) + (f" with {known}" if known else ""))


def _check_values(field: str, array: Array, spec: TensorContract) -> None:
    if spec.finite and not array.size:
        raise InvalidInput(f"{field}.shape", list(array.shape), "at least one element")
    if spec.finite and array.dtype.kind == "f" and not np.isfinite(array).all():
        place = tuple(int(index) for index in np.argwhere(~np.isfinite(array))[0])
        raise InvalidInput(field, f"{array[place]} at {list(place)}", "finite numbers")
    low, high = spec.minimum, spec.maximum
    if low is not None and (least := array.min()) < low:
        raise InvalidInput(field, f"a value of {least}", f"values from {low:g} to {high:g}")
    if high is not None and (most := array.max()) > high:
        raise InvalidInput(field, f"a value of {most}", f"values from {low:g} to {high:g}")
    if spec.mask and not array.any(axis=-1).all():
        row = int(np.argmin(array.any(axis=-1)))
        raise InvalidInput(field, f"only zeros in row {row}", "at least one 1 in every row")


def _check_sizes(sizes: dict[str, int], contract: Contract, max_batch_size: int) -> None:
    if contract.batched and not sizes.get(BATCH_AXIS, 1):
        raise InvalidInput("inputs", "no rows", "at least one")
    if sizes.get(BATCH_AXIS, 1) > max_batch_size:
        raise InvalidInput(
            "inputs", f"{sizes[BATCH_AXIS]} rows", f"at most {max_batch_size} (the server's --max-batch-size)"
        )
    if contract.text and sizes.get(SEQUENCE_AXIS, 1) > contract.text.max_tokens:
        raise InvalidInput("inputs", f"{sizes[SEQUENCE_AXIS]} tokens", f"at most {contract.text.max_tokens}")
    for axis, most in contract.limits.items():
        if sizes.get(axis, 0) > most:
            raise InvalidInput("inputs", f"{sizes[axis]} positions along {axis}", f"at most {most}")


def _describe(spec: TensorContract) -> str:
    return f"[{', '.join(map(str, spec.axes))}]"
