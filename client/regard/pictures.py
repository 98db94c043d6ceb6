"""Pictures of attention as matplotlib figures: over a photo, and between tokens; the command line saves them.

Functions return a `matplotlib.figure.Figure` and touch no global state; `figure.savefig(path)` writes it.
"""

import io
import math
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import ListedColormap, Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from regard.attention import Box, LayerAttention, PatchGrid, Token

_SHOWN_PIXELS = 1024
_INK, _PAPER = "#e6e6e6", "#101014"
# The longest edge of a text's picture; above it, cells shrink and not every token is named.
_LARGEST_INCHES = 20.0


def _heat_map() -> ListedColormap:
    """Return matplotlib's inferno, which colour-blind people can read, growing from clear to nearly opaque."""
    share = np.linspace(0, 1, 256)
    colours = matplotlib.colormaps["inferno"](0.3 + 0.7 * share)
    colours[:, 3] = 0.88 * share**0.8
    return ListedColormap(colours, name="heat")


def open_photo(data: bytes) -> Image.Image:
    """Decode a JPEG, PNG or WebP file as people see it: RGB, turned by its EXIF orientation.

    Raises:
        ValueError: These bytes are no such image.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I"):  # 16-bit grey, which convert would clip to white
                upright = Image.fromarray((np.asarray(upright, dtype=np.uint32) >> 8).clip(0, 255).astype(np.uint8))
            return upright.convert("RGB")
    except (OSError, Image.DecompressionBombError) as error:
        raise ValueError(f"not a readable image: {error}") from error


def patch_map(weights: NDArray[np.floating], patches: PatchGrid) -> NDArray[np.floating]:
    """Lay one row of attention out as the patches lie on the photo.

    Args:
        weights: [K] of any float type, prefix tokens first.
        patches: The grid of the same image.

    Returns:
        [rows, cols].

    Raises:
        ValueError: The row does not have as many weights as there are positions.
    """
    positions = patches.prefix_tokens + patches.rows * patches.cols
    if weights.shape != (positions,):
        raise ValueError(f"attention of shape {list(weights.shape)}; expected [{positions}], one weight per position")
    return weights[patches.prefix_tokens :].reshape(patches.rows, patches.cols)


def overlay(photo: Image.Image, layer: LayerAttention, patches: PatchGrid, *, model: str) -> Figure:
    """Draw the whole photo with one row of attention laid over it; what the network never saw is darkened.

    Args:
        photo: From `open_photo`; any resolution with the sides of the image that was sent.
        layer: An image's: weights [H, Q, K], or [Q, K] where heads were averaged; the first row is drawn.
        patches: The grid that came with it.
        model: Name for the title.

    Raises:
        ValueError: Weights and grid do not fit together.
    """
    query, head, weights = _rows_of(layer)[0]
    width, height, box = _placed(patches)
    figure = Figure(figsize=(8.0, 6.8 * height / width + 0.7), layout="constrained", facecolor=_PAPER)
    axes = figure.add_subplot()
    heat = _draw_heat(axes, photo, weights, patches, query)
    _darken_outside(axes, box, width, height)
    axes.set_title(f"{model} · layer {layer.layer} · {head}: what {_looker(query, patches)} looks at", color=_INK)
    _style_scale(figure.colorbar(heat, ax=axes, label="attention weight", pad=0.01, aspect=30))
    return figure


def head_grid(photo: Image.Image, layer: LayerAttention, patches: PatchGrid, *, model: str) -> Figure:
    """Draw the photo as the network saw it, then one panel for each head (and each query row) of a layer.

    Each panel runs from 0 to its own largest weight, which stands in its title: heads differ by an order of magnitude.

    Args: as `overlay`.

    Raises:
        ValueError: Weights and grid do not fit together.
    """
    rows = _rows_of(layer)
    _, _, box = _placed(patches)
    slope = (box.bottom - box.top) / (box.right - box.left)
    lines, columns, span = _layout(len(rows), 1 / slope)
    panel_inches = 11.0 / columns
    size = (11.9, lines * (panel_inches * slope + 0.28) + 0.5)
    figure = Figure(figsize=size, layout="constrained", facecolor=_PAPER)
    grid = figure.add_gridspec(lines, columns)
    first = figure.add_subplot(grid[:span, :span])
    _draw_photo(first, photo, patches)
    first.set_title("what the network saw", color=_INK, fontsize=9, pad=4)
    cells = [(line, column) for line in range(lines) for column in range(columns) if line >= span or column >= span]
    one_query = len(layer.queries) == 1
    for (query, head, weights), (line, column) in zip(rows, cells, strict=False):
        axes = figure.add_subplot(grid[line, column])
        _draw_heat(axes, photo, weights, patches, query)
        name = head if one_query else f"{head}, row {query}"
        largest = float(patch_map(weights, patches).max())
        axes.set_title(f"{name} · max {largest:.2g}", color=_INK, fontsize=9, pad=4)
    for axes in figure.axes:
        axes.set(xlim=(box.left, box.right), ylim=(box.bottom, box.top))
    looker = _looker(layer.queries[0], patches) if one_query else "each row"
    figure.suptitle(f"{model} · layer {layer.layer} · what {looker} looks at", color=_INK, fontsize=13)
    scale = ScalarMappable(Normalize(0, 1), _heat_map())
    bar = figure.colorbar(scale, ax=figure.axes, ticks=[0, 1], aspect=22 * lines, pad=0.01, fraction=0.03)
    bar.ax.set_yticklabels(["0", "max"])
    _style_scale(bar)
    return figure


def token_heatmap(layer: LayerAttention, tokens: Sequence[Token], *, model: str) -> Figure:
    """Draw who looks at whom in a text: one panel, rows are queries, columns are keys.

    Colours follow the square root of the weight, so that weak links stay visible beside strong ones.

    Args:
        layer: A text's: weights [Q, K], or [H, Q, K] of which the first head is drawn.
        tokens: All tokens of the text.
        model: Name for the title.

    Raises:
        ValueError: Weights and tokens do not fit together.
    """
    weights = layer.weights.astype(np.float32)
    weights = weights[0] if layer.axes[0] == "head" else weights
    if weights.shape != (len(layer.queries), len(tokens)):
        raise ValueError(f"attention of shape {list(weights.shape)} for {len(tokens)} tokens")
    width, height = (min(max(2.5, 0.28 * count), _LARGEST_INCHES) for count in (len(tokens), len(layer.queries)))
    figure = Figure(figsize=(width + 2.4, height + 2.0), layout="constrained", facecolor=_PAPER)
    axes = figure.add_subplot()
    heat = axes.imshow(weights, cmap="viridis", norm=PowerNorm(0.5, 0, max(float(weights.max()), 1e-9)))
    words = [_printable(token.text) for token in tokens]
    columns, rows = (_labelled(count) for count in (len(words), len(layer.queries)))
    axes.set_xticks(columns, [words[column] for column in columns], rotation=90, fontsize=9)
    axes.set_yticks(rows, [words[layer.queries[row]] for row in rows], fontsize=9)
    axes.set_xlabel("looked at (keys)", color=_INK)
    axes.set_ylabel("looking (queries)", color=_INK)
    axes.tick_params(length=0, colors=_INK)
    axes.spines[:].set_visible(False)
    axes.set_title(f"{model} · layer {layer.layer} · {_head_names(layer)[0]}", color=_INK, fontsize=12)
    _style_scale(figure.colorbar(heat, ax=axes, label="attention weight", pad=0.02, aspect=30))
    return figure


def _labelled(count: int) -> range:
    """Which of so many rows or columns are labelled: all, or every second and so on where they are many."""
    return range(0, count, max(1, -(-count * 28 // int(_LARGEST_INCHES * 100))))


def _head_names(layer: LayerAttention) -> list[str]:
    if "head" in layer.axes:
        return [f"head {head}" for head in layer.heads]
    return [f"mean of {len(layer.heads)} heads" if len(layer.heads) != 1 else f"head {layer.heads[0]}"]


def _rows_of(layer: LayerAttention) -> list[tuple[int, str, NDArray[np.floating]]]:
    """Return (query position, head name, weights [K]) for each head and query of weights [H, Q, K] or [Q, K]."""
    weights = layer.weights.astype(np.float32)
    by_head = weights if "head" in layer.axes else weights[np.newaxis]
    return [
        (query, name, row)
        for name, matrix in zip(_head_names(layer), by_head, strict=True)
        for query, row in zip(layer.queries, matrix, strict=True)
    ]


def _placed(patches: PatchGrid) -> tuple[int, int, Box]:
    """Return image width, image height and box of a grid that came with an image."""
    if patches.image_width is None or patches.image_height is None or patches.box is None:
        raise ValueError("this patch grid is a model's own; expected the one that came with an image's attention")
    return patches.image_width, patches.image_height, patches.box


def _looker(query: int, patches: PatchGrid) -> str:
    if query == 0 and patches.prefix_tokens:
        return "the class token"
    if query < patches.prefix_tokens:
        return f"register {query}"
    row, column = divmod(query - patches.prefix_tokens, patches.cols)
    return f"the patch in row {row}, column {column}"


def _printable(text: str) -> str:
    """Keep matplotlib from reading a pair of dollar signs as a formula."""
    return text.replace("$", r"\$")


def _layout(panels: int, aspect: float) -> tuple[int, int, int]:
    """Choose lines, columns and the photo's span (1 or 2 cells) so that few cells stay empty and the whole is wide."""

    def cost(lines: int, columns: int, span: int) -> float:
        empty = lines * columns - span * span - panels
        shape = abs(math.log(columns * aspect / lines / 1.8))
        return 8 * empty / panels + shape - 0.3 * span

    options = [
        (lines, columns, span)
        for span in (1, 2)
        for lines in range(span, panels + 2)
        for columns in range(span, panels + 5)
        if 0 <= lines * columns - span * span - panels < columns
    ]
    return min(options, key=lambda option: cost(*option))


def _draw_photo(axes: Axes, photo: Image.Image, patches: PatchGrid, brightness: float = 1.0) -> None:
    """Show the photo in the pixel coordinates of the image that was sent, in grey where it is to carry a map."""
    width, height, _ = _placed(patches)
    shown = photo.copy()
    shown.thumbnail((_SHOWN_PIXELS, _SHOWN_PIXELS))
    if brightness < 1:
        shown = ImageEnhance.Brightness(shown.convert("L").convert("RGB")).enhance(brightness)
    axes.imshow(np.asarray(shown), extent=(0, width, height, 0))
    axes.set_axis_off()


def _draw_heat(
    axes: Axes, photo: Image.Image, weights: NDArray[np.floating], patches: PatchGrid, query: int
) -> ScalarMappable:
    """Lay one row of attention over the box that the patches cover, opaque where the weight is large."""
    width, height, box = _placed(patches)
    _draw_photo(axes, photo, patches, brightness=0.65)
    on_grid = patch_map(weights, patches)
    heat = axes.imshow(
        on_grid,
        cmap=_heat_map(),
        norm=Normalize(0, max(float(on_grid.max()), 1e-9)),
        interpolation="bicubic",
        interpolation_stage="data",
        extent=(box.left, box.right, box.bottom, box.top),
    )
    axes.set(xlim=(0, width), ylim=(height, 0))
    if query >= patches.prefix_tokens:
        axes.add_patch(_frame(query, patches, box))
    return heat


def _darken_outside(axes: Axes, box: Box, width: int, height: int) -> None:
    strips = [
        (0, 0, width, box.top),
        (0, box.bottom, width, height),
        (0, box.top, box.left, box.bottom),
        (box.right, box.top, width, box.bottom),
    ]
    for left, top, right, bottom in strips:
        axes.add_patch(Rectangle((left, top), right - left, bottom - top, color=_PAPER, alpha=0.65, linewidth=0))


def _frame(query: int, patches: PatchGrid, box: Box) -> Rectangle:
    """Frame the patch that looks."""
    row, column = divmod(query - patches.prefix_tokens, patches.cols)
    width, height = (box.right - box.left) / patches.cols, (box.bottom - box.top) / patches.rows
    corner = (box.left + column * width, box.top + row * height)
    return Rectangle(corner, width, height, fill=False, edgecolor="white", linewidth=1.5)


def _style_scale(bar: Colorbar) -> None:
    bar.ax.set_facecolor(_PAPER)
    bar.ax.tick_params(colors=_INK, length=0)
    bar.ax.yaxis.label.set_color(_INK)
    bar.outline.set_visible(False)
