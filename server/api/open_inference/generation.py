"""Texts that are written, by the Open Inference Protocol: a response for each token, and one of the whole."""

from collections.abc import Awaitable, Callable, Collection
from contextlib import aclosing
from functools import partial

import numpy as np

from artifact.dtypes import Array
from server.api.open_inference import open_inference_pb2 as pb
from server.api.open_inference.parameter_values import Parameters, read_integer, read_real, read_text, show
from server.api.open_inference.parameters import IGNORED
from server.api.open_inference.reading import Reading
from server.api.open_inference.tensors import read_places, write_tensor
from server.context import RpcContext
from server.errors import InvalidInput
from server.generation.request import GeneratedToken, GenerationEnd, GenerationRequest, Sampling
from server.inference.request import Texts
from server.repository.loading import LoadedModel

Tell = Callable[[pb.ModelInferResponse], Awaitable[None]]

# By name, with the datatype: of one token, [1, 1], or of all of the best text's, [1, T]; of each result, [1, R].
TOKEN_OUTPUTS = {"token": "INT32", "text_piece": "BYTES", "log_probability": "FP32"}
RESULT_OUTPUTS = {"generated_text": "BYTES", "total_log_probability": "FP32", "finish_reason": "BYTES"}
OUTPUTS = TOKEN_OUTPUTS | RESULT_OUTPUTS
_SAMPLING = ("temperature", "top_k", "top_p", "seed")
PARAMETERS = ("start", "max_tokens", "num_beams", "num_results", "length_penalty", "stop", "target", *_SAMPLING)
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
        names = tuple(places) or tuple(OUTPUTS)
        asked = read_generation(request.parameters, model, await self._read(request, model.contract))
        response, has_told = pb.ModelInferResponse(), False
        async with aclosing(self.generator.generate(asked, context, streams=tell is not None)) as events:
            async for event in events:
                if isinstance(event, GeneratedToken) and tell is not None:
                    has_told = True
                    arrays = token_arrays([event], [event.text])
                    await tell(self._write(request, model, {key: arrays[key] for key in names if key in arrays}))
                elif isinstance(event, GenerationEnd):
                    write = partial(self._write_end, request, model, event, names, with_tokens=not has_told)
                    response = await self.workers.run(write)
        return response

    def _write_end(
        self,
        request: pb.ModelInferRequest,
        model: LoadedModel,
        end: GenerationEnd,
        names: Collection[str],
        *,
        with_tokens: bool,
    ) -> pb.ModelInferResponse:
        arrays = result_arrays(end)
        if with_tokens:
            arrays |= token_arrays(end.results[0].tokens, _pieces(end, model))
        return self._write(request, model, {name: arrays[name] for name in names if name in arrays})

    def _write(
        self, request: pb.ModelInferRequest, model: LoadedModel, arrays: dict[str, Array]
    ) -> pb.ModelInferResponse:
        response = pb.ModelInferResponse(model_name=model.name, model_version=model.version, id=request.id)
        for name, array in arrays.items():
            write_tensor(response, name, array, None, self.memory)
        return response


def is_written(model: LoadedModel, names: Collection[str], outputs: Collection[str]) -> bool:
    """Whether a request lets a model write: it brings a text alone, and names no output of the graph."""
    return model.contract.writes_of_text and list(names) == ["text"] and set(outputs) <= set(OUTPUTS)


def check_none(parameters: Parameters) -> None:
    """Refuse what only a text that is written has.

    Raises:
        InvalidInput: Names the parameter.
    """
    for name in PARAMETERS:
        if name in parameters:
            expected = "none: it is of a text that a model writes, with generation, from a text alone"
            raise InvalidInput(f"parameters[{name}]", show(parameters[name]), expected)


def read_generation(parameters: Parameters, model: LoadedModel, inputs: object) -> GenerationRequest:
    """Read what is to be written.

    Args:
        parameters: The names of regard.v1's fields: start, stop and target (string), max_tokens, num_beams,
            num_results, top_k and seed (integers), length_penalty, temperature and top_p (double); the last four of
            Sampling draw. truncate (bool) as for every text.
        model: That writes.
        inputs: As they were read.

    Raises:
        InvalidInput: They are no single text, or a value cannot be read.
    """
    if not isinstance(inputs, Texts):
        raise InvalidInput("inputs[text].datatype", "no BYTES", "BYTES")
    if len(inputs) != 1:
        raise InvalidInput("inputs[text]", f"{len(inputs)} elements", "1: a text is written for each request")
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
        inputs.texts[0],
        inputs.truncate,
        start=read_text(parameters, "start"),
        max_tokens=read_integer(parameters, "max_tokens"),
        num_beams=read_integer(parameters, "num_beams"),
        num_results=read_integer(parameters, "num_results") or 1,
        length_penalty=read_real(parameters, "length_penalty"),
        sampling=sampling,
        stop=(read_text(parameters, "stop"),) if "stop" in parameters else (),
        target=read_text(parameters, "target") or None,
    )


def token_arrays(tokens: "Collection[GeneratedToken]", pieces: list[str]) -> dict[str, Array]:
    """Make the outputs of tokens, each [1, T]."""
    return {
        "token": np.array([[one.token for one in tokens]], dtype=np.int32),
        "text_piece": np.array([pieces], dtype=object),
        "log_probability": np.array([[one.log_probability for one in tokens]], dtype=np.float32),
    }


def result_arrays(end: GenerationEnd) -> dict[str, Array]:
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
    return [make(name=name, datatype=datatype, shape=[-1, -1]) for name, datatype in OUTPUTS.items()]


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
