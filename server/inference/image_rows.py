"""Decodes a request's images: looks at every header first, then at each image when its turn comes."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

from artifact.contract import ImageContract
from artifact.errors import InputError
from artifact.images import OpenedImage, Pixels, decode_image, open_image, read_image
from server.context import RpcContext
from server.errors import InvalidInput
from server.inference.decoding import LARGE_PIXELS, Decoders
from server.inference.preprocess import InputLimits, told
from server.inference.refusals import takes_no
from server.repository.loading import LoadedModel

_EXPECTED_SECONDS = 20e-9  # a pixel takes 10 of JPEG, 22 of progressive JPEG, up to 35 of PNG and 60 of WebP


def image_contract(model: LoadedModel) -> ImageContract:
    """Say how a model's images are preprocessed.

    Raises:
        NotPossible: It takes something else.
    """
    contract = model.contract
    if contract.image is None or contract.patches is None:
        raise takes_no(model, "image")
    return contract.image


async def read_images(
    contents: Sequence[bytes], contract: ImageContract, limits: InputLimits, decoders: Decoders, context: RpcContext
) -> list[Pixels]:
    """Decode image files; small ones at once, each large one or one of many as a job of its own.

    Args:
        contents: The files.
        contract: How to preprocess.
        limits: Looked at before anything is decoded.
        decoders: Where that is done.
        context: For whom, and by when.

    Raises:
        InvalidInput: One cannot be used, or they are too large together.
        TooBusy: The client has used its quota.
        DeadlinePassed: Before all were decoded.
        ShuttingDown: The server is stopping.
    """
    ((sizes, rows),) = await decoders.run([(partial(_open, contents, contract, limits), 0)], context)
    if rows:
        return rows
    reserved, quota = sum(sizes) * _EXPECTED_SECONDS, context.caller.quota
    quota.reserve(reserved, context.decoding_seconds)
    try:
        jobs = [(partial(_read, contents, number, contract, limits), size) for number, size in enumerate(sizes)]
        return await decoders.run(jobs, context)
    finally:
        quota.charge(reserved, 0.0)  # each was charged for what it took


def _open(contents: Sequence[bytes], contract: ImageContract, limits: InputLimits) -> tuple[list[int], list[Pixels]]:
    """Tell how many pixels each has; those that are small together are decoded already."""
    sizes, small = list[int](), list[OpenedImage]()
    for number, content in enumerate(contents):
        with _naming(contents, number):
            opened = open_image(content, limits.image)
        sizes.append(opened.decoded_pixels)
        if sum(sizes) <= LARGE_PIXELS:
            small.append(opened)
    if sum(sizes) > limits.request_pixels:
        expected = f"at most {limits.request_pixels} in a request (the server's --max-request-pixels)"
        raise InvalidInput("image", f"{sum(sizes)} pixels in {len(contents)} images", expected)
    rows = list[Pixels]()
    for number, opened in enumerate(small if len(small) == len(contents) else ()):
        with _naming(contents, number):
            rows.append(decode_image(opened, contract, limits.image))
    return sizes, rows


def _read(contents: Sequence[bytes], number: int, contract: ImageContract, limits: InputLimits) -> Pixels:
    with _naming(contents, number):
        return read_image(contents[number], contract, limits.image)


async def measure_images(
    contents: Sequence[bytes], limits: InputLimits, decoders: Decoders, context: RpcContext
) -> list[int | InvalidInput]:
    """Look at the headers of images that have an answer each: how many pixels each has, or why it cannot be used.

    Raises:
        InvalidInput: They are too large together.
        ServerError: As by read_images.
    """

    def measure() -> list[int | InvalidInput]:
        return [told("images", number, partial(_pixels, content, limits)) for number, content in enumerate(contents)]

    (sizes,) = await decoders.run([(measure, 0)], context)
    pixels = sum(size for size in sizes if isinstance(size, int))
    if pixels > limits.request_pixels:
        expected = f"at most {limits.request_pixels} in a request (the server's --max-request-pixels)"
        raise InvalidInput("images", f"{pixels} pixels in {len(contents)} images", expected)
    return sizes


async def read_each_image(
    contents: Mapping[int, bytes],
    sizes: Mapping[int, int],
    contract: ImageContract,
    limits: InputLimits,
    decoders: Decoders,
    context: RpcContext,
) -> list[Pixels | InvalidInput]:
    """Decode images that have an answer each, as read_images does; one that cannot be decoded is an error of its own.

    Args:
        contents: The files, by their index in the request.
        sizes: Their pixels, likewise.
        contract: How to preprocess.
        limits: Looked at before anything is decoded.
        decoders: Where that is done.
        context: For whom, and by when.
    """

    def read(numbers: Sequence[int]) -> list[Pixels | InvalidInput]:
        return [told("images", one, partial(read_image, contents[one], contract, limits.image)) for one in numbers]

    together = sum(sizes.values()) <= LARGE_PIXELS
    jobs = [(list(contents), 0)] if together else [([one], sizes[one]) for one in contents]
    reserved, quota = sum(sizes.values()) * _EXPECTED_SECONDS, context.caller.quota
    quota.reserve(reserved, context.decoding_seconds)
    try:
        read_parts = await decoders.run([(partial(read, numbers), pixels) for numbers, pixels in jobs], context)
        return [row for part in read_parts for row in part]
    finally:
        quota.charge(reserved, 0.0)  # each was charged for what it took


def _pixels(content: bytes, limits: InputLimits) -> int:
    return open_image(content, limits.image).decoded_pixels


@contextmanager
def _naming(contents: Sequence[bytes], number: int) -> Iterator[None]:
    """Say which of several images cannot be used."""
    try:
        yield
    except InputError as error:
        field = error.field if len(contents) == 1 else f"{error.field}[{number}]"
        raise InvalidInput(field, error.value, error.expected) from error
