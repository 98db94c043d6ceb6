"""Attention between tokens as matrices: rows attend to columns, one head or all of them."""

import math
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, PowerNorm
from matplotlib.figure import Figure, SubFigure
from numpy.typing import NDArray

from regard.attention import AttentionRequest, LayerAttention, Token
from regard.matrices import Matrix, attended, matrices, one_matrix, unit_name
from regard.pictures.lettering import fonts_for, longest_inches, named, words
from regard.pictures.style import SCREEN, Style, canvas, style_scale, whole
from regard.pictures.titles import fit_title, layer_title

_CELL_INCHES = 0.28
# The longest edge of a text's matrix; above it, cells shrink and not every token is named.
_MAX_INCHES, _MIN_INCHES = 20.0, 2.5
_SCALE_INCHES, _BAR_INCHES = 1.1, 0.12
_MIN_SCALE = 1e-9
_PANEL_INCHES = 2.6


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
    matrix = one_matrix(layer, len(keys), asked)
    rows, columns = words(tokens, matrix.queries), words(keys, matrix.keys)
    width, height, label_inches = _matrix_inches(rows, columns, style)
    full = style.at_most(width + label_inches + _SCALE_INCHES)
    title = fit_title(layer_title(model, layer, matrix.name), full, style.text_points + 3)
    tall = longest_inches(columns, style.text_points)
    drawn_on = canvas(style, on, full, height + tall + 0.35 + title.height_inches)
    axes = drawn_on.add_subplot()
    heat = _draw_matrix(axes, matrix, layer, style, _largest([matrix]))
    _name_columns(axes, columns, width, style)
    _name_rows(axes, rows, height, style)
    axes.set_xlabel("attended to (keys)", color=style.ink, fontsize=style.text_points)
    axes.set_ylabel("attending (queries)", color=style.ink, fontsize=style.text_points)
    drawn_on.suptitle(title.text, color=style.ink, fontsize=title.points)
    bar = drawn_on.colorbar(heat, ax=axes, pad=0.02, aspect=height / _BAR_INCHES)
    style_scale(bar, style, unit_name(layer, asked))
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
    heads = matrices(layer, len(keys), asked)
    rows, columns = words(tokens, heads[0].queries), words(keys, heads[0].keys)
    across, down = _grid(len(heads))
    margin = longest_inches(rows, style.small()) + 0.3
    full = style.at_most(across * min(_PANEL_INCHES, 0.9 + 0.11 * len(columns)) + margin + _SCALE_INCHES)
    panel = (full - margin - _SCALE_INCHES) / across
    panel_height = min(panel * len(rows) / len(columns), 2 * panel)
    title = fit_title(layer_title(model, layer, "rows attend to columns"), full, style.text_points + 3)
    below = longest_inches(columns, style.small()) + 0.3
    drawn_on = canvas(style, on, full, down * (panel_height + 0.3) + below + 0.2 + title.height_inches)
    largest = _largest(heads)
    for number, matrix in enumerate(heads):
        axes = drawn_on.add_subplot(down, across, number + 1)
        heat = _draw_matrix(axes, matrix, layer, style, largest)
        axes.set_title(matrix.name, color=style.ink, fontsize=style.text_points, pad=3)
        _name_columns(axes, columns if number + across >= len(heads) else [], panel, style, small=True)
        _name_rows(axes, rows if number % across == 0 else [], panel_height, style, small=True)
    drawn_on.suptitle(title.text, color=style.ink, fontsize=title.points)
    style_scale(drawn_on.colorbar(heat, ax=drawn_on.axes, pad=0.01, aspect=20 * down), style, unit_name(layer, asked))
    return whole(drawn_on)


def _matrix_inches(rows: Sequence[str], columns: Sequence[str], style: Style) -> tuple[float, float, float]:
    """Return width and height of the cells together, and the room that the rows' names take."""
    label_inches = longest_inches(rows, style.text_points) + 0.3
    room = style.width(_MAX_INCHES + label_inches + _SCALE_INCHES) - label_inches - _SCALE_INCHES
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


def _largest(heads: Sequence[Matrix]) -> float:
    return max(_MIN_SCALE, *(float(np.nanmax(head.weights)) for head in heads))


def _draw_matrix(axes: Axes, matrix: Matrix, layer: LayerAttention, style: Style, largest: float) -> ScalarMappable:
    weights = matrix.weights
    if layer.kind == "causal":
        weights = np.where(np.subtract.outer(matrix.queries, matrix.keys) < 0, np.float32(np.nan), weights)
    shown: NDArray[np.float32] = np.ma.masked_invalid(weights)
    heat = axes.imshow(shown, cmap=_colours(style), norm=PowerNorm(0.5, 0, largest), aspect="auto")
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
