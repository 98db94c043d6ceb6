"""Reads real inputs, to calibrate a quantised graph with and to measure its accuracy on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
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


class _LineError(Exception):
    """A line that cannot be read; the message begins with its number."""


@dataclass(frozen=True)
class _Line:
    """A text of a file, and the number of its line, from 1."""

    number: int
    text: str

    def read(self, read: Callable[[str], Tokens]) -> Tokens:
        """Tokenise it, or say which line cannot be."""
        try:
            return read(self.text)
        except InputError as error:
            raise _LineError(f", line {self.number}: {error}") from error


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
        lines = _find_lines(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        number = 1 + error.object.count(b"\n", 0, error.start)
        raise SampleError(f"--samples: {path}, line {number}: not UTF-8: {error.reason}") from error
    try:
        texts = _read_late(lines, source) if source.late else _read_lines(lines, source)
    except _LineError as error:
        raise SampleError(f"--samples: {path}{error}") from error
    return [{spec.name: _fill(spec, tokens) for spec in source.traits.inputs} for tokens in texts]


def _find_lines(content: str) -> list[_Line]:
    """Lines that are not empty, as read_text gives them: CR and CR LF have become LF."""
    return [_Line(number, line) for number, line in enumerate(content.split("\n"), start=1) if line.strip()]


def _read_lines(lines: Sequence[_Line], source: Source) -> list[Tokens]:
    """Tokenise a text or a pair a line, with what the model puts before texts by default."""
    assert source.tokenizer_file  # noqa: S101 -- as _read_texts says
    reader = TextReader(source.tokenizer_file, source.token_limit, source.pad_token)
    prompt = "" if source.pairs else _default_prompt(source)
    read = partial(reader.read, truncate=True, max_bytes=_MAX_BYTES, prompt=prompt)
    return [line.read(lambda text: read(*_split(text, source))) for line in lines]


def _read_late(lines: Sequence[_Line], source: Source) -> list[Tokens]:
    """Tokenise each line as a document and as a query: two of these, two of those, as every other one calibrates."""
    assert source.late and source.tokenizer_file  # noqa: S101 -- as _read_texts says
    reader, prompt = LateReader(source.tokenizer_file, source.late), _default_prompt(source)
    return [
        line.read(partial(reader.read, query=query, truncate=True, max_bytes=_MAX_BYTES, prompt=prompt))
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
