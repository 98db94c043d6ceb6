"""Several pictures on one, side by side: two layers, or two models, of the same input."""

import dataclasses
from collections.abc import Sequence

from matplotlib.figure import Figure, SubFigure

from regard.pictures.style import SCREEN, Drawing, Style, empty_figure

_MAX_INCHES = 18.0


def side_by_side(drawings: Sequence[Drawing], *, columns: int = 2, style: Style = SCREEN) -> Figure:
    """Draw several pictures on one, each as it would be alone but narrower.

    Charts of one measure share their axis; maps and matrices of one unit share their scale, which ends where the
    largest of theirs does, unless `style.scale.common` is False.

    Args:
        drawings: Pictures' functions with everything given but `style` and `on`, e.g.
            `functools.partial(overlay, photo, layer, patches, model="vit-s14")`.
        columns: How many stand beside each other; the others follow below.
        style: Colours and measures of the whole.

    Returns:
        A figure in which each drawing has a part of its own.

    Raises:
        ValueError: Nothing to draw, or what a drawing itself refuses.
    """
    if not drawings or columns < 1:
        raise ValueError(f"{len(drawings)} drawings in {columns} columns; expected at least one of each")
    columns = min(columns, len(drawings))
    alone = [drawing(style=_share(style, columns)) for drawing in drawings]
    lines = [range(start, min(start + columns, len(drawings))) for start in range(0, len(drawings), columns)]
    widths = [
        max(alone[number].get_figwidth() for number in range(at, len(drawings), columns)) for at in range(columns)
    ]
    heights = [max(alone[number].get_figheight() for number in line) for line in lines]
    shrink = min(1.0, style.width(_MAX_INCHES) / sum(widths))
    if shrink < 1 and style.width_inches is None:
        return side_by_side(drawings, columns=columns, style=dataclasses.replace(style, width_inches=_MAX_INCHES))
    if style.scale.common is not False and len(drawings) > 1:
        style = _with_common_end(style, alone)
    placed = all(one.get_layout_engine() is None for one in alone)
    figure = empty_figure(style, sum(widths), sum(heights), placed=placed)
    parts = figure.subfigures(len(lines), columns, width_ratios=widths, height_ratios=heights, squeeze=False)
    for number, drawing in enumerate(drawings):
        line, column = divmod(number, columns)
        part: SubFigure = parts[line, column]
        drawing(style=dataclasses.replace(style, width_inches=widths[column]), on=part)
    _share_axes(figure)
    return figure


def _share(style: Style, columns: int) -> Style:
    """Return the style of one column; where no width is set, pictures stay as wide as they are."""
    if style.width_inches is None:
        return style
    return dataclasses.replace(style, width_inches=style.width_inches / columns)


def _with_common_end(style: Style, alone: Sequence[Figure]) -> Style:
    """Let maps and matrices of one unit have one scale, so that they can be compared."""
    images = [image for figure in alone for axes in figure.axes for image in axes.images]
    bars = [image.colorbar for image in images if image.colorbar is not None]
    units = {bar.ax.get_ylabel().replace("\n", " ").partition("; to ")[0] for bar in bars}
    if len(units) != 1 or len(bars) != len(alone):
        return style
    return dataclasses.replace(
        style, scale=dataclasses.replace(style.scale, end=max(bar.norm.vmax or 0.0 for bar in bars))
    )


def _share_axes(figure: Figure) -> None:
    """Let charts of the same unit reach equally high."""
    units = {axes.get_ylabel() for axes in figure.axes if axes.lines and axes.get_ylabel()}
    for unit in units:
        charts = [axes for axes in figure.axes if axes.lines and axes.get_ylabel() == unit]
        highest = max(axes.get_ylim()[1] for axes in charts)
        for axes in charts:
            axes.set_ylim(top=highest)
