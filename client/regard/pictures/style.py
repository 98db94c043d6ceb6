"""How pictures look: light or dark, as wide as a screen or a page, and in colours that colour-blind people can read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Colormap, ListedColormap, LogNorm, Normalize, PowerNorm, to_rgb
from matplotlib.figure import Figure, SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray

from regard.attention import AttentionRequest, LayerAttention
from regard.pictures.lettering import LINE_SHARE, POINTS_PER_INCH, SMALLEST_POINTS, text_inches
from regard.pictures.titles import fit_title
from regard.scales import DECADES, Curve, End, Scale, in_multiples
from regard.views import Size, Theme

CM_PER_INCH = 2.54
PRINT_WIDTH_CM = 17.0
"""The text's width on an A4 page with usual margins, and of two columns of a journal."""
MARGIN_INCHES = 0.05
_BAR_INCHES, _BAR_GAP_INCHES, _LYING_INCHES = 0.13, 0.08, 3.0
# The colours of Okabe and Ito 2008, "Color Universal Design"; those that each background carries well come first.
_OKABE_ITO = {
    "light": ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#b8a800"),
    "dark": ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#d55e00", "#cc79a7", "#0072b2", "#ffffff"),
}
MAX_COLOURS = len(_OKABE_ITO["light"])
PHOTO_BRIGHTNESS = 0.65
"""Of the grey photo below a map: it runs from black to this."""
_HEAT_START, _HEAT_STEPS, _GREYS = 0.3, 256, 32
_USUAL_SCALE = Scale()


@dataclass(frozen=True)
class Style:
    """Colours and measures of a picture.

    Attributes:
        theme: "dark" or "light".
        width_inches: Of the whole picture, or less for a short text's matrix; None for as wide as it needs.
        text_points: Size of labels; titles are a little larger, nothing is smaller than 7.
        dpi: Dots per inch of PNG, and of photos in SVG and PDF.
        scale: How numbers become colours.
        opacity: Of the largest numbers over a photo, from 0 to 1; the bar beside it shows the same colours over all
            greys that the photo may have there.
        smooth: Whether maps run smoothly between the centres of patches (`regard.scales.smoothed`), or a patch has one
            colour.
        contour: A line around the fewest patches that hold this share of a map's sum, above 0 and at most 1; or None.
    """

    theme: Theme = "dark"
    width_inches: float | None = None
    text_points: float = 9.0
    dpi: int = 150
    scale: Scale = _USUAL_SCALE
    opacity: float = 0.88
    smooth: bool = True
    contour: float | None = None

    @property
    def ink(self) -> str:
        """Colour of text."""
        return "#e6e6e6" if self.theme == "dark" else "#1a1a1a"

    @property
    def paper(self) -> str:
        """Colour of the background."""
        return "#101014" if self.theme == "dark" else "#ffffff"

    @property
    def faint(self) -> str:
        """Colour of lines that guide the eye."""
        return "#4a4a52" if self.theme == "dark" else "#c4c4c4"

    @property
    def categories(self) -> tuple[str, ...]:
        """Eight colours for things that have no order."""
        return _OKABE_ITO[self.theme]

    def width(self, wanted_inches: float) -> float:
        """Return the width in inches that is set, else the one that the picture wants."""
        return wanted_inches if self.width_inches is None else self.width_inches

    def at_most(self, wanted_inches: float) -> float:
        """Return the width in inches that the picture wants, or the one that is set where that is less."""
        return min(wanted_inches, self.width(wanted_inches))

    def small(self) -> float:
        """Return the size of the smallest type in points."""
        return max(SMALLEST_POINTS, self.text_points - 1)


SCREEN = Style()
"""Dark, as wide as the picture needs, 150 dpi."""
PRINT = Style("light", PRINT_WIDTH_CM / CM_PER_INCH, 8.0, 300)
"""Light, 17 cm wide, 300 dpi."""

Canvas = Figure | SubFigure
Drawing = Callable[..., Figure]
"""Any picture's function with everything given but `style` and `on`, e.g. by `functools.partial`."""


def make_style(
    size: Size = "screen", theme: Theme | None = None, width_cm: float | None = None, dpi: int | None = None
) -> Style:
    """Return the style of a screen (dark, as wide as the picture needs, 150 dpi) or of print (light, 17 cm, 300 dpi).

    Args:
        size: "screen" or "print".
        theme: "dark" or "light", instead of the size's own.
        width_cm: Of the whole picture in centimetres, instead of the size's own.
        dpi: Dots per inch, instead of the size's own.
    """
    base = SCREEN if size == "screen" else PRINT
    width = base.width_inches if width_cm is None else width_cm / CM_PER_INCH
    return Style(theme or base.theme, width, base.text_points, dpi or base.dpi)


def canvas(
    style: Style, on: SubFigure | None, width_inches: float, height_inches: float, *, placed: bool = False
) -> Canvas:
    """Return what to draw on: the part of a figure that is given, or a new figure of this size.

    Where all is `placed` (see `place`), nothing moves it; else what is drawn is kept apart and off the edges.
    """
    if on is not None:
        on.set_facecolor(style.paper)
        return on
    return empty_figure(style, width_inches, height_inches, placed=placed)


def empty_figure(style: Style, width_inches: float, height_inches: float, *, placed: bool = False) -> Figure:
    """Return a figure of this size with nothing on it; `placed` as for `canvas`."""
    layout = None if placed else ConstrainedLayoutEngine(w_pad=MARGIN_INCHES, h_pad=MARGIN_INCHES)
    return Figure((width_inches, height_inches), layout=layout, facecolor=style.paper, dpi=style.dpi)


def whole(drawn_on: Canvas) -> Figure:
    """Return the figure that a part belongs to."""
    figure = drawn_on.get_figure(root=True)
    assert isinstance(figure, Figure)  # noqa: S101 -- a canvas is a figure or a part of one
    return figure


def heat_colours(opacity: float = Style.opacity) -> ListedColormap:
    """Return matplotlib's inferno, which colour-blind people can read, growing from clear to an opacity."""
    share = np.linspace(0, 1, _HEAT_STEPS)
    colours = matplotlib.colormaps["inferno"](_HEAT_START + (1 - _HEAT_START) * share)
    colours[:, 3] = opacity * share**0.8
    return ListedColormap(colours, name="heat")


def signed_colours(theme: Theme, opacity: float | None = None, lowest: float = -1.0) -> ListedColormap:
    """Return blue for numbers below 0 and orange for those above, which colour-blind people can tell apart.

    Both grow from clear to an opacity, over a photo; or, where none is given, from the paper's colour. They begin at
    the `lowest` share: 0 for numbers of which none is below 0.
    """
    orange, blue = _OKABE_ITO[theme][:2] if theme == "dark" else _OKABE_ITO[theme][1::-1]
    share = np.linspace(lowest, 1, 2 * _HEAT_STEPS)[:, np.newaxis]
    hue = np.where(share > 0, to_rgb(orange), to_rgb(blue))
    strength = np.abs(share) ** 0.8
    if opacity is not None:
        return ListedColormap(np.hstack([hue, opacity * strength]), name="signed")
    return ListedColormap(strength * hue + (1 - strength) * to_rgb(Style(theme).paper), name="signed")


def norm_of(scale: Scale, usual: Curve, end: float) -> Normalize:
    """Return what turns numbers from 0 to an end into shares of a scale.

    Args:
        scale: What was chosen.
        usual: The curve where none was.
        end: Where it ends, above 0.
    """
    curve = scale.curve or usual
    if curve == "log":
        return LogNorm(end / 10**DECADES, end, clip=True)
    return PowerNorm(0.5, 0, end) if curve == "sqrt" else Normalize(0, end)


def counted_in(layer: LayerAttention, num_keys: int, asked: AttentionRequest | None, style: Style) -> LayerAttention:
    """Return a layer in the unit of a style: as it is, or in multiples of uniform attention (`scales.in_multiples`)."""
    return in_multiples(layer, num_keys, asked) if style.scale.multiples else layer


def scale_label(unit: str, end: End | None, style: Style) -> str:
    """Say what the numbers of a scale are, and what lies beyond its end; None where panels have ends of their own."""
    return beside_beyond(f"{unit}, in units of 1/N" if style.scale.multiples else unit, end)


def beside_beyond(label: str, end: End | None) -> str:
    """Put behind a label, which may be empty, what lies beyond a scale's end."""
    if end is None or not end.beyond:
        return label
    which = f"to the {end.percentile:.4g}th percentile" if end.percentile < 100 else f"to {end.value:.2g}"
    return "; ".join(filter(None, (label, which, f"largest {end.largest:.2g}")))


def scale_inches(style: Style) -> float:
    """Return the room that a scale takes beside a picture: bar, numerals and what the numbers are."""
    label = style.text_points * LINE_SHARE / POINTS_PER_INCH
    return _BAR_GAP_INCHES + _BAR_INCHES + text_inches("0.00025", style.small()) + label + 2 * MARGIN_INCHES


def draw_bar(
    drawn_on: Canvas,
    corner: tuple[float, float],
    height: float,
    mappable: ScalarMappable,
    style: Style,
    label: str,
    *,
    beyond: bool,
    over_photo: bool,
) -> Colorbar:
    """Draw a scale beside a picture, with an arrow where there are numbers beyond its end.

    Over a photo it shows each colour over all greys that the photo may have there, black on the left.

    Args:
        drawn_on: What it is drawn on, with the room of `scale_inches`.
        corner: Of the picture, the upper right one, in inches from the upper left corner of what is drawn on.
        height: Of the picture, in inches.
        mappable: What it is the scale of.
        style: Colours and measures.
        label: What the numbers are.
        beyond: Whether there are numbers beyond its end.
        over_photo: Whether the colours lie over a photo.
    """
    arrow = _BAR_INCHES if beyond else 0.0
    left, top = corner[0] + _BAR_GAP_INCHES, corner[1]
    below = arrow if _is_signed(mappable) else 0.0
    length = height - arrow - below
    axes = place(drawn_on, left, top + arrow, _BAR_INCHES, length)
    extend = _extend(mappable, beyond=beyond)
    bar = whole(drawn_on).colorbar(mappable, cax=axes, extend=extend, extendfrac=arrow / length, format=_numeral)
    axes.minorticks_off()
    axes.tick_params(colors=style.ink, length=0, labelsize=style.small())
    fitted = fit_title(label, height, style.text_points)
    bar.set_label(fitted.text, color=style.ink, fontsize=fitted.points)
    bar.outline.set_visible(False)
    if over_photo and bar.solids is not None and mappable.cmap is not None:
        bar.solids.set_visible(False)
        strip = axes.imshow(blends(mappable.cmap), extent=(0, 1, 0, 1), transform=axes.transAxes, aspect="auto")
        strip.set(interpolation="nearest", zorder=0.5)
    return bar


def draw_bar_below(
    drawn_on: Canvas, top: float, mappable: ScalarMappable, style: Style, label: str, *, beyond: bool
) -> None:
    """Draw a scale that lies below a picture, with what its numbers are under it; `beyond` as for `draw_bar`.

    Args:
        drawn_on: What it is drawn on.
        top: Of the bar, in inches from the upper edge of that.
        mappable: What it is the scale of.
        style: Colours and measures.
        label: What the numbers are.
        beyond: Whether there are numbers beyond its ends.
    """
    width = min(_LYING_INCHES, inches_of(drawn_on)[0] - 4 * _BAR_INCHES)
    axes = place(drawn_on, 2 * _BAR_INCHES, top, width, _BAR_INCHES)
    extend, share = _extend(mappable, beyond=beyond), _BAR_INCHES / width
    options: dict[str, Any] = {"orientation": "horizontal", "extend": extend, "extendfrac": share, "format": _numeral}
    bar = whole(drawn_on).colorbar(mappable, cax=axes, **options)
    axes.minorticks_off()
    axes.locator_params(nbins=5)
    axes.tick_params(colors=style.ink, length=0, labelsize=style.small())
    axes.set_xlabel(label, color=style.ink, fontsize=style.small(), labelpad=2)
    bar.outline.set_visible(False)


def _is_signed(mappable: ScalarMappable) -> bool:
    lowest, _ = mappable.get_clim()
    return lowest is not None and lowest < 0


def _extend(mappable: ScalarMappable, *, beyond: bool) -> str:
    """Say where a bar has arrows."""
    if not beyond:
        return "neither"
    return "both" if _is_signed(mappable) else "max"


def _numeral(value: float, _: object = None) -> str:
    return f"{value:.3g}"


def blends(colours: Colormap) -> NDArray[np.float64]:
    """Return what a scale's colours become over all greys of a darkened photo: [256, 32, 3], end, black first."""
    table = colours(np.linspace(1, 0, _HEAT_STEPS))[:, np.newaxis]
    greys = np.linspace(0, PHOTO_BRIGHTNESS, _GREYS)[:, np.newaxis]
    return np.asarray(table[..., :3] * table[..., 3:] + greys[np.newaxis] * (1 - table[..., 3:]))


def inches_of(drawn_on: Canvas) -> tuple[float, float]:
    """Return width and height in inches of what is drawn on."""
    box, dpi = drawn_on.bbox, whole(drawn_on).dpi
    return float(box.width / dpi), float(box.height / dpi)


def place(drawn_on: Canvas, left: float, top: float, width: float, height: float) -> Axes:
    """Return axes at a place in inches from the upper left corner, which nothing moves."""
    across, down = inches_of(drawn_on)
    return drawn_on.add_axes((left / across, 1 - (top + height) / down, width / across, height / down))


def write_title(drawn_on: Canvas, text: str, points: float, style: Style) -> None:
    """Write a title below the upper edge, which nothing moves."""
    height = 1 - MARGIN_INCHES / inches_of(drawn_on)[1]
    drawn_on.suptitle(text, y=height, va="top", color=style.ink, fontsize=points)


def legend_below(drawn_on: Canvas, handles: Sequence[Artist], inches: float, style: Style) -> None:
    """Put a legend below everything, in as many columns as fit a width."""
    longest = max(text_inches(str(handle.get_label()), style.small()) for handle in handles)
    entry_inches = longest + 5 * style.small() / POINTS_PER_INCH
    columns = min(len(handles), max(1, int(inches / entry_inches)))
    drawn_on.legend(
        handles=handles,
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=style.small(),
        labelcolor=style.ink,
    )
