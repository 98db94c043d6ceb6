"""Requests of the Open Inference Protocol to the pipeline, and back."""

import logging
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from artifact.dtypes import Array
from server.api.counts import MAX_TENSORS, check_count
from server.api.open_inference import open_inference_pb2 as pb
from server.api.open_inference.fields import rename_fields
from server.api.open_inference.generation import OUTPUTS, Generating, Tell, check_none, is_written, writes_of
from server.api.open_inference.outputs import check_vectors, kept_name, name_attention, name_states, name_vectors
from server.api.open_inference.parameters import (
    FURTHER_PREFIXES,
    check_names,
    read_attention,
    read_hidden_states,
    read_hints,
    read_vector_request,
)
from server.api.open_inference.reading import Declaration
from server.api.open_inference.relevance import LOGITS, name_relevance, read_relevance
from server.api.open_inference.shared_memory import Place
from server.api.open_inference.tensors import read_places, write_tensor
from server.api.open_inference.towers import (
    SCORES,
    brings_both,
    brings_labels,
    check_alone,
    check_map,
    name_map,
    read_label_request,
    take_both,
)
from server.attention.request import AttentionRequest
from server.context import RpcContext
from server.errors import InvalidInput, ServerError
from server.hidden_states.request import HiddenStatesRequest
from server.inference.alignment import find_towers, run_aligned
from server.inference.late_interaction import mark_kept
from server.inference.preprocess import check_scores_size, choose_outputs
from server.inference.request import Images, InferenceRequest, InferenceResponse, Tensors, Texts
from server.inference.vectors import WHOLE_VECTORS, VectorRequest
from server.inference.workers import ENCODE_INLINE_BYTES
from server.inference.zero_shot import (
    LABELS,
    Candidates,
    compute_labels,
    read_labels,
    score,
    towers_for,
    vector_outputs,
)
from server.relevance.request import RelevanceRequest
from server.repository.loading import LoadedModel

_log = logging.getLogger(__name__)

# Of what is remembered that callers say again and again: inputs and outputs, their bytes, and how much of a model.
_MAX_PARTS, _MAX_HEAD_BYTES, _MAX_HEADS = 16, 1024, 256
Arrays = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What a request wants.

    Attributes:
        places: Where the outputs belong that are named, in their order.
        outputs: Of the graph, those that are sent.
        attention: None for none.
        hidden_states: Likewise.
        relevance: Likewise.
        vectors: How the vector is cut and rounded; None for as it is.
        kept: The output that says which vectors of tokens count, where it is wanted; else empty.
        computed: Of the graph, all that it takes.
        placed: Those that go to shared memory.
    """

    places: Mapping[str, Place | None]
    outputs: tuple[str, ...]
    attention: AttentionRequest | None
    hidden_states: HiddenStatesRequest | None
    relevance: RelevanceRequest | None
    vectors: VectorRequest | None
    kept: str
    computed: tuple[str, ...]
    placed: frozenset[str]

    @property
    def further_field(self) -> str:
        """What is asked for besides outputs; empty for nothing."""
        fields = ("attention", "hidden_states", "relevance")
        return next((field for field in fields if getattr(self, field)), "")


@dataclass(frozen=True, slots=True)
class Head:
    """What a request says beside its elements, read and checked."""

    wanted: _Wanted
    declared: Declaration


def head_of(request: pb.ModelInferRequest) -> tuple[bytes, ...]:
    """Return the bytes of all that a request says but its id, its model and its elements; nothing where it is much.

    Callers say the same again and again, with other elements.
    """
    inputs, outputs, raw_count = request.inputs, request.outputs, len(request.raw_input_contents)
    if request.parameters or len(inputs) + len(outputs) > _MAX_PARTS or not 0 < raw_count <= _MAX_PARTS:
        return ()
    parts = [b"%d" % len(inputs)]
    for tensor in inputs:
        if tensor.HasField("contents"):  # which may be large
            return ()
        parts.append(tensor.SerializeToString())
    for output in outputs:
        parts.append(output.SerializeToString())  # noqa: PERF401 -- a comprehension is a call of its own
    return tuple(parts) if sum(map(len, parts)) <= _MAX_HEAD_BYTES else ()


def remember(heads: dict[Hashable, Any], head: tuple[bytes, ...], understood: Head) -> None:
    """Keep what was understood; all is forgotten where there is too much of it."""
    if len(heads) >= _MAX_HEADS:
        heads.clear()
    heads[head] = understood


class Computing(Generating):
    """Computes requests."""

    async def _infer(
        self, request: pb.ModelInferRequest, context: RpcContext, tell: Tell | None = None
    ) -> pb.ModelInferResponse:
        """Compute a request; `tell` is for what comes before its response."""
        try:
            response = await self._compute(request, context, tell)
        except ServerError as error:
            inputs, outputs = ([tensor.name for tensor in each] for each in (request.inputs, request.outputs))
            rename_fields(error, inputs, outputs, request.parameters)
            level = logging.INFO if request.id else logging.DEBUG  # who gives an id wants to find it again
            _log.log(level, "request %.99r of %.99r: %s: %s", request.id, request.model_name, error.code.name, error)
            raise
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug("request %r of %r: OK", request.id, request.model_name)
        return response

    async def _compute(
        self, request: pb.ModelInferRequest, context: RpcContext, tell: Tell | None
    ) -> pb.ModelInferResponse:
        if head := head_of(request):
            model = await self.repository.acquire(request.model_name, request.model_version)
            if understood := model.heads.get(head):
                inputs = await self._read_counted(request, model, understood.declared, context)
                return await self._run(request, model, understood.wanted, inputs, context)
        for name in ("inputs", "outputs", "raw_input_contents"):
            check_count(name, len(getattr(request, name)), MAX_TENSORS)
        read_hints(request.parameters, context)
        check_names(request.parameters)
        if not head:
            model = await self.repository.acquire(request.model_name, request.model_version)
        names = [tensor.name for tensor in request.inputs]
        if is_written(model, names, [output.name for output in request.outputs]):
            return await self._generate(request, model, context, tell)
        check_none(request.parameters)
        if brings_labels(model, names, request.parameters):
            return await self._score(request, model, names, context)
        if brings_both(model, names):
            return await self._align(request, model, context)
        with self._counting_failures(model, context):
            check_alone(model, [output.name for output in request.outputs])
            tower = model.of_inputs(names)
            understood = Head(_read_wanted(request, tower), self._declare(request, tower.contract))
            if head and tower is model:
                remember(model.heads, head, understood)
        inputs = await self._read_counted(request, tower, understood.declared, context)
        return await self._run(request, tower, understood.wanted, inputs, context)

    async def _read_counted(
        self, request: pb.ModelInferRequest, model: LoadedModel, declared: Declaration, context: RpcContext
    ) -> Texts | Images | Tensors:
        try:
            return await self._read_elements(request, model.contract, context, declared)
        except ServerError:
            self._count_failure(model, context)
            raise

    async def _score(
        self, request: pb.ModelInferRequest, model: LoadedModel, names: Sequence[str], context: RpcContext
    ) -> pb.ModelInferResponse:
        """Compare images with the caller's labels, which are computed first."""
        with self._counting_failures(model, context):
            names = [name for name in names if name != LABELS]
            asked = read_label_request(
                model, names, await self._read_strings(request, LABELS, context), request.parameters
            )
            towers = towers_for(asked, model, self.pipeline.inputs)
            tower = towers.image
            wanted = _read_wanted(request, tower, labelled=True)
            images = await self._read(request, tower.contract, context, leave=(LABELS,))
            check_scores_size(len(images), len(asked.names), self.pipeline.attention.answer_bytes)
            if wanted.further_field:  # before any label is computed
                context.caller.require("attention", wanted.further_field)
            texts = await read_labels(asked, towers, self.pipeline, context.account)
        candidates = await compute_labels(self.pipeline, towers, asked.names, texts, context)
        del texts
        context.caller.quota.count(max(len(images) - 1, 0))  # as Classify counts several
        return await self._run(request, tower, wanted, images, context, candidates)

    async def _align(
        self, request: pb.ModelInferRequest, model: LoadedModel, context: RpcContext
    ) -> pb.ModelInferResponse:
        """Show which patch of an image answers to which token of a text."""
        with self._counting_failures(model, context):
            towers, places = find_towers(model), read_places(request.outputs)
            check_map(places, request.parameters)
            texts = await self._read(request, towers.text.contract, context, leave=("image",))
            images = await self._read(request, towers.image.contract, context, leave=("text",))
            text, image = take_both(texts, images)
        async with run_aligned(self.pipeline, self.workers, towers, image, text, context) as (found, response):
            write = partial(self._respond, request, model, places, partial(name_map, found, places))
            return await self.workers.encode(write, response.result.size_bytes)

    async def _run(
        self,
        request: pb.ModelInferRequest,
        tower: LoadedModel,
        wanted: _Wanted,
        inputs: Texts | Images | Tensors,
        context: RpcContext,
        candidates: Candidates | None = None,
    ) -> pb.ModelInferResponse:
        """Hand a request down the pipeline, and write what comes back."""
        query = isinstance(inputs, Texts) and inputs.queries > 0
        computed, unsent = wanted.computed, wanted.placed
        if candidates:  # with which vectors are compared
            vectors = vector_outputs(tower)
            computed = tuple(dict.fromkeys((*computed, *vectors)))
            unsent = unsent.union(set(vectors).difference(wanted.outputs))
        asked = InferenceRequest(
            tower,
            inputs,
            computed,
            wanted.attention,
            wanted.hidden_states,
            wanted.relevance,
            unsent=unsent,
            vectors=wanted.vectors or WHOLE_VECTORS,
            first_part=candidates.part if candidates else None,
        )
        async with self.pipeline.run(asked, context) as found:
            name = partial(_name, found, wanted, candidates, query=query)
            write = partial(self._respond, request, found.model, wanted.places, name)
            return write() if found.size_bytes <= ENCODE_INLINE_BYTES else await self.workers.run(write)

    def _respond(
        self,
        request: pb.ModelInferRequest,
        model: LoadedModel,
        places: Mapping[str, Place | None],
        name: Callable[[], Arrays],
    ) -> pb.ModelInferResponse:
        response = pb.ModelInferResponse(model_name=model.name, model_version=model.version, id=request.id)
        arrays = name()
        # In the order asked for; what is asked for by parameters comes last.
        for output in dict.fromkeys((*places, *arrays)):
            write_tensor(response, output, arrays[output], places.get(output), self.memory)
        return response

    @contextmanager
    def _counting_failures(self, model: LoadedModel, context: RpcContext) -> Iterator[None]:
        """Count a request that fails before the pipeline, which counts what comes to it, has seen it."""
        try:
            yield
        except ServerError:
            self._count_failure(model, context)
            raise

    def _count_failure(self, model: LoadedModel, context: RpcContext) -> None:
        self.counts.of(model.name, model.version).failed.add(time.perf_counter_ns() - context.started_ns)


def _read_wanted(request: pb.ModelInferRequest, tower: LoadedModel, *, labelled: bool = False) -> _Wanted:
    """Read outputs and parameters.

    Args:
        request: The caller's.
        tower: Which computes.
        labelled: Whether there are labels, so that there are scores: alone where no output is named.

    Raises:
        InvalidInput: Something cannot be read, or there is no such output.
        NotPossible: The model has no such vectors.
    """
    places = read_places(request.outputs)
    attention = read_attention(request.parameters, list(places))
    hidden_states = read_hidden_states(request.parameters, list(places))
    relevance = read_relevance(request.parameters, list(places))
    if relevance and labelled:
        raise InvalidInput("relevance", f"beside {LABELS}", "none: a classifier's own labels are explained")
    ordinary = tuple(name for name in places if not name.startswith(FURTHER_PREFIXES))
    made = [name for name in (SCORES if labelled else "", kept_name(tower)) if name]  # of the graph's outputs
    ordinary = tuple(name for name in ordinary if name not in made)
    outputs: tuple[str, ...] = ()
    if ordinary or not (places or labelled):
        outputs = choose_outputs(tower, ordinary, _name_beside(request, tower, made))
    has_logits = any(spec.name == LOGITS for spec in tower.contract.outputs)
    explained = (LOGITS,) if relevance and has_logits else ()
    if explained:
        outputs = tuple(name for name in outputs if name == LOGITS)
    if vectors := read_vector_request(request.parameters):
        check_vectors(vectors, tower, outputs)
    kept = kept_name(tower) if kept_name(tower) in places or not (places or relevance) else ""
    late = (tower.contract.late.output,) if tower.contract.late and kept else ()
    computed = tuple(dict.fromkeys((*outputs, *late, *explained)))
    placed = frozenset(name for name, place in places.items() if place is not None)
    return _Wanted(places, outputs, attention, hidden_states, relevance, vectors, kept, computed, placed)


def _name_beside(request: pb.ModelInferRequest, tower: LoadedModel, made: Sequence[str]) -> str:
    """Say what can be asked for besides outputs of the graph."""
    others = f"; or {', '.join(made)}" if made else ""
    if writes_of(tower, [tensor.name for tensor in request.inputs]):
        others += f"; or, with none of these, {', '.join(OUTPUTS)} of the text that it writes"
    return others


def _name(found: InferenceResponse, wanted: _Wanted, candidates: Candidates | None, *, query: bool) -> Arrays:
    """Make all outputs, by name."""
    arrays, outputs = dict[str, Array](), found.outputs
    for name in wanted.outputs:
        arrays[name] = outputs[name]
    if candidates and (SCORES in wanted.places or not wanted.places):
        (vector,) = vector_outputs(found.model)
        arrays[SCORES] = score(outputs[vector], candidates).astype(np.float32)
    if wanted.kept:
        arrays[wanted.kept] = mark_kept(found, query=query)
    if found.plan is not None:
        named = [name for name in wanted.places if name.startswith(FURTHER_PREFIXES)]
        arrays |= {**name_attention(found, named), **name_states(found, named), **name_relevance(found, named)}
    if wanted.vectors:
        arrays |= name_vectors(found, wanted.vectors)
    return arrays
