"""A photo and the map that lies over it: opened, placed, drawn on axes."""

import io

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from regard.attention import Box, PatchGrid
from regard.matrices import positions
from regard.orientation import turn_upright
from regard.pictures.style import PHOTO_BRIGHTNESS, Style, heat_colours, norm_of
from regard.scales import holding_mass, smoothed
from regard.sources import DAMAGED_IMAGE

_SHOWN_PIXELS = 1024
_MAP_PIXELS = 512
"""About how many numbers a smooth map has along its longer side."""
_RIMMED = (("black", 2.4), ("white", 1.2))
"""A line that is seen on any ground: colours and points, the rim first."""


def open_photo(data: bytes) -> Image.Image:
    """Decode a JPEG, PNG or WebP file as people see it.

    Args:
        data: The file's bytes.

    Returns:
        RGB, turned by its EXIF orientation.

    Raises:
        ValueError: These bytes are no such image.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            upright = turn_upright(image)
            if upright.mode.startswith("I"):  # 16-bit grey, which convert would clip to white
                upright = Image.fromarray((np.asarray(upright, dtype=np.uint32) >> 8).clip(0, 255).astype(np.uint8))
            return upright.convert("RGB")
    except (*DAMAGED_IMAGE, Image.DecompressionBombError) as error:
        raise ValueError(f"not a readable image: {error}") from error


def patch_map(weights: NDArray[np.floating], patches: PatchGrid) -> NDArray[np.floating]:
    """Lay one row of attention out as the patches lie on the photo.

    Args:
        weights: [K] of any float type, prefix tokens first.
        patches: The grid of the same image.

    Returns:
        [rows, cols], of the same float type.

    Raises:
        ValueError: The row does not have as many weights as there are positions.
    """
    count = positions(patches)
    if weights.shape != (count,):
        raise ValueError(f"attention of shape {list(weights.shape)}; expected [{count}], one weight per position")
    return weights[patches.prefix_tokens :].reshape(patches.rows, patches.cols)


def placed(patches: PatchGrid) -> tuple[int, int, Box]:
    """Return image width, image height and box of a grid that came with an image.

    Raises:
        ValueError: It is a model's own.
    """
    if patches.image_width is None or patches.image_height is None or patches.box is None:
        raise ValueError("this patch grid is a model's own; expected the one that came with an image's attention")
    return patches.image_width, patches.image_height, patches.box


def shown_box(patches: PatchGrid) -> Box:
    """Return what the network saw of the photo itself, over which the box reaches where its input is padded."""
    width, height, box = placed(patches)
    return Box(box.left, box.top, min(box.right, width), min(box.bottom, height))


def draw_photo(axes: Axes, photo: Image.Image, patches: PatchGrid, brightness: float = 1.0) -> None:
    """Show the photo in the pixel coordinates of the image that was sent, in grey where it is to carry a map."""
    width, height, _ = placed(patches)
    shown = photo.copy()
    shown.thumbnail((_SHOWN_PIXELS, _SHOWN_PIXELS))
    if brightness < 1:
        shown = ImageEnhance.Brightness(shown.convert("L").convert("RGB")).enhance(brightness)
    axes.imshow(np.asarray(shown), extent=(0, width, height, 0))
    axes.set_axis_off()


def draw_heat(
    axes: Axes,
    photo: Image.Image,
    on_grid: NDArray[np.floating],
    patches: PatchGrid,
    query: int | None,
    style: Style,
    *,
    end: float,
    seen: PatchGrid | None = None,
    colours: tuple[ListedColormap, Normalize] | None = None,
) -> ScalarMappable:
    """Lay one row of attention over the box that the patches cover, opaque where the weight is large.

    The colour at a patch's centre is that of its weight on the scale, which ends at `end`. Nothing is drawn beyond the
    box of what was `seen`, over which cells of a layer's own grid may reach. Numbers that are not attention have
    `colours` and a linear scale of their own; their outline is of what lies above 0.
    """
    width, height, box = placed(patches)
    draw_photo(axes, photo, patches, brightness=PHOTO_BRIGHTNESS)
    cmap, norm = colours or (heat_colours(style.opacity), norm_of(style.scale, "linear", end))
    lowest = norm.vmin if colours else None
    shown = np.clip(on_grid, lowest, end)  # what lies beyond would else spread while it is smoothed
    times = max(1, _MAP_PIXELS // max(shown.shape)) | 1
    heat = axes.imshow(
        smoothed(shown, times) if style.smooth else shown,
        cmap=cmap,
        norm=norm,
        interpolation="bilinear" if style.smooth else "nearest",
        interpolation_stage="data",
        extent=(box.left, box.right, box.bottom, box.top),
    )
    outline = _outline(np.maximum(on_grid, 0) if colours else on_grid, box, style.contour) if style.contour else []
    for lines in outline:
        axes.add_collection(lines)
    if seen is not None:
        edge = shown_box(seen)
        corner, size = (edge.left, edge.top), (edge.right - edge.left, edge.bottom - edge.top)
        for artist in (heat, *outline):
            artist.set_clip_path(Rectangle(corner, *size, transform=axes.transData))
    axes.set(xlim=(0, width), ylim=(height, 0))
    if query is not None:
        frame_patch(axes, query, patches)
    return heat


def _outline(on_grid: NDArray[np.floating], box: Box, share: float) -> list[LineCollection]:
    """Return a white line on a dark rim around the fewest patches that hold a share of the sum."""
    inside = np.pad(holding_mass(on_grid, share), 1)
    rows, cols = on_grid.shape
    width, height = (box.right - box.left) / cols, (box.bottom - box.top) / rows
    left_of = [((c, r), (c, r + 1)) for r, c in np.argwhere(inside[1:-1, 1:] != inside[1:-1, :-1])]
    above = [((c, r), (c + 1, r)) for r, c in np.argwhere(inside[1:, 1:-1] != inside[:-1, 1:-1])]
    edges = [[(box.left + x * width, box.top + y * height) for x, y in edge] for edge in (*left_of, *above)]
    return [LineCollection(edges, colors=colour, linewidths=line, capstyle="projecting") for colour, line in _RIMMED]


def frame_patch(axes: Axes, query: int, patches: PatchGrid) -> None:
    """Frame the query patch, white on a dark rim; a prefix token has no place."""
    if query < patches.prefix_tokens:
        return
    _, _, box = placed(patches)
    row, column = divmod(query - patches.prefix_tokens, patches.cols)
    width, height = (box.right - box.left) / patches.cols, (box.bottom - box.top) / patches.rows
    corner = (box.left + column * width, box.top + row * height)
    for colour, line_points in _RIMMED:
        axes.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=colour, linewidth=line_points))


def darken_outside(axes: Axes, patches: PatchGrid, paper: str) -> None:
    """Fade what the network never saw towards the paper."""
    width, height, box = placed(patches)
    strips = [
        (0, 0, width, box.top),
        (0, box.bottom, width, height),
        (0, box.top, box.left, box.bottom),
        (box.right, box.top, width, box.bottom),
    ]
    for left, top, right, bottom in strips:
        axes.add_patch(Rectangle((left, top), right - left, bottom - top, color=paper, alpha=0.65, linewidth=0))
