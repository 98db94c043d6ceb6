"""The command `regard align`: which patch of a photo answers to which word of a text."""

import dataclasses
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text

from regard.alignment import Alignment
from regard.client import Client
from regard.console import (
    PICTURE_SUFFIXES,
    JsonOption,
    ModelOption,
    Terminal,
    TruncateOption,
    check_output,
    choose_both,
    print_json,
    tell_cut,
    tell_written,
)
from regard.sources import InputError, read_source
from regard.terminal import clean

PhotoArgument = Annotated[str, typer.Argument(metavar="PHOTO", help="A JPEG, PNG or WebP file, or - for stdin.")]
WordsArgument = Annotated[str, typer.Argument(metavar="TEXT", help="What is compared with it: a text, or a text file.")]
OutputOption = Annotated[
    Path | None, typer.Option("-o", "--output", help="Picture of each word's map: .png, .svg or .pdf (default: none).")
]


def align(
    context: typer.Context,
    photo: PhotoArgument,
    text: WordsArgument,
    output: OutputOption = None,
    model: ModelOption = "",
    truncate: TruncateOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show which patch of a photo answers to which word of a text, by two towers: a table; a picture with -o."""
    check_output(output, PICTURE_SUFFIXES)
    seen, words = read_source(photo), read_source(text)
    if seen.image is None:
        raise InputError(f"{seen.title}: a text; expected a photo")
    if words.text is None:
        raise InputError(f"{words.title}: a photo; expected a text")
    client: Client = context.obj
    name = model or choose_both(client, aligns=True).name
    found = client.align(image=seen.image, text=words.text, model=name, truncate=truncate)
    if found.truncated:
        tell_cut(words, found.model)
    if as_json:
        print_json(dataclasses.asdict(found))
    else:
        Terminal().print(_table(found))
    if output is not None:
        _draw(output, found, seen.image)


def _table(found: Alignment) -> Table:
    """Name the best patch of each word, counted from 0, with its cosine and the mean over all patches."""
    table = Table("word", "best patch", "cosine", "mean", box=None, header_style="bold")
    table.add_row("the whole text", *_best(found, found.text_similarities))
    for token, row in zip(found.tokens, found.similarities, strict=True):
        if not token.special:
            table.add_row(Text(clean(token.text)), *_best(found, row))
    return table


def _best(found: Alignment, row: NDArray[np.float32]) -> tuple[str, str, str]:
    line, column = divmod(int(row.argmax()), found.patches.cols)
    return f"row {line}, column {column}", f"{row.max():.4f}", f"{row.mean():.4f}"


def _draw(output: Path, found: Alignment, photo: bytes) -> None:
    from regard import pictures  # matplotlib takes half a second that the other commands need not spend

    pictures.save(pictures.word_maps(pictures.open_photo(photo), found), output)
    tell_written(output)
