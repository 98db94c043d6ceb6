"""Turns what callers send into inputs for the graphs."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import numpy as np

from artifact.contract import BATCH_AXIS, NUMBER_BYTES, SEQUENCE_AXIS, TensorContract
from artifact.dtypes import Array, dtype_of
from artifact.errors import InputError
from artifact.images import ImageLimits, Pixels
from artifact.text import TextReader, Tokens
from server.errors import InvalidInput, NotPossible, refusing_inputs
from server.inference.refusals import takes_no
from server.inference.request import InferenceRequest, PreparedInput, Tensors, Texts
from server.inference.sound import AudioLimits, Sound
from server.inference.validation import check_inputs, check_values
from server.repository.loading import LoadedModel

Row = TypeVar("Row", Tokens, Pixels)
Made = TypeVar("Made")


@dataclass(frozen=True)
class InputLimits:
    """Most of what a request may bring.

    Attributes:
        rows: In one request.
        text_bytes: Of one text, in UTF-8.
        image: Of one image.
        request_pixels: Of all images of a request.
        inputs: Texts or images of one request that have an answer each.
        audio: Of one sound.
    """

    rows: int
    text_bytes: int
    image: ImageLimits
    request_pixels: int
    inputs: int = 256
    audio: AudioLimits = field(default_factory=AudioLimits)


def check_number(field: str, count: int, max_inputs: int) -> None:
    """Refuse none of something that has an answer each, or too many.

    Raises:
        InvalidInput: They are.
    """
    if not 1 <= count <= max_inputs:
        raise InvalidInput(field, f"{count} of them", f"1 to {max_inputs} (the server's --max-inputs)")


def preprocess(request: InferenceRequest, limits: InputLimits) -> PreparedInput:
    """Turn texts or a caller's arrays into inputs for the graphs, checked against the contract.

    Raises:
        NotPossible: The model takes something else.
        InvalidInput: A text or an array cannot be used.
    """
    model, inputs = request.model, request.inputs
    if isinstance(inputs, Tensors):
        return prepare_arrays(model, inputs, limits)
    assert isinstance(inputs, Texts)  # noqa: S101 -- images go their own way
    return prepare_texts(model, read_texts(model, inputs, range(len(inputs)), limits))


def read_texts(model: LoadedModel, inputs: Texts, rows: Iterable[int], limits: InputLimits) -> list[Tokens]:
    """Tokenise some of the texts of a request.

    Raises:
        NotPossible: The model takes something else.
        InvalidInput: A text cannot be used.
    """
    text_reader(model, inputs)
    prompt = find_prompt(model, inputs)
    read = partial(_read, model, inputs, max_bytes=limits.text_bytes, prompt=prompt, positions=True)
    with refusing_inputs():
        return [read(row) for row in rows]


def read_each_text(
    model: LoadedModel, inputs: Texts, rows: Sequence[int], limits: InputLimits, *, positions: bool
) -> list[Tokens | InvalidInput]:
    """Tokenise some of the texts of a request that have an answer each; one that cannot be used is an error of its own.

    Args:
        model: Of texts.
        inputs: All of the request.
        rows: Which of them.
        limits: Of each.
        positions: See TextReader.read.
    """
    text_reader(model, inputs)
    prompt = find_prompt(model, inputs)
    read = partial(_read, model, inputs, max_bytes=limits.text_bytes, prompt=prompt, positions=positions)
    return [told(inputs.field, row, partial(read, row), inputs.name(row)) for row in rows]


def _read(model: LoadedModel, inputs: Texts, row: int, *, max_bytes: int, prompt: str, positions: bool) -> Tokens:
    """Tokenise one row of a request's texts."""
    given, second = inputs.row(row)
    text = given if isinstance(given, str) else text_reader(model, inputs).text_of(given, max_bytes)
    if model.late_reader:
        read = partial(model.late_reader.read, text, query=row < inputs.queries)
    else:
        read = partial(text_reader(model, inputs).read, text, second)
    return read(truncate=inputs.truncate, max_bytes=max_bytes, prompt=prompt, positions=positions)


def told(field: str, number: int, read: Callable[[], Made], name: str = "") -> Made | InvalidInput:
    """Read one of several inputs; one that cannot be used is told, not raised."""
    try:
        return read()
    except InputError as error:
        part = error.field.removeprefix("pair") if field == "pairs" else ""
        return InvalidInput(f"{name or f'{field}[{number}]'}{part}", error.value, error.expected)


def text_reader(model: LoadedModel, inputs: Texts) -> TextReader:
    """Return what tokenises for a model.

    Raises:
        NotPossible: It takes something else.
    """
    if inputs.second and model.contract.text and not model.contract.text.pairs:
        raise NotPossible(f"pair: {model.name} takes single texts; expected a model with takes_pairs")
    if model.reader is None:
        raise takes_no(model, "text")
    return model.reader


def find_prompt(model: LoadedModel, inputs: Texts) -> str:
    """Return what is put before texts; before pairs nothing is.

    Raises:
        InvalidInput: The model has no prompt of that name.
    """
    contract = model.contract.text
    prompts = contract.prompts if contract else {}
    name = inputs.prompt or (contract.default_prompt if contract and not inputs.second else "")
    if name and name not in prompts:
        known = (
            f"{', '.join(prompts)}, the prompts of {model.name}" if prompts else f"none: {model.name} has no prompts"
        )
        raise InvalidInput("prompt", repr(name), known)
    return prompts.get(name, "")


def prepare_texts(model: LoadedModel, rows: Sequence[Tokens]) -> PreparedInput:
    """Make a text model's inputs of tokenised texts, padded to the longest."""
    longest = max(len(row.ids) for row in rows)
    return PreparedInput(_pad(model, rows, longest), len(rows), longest, _single(rows))


def _pad(model: LoadedModel, rows: Sequence[Tokens], longest: int) -> dict[str, Array]:
    """Make a text model's inputs, each [rows, longest]."""
    inputs = dict[str, Array]()
    for spec in model.contract.inputs:
        inputs[spec.name] = np.full((len(rows), longest), spec.pad_value, dtype=spec.dtype)
        for row, target in zip(rows, inputs[spec.name], strict=True):
            target[: len(row.ids)] = _numbers(spec, row)
    return inputs


def _numbers(spec: TensorContract, row: Tokens) -> Array | int:
    """What an input of a text model holds of a text, where it is no padding."""
    if spec.mask:
        return (np.arange(len(row.ids)) < len(row.ids) - row.unattended).astype(spec.dtype) if row.unattended else 1
    if spec.token_types:
        return 0 if row.types is None else row.types
    return row.ids


def prepare_images(model: LoadedModel, rows: Sequence[Pixels]) -> PreparedInput:
    """Make an image model's input of decoded images, [rows, channels, height, width]."""
    pixels = np.stack([row.values for row in rows]) if len(rows) > 1 else rows[0].values[None]  # a view
    return PreparedInput({model.contract.inputs[0].name: pixels}, len(rows), model.array_positions, _single(rows))


def prepare_sound(model: LoadedModel, sound: Sound) -> PreparedInput:
    """Make a model's input of a decoded sound, [1, bins, frames]."""
    return PreparedInput({model.contract.inputs[0].name: sound.values[None]}, 1, model.contract.positions, sound)


def prepare_arrays(model: LoadedModel, inputs: Tensors, limits: InputLimits) -> PreparedInput:
    """Check a caller's own arrays against the contract.

    Raises:
        InvalidInput: An array cannot be used.
    """
    contract = model.contract
    if inputs.is_shaped:
        checked = check_values(inputs.arrays, contract)
    else:
        checked = check_inputs(inputs.arrays, contract, limits.rows)
    if not model.is_batched:
        return PreparedInput(checked, rows=1, length=1)
    sizes = contract.axis_sizes(checked)
    length = sizes.get(SEQUENCE_AXIS) or model.array_positions
    return PreparedInput(checked, sizes[BATCH_AXIS], length, axis_sizes=sizes)


def choose_outputs(model: LoadedModel, wanted: tuple[str, ...], beside: str = "") -> tuple[str, ...]:
    """Check the names of outputs; none wanted means all.

    Args:
        model: Whose they are.
        wanted: The names.
        beside: What else the caller can ask for, for the error.

    Raises:
        InvalidInput: A name is unknown.
    """
    known = tuple(spec.name for spec in model.contract.outputs)
    for name in wanted:
        if name not in known:
            raise InvalidInput("outputs", repr(name), f"{', '.join(known)}, the outputs of {model.name}{beside}")
    return tuple(dict.fromkeys(wanted)) or known


def check_answer_size(request: InferenceRequest, prepared: PreparedInput, max_bytes: int) -> None:
    """Refuse outputs that no message may hold, before they are computed.

    Raises:
        InvalidInput: They are larger.
    """
    size_bytes = outputs_bytes(request, prepared)
    if size_bytes > max_bytes:
        expected = f"at most {max_bytes} (the server's --max-message-bytes): fewer outputs or rows"
        raise InvalidInput("outputs", f"an answer of {size_bytes} bytes", expected)


def check_scores_size(rows: int, labels: int, max_bytes: int) -> None:
    """Refuse more scores than a message holds, float32 of each row and label.

    Raises:
        InvalidInput: They are more.
    """
    if (size_bytes := rows * labels * NUMBER_BYTES) > max_bytes:
        expected = f"at most {max_bytes} (the server's --max-message-bytes): fewer labels or rows"
        raise InvalidInput("outputs", f"an answer of {size_bytes} bytes", expected)


def outputs_bytes(request: InferenceRequest, prepared: PreparedInput, *, computed: bool = False) -> int:
    """Size of the outputs that are sent in an answer; axes that nobody knows count as 1.

    Args:
        request: What is wanted.
        prepared: Its input.
        computed: As they are computed, sent or not, before vectors are cut and rounded.
    """
    contract = request.model.contract
    sizes, embedding = prepared.axis_sizes, contract.embedding
    if sizes is None:
        sizes = contract.axis_sizes(prepared.inputs)
    size_bytes = 0
    for spec in contract.outputs:
        if spec.name in request.outputs and (computed or spec.name not in request.unsent):
            if embedding and spec.name == embedding.output and not (computed or embedding.sparse):
                size_bytes += prepared.rows * request.vectors.row_bytes(embedding)
                continue
            output_bytes = dtype_of(spec.dtype).itemsize
            for axis in spec.axes:
                output_bytes *= axis if isinstance(axis, int) else sizes.get(axis, 1)
            size_bytes += output_bytes
    return size_bytes


def special_positions(model: LoadedModel, prepared: PreparedInput) -> Sequence[int] | None:
    """Return positions that are no part of the input, special or prefix tokens; None where only the caller knows."""
    if isinstance(prepared.source, Tokens):
        return [position for position, special in enumerate(prepared.source.special) if special]
    return range(model.contract.patches.prefix_tokens) if model.contract.patches else None


def pair_positions(prepared: PreparedInput) -> tuple[list[int], list[int]] | None:
    """Return the positions of each of two texts, special tokens left out; None where there is no pair."""
    source = prepared.source
    if not isinstance(source, Tokens) or not source.parts:
        return None
    first, second = ([place for place, part in enumerate(source.parts) if part == number] for number in (0, 1))
    return first, second


def _single(rows: Sequence[Row]) -> Row | None:
    """Return the row that is alone; positions of several are not told."""
    return rows[0] if len(rows) == 1 else None
