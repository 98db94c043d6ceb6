"""Turns what callers send into inputs for the graphs, checked against the contract; the services call it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artifact.contract import BATCH_AXIS, SEQUENCE_AXIS
from artifact.errors import InputError
from artifact.images import Pixels, read_image
from artifact.text import Tokens
from regard.v1 import types_pb2 as pb
from server.api.regard_v1.tensors import read_tensors
from server.errors import InvalidInput, NotPossible
from server.inference.validation import check_inputs
from server.repository.loading import LoadedModel

Array = NDArray[Any]


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


@contextmanager
def _invalid_input() -> Iterator[None]:
    """Blame the caller for what a text or an image is."""
    try:
        yield
    except InputError as error:
        raise InvalidInput(error.field, error.value, error.expected) from error


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
    with _invalid_input():
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
            wrong = f"byte {error.start}: 0x{content[error.start]:02x}"  # not the text: what is refused is logged
            raise InvalidInput(f"inputs[text][{index}]", wrong, f"UTF-8 ({error.reason})") from error
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
    with _invalid_input():
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


def special_positions(model: LoadedModel, prepared: Prepared) -> Sequence[int] | None:
    """Return positions that are no part of the input, special or prefix tokens; None where only the caller knows."""
    if isinstance(prepared.source, Tokens):
        return [position for position, special in enumerate(prepared.source.special) if special]
    return range(model.contract.patches.prefix_tokens) if model.contract.patches else None


def _positions(model: LoadedModel) -> int:
    patches = model.contract.patches
    return patches.prefix_tokens + patches.rows * patches.cols if patches else 1
