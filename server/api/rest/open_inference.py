"""ModelInfer of the Open Inference Protocol over HTTP; tensors are JSON or, by Triton's extension, binary behind it.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md and
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from server.api.open_inference import open_inference_pb2 as pb
from server.api.open_inference.shared_memory import SharedMemory
from server.api.open_inference.tensors import (
    CONTENTS_OF,
    read_output,
    read_shapes,
    read_tensors,
    write_tensor,
)
from server.api.rest.exchange import BINARY, Asked, Headers, HttpAnswer, HttpRequest
from server.api.rest.fields import Object, check_known, fill, need, read_object, show, take, write_json
from server.errors import InvalidInput, MalformedMessage

_HEADER_LENGTH = "inference-header-content-length"
_BINARY_SIZE, _BINARY, _ALL_BINARY = "binary_data_size", "binary_data", "binary_data_output"
_FIELDS = ("id", "parameters", "inputs", "outputs")
_MAX_INT64, _MAX_DIGITS = 2**63 - 1, 11
_NO_MEMORY = SharedMemory(0)


def read_infer(request: HttpRequest, max_numbers: int) -> Asked:
    """Read a request.

    Args:
        request: What came.
        max_numbers: Most elements of an answer that may become text.

    Raises:
        MalformedMessage: It is no JSON.
        InvalidInput: A field is none that is known, or has another type; or bytes and sizes do not go together.
    """
    length = _header_length(request)
    fields = read_object(request.body[:length], _FIELDS)
    message = pb.ModelInferRequest(model_name=request.names["model"], model_version=request.names.get("version", ""))
    fill(message, id=take(fields, "id", str))
    parameters = take(fields, "parameters", dict) or {}
    all_binary = _flag(parameters, _ALL_BINARY, "parameters")
    _fill_parameters(message.parameters, parameters, "parameters", (_ALL_BINARY,))
    _read_inputs(need(fields, "inputs", list), request.body[length:], message)
    binary = {}
    for number, each in enumerate(take(fields, "outputs", list) or ()):
        output = message.outputs.add()
        field = _read_named(each, f"outputs[{number}]", output, ("name", "parameters"), (_BINARY,))
        binary[output.name] = _flag(each.get("parameters") or {}, _BINARY, f"{field}.parameters", all_binary)
    return Asked(message, partial(_write, binary=binary, all_binary=all_binary, max_numbers=max_numbers))


def json_bytes(headers: Headers) -> int | None:
    """Say how many bytes the JSON has, which the binary tensors come behind; None for all, or where it is no number."""
    said = str(headers.get(_HEADER_LENGTH, ""))
    return int(said) if said.isascii() and said.isdecimal() and len(said) <= _MAX_DIGITS else None


def _header_length(request: HttpRequest) -> int:
    said, length = request.headers.get(_HEADER_LENGTH), json_bytes(request.headers)
    if said is None:
        return len(request.body)
    if length is None or length > len(request.body):
        raise InvalidInput(_HEADER_LENGTH, said, f"a number of bytes, of {len(request.body)} that came")
    return length


def _read_inputs(inputs: Sequence[Any], content: bytes, message: pb.ModelInferRequest) -> None:
    """Read the inputs; where one is binary the others become so, too: a message has all of them in one way."""
    begin, raws = 0, dict[int, bytes]()
    for number, each in enumerate(inputs):
        tensor = message.inputs.add()
        known = ("name", "datatype", "shape", "parameters", "data")
        field = _read_named(each, f"inputs[{number}]", tensor, known, (_BINARY_SIZE,))
        fill(tensor, datatype=need(each, "datatype", str, f"{field}."))
        for size in need(each, "shape", list, f"{field}."):
            if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= _MAX_INT64:
                raise InvalidInput(f"{field}.shape", show(size), "whole numbers, none negative")
            tensor.shape.append(size)
        size = take(each.get("parameters") or {}, _BINARY_SIZE, int, f"{field}.parameters.")
        if size is not None:
            if "data" in each:
                raise InvalidInput(f"{field}.data", f"given beside {_BINARY_SIZE}", "one of both")
            if not 0 <= size <= len(content) - begin:
                left = f"at most {len(content) - begin}, which are left behind the JSON"
                raise InvalidInput(f"{field}.parameters.{_BINARY_SIZE}", size, left)
            raws[number] = content[begin : begin + size]
            begin += size
        elif "shared_memory_region" not in tensor.parameters:
            _read_data(need(each, "data", list, f"{field}."), field, tensor)
    if begin != len(content):
        raise MalformedMessage(f"body: {len(content) - begin} bytes more than the inputs' {_BINARY_SIZE} say")
    if raws:
        _make_raw(message, raws)


def _make_raw(message: pb.ModelInferRequest, raws: dict[int, bytes]) -> None:
    for number, tensor in enumerate(message.inputs):
        if number in raws:
            message.raw_input_contents.append(raws[number])
        elif "shared_memory_region" not in tensor.parameters:
            one, written = pb.ModelInferRequest(inputs=[tensor]), pb.ModelInferResponse()
            arrays = read_tensors(one, _NO_MEMORY, read_shapes(one, len(tensor.contents.bytes_contents)))
            write_tensor(written, tensor.name, arrays[tensor.name], None, _NO_MEMORY)
            tensor.ClearField("contents")
            message.raw_input_contents.append(written.raw_output_contents[0])


def _read_data(data: list[Any], field: str, tensor: pb.ModelInferRequest.InferInputTensor) -> None:
    """Read elements, flat or in lists as the shape has them."""
    name = CONTENTS_OF.get(tensor.datatype)
    if name is None:
        return  # the method says so
    if not name:
        raise InvalidInput(f"{field}.data", tensor.datatype, f"{_BINARY_SIZE}: it has no form in JSON")
    tensor.contents.SetInParent()
    try:
        if name == "bytes_contents":
            tensor.contents.bytes_contents.extend(map(_encode, _flat(data)))
        elif name == "bool_contents":
            tensor.contents.bool_contents.extend(_check(value, bool) for value in _flat(data))
        elif name in ("fp32_contents", "fp64_contents"):
            getattr(tensor.contents, name).extend(_check(value, int | float) for value in _flat(data))
        else:
            getattr(tensor.contents, name).extend(_check(value, int) for value in _flat(data))
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInput(f"{field}.data", str(error)[:100], f"elements of {tensor.datatype}") from None


def _flat(data: list[Any]) -> Iterator[Any]:
    for value in data:
        if isinstance(value, list):
            yield from _flat(value)
        else:
            yield value


def _check(value: Any, kind: Any) -> Any:
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise TypeError(show(value))
    if isinstance(value, float) and math.isinf(value):
        raise ValueError("a number too large")
    return value


def _encode(value: Any) -> bytes:
    if not isinstance(value, str):
        raise TypeError(show(value))
    return value.encode()


def _read_named(each: Any, field: str, tensor: Any, known: Sequence[str], own: Sequence[str]) -> str:
    """Read the name and the parameters of an input or an output; returns what it is called in messages."""
    if not isinstance(each, dict):
        raise InvalidInput(field, show(each), "an object")
    fill(tensor, name=need(each, "name", str, f"{field}."))
    field = f"{field.partition('[')[0]}[{tensor.name}]"
    check_known(f"{field}.", each, known)
    parameters = take(each, "parameters", dict, f"{field}.") or {}
    _fill_parameters(tensor.parameters, parameters, f"{field}.parameters", own)
    return field


def _flag(parameters: Object, name: str, field: str, default: bool = False) -> bool:
    found = take(parameters, name, bool, f"{field}.")
    return default if found is None else found


def _fill_parameters(message: Any, parameters: Object, field: str, own: Sequence[str] = ()) -> None:
    """Put parameters into a message's, but those that are HTTP's own."""
    for name, value in parameters.items():
        if name in own:
            continue
        place = f"{field}[{name}]"
        try:
            fill_parameter(message[name], value)
        except (TypeError, ValueError) as error:
            raise InvalidInput(place, show(value), "true, false, a string or a number of 64 bits") from error


def fill_parameter(message: pb.InferParameter, value: Any) -> None:
    """Put a value of JSON into a parameter.

    Raises:
        TypeError: It has a type that parameters have not.
        ValueError: It is too large, or a string that is none.
    """
    if isinstance(value, bool):
        message.bool_param = value
    elif isinstance(value, int) and value > _MAX_INT64:
        message.uint64_param = value
    elif isinstance(value, int):
        message.int64_param = value
    elif isinstance(value, float):
        message.double_param = value
    elif isinstance(value, str):
        message.string_param = value
    else:
        raise TypeError(show(value))


def _write(content: bytes, binary: dict[str, bool], all_binary: bool, max_numbers: int) -> HttpAnswer:
    """Write an answer.

    Args:
        content: Of a ModelInferResponse.
        binary: Whether each output is wanted so.
        all_binary: Whether one is that was not named.
        max_numbers: Most elements that may become text.

    Raises:
        InvalidInput: There are more, or some that JSON cannot say.
    """
    found, tail, left = pb.ModelInferResponse.FromString(content), list[bytes](), max_numbers
    outputs = list[dict[str, Any]]()
    for output, raw in zip(found.outputs, found.raw_output_contents, strict=True):
        parameters = {name: _value(one) for name, one in output.parameters.items()}
        one: dict[str, Any] = {"name": output.name, "datatype": output.datatype, "shape": list(output.shape)}
        outputs.append(one)
        if binary.get(output.name, all_binary) and "shared_memory_region" not in parameters:
            parameters[_BINARY_SIZE] = len(raw)
            tail.append(raw)
        elif "shared_memory_region" not in parameters:
            left -= math.prod(output.shape)
            if left < 0:
                count = math.prod(output.shape)
                expected = (
                    f"{_BINARY}: true, since JSON carries {max_numbers} in all (the server's --max-message-integers)"
                )
                raise InvalidInput(f"outputs[{output.name}]", f"{count} elements", expected)
            one["data"] = _data(output, raw)
        if parameters:
            one["parameters"] = parameters
    said: dict[str, Any] = {"model_name": found.model_name, "model_version": found.model_version, "outputs": outputs}
    if found.id:
        said["id"] = found.id
    if found.parameters:
        said["parameters"] = {name: _value(parameter) for name, parameter in found.parameters.items()}
    answer = write_json(said)
    if not tail:
        return answer
    headers = {"Inference-Header-Content-Length": str(len(answer.content))}
    return HttpAnswer(b"".join([answer.content, *tail]), BINARY, headers=headers)


def _data(output: pb.ModelInferResponse.InferOutputTensor, raw: bytes) -> list[Any]:
    """Make the elements of an output, in one list.

    Raises:
        InvalidInput: One is no text, or no number that JSON has.
    """
    field, expected = f"outputs[{output.name}]", f"{_BINARY}: true"
    array = read_output(output, raw)
    if output.datatype == "BYTES":
        try:
            return [value.decode() for value in array]
        except UnicodeDecodeError:
            raise InvalidInput(field, "bytes that are no UTF-8", f"{expected}, since JSON has only text") from None
    if array.dtype.kind == "V":  # bfloat16
        array = array.astype("float32")
    values: list[Any] = array.tolist()
    if array.dtype.kind == "f" and not all(map(math.isfinite, values)):
        raise InvalidInput(field, "infinity, or what is no number", f"{expected}, since JSON has neither")
    return values


def _value(parameter: pb.InferParameter) -> Any:
    kind = parameter.WhichOneof("parameter_choice")
    return getattr(parameter, kind) if kind else None
