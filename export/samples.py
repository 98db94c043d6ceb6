"""Reads real inputs, to calibrate a quantised graph with and to measure its accuracy on."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from artifact.errors import InputError
from artifact.images import ImageLimits, read_image
from artifact.late_interaction import LateReader
from artifact.text import TextReader, Tokens
from export.errors import SampleError
from export.sources import Source
from export.traits import Feed, InputSpec

_MIN_INPUTS = 8
_MAX_BYTES = 2**20


def read_samples(path: Path, source: Source) -> list[Feed]:
    """Read inputs and preprocess them as the server does.

    Args:
        path: A text file with one text a line, or a folder of images, whichever the network takes.
        source: The network.

    Raises:
        SampleError: The path is of the other kind, holds too little, or something in it cannot be read.
    """
    is_text = source.traits.is_text or source.traits.is_full_length
    if not (path.is_file() if is_text else path.is_dir()):
        expected = "a text file, one text a line" if is_text else "a folder of images"
        raise SampleError(f"--samples: {path}: expected {expected}, since {source.name} takes those")
    feeds = _read_texts(path, source) if is_text else _read_images(path, source)
    if len(feeds) < _MIN_INPUTS:
        raise SampleError(f"--samples: {path}: {len(feeds)} inputs; expected at least {_MIN_INPUTS}")
    return feeds


def _read_texts(path: Path, source: Source) -> list[Feed]:
    if source.tokenizer_file is None:
        raise SampleError(f"--samples: {source.name} has no tokenizer; expected one in its folder")
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise SampleError(f"--samples: {path}: not UTF-8: {error.reason} at byte {error.start}") from error
    try:
        texts = _read_late(lines, source) if source.late else _read_lines(lines, source)
    except InputError as error:
        raise SampleError(f"--samples: {path}: {error}") from error
    return [{spec.name: _fill(spec, tokens) for spec in source.traits.inputs} for tokens in texts]


def _read_lines(lines: Sequence[str], source: Source) -> list[Tokens]:
    """Tokenise a text or a pair a line, with what the model puts before texts by default."""
    assert source.tokenizer_file  # noqa: S101 -- as _read_texts says
    reader = TextReader(source.tokenizer_file, source.token_limit, source.pad_token)
    prompt = "" if source.pairs else _default_prompt(source)
    return [reader.read(*_split(line, source), truncate=True, max_bytes=_MAX_BYTES, prompt=prompt) for line in lines]


def _read_late(lines: Sequence[str], source: Source) -> list[Tokens]:
    """Tokenise each line as a document and as a query: two of these, two of those, as every other one calibrates."""
    assert source.late and source.tokenizer_file  # noqa: S101 -- as _read_texts says
    reader, prompt = LateReader(source.tokenizer_file, source.late), _default_prompt(source)
    return [
        reader.read(line, query=query, truncate=True, max_bytes=_MAX_BYTES, prompt=prompt)
        for start in range(0, len(lines), 2)
        for query in (False, True)
        for line in lines[start : start + 2]
    ]


def _default_prompt(source: Source) -> str:
    return source.prompts.get(source.default_prompt, "")


def _split(line: str, source: Source) -> list[str]:
    """Return a text, or the two of a pair, which a tab stands between."""
    return line.split("\t", 1) if source.pairs else [line]


def _fill(spec: InputSpec, tokens: Tokens) -> NDArray[np.int64]:
    """Make an input of one text, or pair: int64 [1, N]."""
    if spec.token_types:
        types = tokens.types if tokens.types is not None else np.zeros_like(tokens.ids)
        return types[None]
    if spec.mask:
        return (np.arange(len(tokens.ids)) < len(tokens.ids) - tokens.unattended).astype(np.int64)[None]
    return tokens.ids[None]


def _read_images(path: Path, source: Source) -> list[Feed]:
    if source.image is None:
        raise SampleError(f"--samples: {source.name} takes no images; expected another network")
    feeds = []
    for file in sorted(entry for entry in path.iterdir() if entry.is_file()):
        try:
            pixels = read_image(file.read_bytes(), source.image, ImageLimits())
        except InputError as error:
            raise SampleError(f"--samples: {file}: {error}") from error
        feeds.append({source.traits.inputs[0].name: pixels.values[None]})
    return feeds
