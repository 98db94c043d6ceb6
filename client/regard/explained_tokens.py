"""Why tokens were written, as a table: for each token what of the source did the most for it, and what all else did."""

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text

from regard.console import Terminal
from regard.generation import Generated, TokenRelevance
from regard.growing import written
from regard.reasons import AGAINST_COLOUR, FOR_COLOUR, how_far, named_once
from regard.sources import InputError
from regard.terminal import clean

_MOST = 4  # so many positions of the source stand in a line


def explained_tokens(found: Generated) -> TokenRelevance:
    """Return why tokens were written.

    Raises:
        InputError: The server did not say.
    """
    if found.relevance is None:
        raise InputError("the server sent no relevance; expected one that knows GenerateRequest.relevance")
    return found.relevance


def tokens_headline(why: TokenRelevance, model: str) -> str:
    """Say what is explained, and how far it adds up where it does so the least."""
    return f"{model} · why each token · {how_far(max(why.relative_error.tolist(), default=0.0))}"


def print_token_relevance(found: Generated) -> None:
    """Print a line for each token that is explained; its numbers, with the source's others, are its score."""
    why, terminal = explained_tokens(found), Terminal()
    terminal.print("", Text(clean(tokens_headline(why, found.model)), "bold"), soft_wrap=True, sep="\n")
    names, sources = [token.text for token in written(found)], source_names(found)
    table = Table("", "score", "before it", "no position", "source", box=None, header_style="bold")
    for column in table.columns[1:4]:
        column.justify = "right"
    for row, place in enumerate(why.tokens):
        before = float(why.target[row].sum(dtype=np.float64))
        numbers = (f"{float(one):+.2f}" for one in (why.score[row], before, why.rest[row]))
        table.add_row(Text(clean(names[place])), *numbers, _strongest(why.source[row], sources))
    terminal.print(table)


def source_names(found: Generated) -> list[str]:
    """Name each position of the source: a token, with its place where it comes twice; or when it begins in a sound."""
    if found.sound is None:
        return named_once([token.text for token in found.source])
    return [f"{place * found.sound.position_seconds:.2f} s" for place in range(found.sound.count)]


def _strongest(values: NDArray[np.float32], names: list[str]) -> Text:
    """Write the largest numbers with their positions, and the sum of the others."""
    order = np.argsort(-np.abs(values), kind="stable")
    line = Text()
    for place in order[:_MOST]:
        value = float(values[place])
        line.append(f"{clean(names[place])} ").append(f"{value:+.2f}", FOR_COLOUR if value > 0 else AGAINST_COLOUR)
        line.append("  ")
    if len(order) > _MOST:
        line.append(f"others {float(values[order[_MOST:]].sum(dtype=np.float64)):+.2f}", "dim")
    return line
