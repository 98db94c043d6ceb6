"""The command `regard compare`: how similar two inputs are, and which tokens or patches make them so."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from regard.client import Client
from regard.comparison import Comparison, SimilarityRelevance
from regard.console import (
    PICTURE_SUFFIXES,
    JsonOption,
    ModelOption,
    Terminal,
    TruncateOption,
    check_output,
    choose,
    choose_both,
    print_json,
    tell_cut,
    tell_written,
)
from regard.explaining import why_table
from regard.reasons import similarity_headline, strongest_pairs
from regard.sources import InputError, Source, read_source
from regard.terminal import clean

_MOST_PAIRS = 20

InputArgument = Annotated[str, typer.Argument(metavar="INPUT", help="A text, a text file, a photo, or - for stdin.")]
WithArgument = Annotated[str, typer.Argument(metavar="INPUT", help="What it is compared with, likewise.")]
WhyOption = Annotated[bool, typer.Option("--why", help="Say what each token or patch did for the similarity.")]
PairsOption = Annotated[
    bool, typer.Option("--pairs", help="Say which of one and which of the other did it together; takes longer.")
]
PairsOutputOption = Annotated[
    Path | None, typer.Option("-o", "--output", help="Picture of the pairs: .png, .svg or .pdf (default: none).")
]


def compare(
    context: typer.Context,
    first: InputArgument,
    second: WithArgument,
    why: WhyOption = False,
    pairs: PairsOption = False,
    output: PairsOutputOption = None,
    model: ModelOption = "",
    truncate: TruncateOption = False,
    as_json: JsonOption = False,
) -> None:
    """Say how similar two inputs are, and why: by token or patch, or by pairs of them; a picture with -o."""
    check_output(output, PICTURE_SUFFIXES)
    client: Client = context.obj
    given = [read_source(each) for each in (first, second)]
    name = model or _choose(client, given)
    one, other = (_content(source) for source in given)
    by_pairs = pairs or output is not None
    found = client.compare(one, other, why=why, pairs=by_pairs, model=name, truncate=truncate)
    for source, is_cut in zip(given, (found.first_truncated, found.second_truncated), strict=True):
        if is_cut:
            tell_cut(source, found.model)
    if (why or by_pairs) and found.relevance is None:
        raise InputError("the server sent no relevance; expected one that knows CompareRequest.relevance")
    if as_json:
        print_json(dataclasses.asdict(found))
    else:
        _print(found, sides=why, pairs=pairs)
    if output is not None and found.relevance is not None:
        _draw(output, found.relevance, found.model)


def _choose(client: Client, given: list[Source]) -> str:
    """Take the first model that can read both."""
    if len({source.modality for source in given}) > 1:
        return choose_both(client).name
    return choose(client, given[0], "embed").name


def _content(source: Source) -> str | bytes:
    if source.image is not None:
        return source.image
    if source.text is None:
        raise InputError(f"{source.title}: neither a text nor a photo; expected one of both")
    return source.text


def _print(found: Comparison, *, sides: bool, pairs: bool) -> None:
    """Print the similarity, then the positions of each input, then the strongest pairs."""
    terminal, why = Terminal(), found.relevance
    if why is None:
        terminal.print(f"similarity {found.similarity:.4f}")
        return
    terminal.print(Text(clean(similarity_headline(why)), "bold"), soft_wrap=True)
    for told in (why.first, why.second) if sides else ():
        terminal.print("", why_table(told), sep="\n")
    if pairs:
        terminal.print("", _pairs(why), sep="\n")


def _pairs(why: SimilarityRelevance) -> Table:
    table = Table.grid(padding=(0, 2))
    for first, second, value in strongest_pairs(why, _MOST_PAIRS):
        table.add_row(Text(clean(first)), Text(clean(second)), f"{value:+.4f}")
    return table


def _draw(output: Path, why: SimilarityRelevance, model: str) -> None:
    from regard import pictures  # matplotlib takes half a second that the other commands need not spend

    pictures.save(pictures.pair_matrix(why, model=model), output)
    tell_written(output)
