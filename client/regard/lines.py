"""Texts from a file of lines: read for the command line, and asked in calls of a size that suits a server."""

import codecs
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Annotated, TypeVar

import typer

from regard.answers import Answers
from regard.errors import RegardError
from regard.sources import InputError, Source, open_file
from regard.terminal import clean

_INPUTS, _BYTES = 64, 4 * 2**20  # of a call, at most: more make no text cheaper
_EXPECTED = "a file of texts, one a line"
_LINE_ENDS = re.compile(rb"\r\n|\n|\r")
Answer = TypeVar("Answer")

LinesOption = Annotated[bool, typer.Option("--lines", help="Take each line of a file, or of stdin, for a text.")]


def read_lines(argument: str) -> list[Source]:
    """Read a file of texts, one a line; lines with nothing but white space are left out.

    Lines end as editors count them, at LF, CR LF or CR: other marks (a form feed, U+2028) are of the text.

    Raises:
        InputError: It is not UTF-8, or has no text in it.
        OSError: It cannot be read.
    """
    return list(each_line(argument))


def each_line(argument: str) -> Iterator[Source]:
    """Yield what `read_lines` returns one by one, so that a file or a stream may be of any length.

    Raises:
        InputError: As `read_lines`, when the line is reached.
        OSError: It cannot be read.
    """
    if argument == "-" and sys.stdin is None:
        raise InputError("-: stdin is closed; expected texts there, one a line")
    where, number, is_empty = "stdin" if argument == "-" else argument, 0, True
    with nullcontext(sys.stdin.buffer) if argument == "-" else open_file(argument, "--lines", _EXPECTED) as file:
        for chunk in file:  # ends at LF; CR alone ends lines too
            chunk = chunk.removeprefix(codecs.BOM_UTF8) if number == 0 else chunk
            for line in _lines_of(chunk):
                number += 1
                if line.strip() and (source := _read_line(line, where, number)).name.strip():
                    is_empty = False
                    yield source
    if is_empty:
        raise InputError(f"{where}: no text in it; expected texts, one a line")


def _lines_of(chunk: bytes) -> list[bytes]:
    lines = _LINE_ENDS.split(chunk)
    return lines if lines[-1] else lines[:-1]


def _read_line(line: bytes, where: str, number: int) -> Source:
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        fault = f"{error.reason} at byte {error.start}"
        raise InputError(f"{where}, line {number}: not UTF-8, {fault}; expected texts in UTF-8") from error
    return Source(text, None, text, file=where, number=number)


def parts(sources: Sequence[Source], max_inputs: int) -> Iterator[list[Source]]:
    """Cut texts into calls, none with more than so many, or than 4 MiB unless it is a single text."""
    part, size = list[Source](), 0
    for source in sources:
        size += len((source.text or "").encode())
        if part and (len(part) == min(max_inputs, _INPUTS) or size > _BYTES):
            yield part
            part, size = [], len((source.text or "").encode())
        part.append(source)
    yield part


def ask_each(
    sources: Sequence[Source], max_inputs: int, ask: Callable[[list[str]], Answers[Answer]]
) -> Iterator[tuple[Source, Answer]]:
    """Ask for texts in several calls; one that has an error is told on stderr, and ends the command with 1.

    Args:
        sources: Texts.
        max_inputs: Most of them in a call, by the server.
        ask: Makes a call.

    Raises:
        InputError: The server takes one text a call.
    """
    if not max_inputs:
        raise InputError("--lines: this server takes a single text a call; expected one that is newer")
    failed = False
    for part in parts(sources, max_inputs):
        answers = ask([source.text or "" for source in part])
        for source, one in zip(part, answers.each, strict=True):
            if isinstance(one, RegardError):
                typer.echo(f"regard: {clean(source.place)}: {one}", err=True)
                failed = True
            else:
                yield source, one
    if failed:
        raise typer.Exit(1)
