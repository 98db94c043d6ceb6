"""Reads the inputs of a request of the Open Inference Protocol: tensors, or texts and images as BYTES."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from artifact.contract import Contract
from artifact.dtypes import name_of
from server.api.open_inference import open_inference_pb2 as pb
from server.api.open_inference.parameter_values import read_flag
from server.api.open_inference.parameters import read_prompt, read_role
from server.api.open_inference.parts import Parts
from server.api.open_inference.shared_memory import SharedMemory, read_place
from server.api.open_inference.tensors import (
    DATATYPE_OF,
    decode_strings,
    decode_texts,
    is_all_raw,
    read_raw,
    read_shapes,
    read_tensors,
)
from server.context import RpcContext
from server.errors import InvalidInput
from server.inference import validation
from server.inference.late_interaction import with_role
from server.inference.request import Images, Tensors, Texts

_PAIR = "text_pair"  # beside text, the second text of each


@dataclass(frozen=True, slots=True)
class Declaration:
    """What a request says of its inputs beside their elements, checked.

    Attributes:
        shapes: Dtypes and shapes by name.
        content: What the server preprocesses, text or image; empty for tensors.
        prompt: The name of what is put before texts.
        truncate: Whether texts that are too long are cut.
        is_query: Whether texts are queries.
        is_raw: Whether the elements of every input are raw, and none in shared memory.
    """

    shapes: Mapping[str, validation.Declared]
    content: str
    prompt: str
    truncate: bool
    is_query: bool
    is_raw: bool


class Reading(Parts):
    """Reads requests."""

    async def _read(
        self, request: pb.ModelInferRequest, contract: Contract, context: RpcContext, leave: Collection[str] = ()
    ) -> Texts | Images | Tensors:
        """Read the inputs for a model, all but those of some names."""
        return await self._read_elements(request, contract, context, self._declare(request, contract, leave))

    def _declare(self, request: pb.ModelInferRequest, contract: Contract, leave: Collection[str] = ()) -> Declaration:
        """Read all of the inputs but their elements: a model's own tensors, or text or images as BYTES."""
        names = list(dict.fromkeys(tensor.name for tensor in request.inputs if tensor.name not in leave))
        content = _content(contract, names)
        if not content:
            validation.check_names(names, contract)
        self._check_places(request)
        shapes = read_shapes(request, self.config.max_message_fields)
        shapes = {name: shape for name, shape in shapes.items() if name not in leave}
        prompt = read_prompt(request.parameters, content if _PAIR not in shapes else _PAIR)
        is_query, is_raw = read_role(request.parameters), not leave and is_all_raw(request)
        if content and shapes[content].dtype.kind == "O":
            self._check_contents(content, shapes)
            truncate = content == "text" and read_flag(request.parameters, "truncate")
            return Declaration(shapes, content, prompt, truncate, is_query, is_raw)
        validation.check_shapes(shapes, contract, self.pipeline.inputs.rows, DATATYPE_OF)
        return Declaration(shapes, "", prompt, truncate=False, is_query=is_query, is_raw=is_raw)

    async def _read_elements(
        self, request: pb.ModelInferRequest, contract: Contract, context: RpcContext, declared: Declaration
    ) -> Texts | Images | Tensors:
        """Read the elements of inputs."""
        size_bytes = context.received_bytes + (0 if declared.is_raw else self._check_places(request))
        read = _read_contents if declared.content else _read_own
        return await self.workers.decode(partial(read, request, self.memory, contract, declared), size_bytes)

    async def _read_strings(self, request: pb.ModelInferRequest, name: str, context: RpcContext) -> tuple[str, ...]:
        """Read one input of BYTES as text, of any shape; none where it is not there."""
        if not any(tensor.name == name for tensor in request.inputs):
            return ()
        size_bytes = context.received_bytes + self._check_places(request)

        def read() -> tuple[str, ...]:
            shapes = read_shapes(request, self.config.max_message_fields)
            if shapes[name].dtype.kind != "O":
                datatype = DATATYPE_OF[name_of(shapes[name].dtype)]
                raise InvalidInput(f"inputs[{name}].datatype", datatype, "BYTES")
            arrays = read_tensors(request, self.memory, {name: shapes[name]})
            return decode_texts(name, arrays[name].reshape(-1).tolist())

        return await self.workers.decode(read, size_bytes)

    def _check_places(self, request: pb.ModelInferRequest) -> int:
        """Check sizes in shared memory, before anything is read; returns their sum."""
        placed = [tensor for tensor in request.inputs if tensor.parameters]
        places = (read_place(f"inputs[{tensor.name}]", tensor.parameters) for tensor in placed)
        return self.memory.check_sum("inputs", filter(None, places)) if placed else 0

    def _check_contents(self, name: str, shapes: Mapping[str, validation.Declared]) -> None:
        max_rows, rows = self.pipeline.inputs.rows, math.prod(shapes[name].shape)
        if not 1 <= rows <= max_rows:
            expected = f"1 to {max_rows} (the server's --max-batch-size)"
            raise InvalidInput(f"inputs[{name}]", f"{rows} elements", expected)
        if _PAIR in shapes and (shapes[_PAIR].dtype.kind, math.prod(shapes[_PAIR].shape)) != ("O", rows):
            what = f"{DATATYPE_OF[name_of(shapes[_PAIR].dtype)]} {list(shapes[_PAIR].shape)}"
            raise InvalidInput(f"inputs[{_PAIR}]", what, f"{rows} of BYTES, one for each element of text")


def _read_contents(
    request: pb.ModelInferRequest, memory: SharedMemory, contract: Contract, declared: Declaration
) -> Texts | Images | Tensors:
    """Read texts or images."""
    arrays = read_tensors(request, memory, declared.shapes)
    contents = {name: array.reshape(-1).tolist() for name, array in arrays.items()}
    if declared.content == "image":
        return with_role(Images(tuple(contents["image"])), contract, query=declared.is_query)
    texts, second = (decode_texts(one, contents.get(one, ())) for one in (declared.content, _PAIR))
    read = Texts(texts, declared.truncate, declared.prompt, second)
    return with_role(read, contract, query=declared.is_query)


def _read_own(
    request: pb.ModelInferRequest, memory: SharedMemory, contract: Contract, declared: Declaration
) -> Texts | Images | Tensors:
    """Read a model's own tensors."""
    if declared.is_raw:
        arrays = read_raw(request.raw_input_contents, declared.shapes)
    else:
        arrays = read_tensors(request, memory, declared.shapes)
    for key, array in arrays.items():
        if array.dtype.kind == "O":
            arrays[key] = decode_strings(key, array)
    read = Tensors(arrays, is_shaped=True)
    return with_role(read, contract, query=True) if declared.is_query else read


def _content(contract: Contract, names: Sequence[str]) -> str:
    """Name what a request brings for the server to preprocess, text or image; empty where it brings tensors."""
    takes = "text" if contract.text else "image" if contract.image else ""
    own = {spec.name for spec in contract.inputs}
    if sorted(names) == ["text", _PAIR] and (takes == "text" or not own & set(names)):
        return "text"
    return next((name for name in ("text", "image") if [name] == names and (name == takes or name not in own)), "")
