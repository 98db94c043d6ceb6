"""Attention as HTML for notebooks: a map whose cells tell their weights, and beside it the map of the row pointed at.

What is stored with a notebook has no need of a kernel or of files. Where scripts may not run, on GitHub, say, the first
map stays, and its cells tell their weights.
"""

import base64
import html
import json
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from regard.attention import Attention, Box, LayerAttention, PatchGrid
from regard.origin import origin_of
from regard.showing import names_of

_MOST_TOKENS = 64
"""Of each axis; the picture has all."""
_MOST_WEIGHTS = 2**17
"""Of the rows that can be pointed at: 0.7 MB in a notebook."""
_INK = "68,1,84"  # viridis' darkest
_CARD = "display:inline-flex;gap:1em;flex-wrap:wrap;padding:.5em;background:#fff;color:#000;font:13px sans-serif"
_POINT = """((root, event) => {
  const on = event.target.closest("[data-row]"), second = root.querySelector("[data-second]");
  if (!on || !root.contains(on)) return;
  root.querySelector("output").textContent = on.title;
  if (!second || on.dataset.row === "") return;
  root.weights ??= new Float32Array(Uint8Array.from(atob(root.dataset.weights), (one) => one.charCodeAt(0)).buffer);
  const cells = second.querySelectorAll("[data-cell]"), row = Number(on.dataset.row);
  const shown = root.weights.subarray(row * cells.length, (row + 1) * cells.length);
  const most = Math.max(1e-9, ...shown);
  cells.forEach((cell, at) => {
    cell.style.background = `rgba(INK,${Math.sqrt(Math.max(shown[at], 0) / most)})`;
    cell.style.color = second.dataset.second === "text" && shown[at] > most / 4 ? "#fff" : "";
  });
  const name = JSON.parse(root.dataset.names)[row];
  second.querySelector("figcaption").textContent = `${name} attends to (darkest: ${most.toPrecision(3)})`;
  const photo = second.querySelector("img");
  if (photo && !photo.src) photo.src = root.querySelector("img").src;
  second.style.visibility = "visible";
})(this, event)""".replace("INK", _INK)


def to_html(attention: Attention) -> str:
    """Return the last layer that came, heads averaged, so that pointing at a cell tells its number and shows its row.

    Of a photo the first map is that of the first row that came, the class token's, mostly.
    """
    if not attention.layers:
        return f"<pre>{html.escape(repr(attention))}</pre>"
    layer = attention.layers[-1]
    weights = layer.weights.astype(np.float32)
    what = f"{origin_of(attention).model} · layer {layer.layer}".removeprefix(" · ")
    if "head" in layer.axes:
        weights, what = weights.mean(axis=layer.axes.index("head")), f"{what} · mean of {len(layer.heads)} heads"
    caption = html.escape(f"{what} · {layer.measure}")
    if weights.ndim == 2 and layer.indices is None:
        if attention.tokens is not None:
            return _of_tokens(attention, layer, weights, caption)
        image, grid = origin_of(attention).image, attention.patches
        if grid is not None and image is not None and grid.box is not None and not (layer.window or layer.keys):
            return _of_photo(grid, grid.box, layer, image, weights, caption)
    return f"<p>{caption}</p><pre>{html.escape(repr(attention))}</pre>"


def _card(weights: NDArray[np.float32], names: Sequence[str], inner: str) -> str:
    """Put maps into what listens to the pointer.

    Args:
        weights: float32 [rows, cells of the second map].
        names: Of the rows.
        inner: The maps.
    """
    data = base64.b64encode(np.ascontiguousarray(weights, "<f4").tobytes()).decode()
    given = f'data-weights="{data}" data-names="{html.escape(json.dumps(names))}"'
    said = '<output style="flex-basis:100%;min-height:1.3em"></output>'
    return f'<div style="{_CARD}" {given} onpointerover="{html.escape(_POINT)}">{inner}{said}</div>'


def _shade(weight: float, most: float) -> str:
    return f"rgba({_INK},{(max(weight, 0) / most) ** 0.5:.3f})"


def _of_tokens(attention: Attention, layer: LayerAttention, weights: NDArray[np.float32], caption: str) -> str:
    """Show a matrix, and below it the text, shaded by the row that is pointed at."""
    names = names_of(attention, layer)
    rows, keys = (names[axis][:_MOST_TOKENS] for axis in ("query", "key"))
    weights = weights[: len(rows), : len(keys)]
    most = max(float(np.nanmax(weights)), 1e-9)
    table = matrix_html(names["query"], names["key"], weights, caption, lambda weight: _shade(weight, most))
    text = " ".join(f'<span data-cell style="padding:0 2px">{html.escape(key)}</span>' for key in keys)
    style = "margin:0;flex-basis:100%;max-width:44em;visibility:hidden"
    second = f'<figure data-second="text" style="{style}"><figcaption></figcaption>{text}</figure>'
    return _card(weights, rows, table + second)


def matrix_html(
    rows: Sequence[str],
    columns: Sequence[str],
    numbers: NDArray[np.float32],
    caption: str,
    shade: Callable[[float], str],
) -> str:
    """Lay numbers [rows, columns] out as a table, as many as are shown, each cell in the colour that `shade` says."""
    shown_rows, shown = rows[:_MOST_TOKENS], columns[:_MOST_TOKENS]
    upright = "writing-mode:vertical-rl;font-weight:normal;padding:2px;text-align:right"
    head = "".join(f'<th style="{upright}">{html.escape(name)}</th>' for name in shown)
    lines = [f"<tr><th></th>{head}</tr>"]
    for at, (name, row) in enumerate(zip(shown_rows, numbers, strict=False)):
        cells = "".join(
            f'<td style="width:1.2em;padding:0;background:{shade(float(number))}" data-row="{at}"'
            f' title="{html.escape(f"{name} → {column}: {number:.3g}")}"></td>'
            for column, number in zip(shown, row, strict=False)
        )
        title = f'<th style="font-weight:normal;text-align:right">{html.escape(name)}</th>'
        lines.append(f"<tr>{title}{cells}</tr>")
    cut = f" · the first {_MOST_TOKENS} tokens" if max(len(rows), len(columns)) > _MOST_TOKENS else ""
    return f'<table style="border-collapse:collapse"><caption>{caption}{cut}</caption>{"".join(lines)}</table>'


def _of_photo(
    grid: PatchGrid, box: Box, layer: LayerAttention, image: bytes, weights: NDArray[np.float32], caption: str
) -> str:
    """Show the first row over the photo, and beside it that of the patch that is pointed at, where that came."""
    places = [(line, at) for line in range(grid.rows) for at in range(grid.cols)]
    row_of = {query: row for row, query in enumerate(layer.queries)} if "query" in layer.axes else {0: 0}
    patches = weights[:, grid.prefix_tokens :]
    given = [row_of.get(grid.prefix_tokens + at, "") for at in range(len(places))]
    if patches.size > _MOST_WEIGHTS or not any(row != "" for row in given):
        patches, given = patches[:1], [""] * len(places)
    most = max(float(np.nanmax(patches[0])), 1e-9)
    first = "".join(
        f'<div style="background:{_shade(float(weight), most)}" data-row="{row}"'
        f' title="row {line}, column {at}: {weight:.3g}"></div>'
        for (line, at), weight, row in zip(places, patches[0], given, strict=True)
    )
    maps = f'<figure style="margin:0;width:320px">{laid_over(grid, box, source_of(image), first)}'
    maps += f"<figcaption>{caption}</figcaption></figure>"
    if len(patches) == 1:
        return _card(patches, [], maps)
    second = laid_over(grid, box, "", "<div data-cell></div>" * len(places))
    maps += '<figure data-second="photo" style="margin:0;width:320px;visibility:hidden">'
    return _card(patches, _row_names(grid, layer), f"{maps}{second}<figcaption></figcaption></figure>")


def _row_names(grid: PatchGrid, layer: LayerAttention) -> list[str]:
    """Name what attends: prefix tokens and patches, by their places."""
    found = list[str]()
    for query in layer.queries:
        line, at = divmod(query - grid.prefix_tokens, grid.cols)
        found.append(f"row {line}, column {at}" if query >= grid.prefix_tokens else f"token {query}")
    return found


def source_of(image: bytes) -> str:
    """Return the attribute of a picture that holds a photo itself."""
    kind = "png" if image.startswith(b"\x89PNG") else "webp" if image.startswith(b"RIFF") else "jpeg"
    return f' src="data:image/{kind};base64,{base64.b64encode(image).decode()}"'


def laid_over(grid: PatchGrid, box: Box, source: str, cells: str) -> str:
    """Lay cells over the part of a photo that the network sees."""
    assert grid.image_width and grid.image_height  # noqa: S101 -- of an image that was sent
    across, down = 100 / grid.image_width, 100 / grid.image_height
    area = f"left:{box.left * across:.3f}%;top:{box.top * down:.3f}%"
    area += f";width:{(box.right - box.left) * across:.3f}%;height:{(box.bottom - box.top) * down:.3f}%"
    tracks = f"grid-template:repeat({grid.rows},1fr)/repeat({grid.cols},1fr)"
    return (
        f'<div style="position:relative;overflow:hidden"><img style="display:block;width:100%" alt=""{source}>'
        f'<div style="position:absolute;{area};display:grid;{tracks}">{cells}</div></div>'
    )
