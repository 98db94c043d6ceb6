"""Contact sheets: what one layer attends to in many photos, a panel a head, on one scale."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure, SubFigure
from numpy import floating
from numpy.typing import NDArray
from PIL import Image

from regard.attention import AttentionRequest, LayerAttention, PatchGrid
from regard.matrices import averaged_matrices, positions, query_phrase, rows_of, unit_name
from regard.pictures.lettering import POINTS_PER_INCH, cut, fonts_for, height_inches
from regard.pictures.overlays import maps_of
from regard.pictures.panels import Panel, captions_of, draw_scale, panels_of
from regard.pictures.photos import draw_heat, draw_photo, shown_box
from regard.pictures.style import (
    MARGIN_INCHES,
    SCREEN,
    Canvas,
    Style,
    canvas,
    counted_in,
    place,
    scale_inches,
    whole,
    write_title,
)
from regard.pictures.titles import Title, fit_title, layer_title
from regard.windows import layer_grid

_CELL_INCHES, _MIN_CELL_INCHES, _GAP_INCHES, _CELLS_ACROSS = 1.5, 1.0, 0.1, 8
_CAPTION_PAD_POINTS = 3


@dataclass(frozen=True, eq=False)
class SheetPhoto:
    """One photo of a contact sheet.

    Attributes:
        name: What stands above it.
        photo: From `open_photo`; any resolution with the sides of the image that was sent.
        layer: As `overlay` takes it, of one query row; the same layer and heads of all photos.
        patches: The grid that came with it.
    """

    name: str
    photo: Image.Image
    layer: LayerAttention
    patches: PatchGrid


@dataclass(frozen=True, eq=False)
class _Entry:
    """A photo with its maps."""

    given: SheetPhoto
    grid: PatchGrid
    maps: list[tuple[str, int | None, NDArray[floating]]]
    who: str


def contact_sheet(
    photos: Sequence[SheetPhoto],
    *,
    model: str,
    asked: AttentionRequest | None = None,
    style: Style = SCREEN,
    on: SubFigure | None = None,
) -> Figure:
    """Draw each photo as the network saw it, with a panel for each head beside it, under one title.

    All panels have one scale, so that photos can be compared, unless `style.scale.common` is False.

    Args:
        photos: At least one.
        model: Name for the title.
        asked: What was asked for, where the title should say so: a reduction other than the mean, value weighting.
        style: Colours and measures.
        on: Draw on this part of a figure (see `side_by_side`).

    Returns:
        The whole figure.

    Raises:
        ValueError: No photo, layers or heads that differ, several query rows, or weights that do not fit their grid.
    """
    entries = [_entry(each, asked, style) for each in photos]
    if len({(each.given.layer.layer, *(name for name, _, _ in each.maps)) for each in entries}) != 1:
        raise ValueError(f"contact sheet of {len(photos)} photos; expected one layer and the same heads of all")
    first, common = entries[0], style.scale.common is not False
    every = [one for each in entries for one in each.maps]
    panels, unit = panels_of(first.given.layer, every, unit_name(first.given.layer, asked), style, common=common)
    plan = _plan(entries, panels, layer_title(model, first.given.layer, first.who), style)
    drawn_on = canvas(style, on, *plan.size, placed=True)
    write_title(drawn_on, plan.title.text, plan.title.points, style)
    rest, heat = zip(panels, plan.captions, strict=True), ScalarMappable()
    for entry, (left, top) in zip(entries, plan.corners, strict=True):
        _draw_photo(drawn_on, entry.given, left, top, plan.cell, style)
        for column in range(1, len(entry.maps) + 1):
            at = left + column * (plan.cell + _GAP_INCHES)
            heat = _draw_panel(drawn_on, entry, next(rest), at, top, plan.cell, style)
    draw_scale(drawn_on, plan.bar, heat, panels, unit, style, common=common)
    return whole(drawn_on)


@dataclass(frozen=True)
class _Plan:
    """Where everything goes, in inches from the upper left corner."""

    title: Title
    size: tuple[float, float]
    cell: float
    corners: list[tuple[float, float]]
    captions: list[str]
    bar: tuple[float, float, float]


def _entry(given: SheetPhoto, asked: AttentionRequest | None, style: Style) -> _Entry:
    grid = layer_grid(given.layer, given.patches)
    layer = counted_in(given.layer, positions(grid), asked, style)
    heads = averaged_matrices(layer, grid, asked)
    if len(heads[0].weights) != 1:
        raise ValueError(f"contact sheet of {len(heads[0].weights)} query rows of {given.name}; expected one")
    maps = [(matrix.name, *maps_of(matrix, grid)[0]) for matrix in heads]
    framed = None if layer.kind == "cross" else maps[0][1]
    who = query_phrase(rows_of(heads[0])[0][0], layer, grid)
    return _Entry(given, grid, [(name, framed, on_grid) for name, _, on_grid in maps], who)


def _plan(entries: Sequence[_Entry], panels: Sequence[Panel], title: str, style: Style) -> _Plan:
    """Put as many photos beside each other as leave room to see something."""
    cells, aside = len(entries[0].maps) + 1, scale_inches(style) + MARGIN_INCHES
    groups = min(len(entries), max(1, _CELLS_ACROSS // cells))
    width = style.width(groups * cells * (_CELL_INCHES + _GAP_INCHES) + aside)
    groups = max(1, min(groups, int((width - aside) / (cells * _MIN_CELL_INCHES))))
    cell = (width - aside) / (groups * cells) - _GAP_INCHES
    fitted = fit_title(title, width - 2 * MARGIN_INCHES, style.text_points + 3)
    captions = captions_of(panels, cell, style)
    caption = height_inches(captions[0], style.small()) + 2 * _CAPTION_PAD_POINTS / POINTS_PER_INCH
    first = fitted.height_inches + 2 * MARGIN_INCHES
    top, corners = first, []
    for start in range(0, len(entries), groups):
        line = entries[start : start + groups]
        step = cells * (cell + _GAP_INCHES)
        corners += [(MARGIN_INCHES + at * step, top + caption) for at in range(len(line))]
        top += caption + cell * max(_slope(entry) for entry in line) + _GAP_INCHES
    right = MARGIN_INCHES + groups * cells * (cell + _GAP_INCHES) - _GAP_INCHES
    size = (width, top - _GAP_INCHES + 2 * MARGIN_INCHES)
    return _Plan(fitted, size, cell, corners, captions, (right, first + caption, top - _GAP_INCHES - first - caption))


def _slope(entry: _Entry) -> float:
    box = shown_box(entry.given.patches)
    return (box.bottom - box.top) / (box.right - box.left)


def _draw_photo(drawn_on: Canvas, given: SheetPhoto, left: float, top: float, cell: float, style: Style) -> None:
    box = shown_box(given.patches)
    axes = place(drawn_on, left, top, cell, cell * (box.bottom - box.top) / (box.right - box.left))
    draw_photo(axes, given.photo, given.patches)
    axes.set(xlim=(box.left, box.right), ylim=(box.bottom, box.top))
    axes.set_title(cut(given.name, cell, style.small()), **_caption(style, given.name))


def _draw_panel(
    drawn_on: Canvas, entry: _Entry, told: tuple[Panel, str], left: float, top: float, cell: float, style: Style
) -> ScalarMappable:
    (panel, caption), box = told, shown_box(entry.given.patches)
    axes = place(drawn_on, left, top, cell, cell * _slope(entry))
    heat = draw_heat(axes, entry.given.photo, panel.on_grid, entry.grid, panel.query, style, end=panel.end)
    axes.set(xlim=(box.left, box.right), ylim=(box.bottom, box.top))
    axes.set_title(caption, **_caption(style, caption))
    return heat


def _caption(style: Style, name: str) -> dict[str, Any]:
    return {
        "color": style.ink,
        "fontsize": style.small(),
        "pad": _CAPTION_PAD_POINTS,
        "fontfamily": fonts_for([name]),
    }
