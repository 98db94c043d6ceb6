"""Why a label by layer: at each depth of the network, which positions hold what speaks for it and against it."""

from functools import partial

import numpy as np
from matplotlib.figure import Figure, SubFigure
from PIL import Image

from regard.pictures.beside import side_by_side
from regard.pictures.pairs import draw_matrix
from regard.pictures.relevance import UNIT, relevance_map
from regard.pictures.style import SCREEN, Drawing, Style
from regard.reasons import headline, layer_name, names
from regard.relevance import Relevance

_COLUMNS = 3


def relevance_layers(
    why: Relevance,
    *,
    model: str,
    photo: Image.Image | None = None,
    style: Style = SCREEN,
    on: SubFigure | None = None,
) -> Figure:
    """Draw a map of each depth over the photo, or a row for each depth and a column for each position.

    All depths have one scale, as long on both sides of 0. A row ends with what is added behind that depth, so that its
    numbers are the score; below a map that is written.

    Args:
        why: From a request with by_layer.
        model: Name for the title.
        photo: From `open_photo`; None for a matrix, which is also of images.
        style: Colours and measures; of its scale percentile and end, which are of the numbers without their signs.
        on: Draw a matrix on this part of a figure (see `side_by_side`).

    Returns:
        The whole figure.

    Raises:
        ValueError: It is not by layer, or does not fit the photo.
    """
    if why.by_layer is None:
        raise ValueError("relevance without layers; expected that of a request with by_layer")
    layers = why.by_layer
    depths = range(len(layers.values))
    if photo is not None:
        drawings: list[Drawing] = [partial(relevance_map, photo, why.at_layer(depth), model=model) for depth in depths]
        return side_by_side(drawings, columns=_COLUMNS, style=style)
    columns, beside = names(why), [("added behind", layers.added)]
    if why.positions:
        beside.insert(0, ("left out", layers.unsent))
    values = np.column_stack([layers.values, *(numbers for _, numbers in beside)])
    rows = [layer_name(depth) for depth in depths]
    return draw_matrix(values, rows, [*columns, *(name for name, _ in beside)], headline(why, model), UNIT, style, on)
