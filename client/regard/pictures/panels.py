"""A photo and panels beside it, one a head or a query, each a map over the photo."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.cm import ScalarMappable
from matplotlib.figure import SubFigure
from numpy import floating
from numpy.typing import NDArray
from PIL import Image

from regard.attention import LayerAttention, PatchGrid
from regard.pictures.lettering import POINTS_PER_INCH, height_inches, longest_inches, wrapped
from regard.pictures.photos import draw_heat, draw_photo, shown_box
from regard.pictures.style import (
    MARGIN_INCHES,
    Canvas,
    Style,
    canvas,
    draw_bar,
    norm_of,
    place,
    scale_inches,
    scale_label,
    write_title,
)
from regard.pictures.titles import Title, fit_title
from regard.scales import DECADES, scale_end

_WANTED_INCHES, _EDGE_INCHES, _GAP_INCHES = 11.9, 0.05, 0.1
_CAPTION_PAD_POINTS, _MAX_SPAN = 4, 3


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


def panels_of(
    layer: LayerAttention,
    maps: Sequence[tuple[str, int | None, NDArray[floating]]],
    unit: str,
    style: Style,
    *,
    common: bool,
) -> tuple[list[Panel], str]:
    """Return panels of one layer, each with a scale of its own or all with one, and what the numbers of scales are.

    Args:
        layer: What the maps are of.
        maps: Name, query position (or None) and numbers [rows, cols] of each.
        unit: What the numbers are.
        style: Colours and measures.
        common: Whether all have one scale.
    """
    whole_end = scale_end(layer, [on_grid for _, _, on_grid in maps], style.scale)
    panels = []
    for name, query, on_grid in maps:
        end = whole_end if common else scale_end(layer, [on_grid], style.scale)
        told = f"max {on_grid.max():.2g}" if common else ""
        panels.append(Panel(name, query, on_grid, end.value, end.value < on_grid.max(), told))
    return panels, scale_label(unit, whole_end, style) if common else scale_label(unit, None, style)


@dataclass(frozen=True)
class _Plan:
    """Where everything goes, in inches.

    Attributes:
        columns: Panels beside each other, the photo counted where it is as large as one.
        spans: Whether the photo is as high as all lines of panels together.
        photo: Its width and height.
        panel: Width and height of each.
        caption: Height of what stands above each.
        size: Of the whole.
        title: Above all.
        captions: Of the panels.
    """

    columns: int
    spans: bool
    photo: tuple[float, float]
    panel: tuple[float, float]
    caption: float
    size: tuple[float, float]
    title: Title
    captions: list[str]

    def cells(self) -> Iterator[tuple[float, float]]:
        """Yield the upper left corner of each panel, from the lower edge of the whole's title."""
        first = self.photo[0] + _GAP_INCHES if self.spans else 0.0
        for at in itertools.count(0 if self.spans else 1):
            line, column = divmod(at, self.columns)
            left = _EDGE_INCHES + first + column * (self.panel[0] + _GAP_INCHES)
            yield left, self.caption + line * (self.panel[1] + self.caption + _GAP_INCHES)


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
    common: bool = False,
) -> Canvas:
    """Draw the photo in colour, then the panels, each with what is said of its scale, and one scale for all.

    The numbers lie on the grid; without one, as patches do. Where the panels have one scale in common, its numbers
    stand beside it; else it runs to the end of each.
    """
    box = shown_box(patches)
    plan = _plan(panels, (box.bottom - box.top) / (box.right - box.left), title, style)
    drawn_on = canvas(style, on, *plan.size, placed=True)
    write_title(drawn_on, plan.title.text, plan.title.points, style)
    top = plan.title.height_inches + 2 * MARGIN_INCHES
    caption: dict[str, Any] = {"color": style.ink, "fontsize": style.small(), "pad": _CAPTION_PAD_POINTS}
    first = place(drawn_on, _EDGE_INCHES, top + plan.caption, *plan.photo)
    draw_photo(first, photo, patches)
    first.set_title(wrapped("what the network saw", plan.photo[0], style.small()), **caption)
    heat, right, bottom = ScalarMappable(), 0.0, plan.caption + plan.photo[1]
    for panel, words, (left, down) in zip(panels, plan.captions, plan.cells(), strict=False):
        axes = place(drawn_on, left, top + down, *plan.panel)
        heat = draw_heat(axes, photo, panel.on_grid, grid or patches, panel.query, style, end=panel.end)
        axes.set_title(words, **caption)
        right, bottom = max(right, left + plan.panel[0]), max(bottom, down + plan.panel[1])
    for axes in drawn_on.axes:
        axes.set(xlim=(box.left, box.right), ylim=(box.bottom, box.top))
    beside = (right, top + plan.caption, bottom - plan.caption)
    draw_scale(drawn_on, beside, heat, panels, unit, style, common=common)
    return drawn_on


def draw_scale(
    drawn_on: Canvas,
    beside: tuple[float, float, float],
    heat: ScalarMappable,
    panels: Sequence[Panel],
    unit: str,
    style: Style,
    *,
    common: bool,
) -> None:
    """Draw one scale for all panels: its numbers where it is common, else from 0 to the end of each.

    Args:
        drawn_on: What the panels are drawn on.
        beside: Right edge, top and height of what it stands beside, in inches.
        heat: A panel's map.
        panels: All of them.
        unit: What the numbers are.
        style: Colours and measures.
        common: Whether all have one scale.
    """
    beyond = any(panel.beyond for panel in panels)
    scale = heat if common else ScalarMappable(norm_of(style.scale, "linear", 1), heat.cmap)
    right, top, height = beside
    bar = draw_bar(drawn_on, (right, top), height, scale, style, unit, beyond=beyond, over_photo=True)
    if not common:
        last, is_log = "end" if beyond else "max", style.scale.curve == "log"
        start = 10.0**-DECADES if is_log else 0.0
        bar.set_ticks([start, 1], labels=[f"{last}/{10**DECADES}" if is_log else "0", last])


def _plan(panels: Sequence[Panel], slope: float, title: str, style: Style) -> _Plan:
    """Choose what leaves few places empty and is wider than high."""
    width = style.width(_WANTED_INCHES)
    room = width - scale_inches(style) - _EDGE_INCHES
    fitted = fit_title(title, width - 2 * _EDGE_INCHES, style.text_points + 3)
    narrowest = max(_min_inches(panel, style) for panel in panels)
    plans = []
    for lines, columns, spans in _layouts(len(panels)):
        caption = _caption_inches(1, style)
        panel = _panel_inches(room, lines, columns, spans, slope, caption)
        captions = captions_of(panels, panel, style)
        if "\n" in captions[0]:
            caption = _caption_inches(2, style)
            panel = _panel_inches(room, lines, columns, spans, slope, caption)
        if panel < narrowest and (spans or columns > 1):
            continue
        inner = lines * (panel * slope + caption + _GAP_INCHES) - _GAP_INCHES
        high = inner - caption if spans else panel * slope
        size = (width, inner + fitted.height_inches + 3 * MARGIN_INCHES)
        plans.append(
            _Plan(columns, spans, (high / slope, high), (panel, panel * slope), caption, size, fitted, captions)
        )
    return min(plans, key=lambda plan: _cost(plan, len(panels)))


def _layouts(panels: int) -> Iterator[tuple[int, int, bool]]:
    """Yield lines, columns, and whether the photo spans all lines, else it is the first panel."""
    for lines in range(1, panels + 2):
        for spans in (True, False):
            cells = panels if spans else panels + 1
            columns = math.ceil(cells / lines)
            if spans and lines > min(columns, _MAX_SPAN):  # panels would be too small beside the photo
                continue
            if columns * (lines - 1) < cells:
                yield lines, columns, spans


def _panel_inches(room: float, lines: int, columns: int, spans: bool, slope: float, caption: float) -> float:
    """Return how wide a panel becomes, whose slope is its height by its width."""
    if not spans:
        return (room - (columns - 1) * _GAP_INCHES) / columns
    beside = (lines - 1) * (caption + _GAP_INCHES) / slope + columns * _GAP_INCHES
    return (room - beside) / (lines + columns)


def _cost(plan: _Plan, panels: int) -> float:
    lines = round((plan.photo[1] if plan.spans else 0) and (plan.photo[1] + plan.caption) / plan.panel[1])
    cells = panels if plan.spans else panels + 1
    empty = math.ceil(cells / plan.columns) * plan.columns - cells
    return 8 * empty / panels + abs(math.log(plan.size[0] / plan.size[1] / 1.8)) - (0.3 if lines > 1 else 0)


def _min_inches(panel: Panel, style: Style) -> float:
    """How narrow a panel may become: its caption, broken once, must not reach into the next."""
    return longest_inches(_caption_parts(panel), style.small()) + _GAP_INCHES


def captions_of(panels: Sequence[Panel], panel_inches: float, style: Style) -> list[str]:
    """Return each panel's name and what is said of its scale: all in one line where that fits a width, else in two."""
    parts = [_caption_parts(panel) for panel in panels]
    in_one = [" · ".join(part) for part in parts]
    fits = longest_inches(in_one, style.small()) <= panel_inches - _GAP_INCHES
    return in_one if fits else ["\n".join(part) for part in parts]


def _caption_parts(panel: Panel) -> tuple[str, str]:
    return panel.title, panel.told or f"{'up to' if panel.beyond else 'max'} {panel.end:.2g}"


def _caption_inches(lines: int, style: Style) -> float:
    return height_inches("\n" * (lines - 1), style.small()) + 2 * _CAPTION_PAD_POINTS / POINTS_PER_INCH
