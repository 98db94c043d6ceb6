"""ModelInfer and ModelStreamInfer: requests of the Open Inference Protocol to the pipeline, and back."""

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial

import numpy as np

from artifact.contract import Contract
from artifact.dtypes import Array, name_of
from server.api.counts import MAX_TENSORS, check_count
from server.api.handler import Servicer, handles_bytes, parsed, rpc, send
from server.api.open_inference import open_inference_pb2 as pb
from server.api.open_inference.parameters import (
    ATTENTION_PREFIX,
    FURTHER_PREFIXES,
    HIDDEN_STATES_PREFIX,
    check_names,
    read_attention,
    read_flag,
    read_hidden_states,
    read_hints,
    read_prompt,
    read_vector_request,
    rename_fields,
)
from server.api.open_inference.parts import Parts
from server.api.open_inference.shared_memory import Place, read_place
from server.api.open_inference.tensors import (
    DATATYPE_OF,
    decode_strings,
    decode_texts,
    read_places,
    read_shapes,
    read_tensors,
    write_tensor,
)
from server.attention.plan import AttentionPlan
from server.auth.clients import certificate_names
from server.context import RpcContext
from server.errors import InvalidInput, MalformedMessage, NotPossible, ServerError
from server.hidden_states.plan import HiddenStatesPlan
from server.inference import validation
from server.inference.preprocess import choose_outputs
from server.inference.request import Images, InferenceRequest, InferenceResponse, Tensors, Texts
from server.inference.vectors import VectorRequest, make_vectors
from server.ledger import COPIES, Account
from server.repository.loading import LoadedModel

_log = logging.getLogger(__name__)

_MAX_IN_A_STREAM = 256
_PAIR = "text_pair"  # beside text, the second text of each
Places = Mapping[str, Place | None]


class Inference(Parts):
    """Runs models."""

    @rpc("model_name")
    async def ModelInfer(self, request: pb.ModelInferRequest, context: RpcContext) -> pb.ModelInferResponse:  # noqa: N802
        """Run a model."""
        return await self._infer(request, context)

    @handles_bytes
    async def ModelStreamInfer(  # noqa: N802
        self, requests: AsyncIterator[pb.ModelInferRequest | MalformedMessage], servicer: Servicer
    ) -> None:
        """Run requests as they come; each is answered when it is ready, and an error is its own alone."""
        room, writing = asyncio.Semaphore(_MAX_IN_A_STREAM), asyncio.Lock()
        call = self.rpcs.calls.current()
        call.method = "ModelStreamInfer"

        async def answer(request: pb.ModelInferRequest | MalformedMessage, account: Account) -> None:
            try:
                content = await self._answer_in_stream(request, servicer, account)
                async with writing:
                    await send(servicer, call, content)
            finally:
                room.release()

        try:
            async with asyncio.TaskGroup() as group:
                async for request in requests:
                    call.account.hold("request", call.received_bytes)
                    await room.acquire()
                    account = Account(self.rpcs.calls.ledger)
                    account.hold("request", call.received_bytes)
                    call.account.hold("request", 0)
                    group.create_task(answer(request, account)).add_done_callback(account.close)
        except asyncio.CancelledError as error:
            raise error.with_traceback(None)  # noqa: B904 -- whose frames hold the call, and this error

    async def _answer_in_stream(
        self, request: pb.ModelInferRequest | MalformedMessage, servicer: Servicer, account: Account
    ) -> bytes:
        response = await self._respond_in_stream(request, servicer, account)
        content: bytes = response.SerializeToString()
        if len(content) > self.config.max_answer_bytes and response.HasField("infer_response"):
            what = f"an answer of {len(content)} bytes"
            refusal = _refusal(request, f"{what} is too large (the server's --max-message-bytes)")
            content = refusal.SerializeToString()
        account.hold("answer", COPIES * len(content))
        account.answer()
        return content

    async def _respond_in_stream(
        self, request: pb.ModelInferRequest | MalformedMessage, servicer: Servicer, account: Account
    ) -> pb.ModelStreamInferResponse:
        metadata, names = dict(servicer.invocation_metadata() or ()), certificate_names(servicer.auth_context())
        model = "" if isinstance(request, MalformedMessage) else request.model_name
        remaining, peer = servicer.time_remaining(), servicer.peer()
        context = RpcContext.begin("ModelStreamInfer", model, metadata, remaining, peer, account)

        async def infer(context: RpcContext) -> pb.ModelInferResponse:
            return await self._infer(parsed(request), context)

        try:
            response = await self.rpcs.run(context, metadata, infer, certificates=names)
        except ServerError as error:
            error.with_traceback(None)  # whose frames hold the request, and this error
            return _refusal(request, str(error))
        response.parameters["triton_final_response"].bool_param = True
        return pb.ModelStreamInferResponse(infer_response=response)

    async def _infer(self, request: pb.ModelInferRequest, context: RpcContext) -> pb.ModelInferResponse:
        try:
            response = await self._compute(request, context)
        except ServerError as error:
            rename_fields(error, [output.name for output in request.outputs])
            level = logging.INFO if request.id else logging.DEBUG  # who gives an id wants to find it again
            _log.log(level, "request %.99r of %.99r: %s: %s", request.id, request.model_name, error.code.name, error)
            raise
        _log.debug("request %r of %r: OK", request.id, request.model_name)
        return response

    async def _compute(self, request: pb.ModelInferRequest, context: RpcContext) -> pb.ModelInferResponse:
        for name in ("inputs", "outputs", "raw_input_contents"):
            check_count(name, len(getattr(request, name)), MAX_TENSORS)
        read_hints(request.parameters, context)
        check_names(request.parameters)
        model = await self.repository.acquire(request.model_name, request.model_version)
        places = read_places(request.outputs)
        attention = read_attention(request.parameters, list(places))
        hidden_states = read_hidden_states(request.parameters, list(places))
        ordinary = tuple(name for name in places if not name.startswith(FURTHER_PREFIXES))
        tower = model.of_inputs(tensor.name for tensor in request.inputs)
        outputs = () if places and not ordinary else choose_outputs(tower, ordinary)
        vectors = read_vector_request(request.parameters)
        if vectors:
            _check_vectors(vectors, tower, outputs)
        size_bytes = self._check_inputs(tower.contract, request)
        try:
            inputs = await self.workers.decode(lambda: self._read_inputs(tower.contract, request), size_bytes)
        except ServerError:  # the pipeline, which counts what comes to it, has not seen this one
            self.counts.of(model.name, model.version).failed.add(time.perf_counter_ns() - context.started_ns)
            raise
        elsewhere = frozenset(name for name, place in places.items() if place is not None)
        wanted = InferenceRequest(tower, inputs, outputs, attention, hidden_states, elsewhere=elsewhere)
        async with self.pipeline.run(wanted, context) as found:
            write = partial(self._write, request, found, places, vectors)
            return await self.workers.encode(write, found.result.size_bytes)

    def _check_inputs(self, contract: Contract, request: pb.ModelInferRequest) -> int:
        """Check names, and sizes in shared memory, before anything is read; returns how much there is to read."""
        names = [tensor.name for tensor in request.inputs]
        if not _content(contract, names):
            validation.check_names(names, contract)
        places = (read_place(f"inputs[{tensor.name}]", tensor.parameters) for tensor in request.inputs)
        return request.ByteSize() + self.memory.check_sum("inputs", filter(None, places))

    def _read_inputs(self, contract: Contract, request: pb.ModelInferRequest) -> Texts | Images | Tensors:
        """Read the inputs: a model's own tensors, or text or images as BYTES where its contract says how."""
        shapes = read_shapes(request, self.config.max_message_fields)
        content = _content(contract, list(shapes))
        prompt = read_prompt(request.parameters, content if _PAIR not in shapes else _PAIR)
        if content and shapes[content].dtype.kind == "O":
            return self._read_contents(content, shapes, request, prompt)
        validation.check_shapes(shapes, contract, self.pipeline.inputs.rows, DATATYPE_OF)
        arrays = read_tensors(request, self.memory)
        strings = {spec.name for spec in contract.inputs if spec.dtype == "string"}
        arrays |= {
            key: decode_strings(key, arrays[key]) for key in strings & arrays.keys() if arrays[key].dtype == object
        }
        return Tensors(arrays, DATATYPE_OF)

    def _read_contents(
        self, name: str, shapes: Mapping[str, validation.Declared], request: pb.ModelInferRequest, prompt: str
    ) -> Texts | Images:
        max_rows, rows = self.pipeline.inputs.rows, math.prod(shapes[name].shape)
        if not 1 <= rows <= max_rows:
            expected = f"1 to {max_rows} (the server's --max-batch-size)"
            raise InvalidInput(f"inputs[{name}]", f"{rows} elements", expected)
        if _PAIR in shapes and (shapes[_PAIR].dtype.kind, math.prod(shapes[_PAIR].shape)) != ("O", rows):
            what = f"{DATATYPE_OF[name_of(shapes[_PAIR].dtype)]} {list(shapes[_PAIR].shape)}"
            raise InvalidInput(f"inputs[{_PAIR}]", what, f"{rows} of BYTES, one for each element of text")
        contents = {name: array.reshape(-1).tolist() for name, array in read_tensors(request, self.memory).items()}
        if name == "image":
            return Images(tuple(contents[name]))
        texts, second = (decode_texts(one, contents.get(one, ())) for one in (name, _PAIR))
        return Texts(texts, read_flag(request.parameters, "truncate"), prompt, second)

    def _write(
        self, request: pb.ModelInferRequest, found: InferenceResponse, places: Places, vectors: VectorRequest | None
    ) -> pb.ModelInferResponse:
        model = found.model
        response = pb.ModelInferResponse(model_name=model.name, model_version=model.version, id=request.id)
        named = [name for name in places if name.startswith(FURTHER_PREFIXES)]
        arrays = {**found.outputs, **_name_attention(found, named), **_name_states(found, named)}
        if vectors:
            arrays |= _name_vectors(found, vectors)
        # In the order asked for; attention and hidden states asked for by parameters come last.
        for name in dict.fromkeys((*places, *arrays)):
            write_tensor(response, name, arrays[name], places.get(name), self.memory)
        return response


def _name_attention(found: InferenceResponse, named: Sequence[str]) -> dict[str, Array]:
    """Cut out and reduce what was asked for of each layer, under the names asked for, else attention.LAYER.

    A rollout is attention.rollout. With top_k there is NAME.indices beside each, INT32, and for UINT8 NAME.scale, FP32
    [1].
    """
    if not isinstance(found.plan, AttentionPlan):
        return {}
    indices = ["rollout"] if found.plan.is_rollout else found.plan.indices
    names = named or [f"{ATTENTION_PREFIX}{index}" for index in indices]
    arrays = dict[str, Array]()
    for name, reduced in zip(names, found.attention(), strict=True):
        arrays[name] = reduced.values
        if reduced.indices is not None:
            arrays[f"{name}.indices"] = reduced.indices
        if reduced.scale:
            arrays[f"{name}.scale"] = np.asarray([reduced.scale], dtype=np.float32)
    return arrays


def _name_states(found: InferenceResponse, named: Sequence[str]) -> dict[str, Array]:
    """Do the same for hidden states, hidden_states.LAYER; for UINT8 with NAME.scale and NAME.offset, FP32."""
    if not isinstance(found.plan, HiddenStatesPlan):
        return {}
    names = named or [f"{HIDDEN_STATES_PREFIX}{state.layer}" for state in found.plan.states]
    arrays = dict[str, Array]()
    for name, reduced in zip(names, found.hidden_states(), strict=True):
        arrays[name] = reduced.values
        if reduced.scales is not None and reduced.offsets is not None:
            arrays |= {f"{name}.scale": reduced.scales, f"{name}.offset": reduced.offsets}
    return arrays


def _check_vectors(wanted: VectorRequest, model: LoadedModel, outputs: Sequence[str]) -> None:
    """Refuse what cannot be had of vectors, or where none is asked for; see VectorRequest.check."""
    embedding = model.contract.embedding
    parameter = "vector_dimensions" if wanted.dimensions else "vector_format"
    if embedding is None:
        raise NotPossible(f"parameters[{parameter}]: {model.name} gives no embedding; expected a model with one")
    if embedding.output not in outputs:
        raise InvalidInput("outputs", list(outputs), f"{embedding.output} among them, beside {parameter}")
    wanted.check(model.contract)


def _name_vectors(found: InferenceResponse, wanted: VectorRequest) -> dict[str, Array]:
    """Cut and round the vectors, under their output's name; for INT8 with NAME.scale, FP32 [B]."""
    embedding = found.model.contract.embedding
    assert embedding is not None  # noqa: S101 -- as _check_vectors says
    made = make_vectors(found.outputs[embedding.output], wanted, embedding)
    scales = {} if made.scales is None else {f"{embedding.output}.scale": made.scales}
    return {embedding.output: made.values, **scales}


def _content(contract: Contract, names: Sequence[str]) -> str:
    """Name what a request brings for the server to preprocess, text or image; empty where it brings tensors."""
    takes = "text" if contract.text else "image" if contract.image else ""
    own = {spec.name for spec in contract.inputs}
    if sorted(names) == ["text", _PAIR] and (takes == "text" or not own & set(names)):
        return "text"
    return next((name for name in ("text", "image") if [name] == names and (name == takes or name not in own)), "")


def _refusal(request: pb.ModelInferRequest | MalformedMessage, message: str) -> pb.ModelStreamInferResponse:
    if isinstance(request, MalformedMessage):
        return pb.ModelStreamInferResponse(error_message=message)
    known = pb.ModelInferResponse(id=request.id, model_name=request.model_name, model_version=request.model_version)
    return pb.ModelStreamInferResponse(error_message=message, infer_response=known)
