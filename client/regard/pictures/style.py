"""How pictures look: light or dark, as wide as a screen or a page, and in colours that colour-blind people can read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.figure import Figure, SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from regard.pictures.lettering import POINTS_PER_INCH, text_inches
from regard.views import Size, Theme

CM_PER_INCH = 2.54
PRINT_WIDTH_CM = 17.0
"""The text's width on an A4 page with usual margins, and of two columns of a journal."""
SMALLEST_POINTS = 7.0
_MARGIN_INCHES = 0.05
# The colours of Okabe and Ito 2008, "Color Universal Design"; those that each background carries well come first.
_OKABE_ITO = {
    "light": ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#b8a800"),
    "dark": ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#d55e00", "#cc79a7", "#0072b2", "#ffffff"),
}
MAX_COLOURS = len(_OKABE_ITO["light"])
GREY_PHOTO = "#3c3c3c"
"""What a map's colours lie on: about the grey of a darkened photo."""


@dataclass(frozen=True)
class Style:
    """Colours and measures of a picture.

    Attributes:
        theme: "dark" or "light".
        width_inches: Of the whole picture, or less for a short text's matrix; None for as wide as it needs.
        text_points: Size of labels; titles are a little larger, nothing is smaller than 7.
        dpi: Dots per inch of PNG, and of photos in SVG and PDF.
    """

    theme: Theme = "dark"
    width_inches: float | None = None
    text_points: float = 9.0
    dpi: int = 150

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


def canvas(style: Style, on: SubFigure | None, width_inches: float, height_inches: float) -> Canvas:
    """Return what to draw on: the part of a figure that is given, or a new figure of this size."""
    if on is not None:
        on.set_facecolor(style.paper)
        return on
    return empty_figure(style, width_inches, height_inches)


def empty_figure(style: Style, width_inches: float, height_inches: float) -> Figure:
    """Return a figure of this size with nothing on it, which keeps what is drawn apart and off its edges."""
    layout = ConstrainedLayoutEngine(w_pad=_MARGIN_INCHES, h_pad=_MARGIN_INCHES)
    return Figure((width_inches, height_inches), layout=layout, facecolor=style.paper, dpi=style.dpi)


def whole(drawn_on: Canvas) -> Figure:
    """Return the figure that a part belongs to."""
    figure = drawn_on.get_figure(root=True)
    assert isinstance(figure, Figure)  # noqa: S101 -- a canvas is a figure or a part of one
    return figure


def heat_colours() -> Colormap:
    """Return matplotlib's inferno, which colour-blind people can read, growing from clear to nearly opaque."""
    share = np.linspace(0, 1, 256)
    colours = matplotlib.colormaps["inferno"](0.3 + 0.7 * share)
    colours[:, 3] = 0.88 * share**0.8
    return ListedColormap(colours, name="heat")


def style_scale(bar: Colorbar, style: Style, label: str = "") -> None:
    """Give a scale the picture's colours and type."""
    bar.ax.set_facecolor(GREY_PHOTO)
    bar.ax.tick_params(colors=style.ink, length=0, labelsize=style.small())
    bar.set_label(label, color=style.ink, fontsize=style.text_points)
    bar.outline.set_visible(False)


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
