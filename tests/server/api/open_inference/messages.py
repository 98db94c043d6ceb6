"""Messages of the Open Inference Protocol, made and read."""

from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from server.api.open_inference import open_inference_pb2 as pb

Array = NDArray[Any]


Request = pb.ModelInferRequest


DATATYPES = {
    "BOOL": ("BOOL", bool, "bool_contents"),
    "INT8": ("INT8", np.int8, "int_contents"),
    "INT16": ("INT16", np.int16, "int_contents"),
    "INT32": ("INT32", np.int32, "int_contents"),
    "INT64": ("INT64", np.int64, "int64_contents"),
    "UINT8": ("UINT8", np.uint8, "uint_contents"),
    "UINT16": ("UINT16", np.uint16, "uint_contents"),
    "UINT32": ("UINT32", np.uint32, "uint_contents"),
    "UINT64": ("UINT64", np.uint64, "uint64_contents"),
    "FLOAT16": ("FP16", np.float16, ""),
    "BFLOAT16": ("BF16", ml_dtypes.bfloat16, ""),
    "FLOAT": ("FP32", np.float32, "fp32_contents"),
    "DOUBLE": ("FP64", np.float64, "fp64_contents"),
}


NUMPY = {datatype: dtype for datatype, dtype, _ in DATATYPES.values()}


def make_request(model: str, **inputs: Array) -> Request:
    """A request with raw contents."""
    request = Request(model_name=model, id="7")
    names = {np.dtype(dtype): datatype for datatype, dtype in NUMPY.items()}
    for name, array in inputs.items():
        request.inputs.add(name=name, datatype=names[array.dtype], shape=array.shape)
        request.raw_input_contents.append(array.tobytes())
    return request


def make_bytes_request(model: str, name: str, *values: bytes) -> Request:
    """A request with one input of BYTES, typed."""
    request = Request(model_name=model, id="8")
    tensor = request.inputs.add(name=name, datatype="BYTES", shape=[len(values)])
    tensor.contents.bytes_contents.extend(values)
    return request


def read(response: pb.ModelInferResponse) -> dict[str, Array]:
    """Outputs by name, from their raw contents."""
    return {
        output.name: np.frombuffer(raw, NUMPY[output.datatype]).reshape(output.shape)
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    }


def words(*ids: int) -> dict[str, Array]:
    """Inputs of the text model."""
    return {"input_ids": np.array([ids]), "attention_mask": np.ones((1, len(ids)), np.int64)}


def tokens_of(count: int = 6) -> dict[str, Array]:
    """Some words."""
    return words(*range(2, 2 + count))
