"""Attention and relevance for notebooks: as a figure, as arrays with named axes, as a table of numbers."""

import dataclasses
from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from regard import checks
from regard.attention import Attention, LayerAttention, Token
from regard.comparison import SimilarityRelevance
from regard.errors import InvalidCall
from regard.origin import origin_of
from regard.relevance import Relevance

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PlotView = Literal["heads", "overlay", "matrix", "arcs"]
_VIEWS = ("heads", "overlay", "matrix", "arcs")


def plot(attention: Attention, layer: int, head: int | None, row: int | None, view: str | None, photo: Any) -> "Figure":
    """Draw one layer; see `Attention.plot`."""
    from regard import pictures  # needs matplotlib

    checks.choice("view", view, (None, *_VIEWS))
    origin, chosen = origin_of(attention), attention.layer(layer)
    title: dict[str, Any] = {"model": origin.model or "attention", "asked": origin.asked}
    if chosen.statistics:
        raise InvalidCall.of(f"attention: statistics ({', '.join(chosen.statistics)}); expected weights to draw")
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
    dims, names = ("layer", *axes), names_of(attention, first)
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


def _one_row(layer: LayerAttention, row: int | None) -> LayerAttention:
    """Return one query of a layer: the class token, or whichever is the first that came."""
    if "query" not in layer.axes:
        return layer
    return select(layer, "query", layer.queries[0] if row is None else row)


def _places(attention: Attention, layer: LayerAttention) -> dict[str, list[Any]]:
    keys = layer.keys or range(layer.weights.shape[layer.axes.index("key")] if "key" in layer.axes else 0)
    statistics: list[Any] = list(layer.statistics)
    return {"head": list(layer.heads), "query": list(layer.queries), "key": list(keys), "statistic": statistics}


def names_of(attention: Attention, layer: LayerAttention) -> dict[str, list[str]]:
    """Return the texts of tokens along the axes of a layer that have some."""
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
    places, names = _places(attention, layer), names_of(attention, layer)
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
