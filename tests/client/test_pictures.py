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

from regard import Attention, AttentionRequest, Box, LayerAttention, PatchGrid, pictures
from tests.client.drawn import centres_of
from tests.client.fake import HEIGHT, WIDTH, photo_bytes

GRID = PatchGrid(1, 2, 3, 16, WIDTH, HEIGHT, Box(15, 0, 75, 40))  # patches of 20 x 20 pixels

_INDICES = np.array([[[6, 5]]], np.int32)


def _layer(weights: NDArray[Any], queries: tuple[int, ...] = (0,)) -> LayerAttention:
    axes = ("head", "query", "key")[-weights.ndim :]
    heads = tuple(range(weights.shape[0])) if weights.ndim == 3 else (0, 1, 2)
    return LayerAttention(11, "self", axes, heads, queries, weights)


def _one_hot(position: int, num_heads: int = 1) -> LayerAttention:
    return _layer(np.tile(np.eye(7, dtype=np.float32)[position], (num_heads, 1, 1)))


def _drawn(figure: Figure) -> NDArray[np.int64]:
    """Return the figure's pixels, [height, width, 3]."""
    return np.asarray(Image.open(io.BytesIO(pictures.to_bytes(figure, "png"))).convert("RGB")).astype(np.int64)


def _colour_at(drawn: NDArray[np.int64], axes: Axes, x: float, y: float) -> NDArray[np.int64]:
    """Return the colour drawn at a pixel of the photo."""
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
    drawn = _drawn(figure)
    for other in range(6):
        row, column = divmod(other, 3)
        colour = _colour_at(drawn, figure.axes[0], 15 + 20 * column + 10, 20 * row + 10)
        assert _is_grey(colour) == (other != patch), (other, colour)


def test_what_the_box_leaves_out_is_darker_than_what_it_covers() -> None:
    """The network never saw the strips left and right."""
    photo = pictures.open_photo(photo_bytes())
    figure = pictures.overlay(photo, _one_hot(0), GRID, model="vit")
    drawn = _drawn(figure)
    inside, outside = (int(_colour_at(drawn, figure.axes[0], x, 20).sum()) for x in (45, 7))
    assert outside < inside / 1.5


def test_a_smaller_copy_of_the_photo_is_lit_in_the_same_place() -> None:
    """Coordinates are those of the image that was sent, whatever the resolution shown."""
    small = pictures.open_photo(photo_bytes()).resize((WIDTH // 3, HEIGHT // 3))
    figure = pictures.overlay(small, _one_hot(3), GRID, model="vit")
    drawn = _drawn(figure)
    assert not _is_grey(_colour_at(drawn, figure.axes[0], 65, 10))
    assert _is_grey(_colour_at(drawn, figure.axes[0], 25, 30))


def test_the_overlay_is_one_panel_with_a_scale() -> None:
    """Its title names the model, the layer, the head and the query."""
    figure = pictures.overlay(pictures.open_photo(photo_bytes()), _one_hot(3), GRID, model="vit")
    panel, scale = figure.axes
    assert panel.get_title() == "vit · layer 11 · head 0: what the class token attends to"
    assert scale.get_ylabel() == "attention weight"


@pytest.mark.parametrize("num_heads", [1, 2, 3, 6, 8, 12, 16, 25])
def test_the_grid_shows_the_photo_then_every_head(num_heads: int) -> None:
    """One panel each, then the scale; titles name the heads and their largest weight."""
    figure = pictures.head_grid(pictures.open_photo(photo_bytes()), _one_hot(3, num_heads), GRID, model="vit")
    titles = [axes.get_title().replace("\n", " · ") for axes in figure.axes]
    assert titles == ["what the network saw", *(f"head {head} · max 1" for head in range(num_heads)), ""]
    assert figure.get_suptitle() == "vit · layer 11 · what the class token attends to"


def test_the_heads_of_the_grid_are_lit_where_they_attend() -> None:
    """Each panel shows the box, in the coordinates of the photo."""
    layer = _layer(np.eye(7, dtype=np.float32)[[1, 6]][:, np.newaxis])
    figure = pictures.head_grid(pictures.open_photo(photo_bytes()), layer, GRID, model="vit")
    drawn = _drawn(figure)
    _, first, second, _ = figure.axes
    assert first.get_xlim() == (15, 75)
    assert not _is_grey(_colour_at(drawn, first, 25, 10))
    assert _is_grey(_colour_at(drawn, first, 65, 30))
    assert not _is_grey(_colour_at(drawn, second, 65, 30))


def test_a_patch_that_looks_is_framed_and_named() -> None:
    """Query 6 is the last patch: row 1, column 2."""
    layer = _layer(np.full((1, 1, 7), 1 / 7, np.float32), queries=(6,))
    figure = pictures.overlay(pictures.open_photo(photo_bytes()), layer, GRID, model="vit")
    frames = [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle) and not patch.get_fill()]
    assert {(frame.get_xy(), frame.get_width(), frame.get_height()) for frame in frames} == {((55, 20), 20, 20)}
    assert [frame.get_edgecolor()[:3] for frame in frames] == [(0, 0, 0), (1, 1, 1)]
    assert figure.axes[0].get_title().endswith("what the patch in row 1, column 2 attends to")


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
    with pytest.raises(ValueError, match=r"shape \[1, 1, 5\]; expected \[1, 1, 7\]"):
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


def test_a_damaged_photo_is_no_image() -> None:
    """Though it begins like one: its pixels are said to take no bytes."""
    photo = photo_bytes()
    pixels = photo.index(b"IDAT")
    with pytest.raises(ValueError, match="not a readable image: broken PNG file"):
        pictures.open_photo(photo[: pixels - 1] + b"\0" + photo[pixels:])


def test_several_heads_on_one_photo_are_reduced() -> None:
    """To their mean, or to what was asked for, which the title says."""
    layer = _layer(np.eye(7, dtype=np.float32)[[1, 6]][:, np.newaxis])
    photo = pictures.open_photo(photo_bytes())
    mean = pictures.overlay(photo, layer, GRID, model="vit")
    largest = pictures.overlay(photo, layer, GRID, model="vit", asked=AttentionRequest(reduce_heads="max"))
    assert "mean of 2 heads" in mean.axes[0].get_title()
    assert "max of 2 heads" in largest.axes[0].get_title()
    assert [_map_of(figure).max() for figure in (mean, largest)] == [0.5, 1.0]


def test_the_photo_of_query_maps_frames_each_query_patch() -> None:
    """Then each has a panel of its own, named by its place, with its frame and what it attends to."""
    layer = _layer(np.eye(7, dtype=np.float32)[[6, 1]], queries=(1, 6))
    figure = pictures.query_maps(pictures.open_photo(photo_bytes()), layer, GRID, model="vit")
    drawn = _drawn(figure)
    photo, first, second, _ = figure.axes
    assert [axes.get_title() for axes in (first, second)] == [
        "row 0, column 0 · max 1",
        "row 1, column 2 · max 1",
    ]
    assert _framed(photo) == {(15, 0), (55, 20)}
    assert (_framed(first), _framed(second)) == ({(15, 0)}, {(55, 20)})
    assert not _is_grey(_colour_at(drawn, first, 65, 30))
    assert not _is_grey(_colour_at(drawn, second, 25, 10))


def test_spread_rows_lie_evenly_over_the_grid() -> None:
    """Never on a prefix token, and each once even where the grid is smaller than asked for."""
    grid = PatchGrid(1, 8, 8, 14)
    places = [divmod(row - 1, 8) for row in pictures.spread_rows(grid)]
    assert places == [(row, column) for row in (2, 6) for column in (1, 3, 5, 7)]
    assert pictures.spread_rows(PatchGrid(1, 1, 2, 14)) == (1, 2)


def test_a_rollouts_scale_leaves_out_the_few_patches_that_gather_most() -> None:
    """Its end has an arrow; all others are told apart below it."""
    grid = PatchGrid(1, 20, 20, 1, WIDTH, HEIGHT, Box(15, 0, 75, 40))
    shares = np.linspace(0.001, 0.002, 401, dtype=np.float32)[np.newaxis]
    shares[0, 5] = 0.5
    layer = LayerAttention(11, "self", ("query", "key"), (0, 1), (0,), shares, (), "rollout", None, (3, 11))
    figure = pictures.overlay(pictures.open_photo(photo_bytes()), layer, grid, model="vit")
    panel, scale = figure.axes
    assert panel.get_title().startswith("vit · rollout over layers 3 and 11 · mean of 2 heads")
    assert panel.images[1].get_clim()[1] == pytest.approx(0.002, rel=0.05)
    assert scale.get_ylabel().replace("\n", " ") == "share in the rollout; to the 99th percentile; largest 0.5"


def test_panels_of_a_rollout_say_where_their_scales_end() -> None:
    """The one patch that gathers most lies beyond."""
    grid = PatchGrid(1, 20, 20, 1, WIDTH, HEIGHT, Box(15, 0, 75, 40))
    shares = np.full((2, 401), 0.001, np.float32)
    shares[:, 5] = 0.5
    layer = LayerAttention(11, "self", ("query", "key"), (0, 1), (1, 2), shares, (), "rollout", None, (3, 11))
    figure = pictures.query_maps(pictures.open_photo(photo_bytes()), layer, grid, model="vit")
    assert figure.axes[1].get_title() == "row 0, column 0 · up to 0.001"
    assert [label.get_text() for label in figure.axes[-1].get_yticklabels()] == ["0", "end"]


def test_the_largest_weights_of_a_row_are_drawn_where_they_belong() -> None:
    """After top_k; what was not sent counts as nothing."""
    layer = LayerAttention(
        0, "self", ("head", "query", "top"), (0,), (0,), np.array([[[0.6, 0.2]]], np.float32), (), "weights", _INDICES
    )
    drawn = _map_of(pictures.overlay(pictures.open_photo(photo_bytes()), layer, GRID, model="vit"))
    np.testing.assert_allclose(drawn, np.array([[0, 0, 0], [0, 0.2, 0.6]]), atol=1e-6)


@pytest.mark.parametrize("draw", [pictures.overlay, pictures.head_grid, pictures.query_maps])
@pytest.mark.parametrize("width_cm", [8, 17])
def test_a_printed_photo_is_as_wide_as_was_asked_for(draw: Any, width_cm: float) -> None:
    """White paper, no type below seven points, and no title beyond the edge."""
    style = pictures.make_style("print", width_cm=width_cm, dpi=150)
    figure = draw(pictures.open_photo(photo_bytes()), _one_hot(3, 6), GRID, model="a-model-with-a-name", style=style)
    figure.savefig(io.BytesIO(), format="png")
    assert figure.get_figwidth() * 2.54 == pytest.approx(width_cm)
    assert figure.get_facecolor() == (1, 1, 1, 1)
    titles = [axes.title for axes in figure.axes] + [axes.yaxis.label for axes in figure.axes[-1:]]
    texts = [text for text in (*titles, *figure.texts) if text.get_text()]
    assert len(texts) > 1
    for text in texts:
        box = text.get_window_extent()
        assert text.get_fontsize() >= 7
        assert box.x0 >= 0, text
        assert box.x1 <= figure.bbox.x1, text


@pytest.mark.parametrize("width_cm", [8, 17, 30])
def test_the_captions_of_panels_do_not_run_into_each_other(width_cm: float) -> None:
    """However narrow the picture: there are fewer columns then."""
    style = pictures.make_style("print", width_cm=width_cm, dpi=150)
    layer = _layer(np.full((7, 7), 1 / 7, np.float32), queries=(1, 2, 3, 4, 5, 6, 0))
    figure = pictures.query_maps(pictures.open_photo(photo_bytes()), layer, GRID, model="vit", style=style)
    pictures.to_bytes(figure, "png")
    boxes = [axes.title.get_window_extent() for axes in figure.axes[:-1]]
    assert not any(one.overlaps(other) for at, one in enumerate(boxes) for other in boxes[:at])


def _map_of(figure: Figure, rows: int = 2) -> NDArray[Any]:
    """Return the numbers at the centres of the patches."""
    return centres_of(figure.axes[0].images[1], rows)


def _framed(axes: Axes) -> set[tuple[float, float]]:
    frames = (patch for patch in axes.patches if isinstance(patch, Rectangle) and not patch.get_fill())
    return {frame.get_xy() for frame in frames}


BARE = PatchGrid(0, 2, 3, 16, WIDTH, HEIGHT, Box(15, 0, 75, 40))


def _every_row(num_heads: int) -> LayerAttention:
    """Six patches; each row of a head attends to one patch, half of them at the last."""
    rows = np.eye(6, dtype=np.float32)[[5, 5, 5, 0, 1, 2]]
    return _layer(np.tile(rows, (num_heads, 1, 1)), tuple(range(6)))


def test_without_a_class_token_the_mean_of_all_rows_is_drawn() -> None:
    """Titles say what was averaged, no patch is framed, and the numbers are those of the mean."""
    photo = pictures.open_photo(photo_bytes())
    one = pictures.overlay(photo, _every_row(1), BARE, model="siglip")
    assert one.axes[0].get_title().replace("\n", " ").endswith("head 0: what all patches attend to on average")
    assert [patch for patch in one.axes[0].patches if isinstance(patch, Rectangle) and not patch.get_fill()] == []
    np.testing.assert_allclose(_map_of(one), np.array([[1, 1, 1], [0, 0, 3]]) / 6, atol=1e-6)
    grid = pictures.head_grid(photo, _every_row(2), BARE, model="siglip")
    assert grid.get_suptitle() == "siglip · layer 11 · what all patches attend to on average"
    assert [axes.get_title() for axes in grid.axes[1:-1]] == ["head 0 · max 0.5", "head 1 · max 0.5"]
    (table,) = pictures.tables(Attention((_every_row(1),), patches=BARE), model="siglip")
    assert table.caption.endswith("what all patches attend to on average")
    np.testing.assert_allclose(np.array(table.rows, float), np.array([[1, 1, 1], [0, 0, 3]]) / 6, atol=1e-6)


def test_a_chosen_patch_of_a_network_without_a_class_token_looks_alone() -> None:
    """Position 0 is a patch there, framed and named as one."""
    layer = _layer(np.full((1, 1, 6), 1 / 6, np.float32), queries=(0,))
    figure = pictures.overlay(pictures.open_photo(photo_bytes()), layer, BARE, model="siglip")
    assert figure.axes[0].get_title().replace("\n", " ").endswith("what the patch in row 0, column 0 attends to")


def test_a_query_of_cross_attention_is_no_patch() -> None:
    """What pools the patches, say: it is named by its number, and nothing is framed."""
    layer = LayerAttention(4, "cross", ("head", "query", "key"), (0,), (0,), np.full((1, 1, 6), 1 / 6, np.float32))
    figure = pictures.overlay(pictures.open_photo(photo_bytes()), layer, BARE, model="siglip")
    title = figure.axes[0].get_title().replace("\n", " ")
    assert title.endswith("what query 0 of the cross-attention attends to")
    assert [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle) and not patch.get_fill()] == []


@pytest.mark.parametrize("reduced", [False, True])
def test_layers_with_different_numbers_of_heads_share_a_chart_and_a_table(reduced: bool) -> None:
    """Each dot stands in its layer, missing heads are empty cells, and the possible maximum is not of a cross layer."""
    layers = tuple(
        LayerAttention(
            number,
            "cross" if number == 1 else "self",
            ("query",) if reduced else ("head", "query"),
            tuple(range(heads)),
            tuple(range(7)),
            np.full((7,) if reduced else (heads, 7), number + 1, np.float32),
            measure="entropy",
        )
        for number, heads in enumerate((2, 4, 3))
    )
    attention = Attention(layers, patches=GRID)
    (table,) = pictures.tables(attention, model="pvt")
    chart = pictures.head_chart(attention, model="pvt")
    offsets = [np.asarray(each.get_offsets()) for each in chart.axes[0].collections]
    dots = [len(each) for each in offsets if len(each)]
    if reduced:
        assert table.rows == [[1.0], [2.0], [3.0]]
        assert "mean of each layer's heads" in chart.get_suptitle().replace("\n", " ")
        return
    assert [len([cell for cell in row if cell is not None]) for row in table.rows] == [2, 4, 3]
    assert table.columns == ["head 0", "head 1", "head 2", "head 3"]
    assert dots[:3] == [2, 4, 3]
    legend = chart.legends[0] if chart.legends else chart.axes[0].get_legend()
    assert legend
    assert "not of layer 1, cross-attention" in " ".join(text.get_text() for text in legend.get_texts())
