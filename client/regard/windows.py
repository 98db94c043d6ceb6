"""Layers on a grid of their own: which cells a query's keys are in windows, and how the grid lies on the photo."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from regard.answers import AttentionLayer
from regard.attention import AttentionWindow, Box, LayerAttention, PatchGrid

PADDING = -1


def key_cells(window: AttentionWindow, queries: Sequence[int] | None = None) -> NDArray[np.int64]:
    """Tell which cell of the grid each key of each query is.

    Args:
        window: Of a layer, as its answer or the model's description has it.
        queries: Cells of the layer's grid, Q; None for all of them in order.

    Returns:
        [Q, height * width]: cells of the layer's grid, counted row by row; PADDING (-1) for none.
    """
    asked = np.arange(window.rows * window.cols) if queries is None else np.array(queries, dtype=np.int64)
    by_row = _line_cells(window.rows, window.height, window.shift_rows)[asked // window.cols, :, np.newaxis]
    by_col = _line_cells(window.cols, window.width, window.shift_cols)[asked % window.cols, np.newaxis]
    cells = np.where((by_row < 0) | (by_col < 0), PADDING, by_row * window.cols + by_col)
    return cells.reshape(len(asked), window.height * window.width)


def window_grid(window: AttentionWindow | None, patches: PatchGrid) -> PatchGrid:
    """Say how the grid of a layer lies on the photo on which patches lie so.

    Its box reaches over the patches' where its last cells reach over the edge of the network's input.

    Args:
        window: Of the layer; None where its positions are the patches.
        patches: The grid that came with an image, or the model's own.
    """
    if window is None:
        return patches
    box = patches.box and _stretched(
        patches.box,
        window.cols * window.cell_size / (patches.cols * patches.patch_size),
        window.rows * window.cell_size / (patches.rows * patches.patch_size),
    )
    return dataclasses.replace(
        patches, prefix_tokens=0, rows=window.rows, cols=window.cols, patch_size=window.cell_size, box=box
    )


def layer_grid(layer: LayerAttention | AttentionLayer, patches: PatchGrid) -> PatchGrid:
    """Say which positions the keys of a layer are: of class attention the class token, then the patches.

    Args:
        layer: Of an answer, or of a model's description.
        patches: The grid that came with an image, or the model's own.
    """
    if layer.class_attention:
        return dataclasses.replace(patches, prefix_tokens=1)
    return window_grid(layer.window, patches)


def _line_cells(size: int, edge: int, shift: int) -> NDArray[np.int64]:
    """Tell along one axis which cell each key of each query is, [size, edge]: PADDING for none."""
    whole = -(-size // edge) * edge
    first = (np.arange(size) - shift) % whole // edge * edge  # of the query's window, in the rolled grid
    cells = (first[:, np.newaxis] + np.arange(edge) + shift) % whole
    return np.where(cells < size, cells, PADDING)


def _stretched(box: Box, wider: float, higher: float) -> Box:
    right = box.left + (box.right - box.left) * wider
    return Box(box.left, box.top, right, box.top + (box.bottom - box.top) * higher)
