"""Attention and relevance for notebooks: as a figure, as HTML, as arrays with named axes, as a table of numbers."""

import base64
import dataclasses
import html
from collections.abc import Callable, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from regard import checks
from regard.attention import Attention, LayerAttention, PatchGrid, Token
from regard.comparison import SimilarityRelevance
from regard.errors import InvalidCall
from regard.origin import origin_of
from regard.reasons import (
    AGAINST_COLOUR,
    FOR_COLOUR,
    headline,
    names,
    on_patches,
    similarity_headline,
    unplaced,
)
from regard.relevance import Relevance

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PlotView = Literal["heads", "overlay", "matrix", "arcs"]
_VIEWS = ("heads", "overlay", "matrix", "arcs")
_MOST_TOKENS = 64
"""In HTML; the picture has all."""
_INK = "68,1,84"  # viridis' darkest


def plot(attention: Attention, layer: int, head: int | None, row: int | None, view: str | None, photo: Any) -> "Figure":
    """Draw one layer; see `Attention.plot`."""
    from regard import pictures  # needs matplotlib

    checks.choice("view", view, (None, *_VIEWS))
    origin, chosen = origin_of(attention), attention.layer(layer)
    title: dict[str, Any] = {"model": origin.model or "attention", "asked": origin.asked}
    if chosen.measure in ("entropy", "distance"):
        return pictures.head_chart(attention, **title)
    chosen = select(chosen, "head", head)
    several = "head" in chosen.axes and len(chosen.heads) > 1
    if attention.tokens is not None:
        drawn = {"heads": pictures.token_heads, "matrix": pictures.token_heatmap, "arcs": pictures.token_arcs}
        name = view or ("heads" if several else "matrix")
        if name not in drawn:
            raise checks.invalid("view", view, "heads, matrix or arcs, since tokens lie on no photo")
        return drawn[name](chosen, attention.tokens, key_tokens=attention.key_tokens, **title)
    if attention.patches is None:
        raise InvalidCall.of("attention: says neither tokens nor patches; expected that of a text or an image")
    if view in ("matrix", "arcs"):
        raise checks.invalid("view", view, "heads or overlay, since patches lie on a photo")
    opened = _open(origin.image if photo is None else photo)
    drawing = pictures.head_grid if (view or ("heads" if several else "overlay")) == "heads" else pictures.overlay
    return drawing(opened, _one_row(chosen, row), attention.patches, **title)


def plot_relevance(why: Relevance, photo: Any) -> "Figure":
    """Draw it; see `Relevance.plot`."""
    from regard import pictures  # needs matplotlib

    origin = origin_of(why)
    if why.tokens is not None:
        return pictures.relevance_text(why, model=origin.model)
    if why.patches is None:
        raise InvalidCall.of("relevance: says neither tokens nor patches; expected that of a text or an image")
    return pictures.relevance_map(_open(origin.image if photo is None else photo), why, model=origin.model)


def plot_pairs(why: SimilarityRelevance) -> "Figure":
    """Draw it; see `SimilarityRelevance.plot`."""
    from regard import pictures  # needs matplotlib

    if why.pairs is None:
        raise InvalidCall.of("relevance: without pairs; expected those of compare with pairs=True")
    return pictures.pair_matrix(why, model=origin_of(why.first).model)


def pairs_html(why: SimilarityRelevance) -> str:
    """Return the pairs so that pointing at one tells its number; without pairs, both inputs."""
    caption = html.escape(similarity_headline(why, origin_of(why.first).model))
    if why.pairs is None:
        return f"<p>{caption}</p>{relevance_html(why.first)}{relevance_html(why.second)}"
    return _matrix_html(names(why.first), names(why.second), why.pairs, caption, _signed_shade(why.pairs))


def relevance_html(why: Relevance) -> str:
    """Return it so that pointing at a token or a patch tells its number."""
    caption = html.escape(" · ".join([headline(why, origin_of(why).model), unplaced(why)]))
    image = origin_of(why).image
    if why.tokens is not None:
        shade = _signed_shade(why.values)
        words = "".join(
            f'<span style="background:{shade(value)};padding:1px 3px;margin:1px" title="{value:+.3g}">{name}</span> '
            for name, value in zip(map(html.escape, names(why)), map(float, why.values), strict=True)
        )
        return f'<p style="line-height:1.8">{words}</p><p>{caption}</p>'
    if why.patches is None or image is None or why.patches.box is None:
        return f"<p>{caption}</p><pre>{html.escape(repr(why))}</pre>"
    on_grid = on_patches(why)
    return _photo(why.patches, image, on_grid, caption, _signed_shade(on_grid))


def _signed_shade(values: NDArray[np.floating]) -> Callable[[float], str]:
    """Return what makes a colour of a number: one for those above 0, one for those below, clear at 0."""
    most = max(float(np.abs(values).max(initial=0)), 1e-9)

    def shade(value: float) -> str:
        return f"{FOR_COLOUR if value > 0 else AGAINST_COLOUR}{round(255 * abs(value) / most):02x}"

    return shade


def _open(image: Any) -> Any:
    """Open the bytes of a photo; an image of Pillow is one already.

    Raises:
        InvalidCall: There is none.
    """
    from regard import pictures

    if image is None:
        raise InvalidCall.of("photo: None; expected the image that was sent, which this answer did not keep")
    return pictures.open_photo(image) if isinstance(image, bytes) else image


def select(layer: LayerAttention, axis: str, number: int | None) -> LayerAttention:
    """Return a layer with one of its heads or queries alone; None for all.

    Raises:
        InvalidCall: It is not there.
    """
    if number is None:
        return layer
    there = {"head": layer.heads, "query": layer.queries}[axis]
    field = {"head": "head", "query": "row"}[axis]
    if axis not in layer.axes or number not in there:
        raise checks.invalid(field, number, f"one of {', '.join(map(str, there))}")
    at = layer.axes.index(axis)

    def cut(values: NDArray[Any]) -> NDArray[Any]:
        return np.take(values, [there.index(number)], at)

    changes: dict[str, Any] = {"heads" if axis == "head" else "queries": (number,), "weights": cut(layer.weights)}
    indices = None if layer.indices is None else cut(layer.indices)
    return dataclasses.replace(layer, indices=indices, **changes)


def to_numpy(attention: Attention) -> NDArray[np.floating]:
    """Stack the layers; see `Attention.to_numpy`."""
    shapes = {(layer.axes, layer.weights.shape) for layer in attention.layers}
    if len(shapes) != 1:
        found = ", ".join(sorted(str(list(shape)) for _, shape in shapes)) or "none"
        raise InvalidCall.of(f"attention: layers of shapes {found}; expected the same of all: see layer(n).weights")
    return np.stack([layer.weights for layer in attention.layers])


def to_xarray(attention: Attention) -> Any:
    """Stack the layers, with axes and their places named; see `Attention.to_xarray`."""
    try:
        import xarray
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"to_xarray needs {error.name}: pip install xarray", name=error.name) from error
    numbers, first = to_numpy(attention), attention.layers[0]
    axes = first.axes if first.indices is None else (*first.axes[:-1], "rank")
    dims, names = ("layer", *axes), _names(attention, first)
    coordinates: dict[str, Any] = {"layer": [layer.layer for layer in attention.layers]}
    coordinates |= {axis: places for axis, places in _places(attention, first).items() if axis in axes}
    coordinates |= {f"{axis}_token": (axis, names[axis]) for axis in names if axis in axes}
    if first.indices is not None:
        keys = np.stack([layer.indices for layer in attention.layers if layer.indices is not None])
        coordinates["key"] = (dims, keys)
        if tokens := _key_tokens(attention):
            coordinates["key_token"] = (dims, np.array([token.text for token in tokens])[keys])
    return xarray.DataArray(numbers, coordinates, dims, name=first.measure)


def to_dataframe(attention: Attention) -> Any:
    """Return a row for each number; see `Attention.to_dataframe`."""
    try:
        import pandas
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"to_dataframe needs {error.name}: pip install pandas", name=error.name) from error
    if not attention.layers:
        return pandas.DataFrame()
    parts = [pandas.DataFrame(_columns(attention, layer)) for layer in attention.layers]
    return pandas.concat(parts, ignore_index=True)


def to_html(attention: Attention) -> str:
    """Return the last layer that came, heads averaged, so that pointing at a cell tells its number."""
    if not attention.layers:
        return f"<pre>{html.escape(repr(attention))}</pre>"
    layer = attention.layers[-1]
    weights = layer.weights.astype(np.float32)
    what = f"{origin_of(attention).model} · layer {layer.layer}".removeprefix(" · ")
    if "head" in layer.axes:
        weights, what = weights.mean(axis=layer.axes.index("head")), f"{what} · mean of {len(layer.heads)} heads"
    caption = html.escape(f"{what} · {layer.measure}")
    if weights.ndim != 2 or layer.indices is not None:
        return f"<p>{caption}</p><pre>{html.escape(repr(attention))}</pre>"
    if attention.tokens is not None:
        return _token_table(attention, layer, weights, caption)
    image = origin_of(attention).image
    if attention.patches is None or image is None or attention.patches.box is None or layer.window or layer.keys:
        return f"<p>{caption}</p><pre>{html.escape(repr(attention))}</pre>"
    on_grid = weights[0, attention.patches.prefix_tokens :].reshape(attention.patches.rows, attention.patches.cols)
    most = max(float(np.nanmax(on_grid)), 1e-9)
    return _photo(attention.patches, image, on_grid, caption, lambda weight: _shade(weight, most))


def _one_row(layer: LayerAttention, row: int | None) -> LayerAttention:
    """Return one query of a layer: the class token, or whichever is the first that came."""
    if "query" not in layer.axes:
        return layer
    return select(layer, "query", layer.queries[0] if row is None else row)


def _places(attention: Attention, layer: LayerAttention) -> dict[str, list[int]]:
    keys = layer.keys or range(layer.weights.shape[layer.axes.index("key")] if "key" in layer.axes else 0)
    return {"head": list(layer.heads), "query": list(layer.queries), "key": list(keys)}


def _names(attention: Attention, layer: LayerAttention) -> dict[str, list[str]]:
    """Return the texts of tokens along the axes that have some."""
    tokens = {"query": attention.tokens, "key": _key_tokens(attention)}
    places = _places(attention, layer)
    return {
        axis: [found[place].text for place in places[axis]]
        for axis, found in tokens.items()
        if found and axis in layer.axes
    }


def _key_tokens(attention: Attention) -> Sequence[Token] | None:
    return attention.key_tokens or attention.tokens


def _columns(attention: Attention, layer: LayerAttention) -> dict[str, Any]:
    places, names = _places(attention, layer), _names(attention, layer)
    along = [places.get(axis) or list(range(size)) for axis, size in zip(layer.axes, layer.weights.shape, strict=True)]
    grid = list(product(*along))
    columns: dict[str, Any] = {"layer": [layer.layer] * len(grid)}
    for at, axis in enumerate(layer.axes):
        columns[axis] = [row[at] for row in grid]
        if axis in names:
            by_place = dict(zip(places[axis], names[axis], strict=True))
            columns[f"{axis}_token"] = [by_place[place] for place in columns[axis]]
    if layer.indices is not None:
        columns["key"] = layer.indices.reshape(-1)
        if tokens := _key_tokens(attention):
            columns["key_token"] = [tokens[place].text for place in columns["key"]]
    return columns | {layer.measure: layer.weights.reshape(-1)}


def _shade(weight: float, most: float) -> str:
    return f"rgba({_INK},{(max(weight, 0) / most) ** 0.5:.3f})"


def _token_table(attention: Attention, layer: LayerAttention, weights: NDArray[np.floating], caption: str) -> str:
    named, most = _names(attention, layer), max(float(np.nanmax(weights)), 1e-9)
    return _matrix_html(named["query"], named["key"], weights, caption, lambda weight: _shade(weight, most))


def _matrix_html(
    row_names: Sequence[str],
    column_names: Sequence[str],
    numbers: NDArray[np.floating],
    caption: str,
    shade: Callable[[float], str],
) -> str:
    """Lay numbers [rows, columns] out as a table, each cell in the colour that `shade` says."""
    rows, keys = (side[:_MOST_TOKENS] for side in (row_names, column_names))
    upright = "writing-mode:vertical-rl;font-weight:normal;padding:2px;text-align:right"
    head = "".join(f'<th style="{upright}">{html.escape(key)}</th>' for key in keys)
    lines = [f"<tr><th></th>{head}</tr>"]
    for name, row in zip(rows, numbers, strict=False):
        cells = "".join(
            f'<td style="width:1.2em;padding:0;background:{shade(float(weight))}"'
            f' title="{html.escape(f"{name} → {key}: {weight:.3g}")}"></td>'
            for key, weight in zip(keys, row, strict=False)
        )
        lines.append(f'<tr><th style="font-weight:normal;text-align:right">{html.escape(name)}</th>{cells}</tr>')
    cut = f" · the first {_MOST_TOKENS} tokens" if max(map(len, (row_names, column_names))) > _MOST_TOKENS else ""
    return f'<table style="border-collapse:collapse"><caption>{caption}{cut}</caption>{"".join(lines)}</table>'


def _photo(
    grid: PatchGrid, image: bytes, patches: NDArray[np.floating], caption: str, shade: Callable[[float], str]
) -> str:
    """Lay numbers [rows, cols] over a photo, each cell in the colour that `shade` says."""
    box = grid.box
    assert box is not None and grid.image_width and grid.image_height  # noqa: S101 -- of an image that was sent
    cells = "".join(
        f'<div style="background:{shade(float(weight))}" title="row {line}, column {at}: {weight:.3g}"></div>'
        for (line, at), weight in np.ndenumerate(patches)
    )
    across, down = 100 / grid.image_width, 100 / grid.image_height
    tracks = f"grid-template:repeat({grid.rows},1fr)/repeat({grid.cols},1fr)"
    area = f"left:{box.left * across:.3f}%;top:{box.top * down:.3f}%"
    area += f";width:{(box.right - box.left) * across:.3f}%;height:{(box.bottom - box.top) * down:.3f}%"
    kind = "png" if image.startswith(b"\x89PNG") else "webp" if image.startswith(b"RIFF") else "jpeg"
    data = base64.b64encode(image).decode()
    return (
        f'<figure style="margin:0;width:360px"><div style="position:relative;overflow:hidden">'
        f'<img style="display:block;width:100%" alt="" src="data:image/{kind};base64,{data}">'
        f'<div style="position:absolute;{area};display:grid;{tracks}">'
        f"{cells}</div></div><figcaption>{caption}</figcaption></figure>"
    )
