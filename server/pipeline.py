"""The way of one request behind the protocol: prepare, plan attention, compute, encode; the service calls it."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from regard.v1 import types_pb2 as pb
from server.artifacts import LoadedModel
from server.attention import AttentionLimits, AttentionPlan, plan_attention
from server.batching import Work, size_of
from server.cache import AnswerCache
from server.config import Config
from server.contract import BATCH_AXIS, SEQUENCE_AXIS
from server.device_measures import Weights
from server.errors import InvalidInput, NotPossible
from server.images import Pixels, read_image
from server.metrics import Metrics
from server.reduction import write_attention
from server.scheduler import DEFAULT_PRIORITY, Computed, Scheduler
from server.tensors import check_inputs, read_tensors
from server.text import Tokens

Array = NDArray[Any]
Result = TypeVar("Result")

_ENCODE_HERE_BYTES = 64 * 2**10


@dataclass(frozen=True, eq=False)
class Prepared:
    """A request's input, ready for the graphs.

    Attributes:
        inputs: By input name, each [rows, ...].
        rows: Rows of each.
        length: Positions of a row: tokens, or patches and class token.
        source: What the positions came from; None where the caller made the inputs.
    """

    inputs: Mapping[str, Array]
    rows: int
    length: int
    source: Tokens | Pixels | None = None

    @property
    def truncated(self) -> bool:
        """Whether a text was cut."""
        return isinstance(self.source, Tokens) and self.source.truncated


@dataclass(frozen=True)
class Urgency:
    """When an answer is wanted: by when, on time.monotonic() in seconds, and before whom (1 goes first)."""

    deadline: float | None = None
    priority: int = DEFAULT_PRIORITY


@dataclass(frozen=True, eq=False)
class Outcome:
    """What was computed for a request, to be encoded.

    Attributes:
        prepared: Its input.
        plan: What it wants of the attention; None for none.
        outputs: By name, each [rows, ...].
        attentions: By the tapped graph's output, float32 [rows, H, Q, K].
    """

    prepared: Prepared
    plan: AttentionPlan | None
    outputs: Mapping[str, Array]
    attentions: Mapping[str, Weights]


@dataclass(frozen=True, eq=False)
class Answer(Generic[Result]):
    """What was made of an outcome, and how long that took."""

    result: Result
    timings: pb.Timings


class Pipeline:
    """Runs requests: worker threads for decoding and encoding, the scheduler for computing."""

    def __init__(self, config: Config, scheduler: Scheduler, workers: Executor, metrics: Metrics) -> None:
        self._config = config
        self._scheduler = scheduler
        self._cache = AnswerCache(scheduler.submit, config.cache_bytes, metrics)
        self._workers = workers
        self._metrics = metrics

    async def run(
        self,
        model: LoadedModel,
        prepare: Callable[[], Prepared],
        outputs: tuple[str, ...],
        encode: Callable[[Outcome], Result],
        attention: pb.AttentionRequest | None,
        urgency: Urgency,
        *,
        here: bool,
    ) -> Answer[Result]:
        """Answer one request.

        Args:
            model: Which is asked.
            prepare: Decodes and checks the input.
            outputs: Names of the outputs wanted.
            encode: Makes the protocol's answer of what was computed.
            attention: What is wanted of the attention; None for none.
            urgency: When the answer is wanted.
            here: Whether to prepare on the event loop: below some size the way to a worker costs more.

        Raises:
            ServerError: As the steps raise it.
        """
        started_ns = time.perf_counter_ns()
        try:
            with model.usage.request():
                return await self._run(model, prepare, outputs, encode, attention, urgency, started_ns, here=here)
        except BaseException:
            self._metrics.observe_failure(model.name, model.version, time.perf_counter_ns() - started_ns)
            raise

    async def _run(
        self,
        model: LoadedModel,
        prepare: Callable[[], Prepared],
        outputs: tuple[str, ...],
        encode: Callable[[Outcome], Result],
        attention: pb.AttentionRequest | None,
        urgency: Urgency,
        started_ns: int,
        *,
        here: bool,
    ) -> Answer[Result]:
        prepared = prepare() if here else await self._in_worker(prepare)
        plan = self._plan(model, prepared, attention)
        decoded_ns = time.perf_counter_ns()
        graph, wanted = model.engine.plain, plan.outputs if plan else ()
        if plan and (tapped := model.engine.contributing if plan.takes_contributions else model.engine.tapped):
            graph = tapped
        work = Work(graph, model.contract, prepared.inputs, prepared.rows, prepared.length, outputs, wanted)
        with model.usage.inputs(work.held_bytes):
            computed = await self._cache.compute(work, urgency.deadline, urgency.priority)
        encoding_ns = time.perf_counter_ns()
        outcome = Outcome(prepared, plan, computed.results.outputs, computed.results.attentions)
        result = await self._encode(lambda: encode(outcome), computed)
        timings = pb.Timings(
            decode_ns=decoded_ns - started_ns,
            queue_ns=computed.queue_ns,
            compute_ns=computed.compute_ns,
            encode_ns=time.perf_counter_ns() - encoding_ns,
            batch_size=computed.batch_size,
        )
        self._metrics.observe_answer(
            model.name,
            model.version,
            rows=prepared.rows,
            total_ns=time.perf_counter_ns() - started_ns,
            timings=timings,
            attention_bytes=plan.answer_bytes(prepared.rows) if plan else 0,
            cached=self._config.cache_bytes > 0,
        )
        return Answer(result, timings)

    async def encode_layers(
        self, outcome: Outcome, add: Callable[[], pb.LayerAttention]
    ) -> AsyncIterator[pb.LayerAttention]:
        """Make the entries of an attention answer one after the other, in a worker thread; see write_attention."""
        if outcome.plan is None:
            return
        layers = write_attention(outcome.plan, outcome.attentions, add, batched=outcome.prepared.source is None)
        while (layer := await self._in_worker(lambda: next(layers, None))) is not None:
            yield layer

    async def _in_worker(self, job: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._workers, job)

    async def _encode(self, job: Callable[[], Result], computed: Computed) -> Result:
        """Encode small answers here, large ones in a worker thread: below some size the way there costs more."""
        results = computed.results
        size_bytes = sum(size_of(array) for array in (*results.outputs.values(), *results.attentions.values()))
        return job() if size_bytes <= _ENCODE_HERE_BYTES else await self._in_worker(job)

    def _plan(
        self, model: LoadedModel, prepared: Prepared, attention: pb.AttentionRequest | None
    ) -> AttentionPlan | None:
        if attention is None:
            return None
        # A sixteenth of the message is left for everything but the weights.
        limits = AttentionLimits(self._config.max_message_bytes * 15 // 16, self._config.max_attention_bytes)
        return plan_attention(
            attention,
            model.contract,
            rows=prepared.rows,
            sizes=model.contract.axis_sizes(prepared.inputs),
            positions=prepared.length,
            limits=limits,
            special=_special(model, prepared),
        )


def prepare_text(model: LoadedModel, text: str, *, truncate: bool, max_bytes: int) -> Prepared:
    """Tokenise a text for a model.

    Raises:
        NotPossible: The model does not take text.
        InvalidInput: See TextReader.read.
    """
    if model.reader is None:
        raise NotPossible(
            f"text: {model.name} takes no text; expected an image"
            if model.contract.image
            else f"text: {model.name} takes tensors only; expected Predict"
        )
    tokens = model.reader.read(text, truncate=truncate, max_bytes=max_bytes)
    return Prepared(_pad_tokens(model, [tokens]), rows=1, length=len(tokens.ids), source=tokens)


def prepare_texts(model: LoadedModel, contents: Sequence[bytes], *, truncate: bool, max_bytes: int) -> Prepared:
    """Tokenise texts in UTF-8, padded to the longest.

    Raises:
        InvalidInput: One is not UTF-8, or see TextReader.read.
    """
    prepared = []
    for index, content in enumerate(contents):
        try:
            text = content.decode()
        except UnicodeDecodeError as error:
            raise InvalidInput(f"inputs[text][{index}]", f"{content[:20]!r}", f"UTF-8 ({error.reason})") from error
        prepared.append(prepare_text(model, text, truncate=truncate, max_bytes=max_bytes))
    if len(prepared) == 1:
        return prepared[0]
    tokens = [one.source for one in prepared if isinstance(one.source, Tokens)]
    return Prepared(_pad_tokens(model, tokens), rows=len(tokens), length=max(len(one.ids) for one in tokens))


def _pad_tokens(model: LoadedModel, rows: Sequence[Tokens]) -> dict[str, Array]:
    """Make a text model's inputs, padded to the longest row."""
    longest, inputs = max(len(row.ids) for row in rows), dict[str, Array]()
    for spec in model.contract.inputs:
        inputs[spec.name] = np.full((len(rows), longest), spec.pad_value, dtype=spec.dtype)
        for row, target in zip(rows, inputs[spec.name], strict=True):
            target[: len(row.ids)] = 1 if spec.mask else row.ids
    return inputs


def prepare_image(model: LoadedModel, content: bytes, *, max_pixels: int) -> Prepared:
    """Decode an image for a model.

    Raises:
        NotPossible: The model does not take images.
        InvalidInput: See read_image.
    """
    contract = model.contract
    if contract.image is None or contract.patches is None:
        raise NotPossible(
            f"image: {model.name} takes no images; expected a text"
            if contract.text
            else f"image: {model.name} takes tensors only; expected Predict"
        )
    pixels = read_image(content, contract.image, max_pixels)
    return Prepared({contract.inputs[0].name: pixels.values[None]}, 1, _positions(model), pixels)


def prepare_images(model: LoadedModel, contents: Sequence[bytes], *, max_pixels: int) -> Prepared:
    """Decode images for a model.

    Raises:
        InvalidInput: See read_image.
    """
    prepared = [prepare_image(model, content, max_pixels=max_pixels) for content in contents]
    if len(prepared) == 1:
        return prepared[0]
    name = model.contract.inputs[0].name
    pixels = np.concatenate([one.inputs[name] for one in prepared])
    return Prepared({name: pixels}, rows=len(prepared), length=prepared[0].length)


def prepare_tensors(model: LoadedModel, tensors: Mapping[str, pb.Tensor], max_batch_size: int) -> Prepared:
    """Check a caller's own tensors for a model.

    Raises:
        InvalidInput: See read_tensors and check_inputs.
    """
    return prepare_arrays(model, read_tensors(tensors, model.contract), max_batch_size)


def prepare_arrays(
    model: LoadedModel, arrays: Mapping[str, Array], max_batch_size: int, datatypes: Mapping[str, str] | None = None
) -> Prepared:
    """Check a caller's own arrays for a model.

    Args:
        model: Which is asked.
        arrays: By input name.
        max_batch_size: Most rows.
        datatypes: What the protocol calls a dtype, for messages.

    Raises:
        InvalidInput: See check_inputs.
    """
    contract = model.contract
    inputs = check_inputs(arrays, contract, max_batch_size, datatypes)
    if not contract.batched:
        return Prepared(inputs, rows=1, length=1)
    sizes = contract.axis_sizes(inputs)
    return Prepared(inputs, rows=sizes[BATCH_AXIS], length=sizes.get(SEQUENCE_AXIS) or _positions(model))


def choose_outputs(model: LoadedModel, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """Check the names of outputs; none wanted means all.

    Raises:
        InvalidInput: A name is unknown.
    """
    known = tuple(spec.name for spec in model.contract.outputs)
    for name in wanted:
        if name not in known:
            raise InvalidInput("outputs", repr(name), f"{', '.join(known)}, the outputs of {model.name}")
    return tuple(dict.fromkeys(wanted)) or known


def _special(model: LoadedModel, prepared: Prepared) -> Sequence[int] | None:
    """Positions that are no part of the input; None where only the caller knows."""
    if isinstance(prepared.source, Tokens):
        return [position for position, special in enumerate(prepared.source.special) if special]
    return range(model.contract.patches.prefix_tokens) if model.contract.patches else None


def _positions(model: LoadedModel) -> int:
    patches = model.contract.patches
    return patches.prefix_tokens + patches.rows * patches.cols if patches else 1
