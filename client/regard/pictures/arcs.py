"""Attention between tokens as arcs: queries on the left, keys on the right, a colour a head."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from regard.attention import AttentionRequest, LayerAttention, Token
from regard.matrices import Matrix, attended, matrices, unit_name
from regard.pictures.lettering import POINTS_PER_INCH, fonts_for, longest_inches, named, words
from regard.pictures.style import (
    MAX_COLOURS,
    SCREEN,
    Style,
    canvas,
    counted_in,
    legend_below,
    scale_label,
    whole,
)
from regard.pictures.titles import fit_title, layer_title

_LINE_INCHES, _MAX_INCHES = 0.24, 20.0
_BOW_INCHES = 4.2
_MAX_POINTS = 6.0
_CURVE_POINTS = 64
_LINE_SHARE = 0.8
"""Of the room between two lines, what the widest arcs of all heads take."""
_MIN_SHARE = 0.02
"""Of the largest weight drawn; fainter arcs cannot be seen."""


@dataclass(frozen=True, eq=False)
class _Bundle:
    """One head's arcs, weakest first.

    Attributes:
        name: The head's.
        colour: Of all of them.
        starts: Where they begin on the left, in lines from the top; heads stand a little apart.
        ends: Where they end on the right.
        weights: What they stand for.
    """

    name: str
    colour: str
    starts: NDArray[np.float64]
    ends: NDArray[np.float64]
    weights: NDArray[np.float32]


class _Widths:
    """How wide an arc is drawn.

    Attributes:
        largest: The weight whose arc is the widest.
    """

    def __init__(self, bundles: Sequence[_Bundle], line_inches: float) -> None:
        self.largest = max(float(bundle.weights.max(initial=0)) for bundle in bundles) or 1.0
        self._widest = min(_MAX_POINTS, _LINE_SHARE * line_inches * POINTS_PER_INCH / len(bundles))

    def points(self, shares: NDArray[np.float32]) -> list[float]:
        """Return widths for shares of the largest weight."""
        return [0.5 + (self._widest - 0.5) * float(share) for share in shares]


def token_arcs(
    layer: LayerAttention,
    tokens: Sequence[Token],
    *,
    model: str,
    strongest: int = 3,
    key_tokens: Sequence[Token] | None = None,
    asked: AttentionRequest | None = None,
    style: Style = SCREEN,
    on: SubFigure | None = None,
) -> Figure:
    """Draw an arc from each token to those that it attends to most; wider and more opaque where the weight is larger.

    Each row of each head has its `strongest` links, or as many as `asked.top_k` says; weaker ones are left out.

    Args, returns and raises: as `token_heatmap`, but every head is drawn, each in a colour of its own. More than 8 are
    refused.
    """
    keys = attended(tokens, key_tokens)
    layer = counted_in(layer, len(keys), asked, style)
    heads = matrices(layer, len(keys), asked)
    if len(heads) > MAX_COLOURS:
        raise ValueError(f"arcs of {len(heads)} heads; expected at most {MAX_COLOURS}, each with a colour of its own")
    strongest = min((asked.top_k if asked and asked.top_k else strongest), len(heads[0].keys))
    left, right = _places(heads[0], same=key_tokens is None)
    names = words(tokens, left), words(keys, right)
    full = style.width(sum(longest_inches(side, style.text_points) + 0.15 for side in names) + _BOW_INCHES)
    title = fit_title(layer_title(model, layer, _what(heads, strongest)), full, style.text_points + 2)
    lines_inches = min(_LINE_INCHES * max(map(len, names)), _MAX_INCHES)
    drawn_on = canvas(style, on, full, lines_inches + 0.75 + title.height_inches)
    axes = drawn_on.add_subplot()
    bundles = _bundles(heads, left, right, strongest, style)
    widths = _Widths(bundles, lines_inches / max(map(len, names)))
    for bundle in bundles:
        _draw_bundle(axes, bundle, widths)
    name_sides(axes, names, lines_inches, style)
    drawn_on.suptitle(title.text, color=style.ink, fontsize=title.points)
    legend_below(
        drawn_on, _legend(bundles, widths, scale_label(unit_name(layer, asked), None, style), style), full, style
    )
    return whole(drawn_on)


def _what(heads: Sequence[Matrix], strongest: int) -> str:
    who = heads[0].name if len(heads) == 1 else f"{len(heads)} heads"
    links = "the strongest link" if strongest == 1 else f"the {strongest} strongest links"
    return f"{who}: {links} of each token"


def _places(matrix: Matrix, *, same: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Which positions stand on the left and on the right; in one sequence both, so that a token faces itself."""
    if not same:
        return matrix.queries, matrix.keys
    both = tuple(sorted({*matrix.queries, *matrix.keys}))
    return both, both


def _bundles(
    heads: Sequence[Matrix], left: Sequence[int], right: Sequence[int], strongest: int, style: Style
) -> list[_Bundle]:
    """Give each head a colour, and its arcs a place of their own in the room between two lines."""
    shifts = (np.arange(len(heads)) - (len(heads) - 1) / 2) * _LINE_SHARE / len(heads)
    return [
        _bundle(head, colour, left, right, strongest, float(shift))
        for head, colour, shift in zip(heads, style.categories, shifts, strict=False)
    ]


def _bundle(
    head: Matrix, colour: str, left: Sequence[int], right: Sequence[int], strongest: int, shift: float
) -> _Bundle:
    """Choose the strongest links of each row, and say where they run."""
    weights = np.nan_to_num(head.weights)
    keys = np.argsort(-weights, axis=1, kind="stable")[:, :strongest]
    chosen = np.take_along_axis(weights, keys, axis=1).ravel()
    starts = np.repeat([left.index(query) for query in head.queries], keys.shape[1])
    ends = np.array([right.index(key) for key in head.keys])[keys.ravel()]
    order = np.argsort(chosen, kind="stable")
    order = order[chosen[order] > 0]
    return _Bundle(head.name, colour, starts[order] + shift, ends[order] + shift, chosen[order])


def _draw_bundle(axes: Axes, bundle: _Bundle, widths: _Widths) -> None:
    seen = bundle.weights >= _MIN_SHARE * widths.largest
    shares = bundle.weights[seen] / widths.largest
    curves = [curve(start, end) for start, end in zip(bundle.starts[seen], bundle.ends[seen], strict=True)]
    colours = [to_rgba(bundle.colour, opacity(share)) for share in shares]
    axes.add_collection(LineCollection(curves, colors=colours, linewidths=widths.points(shares), label=bundle.name))


def curve(start: float, end: float) -> NDArray[np.float64]:
    """Return [_CURVE_POINTS, 2]: level at both ends, x from 0 to 1."""
    x = np.linspace(0, 1, _CURVE_POINTS)
    return np.stack([x, start + (end - start) * x * x * (3 - 2 * x)], axis=1)


def opacity(share: float) -> float:
    """Return how opaque a line is drawn for a share of the largest weight."""
    return 0.15 + 0.75 * float(share)


def name_sides(axes: Axes, names: tuple[Sequence[str], Sequence[str]], inches: float, style: Style) -> None:
    """Write the tokens beside the arcs: queries on the left, keys on the right."""
    count = max(map(len, names))
    axes.set(xlim=(-0.01, 1.01), ylim=(count - 0.4, -0.6))
    axes.set_axis_off()
    for (x, align), side in zip(((-0.02, "right"), (1.02, "left")), names, strict=True):
        shown = named(len(side), inches, style.text_points)
        fonts = fonts_for(side)
        for place in shown:
            axes.text(
                x, place, side[place], color=style.ink, fontsize=style.text_points, ha=align, va="center", family=fonts
            )


def _legend(bundles: Sequence[_Bundle], widths: _Widths, unit: str, style: Style) -> list[Line2D]:
    """Say which colour is which head, and how wide which weight is."""
    handles = [Line2D([], [], color=bundle.colour, linewidth=3, label=bundle.name) for bundle in bundles]
    shares = np.array([1.0, 0.25], dtype=np.float32)
    for share, points in zip(shares, widths.points(shares), strict=True):
        colour = to_rgba(style.ink, opacity(share))
        handles.append(Line2D([], [], color=colour, linewidth=points, label=f"{unit} {share * widths.largest:.2g}"))
    return handles
