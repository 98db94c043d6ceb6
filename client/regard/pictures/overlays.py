"""Attention over a photo: one map, a panel a head, or a panel for each query patch."""

import numpy as np
from matplotlib.figure import Figure, SubFigure
from numpy.typing import NDArray
from PIL import Image

from regard.attention import AttentionRequest, LayerAttention, PatchGrid
from regard.matrices import (
    Matrix,
    averaged,
    averaged_matrices,
    one_matrix,
    positions,
    query_name,
    query_phrase,
    rows_of,
    unit_name,
)
from regard.pictures.panels import draw_panels, panels_of
from regard.pictures.photos import darken_outside, draw_heat, frame_patch, patch_map, placed
from regard.pictures.style import (
    MARGIN_INCHES,
    SCREEN,
    Style,
    canvas,
    counted_in,
    draw_bar,
    inches_of,
    place,
    scale_inches,
    scale_label,
    whole,
)
from regard.pictures.titles import fit_title, layer_title
from regard.scales import scale_end
from regard.windows import layer_grid

_WANTED_INCHES = 8.0


def overlay(
    photo: Image.Image,
    layer: LayerAttention,
    patches: PatchGrid,
    *,
    model: str,
    asked: AttentionRequest | None = None,
    style: Style = SCREEN,
    on: SubFigure | None = None,
) -> Figure:
    """Draw the whole photo with one row of attention laid over it; what the network never saw is darkened.

    Args:
        photo: From `open_photo`; any resolution with the sides of the image that was sent.
        layer: An image's: weights or a rollout [H, Q, K], or [Q, K] where heads were reduced. Of several heads their
            mean is drawn, of several rows the first; of all rows of a network without a class token their mean.
        patches: The grid that came with it.
        model: Name for the title.
        asked: What was asked for, where the title should say so: a reduction other than the mean, value weighting.
        style: Colours and measures.
        on: Draw on this part of a figure (see `side_by_side`).

    Returns:
        The whole figure.

    Raises:
        ValueError: Weights and grid do not fit together.
    """
    grid = layer_grid(layer, patches)
    layer = counted_in(layer, positions(grid), asked, style)
    matrix = averaged(one_matrix(layer, positions(grid), asked), grid)
    query, on_grid = maps_of(matrix, grid)[0]
    width, height, _ = placed(patches)
    inches = style.width(_WANTED_INCHES)
    across = inches - scale_inches(style) - MARGIN_INCHES
    down = across * height / width
    who = query_phrase(query, layer, grid)
    title = fit_title(layer_title(model, layer, f"{matrix.name}: {who}"), across, style.text_points + 2)
    drawn_on = canvas(style, on, inches, down + title.height_inches + 4 * MARGIN_INCHES, placed=True)
    top = inches_of(drawn_on)[1] - down - MARGIN_INCHES
    axes = place(drawn_on, MARGIN_INCHES, top, across, down)
    end = scale_end(layer, [on_grid], style.scale)
    heat = draw_heat(axes, photo, on_grid, grid, _framed(query, layer), style, end=end.value, seen=patches)
    darken_outside(axes, patches, style.paper)
    axes.set_title(title.text, color=style.ink, fontsize=title.points)
    label, corner = scale_label(unit_name(layer, asked), end, style), (MARGIN_INCHES + across, top)
    draw_bar(drawn_on, corner, down, heat, style, label, beyond=end.beyond, over_photo=True)
    return whole(drawn_on)


def head_grid(
    photo: Image.Image,
    layer: LayerAttention,
    patches: PatchGrid,
    *,
    model: str,
    asked: AttentionRequest | None = None,
    style: Style = SCREEN,
    on: SubFigure | None = None,
) -> Figure:
    """Draw the photo as the network saw it, then one panel for each head (and each query row) of a layer.

    Where all rows of a network without a class token were sent, each panel shows their mean.

    Each panel runs from 0 to its own largest weight, which stands in its title: heads differ by an order of magnitude.
    Where `style.scale.common` is set, all have one scale.

    Args, returns and raises: as `overlay`, but of [H, Q, K] every head and every row is drawn.
    """
    grid = layer_grid(layer, patches)
    layer = counted_in(layer, positions(grid), asked, style)
    heads = averaged_matrices(layer, grid, asked)
    one_row = len(heads[0].weights) == 1
    maps = [
        (matrix.name if one_row else f"{matrix.name}, row {query}", _framed(query, layer), on_grid)
        for matrix in heads
        for query, on_grid in maps_of(matrix, grid)
    ]
    who = query_phrase(rows_of(heads[0])[0][0], layer, grid) if one_row else "what each row attends to"
    title, common = layer_title(model, layer, who), bool(style.scale.common)
    panels, unit = panels_of(layer, maps, unit_name(layer, asked), style, common=common)
    return whole(draw_panels(photo, patches, panels, title, unit, style, on, grid=grid, common=common))


def query_maps(
    photo: Image.Image,
    layer: LayerAttention,
    patches: PatchGrid,
    *,
    model: str,
    asked: AttentionRequest | None = None,
    style: Style = SCREEN,
    on: SubFigure | None = None,
) -> Figure:
    """Draw the photo with a frame around each query patch, then what each attends to; heads are reduced.

    Args, returns and raises: as `overlay`, but every row is drawn, with a panel of its own.
    """
    grid = layer_grid(layer, patches)
    layer = counted_in(layer, positions(grid), asked, style)
    matrix = one_matrix(layer, positions(grid), asked)
    maps = [
        (_place(query, grid), query, on_grid)
        for query, on_grid in zip(matrix.queries, _grids(matrix, grid), strict=True)
    ]
    title, common = layer_title(model, layer, f"{matrix.name}: what each framed patch attends to"), style.scale.common
    panels, unit = panels_of(layer, maps, unit_name(layer, asked), style, common=bool(common))
    drawn_on = draw_panels(photo, patches, panels, title, unit, style, on, grid=grid, common=bool(common))
    for panel in panels:
        if panel.query is not None:
            frame_patch(drawn_on.axes[0], panel.query, grid)
    return whole(drawn_on)


def maps_of(matrix: Matrix, patches: PatchGrid) -> list[tuple[int | None, NDArray[np.floating]]]:
    """Return the query, None for the mean of all, and what it attends to, as [rows, cols]."""
    who = [query for query, _ in rows_of(matrix)]
    return list(zip(who, _grids(matrix, patches), strict=True))


def _framed(query: int | None, layer: LayerAttention) -> int | None:
    """The patch to frame: the queries of cross-attention lie nowhere on the photo, nor does a mean."""
    return None if layer.kind == "cross" else query


def _grids(matrix: Matrix, patches: PatchGrid) -> list[NDArray[np.floating]]:
    """Return each row as [rows, cols]; keys that were not sent count as 0."""
    dense = np.zeros((len(matrix.weights), positions(patches)), dtype=np.float32)
    dense[:, list(matrix.keys)] = np.nan_to_num(matrix.weights)
    return [patch_map(row, patches) for row in dense]


def _place(query: int, patches: PatchGrid) -> str:
    """Name a query as a caption: "class token", "register 2", or "row 1, column 2" of a patch."""
    return query_name(query, patches).removeprefix("the ").removeprefix("patch in ")
