"""A photo and panels beside it, one a head or a query, each a map over the photo."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import SubFigure
from numpy import floating
from numpy.typing import NDArray
from PIL import Image

from regard.attention import PatchGrid
from regard.pictures.lettering import height_inches, longest_inches, text_inches, wrapped
from regard.pictures.photos import draw_heat, draw_photo, shown_box
from regard.pictures.style import Canvas, Style, canvas, heat_colours, style_scale
from regard.pictures.titles import Title, fit_title

_WANTED_INCHES, _SCALE_INCHES, _EDGE_INCHES = 11.9, 0.9, 0.1


@dataclass(frozen=True, eq=False)
class Panel:
    """One map.

    Attributes:
        title: Its name.
        query: The query position; None where it has no place on the photo.
        on_grid: The numbers, [rows, cols].
        end: Where its scale ends.
        beyond: Whether there are numbers beyond.
        told: What is said of its scale; empty for where it ends.
    """

    title: str
    query: int | None
    on_grid: NDArray[floating]
    end: float
    beyond: bool
    told: str = ""


@dataclass(frozen=True)
class _Plan:
    """Where everything goes: cells across and down, those that the photo spans, sizes in inches, and texts."""

    lines: int
    columns: int
    span: int
    panel_inches: float
    width_inches: float
    height_inches: float
    title: Title
    captions: list[str]


def draw_panels(
    photo: Image.Image,
    patches: PatchGrid,
    panels: Sequence[Panel],
    title: str,
    unit: str,
    style: Style,
    on: SubFigure | None,
    *,
    grid: PatchGrid | None = None,
) -> Canvas:
    """Draw the photo in colour, then the panels, each with the end of its scale, and one scale for all.

    The numbers lie on the grid; without one, as patches do.
    """
    box = shown_box(patches)
    plan = _plan(panels, (box.bottom - box.top) / (box.right - box.left), title, style)
    drawn_on = canvas(style, on, plan.width_inches, plan.height_inches)
    _draw_cells(drawn_on, plan, photo, grid or patches, panels, style)
    for axes in drawn_on.axes:
        axes.set(xlim=(box.left, box.right), ylim=(box.bottom, box.top))
    drawn_on.suptitle(plan.title.text, color=style.ink, fontsize=plan.title.points)
    _draw_scale(drawn_on, unit, plan.lines, style, beyond=any(panel.beyond for panel in panels))
    return drawn_on


def _plan(panels: Sequence[Panel], slope: float, title: str, style: Style) -> _Plan:
    width = style.width(_WANTED_INCHES)
    max_columns = (width - _SCALE_INCHES) / max(_min_inches(panel, style) for panel in panels)
    lines, columns, span = _layout(len(panels), 1 / slope, max(1, int(max_columns)))
    panel_inches = (width - _SCALE_INCHES) / columns
    fitted = fit_title(title, width - 2 * _EDGE_INCHES, style.text_points + 3)
    captions = [_caption(panel, panel_inches, style) for panel in panels]
    caption_inches = max(height_inches(caption, style.small()) for caption in captions) + 0.12
    cells_inches = lines * (panel_inches * slope + caption_inches)
    height = cells_inches + fitted.height_inches + 0.15
    return _Plan(lines, columns, span, panel_inches, width, height, fitted, captions)


def _draw_cells(
    drawn_on: Canvas, plan: _Plan, photo: Image.Image, patches: PatchGrid, panels: Sequence[Panel], style: Style
) -> None:
    grid = drawn_on.add_gridspec(plan.lines, plan.columns)
    first = drawn_on.add_subplot(grid[: plan.span, : plan.span])
    draw_photo(first, photo, patches)
    seen = wrapped("what the network saw", plan.span * plan.panel_inches, style.small())
    first.set_title(seen, color=style.ink, fontsize=style.small(), pad=4)
    every = ((line, column) for line in range(plan.lines) for column in range(plan.columns))
    free = (cell for cell in every if max(cell) >= plan.span)
    for panel, caption, (line, column) in zip(panels, plan.captions, free, strict=False):
        axes = drawn_on.add_subplot(grid[line, column])
        draw_heat(axes, photo, panel.on_grid, patches, panel.query, brightest=panel.end)
        axes.set_title(caption, color=style.ink, fontsize=style.small(), pad=4)


def _min_inches(panel: Panel, style: Style) -> float:
    """How narrow a panel may become: its caption, broken once, must not reach into the next."""
    return longest_inches(_caption(panel, 0.0, style).split("\n"), style.small()) + _EDGE_INCHES


def _caption(panel: Panel, panel_inches: float, style: Style) -> str:
    name, largest = panel.title, panel.told or f"{'up to' if panel.beyond else 'max'} {panel.end:.2g}"
    one_line = f"{name} · {largest}"
    fits = text_inches(one_line, style.small()) <= panel_inches - _EDGE_INCHES
    return one_line if fits else f"{name}\n{largest}"


def _draw_scale(drawn_on: Canvas, unit: str, lines: int, style: Style, *, beyond: bool) -> None:
    """One scale for all panels, each of which has an end of its own."""
    scale, extend = ScalarMappable(Normalize(0, 1), heat_colours()), "max" if beyond else "neither"
    bar = drawn_on.colorbar(
        scale, ax=drawn_on.axes, ticks=[0, 1], aspect=22 * lines, pad=0.01, fraction=0.03, extend=extend
    )
    bar.ax.set_yticklabels(["0", "end" if beyond else "max"])
    style_scale(bar, style, unit)


def _layout(panels: int, aspect: float, max_columns: int) -> tuple[int, int, int]:
    """Choose lines, columns and the photo's span (1 or 2 cells) so that few cells stay empty and the whole is wide."""

    def cost(lines: int, columns: int, span: int) -> float:
        empty = lines * columns - span * span - panels
        shape = abs(math.log(columns * aspect / lines / 1.8))
        return 8 * empty / panels + shape - 0.3 * span

    options = [
        (lines, columns, span)
        for span in (1, 2)
        for lines in range(span, panels + 2)
        for columns in range(span, min(panels + 4, max_columns) + 1)
        if 0 <= lines * columns - span * span - panels < columns
    ]
    return min(options, key=lambda option: cost(*option))
