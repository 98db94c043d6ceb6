"""Matrices in two colours: what positions of two inputs do for their similarity, and of a source for written tokens."""

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure, SubFigure
from numpy.typing import NDArray

from regard.comparison import SimilarityRelevance
from regard.generation import Generated
from regard.pictures.lettering import cut, longest_inches, printable
from regard.pictures.relevance import UNIT
from regard.pictures.style import (
    MARGIN_INCHES,
    SCREEN,
    Style,
    beside_beyond,
    canvas,
    draw_bar,
    inches_of,
    place,
    scale_inches,
    signed_colours,
    whole,
    write_title,
)
from regard.pictures.titles import fit_title
from regard.reasons import names, similarity_headline
from regard.scales import signed_end

_CELL_INCHES, _MOST_INCHES, _NAME_INCHES = 0.34, 9.0, 1.6
_UNIT = "apart · similarity · alike"


def pair_matrix(why: SimilarityRelevance, *, model: str, style: Style = SCREEN, on: SubFigure | None = None) -> Figure:
    """Draw a row for each position of the first input and a column for each of the second.

    What makes both more alike is orange, what sets them apart blue; the scale is linear and as long on both sides of 0.
    The title says the similarity, what of it is in no pair, and how far all of it adds up.

    Args:
        why: From `Comparison.relevance`, with pairs.
        model: Name for the title.
        style: Colours and measures; of its scale percentile and end, which are of the numbers without their signs.
        on: Draw on this part of a figure (see `side_by_side`).

    Returns:
        The whole figure.

    Raises:
        ValueError: There are no pairs.
    """
    if why.pairs is None:
        raise ValueError("similarity without pairs; expected those of a request with pairs")
    return draw_matrix(
        why.pairs, names(why.first), names(why.second), similarity_headline(why, model), _UNIT, style, on
    )


def token_matrix(found: Generated, *, style: Style = SCREEN, on: SubFigure | None = None) -> Figure:
    """Draw why tokens were written: a row for each, a column for each of the source's tokens, or a sound's positions.

    What spoke for a token is orange, what spoke against it blue, on one scale for all, as long on both sides of 0.

    Args:
        found: From `Client.generate_text` with relevance.
        style: As of `pair_matrix`.
        on: Likewise.

    Returns:
        The whole figure.

    Raises:
        ValueError: There is no relevance.
    """
    from regard.explained_tokens import source_names, tokens_headline  # these need the command line's packages,
    from regard.growing import written  # which other pictures do not

    why = found.relevance
    if why is None:
        raise ValueError("a text without relevance; expected that of a request with it")
    tokens = written(found)
    rows = [tokens[place].text for place in why.tokens]
    return draw_matrix(why.source, rows, source_names(found), tokens_headline(why, found.model), UNIT, style, on)


def draw_matrix(
    values: NDArray[np.floating],
    rows: Sequence[str],
    columns: Sequence[str],
    headline: str,
    unit: str,
    style: Style,
    on: SubFigure | None,
) -> Figure:
    """Draw numbers [rows, columns] in two colours, each row and column with its name; else as `pair_matrix`."""
    points = style.text_points
    rows, columns = ([cut(printable(name), _NAME_INCHES, points) for name in side] for side in (rows, columns))
    cell = min(_CELL_INCHES, _MOST_INCHES / max(len(rows), len(columns)))
    beside, below = (longest_inches(side, points) + 3 * MARGIN_INCHES for side in (rows, columns))
    width, height = cell * len(columns), cell * len(rows)
    full = style.at_most(max(width + beside + scale_inches(style) + MARGIN_INCHES, 4.5))
    width = min(width, full - beside - scale_inches(style) - MARGIN_INCHES)
    title = fit_title(headline, full - 2 * MARGIN_INCHES, points + 2)
    drawn_on = canvas(style, on, full, height + below + title.height_inches + 4 * MARGIN_INCHES, placed=True)
    write_title(drawn_on, title.text, title.points, style)
    top = inches_of(drawn_on)[1] - below - height
    axes = place(drawn_on, beside, top, width, height)
    end = signed_end(values, style.scale)
    colours, norm = signed_colours(style.theme), Normalize(-end.value, end.value)
    drawn = axes.imshow(values, cmap=colours, norm=norm, aspect="auto", interpolation="nearest")
    for axis, side in ((axes.yaxis, rows), (axes.xaxis, columns)):
        axis.set_ticks(range(len(side)), side, fontsize=points, color=style.ink)
    axes.tick_params(length=0)
    axes.tick_params(axis="x", rotation=90)
    for edge in axes.spines.values():
        edge.set_visible(False)
    label = beside_beyond(unit, end)
    draw_bar(drawn_on, (beside + width, top), height, drawn, style, label, beyond=end.beyond, over_photo=False)
    return whole(drawn_on)
