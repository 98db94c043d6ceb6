"""Which cells of a layer's grid lie in which window, and where."""

import numpy as np
from numpy.typing import NDArray

from artifact.contract import WindowContract

PADDING = -1


def window_cells(window: WindowContract) -> NDArray[np.int64]:
    """Number the cells of each window.

    Returns:
        [windows, keys], windows and their positions row by row: cells of the grid, counted row by row, or PADDING.
    """
    rows, cols = (-(-size // edge) * edge for size, edge in ((window.rows, window.height), (window.cols, window.width)))
    cells = np.full((rows, cols), PADDING, dtype=np.int64)
    cells[: window.rows, : window.cols] = np.arange(window.queries).reshape(window.rows, window.cols)
    rolled = np.roll(cells, (-window.shift_rows, -window.shift_cols), axis=(0, 1))
    parts = rolled.reshape(rows // window.height, window.height, cols // window.width, window.width)
    return parts.transpose(0, 2, 1, 3).reshape(-1, window.keys)


def places_in_windows(window: WindowContract) -> NDArray[np.int64]:
    """Return for each cell of the grid where it stands among all positions of all windows, [queries]."""
    cells = window_cells(window).ravel()
    places = np.empty(window.queries, dtype=np.int64)
    places[cells[cells != PADDING]] = np.flatnonzero(cells != PADDING)
    return places
