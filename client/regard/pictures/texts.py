"""Attention between tokens as matrices: rows attend to columns, one head or all of them."""

import math
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap
from matplotlib.figure import Figure, SubFigure
from numpy.typing import NDArray

from regard.attention import AttentionRequest, LayerAttention, Token
from regard.matrices import Matrix, attended, matrices, one_matrix, unit_name
from regard.pictures.lettering import fonts_for, height_inches, longest_inches, named, words
from regard.pictures.style import (
    MARGIN_INCHES,
    SCREEN,
    Style,
    canvas,
    counted_in,
    draw_bar,
    inches_of,
    norm_of,
    place,
    scale_inches,
    scale_label,
    whole,
    write_title,
)
from regard.pictures.titles import fit_title, layer_title
from regard.scales import scale_end

_CELL_INCHES = 0.28
# The longest edge of a text's matrix; above it, cells shrink and not every token is named.
_MAX_INCHES, _MIN_INCHES = 20.0, 2.5
_PANEL_INCHES, _GAP_INCHES, _NAMES_PAD_INCHES = 2.6, 0.1, 0.14


def token_heatmap(
    layer: LayerAttention,
    tokens: Sequence[Token],
    *,
    model: str,
    key_tokens: Sequence[Token] | None = None,
    asked: AttentionRequest | None = None,
    style: Style = SCREEN,
    on: SubFigure | None = None,
) -> Figure:
    """Draw who attends to whom in a text: one panel, rows are queries, columns are keys.

    Colours follow the square root of the weight, so that weak links stay visible beside strong ones. What cannot be
    attended to, and what was not sent, stays empty.

    Args:
        layer: A text's weights or rollout: [H, Q, K], of which the heads' mean is drawn, or [Q, K].
        tokens: All tokens of the text.
        model: Name for the title.
        key_tokens: Those that are attended to, where they are others: in cross-attention.
        asked: What was asked for, where the title should say so: a reduction other than the mean, value weighting.
        style: Colours and measures.
        on: Draw on this part of a figure (see `side_by_side`).

    Returns:
        The whole figure.

    Raises:
        ValueError: Weights and tokens do not fit together.
    """
    keys = attended(tokens, key_tokens)
    layer = counted_in(layer, len(keys), asked, style)
    matrix = one_matrix(layer, len(keys), asked)
    rows, columns = words(tokens, matrix.queries), words(keys, matrix.keys)
    width, height, label_inches = _matrix_inches(rows, columns, style)
    full = style.at_most(width + label_inches + scale_inches(style) + MARGIN_INCHES)
    width = full - label_inches - scale_inches(style) - MARGIN_INCHES
    title = fit_title(layer_title(model, layer, matrix.name), full - 2 * MARGIN_INCHES, style.text_points + 3)
    below = longest_inches(columns, style.text_points) + _axis_inches(style)
    drawn_on = canvas(style, on, full, height + below + title.height_inches + 4 * MARGIN_INCHES, placed=True)
    write_title(drawn_on, title.text, title.points, style)
    top = inches_of(drawn_on)[1] - below - height
    axes = place(drawn_on, label_inches, top, width, height)
    end = scale_end(layer, [matrix.weights], style.scale)
    heat = _draw_matrix(axes, matrix, layer, style, end.value)
    _name_columns(axes, columns, width, style)
    _name_rows(axes, rows, height, style)
    axes.set_xlabel("attended to (keys)", color=style.ink, fontsize=style.text_points)
    axes.set_ylabel("attending (queries)", color=style.ink, fontsize=style.text_points)
    label, corner = scale_label(unit_name(layer, asked), end, style), (label_inches + width, top)
    draw_bar(drawn_on, corner, height, heat, style, label, beyond=end.beyond, over_photo=False)
    return whole(drawn_on)


def token_heads(
    layer: LayerAttention,
    tokens: Sequence[Token],
    *,
    model: str,
    key_tokens: Sequence[Token] | None = None,
    asked: AttentionRequest | None = None,
    style: Style = SCREEN,
    on: SubFigure | None = None,
) -> Figure:
    """Draw a small matrix for each head of a layer, all with one scale, so that heads can be compared.

    Args, returns and raises: as `token_heatmap`, but of [H, Q, K] every head is drawn.
    """
    keys = attended(tokens, key_tokens)
    layer = counted_in(layer, len(keys), asked, style)
    heads = matrices(layer, len(keys), asked)
    rows, columns = words(tokens, heads[0].queries), words(keys, heads[0].keys)
    across, down = _grid(len(heads))
    margin = longest_inches(rows, style.small()) + _NAMES_PAD_INCHES
    aside = margin + scale_inches(style)
    full = style.at_most(across * min(_PANEL_INCHES, 0.9 + 0.11 * len(columns)) + aside)
    panel = (full - aside - (across - 1) * _GAP_INCHES) / across
    high = min(panel * len(rows) / len(columns), 2 * panel)
    caption = height_inches("", style.text_points) + _GAP_INCHES
    title = fit_title(layer_title(model, layer, "rows attend to columns"), full, style.text_points + 3)
    below = longest_inches(columns, style.small()) + _NAMES_PAD_INCHES
    lines_inches = down * (high + caption)
    drawn_on = canvas(style, on, full, title.height_inches + lines_inches + below + 2 * MARGIN_INCHES, placed=True)
    write_title(drawn_on, title.text, title.points, style)
    top = title.height_inches + 2 * MARGIN_INCHES
    end = scale_end(layer, [matrix.weights for matrix in heads], style.scale)
    for number, matrix in enumerate(heads):
        line, column = divmod(number, across)
        left = margin + column * (panel + _GAP_INCHES)
        axes = place(drawn_on, left, top + caption + line * (high + caption), panel, high)
        heat = _draw_matrix(axes, matrix, layer, style, end.value)
        axes.set_title(matrix.name, color=style.ink, fontsize=style.text_points, pad=3)
        _name_columns(axes, columns if number + across >= len(heads) else [], panel, style, small=True)
        _name_rows(axes, rows if column == 0 else [], high, style, small=True)
    label, corner = scale_label(unit_name(layer, asked), end, style), (full - scale_inches(style), top + caption)
    draw_bar(drawn_on, corner, lines_inches - caption, heat, style, label, beyond=end.beyond, over_photo=False)
    return whole(drawn_on)


def _axis_inches(style: Style) -> float:
    """The room of an axis' name, and between it, the tokens and the cells."""
    return height_inches("", style.text_points) + _NAMES_PAD_INCHES


def _matrix_inches(rows: Sequence[str], columns: Sequence[str], style: Style) -> tuple[float, float, float]:
    """Return width and height of the cells together, and the room that the rows' names take."""
    label_inches = longest_inches(rows, style.text_points) + _axis_inches(style)
    aside = label_inches + scale_inches(style) + MARGIN_INCHES
    room = style.width(_MAX_INCHES + aside) - aside
    cell = min(_CELL_INCHES, room / len(columns), _MAX_INCHES / len(rows))
    width = min(max(_MIN_INCHES, cell * len(columns)), room)
    return width, max(1.0, width * len(rows) / len(columns)), label_inches


def _grid(count: int) -> tuple[int, int]:
    """Return columns and lines of panels that leave few places empty and are wider than high."""

    def cost(across: int) -> float:
        down = math.ceil(count / across)
        return 4 * (across * down - count) / count + abs(math.log(across / down / 1.6))

    across = min(range(1, count + 1), key=cost)
    return across, math.ceil(count / across)


def _draw_matrix(axes: Axes, matrix: Matrix, layer: LayerAttention, style: Style, end: float) -> ScalarMappable:
    weights = matrix.weights
    if layer.kind == "causal":
        weights = np.where(np.subtract.outer(matrix.queries, matrix.keys) < 0, np.float32(np.nan), weights)
    shown: NDArray[np.float32] = np.ma.masked_invalid(weights)
    norm = norm_of(style.scale, "sqrt", end)
    heat = axes.imshow(shown, cmap=_colours(style), norm=norm, aspect="auto", interpolation="nearest")
    axes.set_facecolor(style.paper)
    axes.tick_params(length=0, colors=style.ink)
    axes.spines[:].set_visible(False)
    return heat


def _colours(style: Style) -> Colormap:
    """Return a scale that begins near the paper's colour; colour-blind people can read both."""
    return matplotlib.colormaps["viridis" if style.theme == "dark" else "YlGnBu"]


def _name_columns(axes: Axes, names: Sequence[str], inches: float, style: Style, *, small: bool = False) -> None:
    points = style.small() if small else style.text_points
    shown = named(len(names), inches, points)
    texts = [names[column] for column in shown]
    axes.set_xticks(shown, texts, rotation=90, fontsize=points, fontfamily=fonts_for(texts))


def _name_rows(axes: Axes, names: Sequence[str], inches: float, style: Style, *, small: bool = False) -> None:
    points = style.small() if small else style.text_points
    shown = named(len(names), inches, points)
    texts = [names[row] for row in shown]
    axes.set_yticks(shown, texts, fontsize=points, fontfamily=fonts_for(texts))
