"""Writes the one input of a request: images, texts, pairs of texts or arrays."""

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from regard import checks
from regard.errors import InvalidCall, UnreadableFile
from regard.tensors import write_tensor
from regard.v1 import types_pb2 as pb

ImageSource = bytes | str | os.PathLike[str]
"""A JPEG, PNG or WebP file: its bytes, or its path."""
TextOrImage = str | bytes | os.PathLike[str]
"""A text, or an image: its bytes, or its path as a `pathlib.Path`."""
Pair = tuple[str, str]
"""Two texts that are one input."""
AudioSource = bytes | str | os.PathLike[str]
"""A WAV or FLAC file: its bytes, or its path."""


def write_input(**inputs: Any) -> dict[str, Any]:
    """Return the field of the one input that is given.

    Raises:
        InvalidCall: None is, or several are; or it cannot be sent.
    """
    given = [(name, value) for name, value in inputs.items() if value is not None]
    if len(given) != 1:
        got = " and ".join(name for name, _ in given) or "none"
        raise InvalidCall.of(f"{', '.join(inputs)}: give exactly one of them; got {got}")
    ((name, value),) = given
    field = "tensors" if name == "inputs" else name
    return {field: _WRITERS[name](value)}


def _text(text: Any) -> str:
    if isinstance(text, list | tuple):
        raise checks.invalid("text", text, "a str; embed_many and classify_many take several, as texts")
    return checks.text("text", text)


def read_pair(field: str, pair: Any) -> Pair:
    """Return both texts.

    Raises:
        InvalidCall: It is no pair of texts.
    """
    if not isinstance(pair, list | tuple) or len(pair) != 2:
        raise checks.invalid(field, pair, "two texts, as a tuple")
    first, second = checks.texts(field, pair)
    return first, second


def _pair(field: str, pair: Any) -> pb.TextPair:
    first, second = read_pair(field, pair)
    return pb.TextPair(first=first, second=second)


def _pairs(pairs: Any) -> pb.TextPairs:
    expected = "a list of pairs of texts"
    items = checks.items("pairs", pairs, expected)
    return pb.TextPairs(items=[_pair(f"pairs[{number}]", pair) for number, pair in enumerate(items)])


def _images(images: Any) -> pb.Images:
    expected = "a list of files, each as bytes or as a path"
    if isinstance(images, str | bytes | os.PathLike):
        raise checks.invalid("images", images, expected)
    items = checks.items("images", images, expected)
    return pb.Images(items=[read_file(f"images[{number}]", image) for number, image in enumerate(items)])


def read_audio(audio: AudioSource) -> bytes:
    """Return the bytes of a sound file.

    Raises:
        InvalidCall: They are none, or the file cannot be read.
    """
    content = read_file("audio", audio)
    if not content:
        raise checks.invalid("audio", content, "a WAV or FLAC file with something in it")
    return content


def read_file(field: str, file: ImageSource | AudioSource) -> bytes:
    """Return the bytes of a file, which are given themselves or by its path.

    Raises:
        InvalidCall: They are neither, or the file cannot be read.
    """
    if isinstance(file, bytes):
        return file
    if not isinstance(file, str | os.PathLike):
        raise checks.invalid(field, file, "the bytes of a file, or its path")
    try:
        return Path(file).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte or half of a surrogate pair
        reason = error.strerror if isinstance(error, OSError) else error
        raise UnreadableFile.of(f"{field}: {checks.describe(str(file))}: {reason}; expected a file's path") from error


def write_tensors(inputs: Mapping[str, NDArray[Any]]) -> dict[str, pb.Tensor]:
    """Write arrays by input name.

    Raises:
        InvalidCall: They are none.
    """
    if not isinstance(inputs, Mapping):
        raise checks.invalid("inputs", inputs, "a dict of arrays by input name")
    return {name: write_tensor(name, array) for name, array in inputs.items()}


_WRITERS: dict[str, Callable[[Any], Any]] = {
    "image": partial(read_file, "image"),
    "images": _images,
    "text": _text,
    "texts": lambda texts: pb.Texts(items=checks.texts("texts", texts)),
    "pair": partial(_pair, "pair"),
    "pairs": _pairs,
    "inputs": lambda inputs: pb.TensorMap(tensors=write_tensors(inputs)),
}
