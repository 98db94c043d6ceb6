"""Late interaction as lines: which token of a document each token of a query found."""

from collections.abc import Sequence

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure, SubFigure

from regard.attention import Token
from regard.pictures.arcs import curve, name_sides, opacity
from regard.pictures.lettering import longest_inches, printable
from regard.pictures.style import SCREEN, Style, canvas, whole
from regard.pictures.titles import fit_title
from regard.scores import TokenMatches

_LINE_INCHES, _MAX_INCHES, _BOW_INCHES = 0.24, 20.0, 3.4
_WIDEST_POINTS = 5.0


def match_lines(
    query_tokens: Sequence[Token],
    matches: TokenMatches,
    *,
    model: str,
    style: Style = SCREEN,
    on: SubFigure | None = None,
) -> Figure:
    """Draw the query's tokens on the left, the document's on the right, and a line from each to what it found.

    The similarity stands beside the query's token; wider and more opaque lines are of larger ones, and those of 0 and
    less are not drawn. Special tokens of the query, fillers among them, have lines in the second colour.

    Args:
        query_tokens: Of `Ranking.query_tokens`.
        matches: Of one document, from `RankedDocument.token_matches`.
        model: Name for the title.
        style: Colours and measures.
        on: Draw on this part of a figure (see `side_by_side`).

    Returns:
        The whole figure.

    Raises:
        ValueError: Tokens and matches are not of one answer.
    """
    if len(query_tokens) != len(matches.found):
        raise ValueError(f"matches of {len(matches.found)} tokens for {len(query_tokens)} of the query")
    similarities = zip(query_tokens, matches.similarities, strict=True)
    told = [f"{printable(token.text)}  {value:.2f}" for token, value in similarities]
    found = [printable(token.text) for token in matches.document_tokens]
    full = style.width(sum(longest_inches(side, style.text_points) + 0.15 for side in (told, found)) + _BOW_INCHES)
    score = float(matches.similarities.sum())
    title = fit_title(f"{model} · what each token of the query found · sum {score:.2f}", full, style.text_points + 2)
    lines_inches = min(_LINE_INCHES * max(len(told), len(found)), _MAX_INCHES)
    drawn_on = canvas(style, on, full, lines_inches + 0.3 + title.height_inches)
    axes = drawn_on.add_subplot()
    shares = np.clip(matches.similarities, 0, 1)
    curves = [curve(place, int(at)) for place, at in enumerate(matches.found)]
    colours = [
        to_rgba(style.categories[int(token.special)], opacity(share) if share > 0 else 0)
        for token, share in zip(query_tokens, shares, strict=True)
    ]
    widths = [0.5 + (_WIDEST_POINTS - 0.5) * float(share) ** 2 for share in shares]
    axes.add_collection(LineCollection(curves, colors=colours, linewidths=widths))
    name_sides(axes, (told, found), lines_inches, style)
    drawn_on.suptitle(title.text, color=style.ink, fontsize=title.points)
    return whole(drawn_on)
