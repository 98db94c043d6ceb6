"""The command `regard rank`: documents by how well they answer a query."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from regard.answers import Answers
from regard.attention import Token
from regard.client import Client
from regard.console import (
    PICTURE_SUFFIXES,
    JsonOption,
    ModelOption,
    Terminal,
    TruncateOption,
    check_output,
    choose,
    print_json,
    tell_cut,
    tell_written,
)
from regard.lines import LinesOption, ask_each, read_lines
from regard.scores import RankedDocument, Ranking, TokenMatches
from regard.sources import InputError, Source, read_source
from regard.terminal import clean

QueryArgument = Annotated[str, typer.Argument(metavar="QUERY", help="What is looked for: a text, or a text file.")]
DocumentsArgument = Annotated[
    list[str], typer.Argument(metavar="FILE|TEXT...", help="What is scored; with --lines, files of a text a line.")
]


def rank(
    context: typer.Context,
    query: QueryArgument,
    documents: DocumentsArgument,
    model: ModelOption = "",
    top_k: Annotated[int | None, typer.Option(min=1, help="How many documents (default: all).")] = None,
    raw_scores: Annotated[bool, typer.Option("--raw-scores", help="Print logits instead of scores.")] = False,
    truncate: TruncateOption = False,
    lines: LinesOption = False,
    token_matches: Annotated[
        bool, typer.Option("--token-matches", help="Of late interaction: print which token each of the query found.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="With --token-matches: picture of the best document's.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Sort texts by how well each answers a query, best first (or JSON, one a line)."""
    client: Client = context.obj
    check_output(output, PICTURE_SUFFIXES)
    if output is not None and not token_matches:
        raise InputError(f"-o {output}: a picture shows what tokens found; expected --token-matches beside it")
    asked = read_source(query)
    given = [text for one in documents for text in (read_lines(one) if lines else [read_source(one)])]
    for source in (asked, *given):
        if source.text is None:
            raise InputError(f"{source.title}: a photo; expected a text")
    taking = client.model(model) if model else choose(client, asked, "rank")

    words = list[Token]()  # of the query

    def score(part: list[str]) -> Answers[RankedDocument]:
        wanted: dict[str, Any] = {"raw_scores": True, "truncate": truncate, "token_matches": token_matches}
        found = client.rank(asked.text or "", part, model=taking.name, **wanted)
        words[:] = found.query_tokens or ()
        return _as_sent(found)

    scored, failed = _collect(ask_each(given, taking.max_inputs, score))
    numbers = {id(source): number for number, source in enumerate(given)}
    best = sorted(scored, key=lambda one: -one[1].score)[:top_k]
    if not raw_scores and taking.activation != "identity" and not taking.token_vector_dim:
        best = [(source, dataclasses.replace(one, score=_sigmoid(one.score))) for source, one in best]
    for source, document in best:
        if document.truncated:
            tell_cut(source, taking.name)
        if as_json:
            whole = dataclasses.replace(document, index=numbers[id(source)])
            print_json({"input": source.name, **dataclasses.asdict(whole)})
    if not as_json:
        Terminal().print(_table(best, words))
    if output is not None and best and (matches := best[0][1].token_matches) is not None:
        _draw(output, words, matches, taking.name)
    if failed:
        raise typer.Exit(1)


def _draw(output: Path, words: Sequence[Token], matches: TokenMatches, model: str) -> None:
    from regard import pictures  # matplotlib takes half a second that other calls need not spend

    pictures.save(pictures.match_lines(words, matches, model=model), output)
    tell_written(output)


def _sigmoid(logit: float) -> float:
    """What the server makes of a logit, too; but logits of several calls can be sorted where scores are tied at 1."""
    return (1 + math.tanh(logit / 2)) / 2


def _as_sent(found: Ranking) -> Answers[RankedDocument]:
    """Put documents and errors in the order in which they were sent."""
    each = found.errors | {document.index: document for document in found.documents}
    return Answers(found.model, found.version, tuple(one for _, one in sorted(each.items())), found.timings)


def _collect(
    scored: Iterator[tuple[Source, RankedDocument]],
) -> tuple[list[tuple[Source, RankedDocument]], bool]:
    """Return all that have a score, and whether some have an error instead."""
    found = list[tuple[Source, RankedDocument]]()
    try:
        for one in scored:
            found.append(one)
    except typer.Exit:
        return found, True
    return found, False


def _table(scored: Sequence[tuple[Source, RankedDocument]], words: Sequence[Token]) -> Table:
    """Draw documents with their scores, best first, and what each word of the query found in them."""
    table = Table.grid(padding=(0, 2))
    for source, document in scored:
        table.add_row(f"{document.score:.4f}", Text(clean(source.title)))
        if (matches := document.token_matches) is not None:
            found = (matches.document_tokens[place].text for place in matches.found)
            pairs = zip(words, found, matches.similarities, strict=True)
            told = ", ".join(
                f"{clean(word.text)} > {clean(other)} {similarity:.2f}" for word, other, similarity in pairs
            )
            table.add_row("", Text(told, "dim"))
    return table
