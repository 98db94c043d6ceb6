"""Which patch of a photo answers to which word of a text: a panel for the whole text, and one for each word."""

import numpy as np
from matplotlib.figure import Figure, SubFigure
from numpy.typing import NDArray
from PIL import Image

from regard.alignment import Alignment
from regard.pictures.panels import Panel, draw_panels
from regard.pictures.style import SCREEN, Style, whole

_UNIT = "cosine above the panel's least"


def word_maps(photo: Image.Image, found: Alignment, *, style: Style = SCREEN, on: SubFigure | None = None) -> Figure:
    """Draw the photo as the network saw it, then the whole text's map and one for each token that is no special one.

    Each panel runs from its own least cosine to its largest: cosines of one token differ little, and tokens much.

    Args:
        photo: From `open_photo`; any resolution with the sides of the image that was sent.
        found: From `Client.align`.
        style: Colours and measures.
        on: Draw on this part of a figure (see `side_by_side`).

    Returns:
        The whole figure.
    """
    words = [(token.text, found.grid(place)) for place, token in enumerate(found.tokens) if not token.special]
    panels = [_panel(name, on_grid) for name, on_grid in [("the whole text", found.grid()), *words]]
    title = f"{found.model} · which patch answers to which word · cosine of both {found.similarity:.3f}"
    return whole(draw_panels(photo, found.patches, panels, title, _UNIT, style, on))


def _panel(name: str, on_grid: NDArray[np.float32]) -> Panel:
    least, largest = float(on_grid.min()), float(on_grid.max())
    told = f"{least:.2f} to {largest:.2f}"
    return Panel(name, None, on_grid - on_grid.min(), largest - least, beyond=False, told=told)
