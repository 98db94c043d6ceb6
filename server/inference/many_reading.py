"""Reads several texts or images of one request, each of which has an answer or an error of its own."""

from collections.abc import AsyncIterator, Iterator, Mapping
from functools import partial

from artifact.images import Pixels
from artifact.text import Tokens
from server.context import RpcContext
from server.errors import InvalidInput
from server.inference.decoding import Decoders
from server.inference.image_rows import image_contract, measure_images, read_each_image
from server.inference.many_bounds import images_bytes, texts_bytes
from server.inference.preprocess import (
    InputLimits,
    find_prompt,
    prepare_images,
    prepare_texts,
    read_each_text,
    text_reader,
)
from server.inference.request import Audio, InferenceRequest, PreparedInput, Tensors, Texts
from server.repository.loading import LoadedModel

_PIECE_CHARACTERS = 2**16

Read = Tokens | Pixels | InvalidInput


async def read_each(
    request: InferenceRequest, limits: InputLimits, decoders: Decoders, context: RpcContext
) -> AsyncIterator[Mapping[int, Read]]:
    """Read the inputs of a request: texts all at once, images as many at a time as a batch has rows.

    Args:
        request: Of texts or images.
        limits: Of each, and of all.
        decoders: Where they are read.
        context: For whom, and by when.

    Yields:
        What was read by index, or why it cannot be used.

    Raises:
        NotPossible: The model takes something else.
        InvalidInput: Images are too large together; or the model has no such prompt.
        ServerError: As Decoders.run.
    """
    model, inputs = request.model, request.inputs
    assert not isinstance(inputs, (Tensors, Audio))  # noqa: S101 -- which have one answer
    if isinstance(inputs, Texts):
        text_reader(model, inputs)
        prompt = find_prompt(model, inputs)
        context.account.reserve(input=texts_bytes(model, inputs, prompt, positions=request.tells_positions))
        yield await _read_texts(request, inputs, limits, decoders, context)
        return
    contract = image_contract(model)
    context.account.reserve(input=images_bytes(model, min(len(inputs), limits.rows)))
    measured = await measure_images(inputs.contents, limits, decoders, context)
    for first in range(0, len(measured), limits.rows):
        found = dict(list(enumerate(measured))[first : first + limits.rows])
        failed = {number: size for number, size in found.items() if isinstance(size, InvalidInput)}
        sizes = {number: size for number, size in found.items() if isinstance(size, int)}
        contents = {number: inputs.contents[number] for number in sizes}
        rows = await read_each_image(contents, sizes, contract, limits, decoders, context) if sizes else []
        yield {**failed, **dict(zip(sizes, rows, strict=True))}


async def _read_texts(
    request: InferenceRequest, inputs: Texts, limits: InputLimits, decoders: Decoders, context: RpcContext
) -> Mapping[int, Read]:
    read = partial(read_each_text, request.model, inputs, limits=limits, positions=request.tells_positions)
    jobs = [(partial(read, rows), 0) for rows in pieces(inputs, len(find_prompt(request.model, inputs)))]
    return dict(enumerate(row for part in await decoders.run(jobs, context) for row in part))


def pieces(inputs: Texts, prompt_characters: int) -> Iterator[list[int]]:
    """Cut texts into pieces of some 64 KiB, of a single longer text at most: others are tokenised between them."""
    piece, size = list[int](), 0
    for number, own in enumerate(inputs.sizes):
        characters = own + prompt_characters
        if piece and size + characters > _PIECE_CHARACTERS:
            yield piece
            piece, size = [], 0
        piece.append(number)
        size += characters
    yield piece


def count_inputs(request: InferenceRequest) -> int:
    """How many texts or images a request has."""
    assert not isinstance(request.inputs, Tensors)  # noqa: S101 -- which have one answer
    return len(request.inputs)


def prepare_one(model: LoadedModel, row: Tokens | Pixels) -> PreparedInput:
    """Make the input of one text or image, [1, ...]."""
    return prepare_texts(model, [row]) if isinstance(row, Tokens) else prepare_images(model, [row])
