"""Tensors of the Open Inference Protocol in memory and on the wire: raw, typed or in shared memory.

Datatypes are the protocol's names (BOOL, INT8 to UINT64, FP16, BF16, FP32, FP64, BYTES).
"""

import math
import struct
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from artifact.dtypes import Array, dtype_of, name_of
from server.api.open_inference import open_inference_pb2 as pb
from server.api.open_inference.shared_memory import PLACE_PARAMETERS, Place, SharedMemory, read_place
from server.errors import InvalidInput
from server.inference.validation import Declared, count_elements

# By the protocol's name: numpy's, and the field that typed contents of it are in.
_DATATYPES: dict[str, tuple[str, str]] = {
    "BOOL": ("bool", "bool_contents"),
    "INT8": ("int8", "int_contents"),
    "INT16": ("int16", "int_contents"),
    "INT32": ("int32", "int_contents"),
    "INT64": ("int64", "int64_contents"),
    "UINT8": ("uint8", "uint_contents"),
    "UINT16": ("uint16", "uint_contents"),
    "UINT32": ("uint32", "uint_contents"),
    "UINT64": ("uint64", "uint64_contents"),
    "FP16": ("float16", ""),
    "BF16": ("bfloat16", ""),
    "FP32": ("float32", "fp32_contents"),
    "FP64": ("float64", "fp64_contents"),
    "BYTES": ("string", "bytes_contents"),
}
_TYPED = {
    "bool_contents": "bool",
    "int_contents": "int32",
    "int64_contents": "int64",
    "uint_contents": "uint32",
    "uint64_contents": "uint64",
    "fp32_contents": "float32",
    "fp64_contents": "float64",
}
DATATYPE_OF = {name: datatype for datatype, (name, _) in _DATATYPES.items()}
CONTENTS_OF = {datatype: contents for datatype, (_, contents) in _DATATYPES.items()}
"""The field of typed contents of a datatype; empty for what travels raw only."""
_MAX_AXES = 16
_IS_BIG = sys.byteorder == "big"
_AT_A_TIME = 2**14  # elements of a list, a millisecond
_LENGTH = struct.Struct("<I")

Request = pb.ModelInferRequest
InputTensor = pb.ModelInferRequest.InferInputTensor


def read_tensors(request: Request, memory: SharedMemory, declared: Mapping[str, Declared]) -> dict[str, Array]:
    """Read inputs of a request.

    Args:
        request: The caller's.
        memory: Where some may be.
        declared: Those that are read, as read_shapes gives them.

    Returns:
        Arrays by name. Raw elements are shared with the message; BYTES become an object array of bytes.

    Raises:
        InvalidInput: Names the input, what came and what was expected.
    """
    arrays: dict[str, Array] = {}
    for tensor, raw in zip(request.inputs, _pair_raw(request), strict=True):
        name = tensor.name
        if name not in declared:
            continue
        field = f"inputs[{name}]"
        place = read_place(field, tensor.parameters) if tensor.parameters else None
        content = raw if place is None else memory.read(field, place)
        arrays[name] = _read_tensor(field, tensor, declared[name], content)
    return arrays


def is_all_raw(request: Request) -> bool:
    """Whether the elements of every input are raw, and none in shared memory."""
    return bool(request.raw_input_contents) and not any(
        tensor.parameters or tensor.HasField("contents") for tensor in request.inputs
    )


def read_raw(contents: Sequence[bytes], declared: Mapping[str, Declared]) -> dict[str, Array]:
    """As read_tensors, of a request that is_all_raw.

    Args:
        contents: Its raw elements.
        declared: All of its inputs, in its order.
    """
    if len(contents) != len(declared):
        raise _wrong_count(len(contents), len(declared))
    arrays = dict[str, Array]()
    for (name, (dtype, shape)), raw in zip(declared.items(), contents, strict=True):
        arrays[name] = _read_raw(f"inputs[{name}]", dtype, math.prod(shape), raw).reshape(shape)
    return arrays


def read_output(output: pb.ModelInferResponse.InferOutputTensor, raw: bytes) -> Array:
    """Read the elements of an output that write_tensor has written.

    Returns:
        [elements], of BYTES an object array of bytes.
    """
    return _read_raw(f"outputs[{output.name}]", _dtype(output.datatype), math.prod(output.shape), raw)


def read_shapes(request: Request, max_strings: int) -> dict[str, Declared]:
    """Read what all inputs of a request say of their elements, and make none.

    Args:
        request: The caller's.
        max_strings: Most elements of BYTES.

    Raises:
        InvalidInput: An input is given twice, an unknown datatype, an impossible shape, or too many elements of BYTES.
    """
    declared, strings = dict[str, Declared](), 0
    for tensor in request.inputs:
        field = f"inputs[{tensor.name}]"
        if tensor.name in declared:
            raise InvalidInput(field, "given twice", "each input once")
        if tensor.datatype not in _DATATYPES:
            raise InvalidInput(f"{field}.datatype", repr(tensor.datatype), f"one of {', '.join(_DATATYPES)}")
        if len(tensor.shape) > _MAX_AXES or any(size < 0 for size in tensor.shape):
            raise InvalidInput(f"{field}.shape", tensor.shape[:20], f"at most {_MAX_AXES} sizes, none negative")
        declared[tensor.name] = Declared(_dtype(tensor.datatype), tuple(tensor.shape))
        count = count_elements(f"{field}.shape", tensor.shape)
        strings += count if tensor.datatype == "BYTES" else 0
        if strings > max_strings:
            expected = f"at most {max_strings} elements of BYTES in a request (the server's --max-message-fields)"
            raise InvalidInput(f"{field}.shape", list(tensor.shape), expected)
    return declared


def decode_texts(name: str, contents: Sequence[bytes]) -> tuple[str, ...]:
    """Decode the elements of an input of texts.

    Raises:
        InvalidInput: One is not UTF-8.
    """
    return tuple(_decode(f"inputs[{name}][{index}]", content) for index, content in enumerate(contents))


def decode_strings(name: str, array: Array) -> Array:
    """Turn an array of bytes into one of text, as ONNX's strings are.

    Raises:
        InvalidInput: An element is not UTF-8.
    """
    decoded = np.empty(array.shape, dtype=object)
    for index, element in np.ndenumerate(array):
        decoded[index] = _decode(f"inputs[{name}]{list(index)}", element)
    return decoded


def _decode(field: str, content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        wrong = f"byte {error.start}: 0x{content[error.start]:02x}"  # not the text: what is refused is logged
        raise InvalidInput(field, wrong, f"UTF-8 ({error.reason})") from error


def write_tensor(
    response: pb.ModelInferResponse, name: str, array: Array, place: Place | None, memory: SharedMemory
) -> None:
    """Put an output into an answer, its elements raw or in shared memory.

    Raises:
        InvalidInput: It does not fit into the place that was asked for.
    """
    datatype = DATATYPE_OF[name_of(array.dtype)]
    output = response.outputs.add(name=name, datatype=datatype, shape=array.shape)
    content = _write_bytes(array) if datatype == "BYTES" else (_little(array) if _IS_BIG else array).tobytes()
    if place is None:
        response.raw_output_contents.append(content)
        return
    memory.write(f"outputs[{name}]", place, content)
    response.raw_output_contents.append(b"")
    output.parameters["shared_memory_region"].string_param = place.region
    output.parameters["shared_memory_byte_size"].int64_param = len(content)
    if place.offset:
        output.parameters["shared_memory_offset"].int64_param = place.offset


def _pair_raw(request: Request) -> list[bytes | None]:
    """Give each input its raw contents; None where it has none. Those in shared memory are skipped."""
    raw = request.raw_input_contents
    if not raw:
        return [None] * len(request.inputs)
    outside = [tensor for tensor in request.inputs if "shared_memory_region" not in tensor.parameters]
    if len(raw) != len(outside):
        raise _wrong_count(len(raw), len(outside))
    contents = iter(raw)
    return [None if "shared_memory_region" in tensor.parameters else next(contents) for tensor in request.inputs]


def _wrong_count(found: int, expected: int) -> InvalidInput:
    what = f"{expected}, one for each input that is not in shared memory"
    return InvalidInput("raw_input_contents", f"{found} entries", what)


def _read_tensor(field: str, tensor: InputTensor, declared: Declared, raw: bytes | None) -> Array:
    count = math.prod(declared.shape)
    given = [name.name for name, _ in tensor.contents.ListFields()] if tensor.HasField("contents") else []
    if raw is not None:
        if given:
            raise InvalidInput(f"{field}.contents", "given beside raw contents", "either contents or raw ones")
        elements = _read_raw(field, declared.dtype, count, raw)
    else:
        elements = _read_typed(field, tensor, count, given)
    return elements.reshape(declared.shape)


def _read_raw(field: str, dtype: "np.dtype[Any]", count: int, raw: bytes) -> Array:
    if dtype.kind == "O":
        return _read_bytes(field, count, raw)
    if len(raw) != count * dtype.itemsize:
        expected = f"{count * dtype.itemsize} for {count} elements of {DATATYPE_OF[name_of(dtype)]}"
        raise InvalidInput(field, f"{len(raw)} bytes", expected)
    if dtype.kind == "b":
        return np.frombuffer(raw, dtype=np.uint8).astype(bool)
    return np.frombuffer(raw, dtype=dtype)


def _read_typed(field: str, tensor: InputTensor, count: int, given: Sequence[str]) -> Array:
    name, wanted = _DATATYPES[tensor.datatype]
    if not wanted and (count or given):
        raise InvalidInput(f"{field}.contents", f"{tensor.datatype} typed or missing", "raw_input_contents")
    if any(other != wanted for other in given):
        raise InvalidInput(f"{field}.contents", ", ".join(given), f"{wanted} alone, for {tensor.datatype}")
    values = getattr(tensor.contents, wanted) if wanted else ()
    if len(values) != count:
        expected = f"{count} for the shape {list(tensor.shape)}, or raw_input_contents"
        raise InvalidInput(f"{field}.contents", f"{len(values)} elements", expected)
    if name == "string":
        return _objects(values)
    dtype, elements = _dtype(tensor.datatype), _make_elements(values, _TYPED[wanted])
    if dtype.kind in "iu" and count:
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
        outside = next((value for value in (elements.min(), elements.max()) if not low <= value <= high), None)
        if outside is not None:
            raise InvalidInput(f"{field}.contents", outside, f"values from {low} to {high}, for {tensor.datatype}")
    return elements.astype(dtype, copy=False)


def _make_elements(values: Sequence[Any], dtype: str) -> Array:
    """Make an array of a message's list, a slice at a time: no other thread has its turn within one."""
    elements = np.empty(len(values), _little_dtype(dtype))
    for start in range(0, len(values), _AT_A_TIME):
        elements[start : start + _AT_A_TIME] = values[start : start + _AT_A_TIME]
    return elements


def _read_bytes(field: str, count: int, raw: bytes) -> Array:
    """Take apart elements that each have their length before them."""
    values, position = list[bytes](), 0
    while position < len(raw) and len(values) <= count:
        start = position + _LENGTH.size
        length = _LENGTH.unpack_from(raw, position)[0] if start <= len(raw) else len(raw)
        if start + length > len(raw):
            raise InvalidInput(
                field, f"element {len(values)} ends after the {len(raw)} bytes", "4 bytes length, then it"
            )
        values.append(raw[start : start + length])
        position = start + length
    if len(values) != count:
        raise InvalidInput(field, f"{len(values)} elements", f"{count} for its shape")
    return _objects(values)


def _write_bytes(array: Array) -> bytes:
    encoded = [value.encode() if isinstance(value, str) else bytes(value) for value in array.reshape(-1)]
    return b"".join(part for value in encoded for part in (_LENGTH.pack(len(value)), value))


def _objects(values: Sequence[bytes]) -> Array:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _dtype(datatype: str) -> "np.dtype[Any]":
    return _little_dtype(_DATATYPES[datatype][0])


def _little_dtype(name: str) -> "np.dtype[Any]":
    return dtype_of(name).newbyteorder("<")


def _little(array: Array) -> Array:
    return array.astype(array.dtype.newbyteorder("<"))


def read_places(outputs: Sequence[pb.ModelInferRequest.InferRequestedOutputTensor]) -> Mapping[str, Place | None]:
    """Read where each requested output belongs; None for the answer itself.

    Raises:
        InvalidInput: An output is named twice, or a place is incomplete.
    """
    places: dict[str, Place | None] = {}
    for output in outputs:
        if output.name in places:
            raise InvalidInput(f"outputs[{output.name}]", "given twice", "each output once")
        for parameter in output.parameters:
            if parameter not in PLACE_PARAMETERS:
                expected = f"one of {', '.join(PLACE_PARAMETERS)}"
                raise InvalidInput(f"outputs[{output.name}].parameters", repr(parameter), expected)
        places[output.name] = read_place(f"outputs[{output.name}]", output.parameters)
    return places
