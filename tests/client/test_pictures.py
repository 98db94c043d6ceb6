"""The pictures: panels, titles, and light where the attention is."""

import io
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from regard import Box, LayerAttention, PatchGrid, Token, pictures
from tests.client.fake import HEIGHT, WIDTH, photo_bytes

GRID = PatchGrid(1, 2, 3, 16, WIDTH, HEIGHT, Box(15, 0, 75, 40))  # patches of 20 x 20 pixels
TOKENS = [Token(number, word, 0, 0, False) for number, word in enumerate(["[CLS]", "$5", "or", "$6", "[SEP]"])]


def _layer(weights: NDArray[Any], queries: tuple[int, ...] = (0,)) -> LayerAttention:
    axes = ("head", "query", "key")[-weights.ndim :]
    heads = tuple(range(weights.shape[0])) if weights.ndim == 3 else (0, 1, 2)
    return LayerAttention(11, "self", axes, heads, queries, weights)


def _one_hot(position: int, num_heads: int = 1) -> LayerAttention:
    return _layer(np.tile(np.eye(7, dtype=np.float32)[position], (num_heads, 1, 1)))


def _colour_at(figure: Figure, axes: Axes, x: float, y: float) -> NDArray[np.int64]:
    """Return the colour drawn at a pixel of the photo."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100)
    drawn = np.asarray(Image.open(file).convert("RGB")).astype(np.int64)
    across, up = axes.transData.transform((x, y))
    colour: NDArray[np.int64] = drawn[drawn.shape[0] - 1 - round(up), round(across)]
    return colour


def _is_grey(colour: NDArray[np.int64]) -> bool:
    return int(np.ptp(colour)) <= 25


@pytest.mark.parametrize("patch", range(6))
def test_attention_on_one_patch_lights_its_place_on_the_photo(patch: int) -> None:
    """The box is offset by 15 pixels and its patches are 20 wide; all the others stay grey."""
    photo = pictures.open_photo(photo_bytes())
    figure = pictures.overlay(photo, _one_hot(1 + patch), GRID, model="vit")
    for other in range(6):
        row, column = divmod(other, 3)
        colour = _colour_at(figure, figure.axes[0], 15 + 20 * column + 10, 20 * row + 10)
        assert _is_grey(colour) == (other != patch), (other, colour)


def test_what_the_box_leaves_out_is_darker_than_what_it_covers() -> None:
    """The network never saw the strips left and right."""
    photo = pictures.open_photo(photo_bytes())
    figure = pictures.overlay(photo, _one_hot(0), GRID, model="vit")
    inside, outside = (int(_colour_at(figure, figure.axes[0], x, 20).sum()) for x in (45, 7))
    assert outside < inside / 1.5


def test_a_smaller_copy_of_the_photo_is_lit_in_the_same_place() -> None:
    """Coordinates are those of the image that was sent, whatever the resolution shown."""
    small = pictures.open_photo(photo_bytes()).resize((WIDTH // 3, HEIGHT // 3))
    figure = pictures.overlay(small, _one_hot(3), GRID, model="vit")
    assert not _is_grey(_colour_at(figure, figure.axes[0], 65, 10))
    assert _is_grey(_colour_at(figure, figure.axes[0], 25, 30))


def test_the_overlay_is_one_panel_with_a_scale() -> None:
    """Its title names the model, the layer, the head and who looks."""
    figure = pictures.overlay(pictures.open_photo(photo_bytes()), _one_hot(3), GRID, model="vit")
    panel, scale = figure.axes
    assert panel.get_title() == "vit · layer 11 · head 0: what the class token looks at"
    assert scale.get_ylabel() == "attention weight"


@pytest.mark.parametrize("num_heads", [1, 2, 3, 6, 8, 12, 16, 25])
def test_the_grid_shows_the_photo_then_every_head(num_heads: int) -> None:
    """One panel each, then the scale; titles name the heads and their largest weight."""
    figure = pictures.head_grid(pictures.open_photo(photo_bytes()), _one_hot(3, num_heads), GRID, model="vit")
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["what the network saw", *(f"head {head} · max 1" for head in range(num_heads)), ""]
    assert figure.get_suptitle() == "vit · layer 11 · what the class token looks at"


def test_the_heads_of_the_grid_are_lit_where_they_look() -> None:
    """Each panel shows the box, in the coordinates of the photo."""
    layer = _layer(np.eye(7, dtype=np.float32)[[1, 6]][:, np.newaxis])
    figure = pictures.head_grid(pictures.open_photo(photo_bytes()), layer, GRID, model="vit")
    _, first, second, _ = figure.axes
    assert first.get_xlim() == (15, 75)
    assert not _is_grey(_colour_at(figure, first, 25, 10))
    assert _is_grey(_colour_at(figure, first, 65, 30))
    assert not _is_grey(_colour_at(figure, second, 65, 30))


def test_a_patch_that_looks_is_framed_and_named() -> None:
    """Query 6 is the last patch: row 1, column 2."""
    layer = _layer(np.full((1, 1, 7), 1 / 7, np.float32), queries=(6,))
    figure = pictures.overlay(pictures.open_photo(photo_bytes()), layer, GRID, model="vit")
    frames = [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle) and not patch.get_fill()]
    assert [(frame.get_xy(), frame.get_width(), frame.get_height()) for frame in frames] == [((55, 20), 20, 20)]
    assert figure.axes[0].get_title().endswith("what the patch in row 1, column 2 looks at")


def test_several_rows_have_a_panel_each() -> None:
    """Titles then name the row too."""
    layer = _layer(np.full((2, 2, 7), 1 / 7, np.float32), queries=(0, 3))
    figure = pictures.head_grid(pictures.open_photo(photo_bytes()), layer, GRID, model="vit")
    assert [axes.get_title().partition(" · ")[0] for axes in figure.axes[1:-1]] == [
        "head 0, row 0",
        "head 0, row 3",
        "head 1, row 0",
        "head 1, row 3",
    ]


def test_weights_that_do_not_fit_the_grid_are_refused() -> None:
    """The message says what was expected; so does that of a grid without an image."""
    photo = pictures.open_photo(photo_bytes())
    with pytest.raises(ValueError, match=r"shape \[5\]; expected \[7\]"):
        pictures.overlay(photo, _layer(np.ones((1, 1, 5), np.float32)), GRID, model="vit")
    with pytest.raises(ValueError, match="a model's own"):
        pictures.head_grid(photo, _one_hot(1), PatchGrid(1, 2, 3, 16), model="vit")


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_photo_is_turned_by_its_exif_orientation(orientation: int) -> None:
    """All come out 90 x 40, as the server measures them."""
    assert pictures.open_photo(photo_bytes(orientation)).size == (WIDTH, HEIGHT)


def test_bytes_that_are_no_photo_are_refused() -> None:
    """With a message, not Pillow's own exception."""
    with pytest.raises(ValueError, match="not a readable image"):
        pictures.open_photo(b"hello")


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_the_token_map_has_a_row_a_query_and_a_column_a_key(dtype: Any) -> None:
    """Tick labels are the tokens, dollar signs included; the title says what was averaged."""
    weights = np.full((2, 5), 0.2, dtype)
    figure = pictures.token_heatmap(_layer(weights, queries=(1, 3)), TOKENS, model="minilm")
    figure.savefig(io.BytesIO(), format="svg")
    panel, scale = figure.axes
    assert [label.get_text() for label in panel.get_xticklabels()] == ["[CLS]", r"\$5", "or", r"\$6", "[SEP]"]
    assert [label.get_text() for label in panel.get_yticklabels()] == [r"\$5", r"\$6"]
    assert panel.get_title() == "minilm · layer 11 · mean of 3 heads"
    assert scale.get_ylabel() == "attention weight"
    drawn = panel.images[0].get_array()
    assert drawn is not None
    np.testing.assert_array_equal(drawn, weights.astype(np.float32))


def test_tokens_that_do_not_fit_the_weights_are_refused() -> None:
    """One key too few."""
    with pytest.raises(ValueError, match=r"shape \[1, 4\] for 5 tokens"):
        pictures.token_heatmap(_layer(np.ones((1, 4), np.float32)), TOKENS, model="minilm")


def test_a_long_texts_picture_stays_of_a_size_that_viewers_open() -> None:
    """256 tokens: at most 20 inches of cells, and not every token is named."""
    tokens = [Token(id=5, text=f"w{index}", start=0, end=0, special=False) for index in range(256)]
    layer = LayerAttention(
        layer=0,
        kind="self",
        axes=("query", "key"),
        heads=(0, 1),
        queries=tuple(range(256)),
        weights=np.full((256, 256), 1 / 256, dtype=np.float32),
    )
    figure = pictures.token_heatmap(layer, tokens, model="m")
    assert max(figure.get_size_inches()) <= 23
    assert len(figure.axes[0].get_xticks()) == 64
