"""Texts that are written, by the Open Inference Protocol: a response for each token, and one of the whole."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import aclosing
from functools import partial

import numpy as np

from artifact.dtypes import Array
from server.api.open_inference import open_inference_pb2 as pb
from server.api.open_inference.parameter_values import Parameters, read_integer, read_real, read_text, show
from server.api.open_inference.parameters import IGNORED, STEP_PARAMETERS, STEP_PREFIXES
from server.api.open_inference.reading import Reading
from server.api.open_inference.step_attention import describe_steps, read_step_attention, step_arrays, steps_bytes
from server.api.open_inference.tensors import read_places, write_tensor
from server.attention.request import AttentionRequest
from server.context import RpcContext
from server.errors import InvalidInput
from server.generation.request import (
    AttentionKind,
    GeneratedToken,
    GenerationEnd,
    GenerationEvent,
    GenerationRequest,
    Sampling,
    size_of,
)
from server.generation.validation import check_answer_size
from server.inference.request import Texts
from server.repository.loading import LoadedModel

Tell = Callable[[pb.ModelInferResponse], Awaitable[None]]

# By name, with the datatype: of one token, [1, 1], or of all of the best text's, [1, T]; of each result, [1, R].
TOKEN_OUTPUTS = {"token": "INT32", "text_piece": "BYTES", "log_probability": "FP32"}
RESULT_OUTPUTS = {"generated_text": "BYTES", "total_log_probability": "FP32", "finish_reason": "BYTES"}
OUTPUTS = TOKEN_OUTPUTS | RESULT_OUTPUTS
_SAMPLING = ("temperature", "top_k", "top_p", "seed")
STOP = "stop"  # an input of BYTES, or a parameter
PARAMETERS = (
    *("start", "max_tokens", "num_beams", "num_results", "length_penalty", STOP, "target"),
    *_SAMPLING,
    *STEP_PARAMETERS,
)
_BESIDE = ("priority", "timeout", "truncate")


class Generating(Reading):
    """Lets models write."""

    async def _generate(
        self, request: pb.ModelInferRequest, model: LoadedModel, context: RpcContext, tell: Tell | None
    ) -> pb.ModelInferResponse:
        """Write a text; tokens are told as they are made, and the response is that of the whole."""
        _check_parameters(request.parameters)
        places = read_places(request.outputs)
        if elsewhere := [name for name, place in places.items() if place is not None]:
            raise InvalidInput(f"outputs[{elsewhere[0]}]", "in shared memory", "in the answer: its size is not known")
        attention = read_step_attention(request.parameters, list(places), context)
        stop = _read_stop(request.parameters, await self._read_strings(request, STOP, context))
        inputs = await self._read(request, model.contract, context, leave=(STOP,))
        asked = read_generation(request.parameters, model, inputs, stop, attention)
        response, has_told = pb.ModelInferResponse(), False
        async with aclosing(self.generator.generate(asked, context, streams=tell is not None)) as events:
            async for event in events:
                write = partial(self._write_event, request, asked, event, list(places), with_tokens=not has_told)
                if isinstance(event, GeneratedToken) and tell is not None:
                    has_told = True
                    await tell(await self.workers.encode(write, size_of(event)))
                elif isinstance(event, GenerationEnd):
                    response = await self.workers.run(write)
        return response

    def _write_event(
        self,
        request: pb.ModelInferRequest,
        asked: GenerationRequest,
        event: GenerationEvent,
        named: Sequence[str],
        *,
        with_tokens: bool,
    ) -> pb.ModelInferResponse:
        """Write a token, or the end: with the tokens of the best result where they were not told."""
        instead = "fewer layers or heads, or a mean over heads" if asked.attention else "fewer results or tokens"
        if asked.attention and isinstance(event, GenerationEnd) and with_tokens:
            instead = "ModelStreamInfer, which sends each token by itself; fewer layers or heads"
            size_bytes = steps_bytes(event.results[0].tokens)
            check_answer_size(asked, size_bytes, self.config.max_answer_bytes, instead)  # before it is copied
        arrays = _arrays_of(event, asked.model, named, with_tokens=with_tokens)
        response = pb.ModelInferResponse(model_name=asked.model.name, model_version=asked.model.version, id=request.id)
        # In the order asked for; attention asked for by parameters comes last.
        for name in dict.fromkeys((*(named or OUTPUTS), *arrays)):
            if name in arrays and (not named or name in named or name.startswith(STEP_PREFIXES)):
                write_tensor(response, name, arrays[name], None, self.memory)
        check_answer_size(asked, response.ByteSize(), self.config.max_answer_bytes, instead)
        return response


def is_written(model: LoadedModel, names: Collection[str], outputs: Collection[str]) -> bool:
    """Whether a request lets a model write: it brings a text, and `stop` or not, and names no output of the graph."""
    named = {name for name in outputs if not name.startswith(STEP_PREFIXES)}
    return writes_of(model, names) and named <= set(OUTPUTS)


def writes_of(model: LoadedModel, names: Collection[str]) -> bool:
    """Whether a model can write of inputs of these names: a text, and `stop` or not."""
    return model.contract.writes_of_text and [name for name in names if name != STOP] == ["text"]


def check_none(parameters: Parameters) -> None:
    """Refuse what only a text that is written has.

    Raises:
        InvalidInput: Names the parameter.
    """
    for name in PARAMETERS:
        if name in parameters:
            expected = "none: it is of a text that a model writes, with generation, from a text alone"
            raise InvalidInput(f"parameters[{name}]", show(parameters[name]), expected)


def _read_stop(parameters: Parameters, texts: tuple[str, ...]) -> tuple[str, ...]:
    """Take the input `stop`, or the parameter, which is one text."""
    if texts and STOP in parameters:
        raise InvalidInput("parameters[stop]", show(parameters[STOP]), "none beside the input stop")
    return texts or ((read_text(parameters, STOP),) if STOP in parameters else ())


def read_generation(
    parameters: Parameters,
    model: LoadedModel,
    inputs: object,
    stop: tuple[str, ...] = (),
    attention: dict[AttentionKind, AttentionRequest] | None = None,
) -> GenerationRequest:
    """Read what is to be written.

    Args:
        parameters: The names of regard.v1's fields: start and target (string), max_tokens, num_beams,
            num_results, top_k and seed (integers), length_penalty, temperature and top_p (double); the last four of
            Sampling draw. truncate (bool) as for every text.
        model: That writes.
        inputs: As they were read, but for `stop`.
        stop: Texts behind which nothing is written.
        attention: What is wanted of each step's.

    Raises:
        InvalidInput: They are no single text, or a value cannot be read.
    """
    if not isinstance(inputs, Texts):
        raise InvalidInput("inputs[text].datatype", "no BYTES", "BYTES")
    if len(inputs) != 1:
        raise InvalidInput("inputs[text]", f"{len(inputs)} elements", "1: a text is written for each request")
    text, _ = inputs.row(0)
    assert isinstance(text, str)  # noqa: S101 -- this protocol has ids of tokens as tensors alone
    sampling = None
    if any(name in parameters for name in _SAMPLING):
        sampling = Sampling(
            temperature=_real(parameters, "temperature", 1.0),
            top_k=read_integer(parameters, "top_k"),
            top_p=_real(parameters, "top_p", 1.0),
            seed=read_integer(parameters, "seed") if "seed" in parameters else None,
        )
    return GenerationRequest(
        model,
        text,
        inputs.truncate,
        start=read_text(parameters, "start"),
        max_tokens=read_integer(parameters, "max_tokens"),
        num_beams=read_integer(parameters, "num_beams"),
        num_results=read_integer(parameters, "num_results") or 1,
        length_penalty=read_real(parameters, "length_penalty"),
        sampling=sampling,
        stop=stop,
        target=read_text(parameters, "target") or None,
        attention=attention,
    )


def _arrays_of(
    event: GenerationEvent, model: LoadedModel, named: Sequence[str], *, with_tokens: bool
) -> dict[str, Array]:
    """Make the outputs of a token, or of the end; none of the start."""
    match event:
        case GeneratedToken():
            return _token_arrays([event], [event.text], named)
        case GenerationEnd():
            tokens = event.results[0].tokens if with_tokens else ()
            return _result_arrays(event) | (_token_arrays(tokens, _pieces(event, model), named) if tokens else {})
    return {}


def _token_arrays(tokens: Sequence[GeneratedToken], pieces: list[str], named: Sequence[str]) -> dict[str, Array]:
    """Make the outputs of tokens, each [1, T], and of their attention; see step_arrays."""
    return {
        "token": np.array([[one.token for one in tokens]], dtype=np.int32),
        "text_piece": np.array([pieces], dtype=object),
        "log_probability": np.array([[one.log_probability for one in tokens]], dtype=np.float32),
        **step_arrays(tokens, named),
    }


def _result_arrays(end: GenerationEnd) -> dict[str, Array]:
    """Make the outputs of the results, each [1, R], the best first."""
    return {
        "generated_text": np.array([[one.text for one in end.results]], dtype=object),
        "total_log_probability": np.array([[one.log_probability for one in end.results]], dtype=np.float32),
        "finish_reason": np.array([[one.finish_reason for one in end.results]], dtype=object),
    }


def describe_written(model: LoadedModel) -> list[pb.ModelMetadataResponse.TensorMetadata]:
    """Describe what a model writes of a text, with the batch axis; nothing of one that does not."""
    if not model.contract.writes_of_text:
        return []
    make = pb.ModelMetadataResponse.TensorMetadata
    described = [make(name=name, datatype=datatype, shape=[-1, -1]) for name, datatype in OUTPUTS.items()]
    return described + (describe_steps(model) if model.usage.settings.list_attention else [])


def _pieces(end: GenerationEnd, model: LoadedModel) -> list[str]:
    """Return what each token of the best result adds to its text."""
    generation, writer = model.contract.generation, model.writer
    assert generation is not None and writer is not None  # noqa: S101 -- it has written
    return writer.pieces([one.token for one in end.results[0].tokens], generation.end_tokens)


def _real(parameters: Parameters, name: str, default: float) -> float:
    found = read_real(parameters, name)
    return default if found is None else found


def _check_parameters(parameters: Parameters) -> None:
    for name, parameter in sorted(parameters.items()):
        if name not in (*PARAMETERS, *_BESIDE) and not name.startswith(IGNORED):
            raise InvalidInput(f"parameters[{name}]", show(parameter), "none beside a text that is written")
