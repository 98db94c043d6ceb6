"""Attention in windows: which cells keys are, and what is drawn and said of it."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from regard import Attention, AttentionRequest, AttentionWindow, Box, LayerAttention, Model, PatchGrid, pictures
from regard.answers import AttentionLayer
from regard.decoding import read_attended, read_model
from regard.errors import RegardError
from regard.matrices import averaged_matrices, matrices, one_matrix
from regard.sources import InputError
from regard.tables import tables
from regard.v1 import regard_pb2 as rpc
from regard.v1 import types_pb2 as pb
from regard.views import ViewOptions, request_for
from regard.windows import PADDING, key_cells, window_grid
from tests.client.drawn import centres_of
from tests.client.fake import HEIGHT, WIDTH, photo_bytes

SHIFTED = AttentionWindow(4, 4, 2, 2, 1, 1, 8)
UNFIT = AttentionWindow(3, 3, 2, 2, 0, 0, 16)  # cells of 16 pixels over an input of 40 x 40
WINDOWS = [
    SHIFTED,
    UNFIT,
    AttentionWindow(5, 7, 3, 3, 1, 2, 4),
    AttentionWindow(6, 2, 4, 4, 2, 2, 4),
    AttentionWindow(2, 2, 5, 5, 0, 0, 4),
    AttentionWindow(1, 1, 1, 1, 0, 0, 4),
]
PATCHES = PatchGrid(0, 5, 5, 8, WIDTH, HEIGHT, Box(20, 0, 60, 40))  # patches of 8 x 8 pixels, of the photo too


def searched(window: AttentionWindow) -> NDArray[np.int64]:
    """Search for the keys of each query: cut every window, and see which cells it has."""
    rows = -(-window.rows // window.height) * window.height
    cols = -(-window.cols // window.width) * window.width
    keys = np.full((window.rows * window.cols, window.height * window.width), -9)
    for top in range(0, rows, window.height):
        for left in range(0, cols, window.width):
            cells = []
            for row in range(top + window.shift_rows, top + window.shift_rows + window.height):
                for col in range(left + window.shift_cols, left + window.shift_cols + window.width):
                    inside = row % rows < window.rows and col % cols < window.cols
                    cells.append(row % rows * window.cols + col % cols if inside else PADDING)
            for cell in cells:
                if cell != PADDING:
                    keys[cell] = cells
    return keys


def layer_of(window: AttentionWindow, weights: NDArray[Any], **fields: Any) -> LayerAttention:
    """A layer of one or several heads, of which every query was sent unless others are named."""
    given: dict[str, Any] = {"queries": tuple(range(window.rows * window.cols))} | fields
    heads = tuple(range(len(weights)))
    return LayerAttention(3, "self", ("head", "query", "key"), heads, weights=weights, window=window, **given)


def shares(window: AttentionWindow, heads: int = 1) -> NDArray[np.float32]:
    """Rows that sum to 1, [heads, cells, keys]."""
    cells, keys = window.rows * window.cols, window.height * window.width
    return np.random.default_rng(0).dirichlet(np.ones(keys), (heads, cells)).astype(np.float32)


@pytest.mark.parametrize("wrong", [{"height": 0}, {"rows": -1}, {"rows": 30_000, "cols": 30_000}, {"shift_cols": -1}])
def test_a_window_that_nobody_could_lay_out_is_no_answer(wrong: dict[str, int]) -> None:
    """Whatever a server says: no gigabytes, and an error that names it."""
    window = pb.AttentionWindow(**({"rows": 4, "cols": 4, "height": 2, "width": 2, "cell_size": 8} | wrong))
    with pytest.raises(RegardError, match="the answer holds a window of"):
        read_model(pb.Model(attention_layers=[pb.AttentionLayer(kind=pb.ATTENTION_KIND_SELF, window=window)]))


@pytest.mark.parametrize("window", WINDOWS)
def test_the_keys_of_a_query_are_the_cells_of_its_window(window: AttentionWindow) -> None:
    """In the window's order; padding where the grid has none, and wrapped around where it is shifted."""
    np.testing.assert_array_equal(key_cells(window), searched(window))


@pytest.mark.parametrize("window", WINDOWS)
def test_of_chosen_queries_only_their_keys_are_told(window: AttentionWindow) -> None:
    """In the order in which they are asked for."""
    last = window.rows * window.cols - 1
    for chosen in ((), (last,), (last, 0)):
        np.testing.assert_array_equal(key_cells(window, chosen), searched(window)[list(chosen)])


@pytest.mark.parametrize("window", WINDOWS)
def test_weights_lie_on_the_cells_that_they_belong_to(window: AttentionWindow) -> None:
    """And 0 lies on all others; what went to padding is left out."""
    weights = shares(window, 2)
    for head, matrix in enumerate(matrices(layer_of(window, weights), 99)):
        expected = np.zeros((window.rows * window.cols,) * 2, np.float32)
        for query, cells in enumerate(searched(window)):
            for place, cell in enumerate(cells):
                if cell != PADDING:
                    expected[query, cell] = weights[head, query, place]
        np.testing.assert_array_equal(matrix.weights, expected)
        assert matrix.keys == matrix.queries


def test_a_mean_over_queries_is_what_each_cell_receives() -> None:
    """Gathered from the windows of all queries, not window position by window position."""
    weights = shares(UNFIT, 2)
    received = np.zeros(9)
    for query, cells in enumerate(searched(UNFIT)):
        for place, cell in enumerate(cells):
            received[cell] += 0 if cell == PADDING else weights[:, query, place].mean() / 9
    first, second = averaged_matrices(layer_of(UNFIT, weights), window_grid(UNFIT, PATCHES))
    assert first.queries == ()
    np.testing.assert_allclose((first.weights[0] + second.weights[0]) / 2, received, atol=1e-6)


def test_what_was_not_sent_of_a_window_is_not_known() -> None:
    """After top_k or a choice of keys; outside the window nothing is attended to in any case."""
    layer = layer_of(
        SHIFTED, np.array([[[0.7, 0.2]]], np.float32), queries=(5,), indices=np.array([[[3, 0]]], np.int32)
    )
    layer = dataclasses.replace(layer, axes=("head", "query", "top"))
    chosen = layer_of(SHIFTED, np.array([[[0.2, 0.7]]], np.float32), queries=(5,), keys=(0, 3))
    expected = np.zeros((1, 16), np.float32)
    expected[0, [5, 6, 9, 10]] = [0.2, np.nan, np.nan, 0.7]
    for one in (layer, chosen):
        np.testing.assert_array_equal(one_matrix(one, 99).weights, expected)


def test_a_layers_grid_lies_on_the_photo_as_far_as_its_cells_reach() -> None:
    """3 cells of 16 pixels reach over 5 patches of 8 by a fifth."""
    grid = window_grid(UNFIT, PATCHES)
    assert (grid.prefix_tokens, grid.rows, grid.cols, grid.patch_size) == (0, 3, 3, 16)
    assert grid.box == Box(20, 0, 68, 48)
    assert window_grid(None, PATCHES) is PATCHES
    assert window_grid(UNFIT, dataclasses.replace(PATCHES, box=None)).box is None


@pytest.mark.parametrize("draw", [pictures.overlay, pictures.head_grid, pictures.query_maps])
def test_the_map_of_a_query_lies_on_its_window(draw: Any) -> None:
    """Of the shifted window of row 2, column 2: its last cell is row 2, column 2 itself."""
    window = dataclasses.replace(SHIFTED, rows=5, cols=5)
    weights = np.zeros((1, 1, 4), np.float32)
    weights[0, 0, 1] = 1
    layer = layer_of(window, weights, queries=(12,))
    figure = draw(pictures.open_photo(photo_bytes()), layer, PATCHES, model="swin")
    panel = figure.axes[-2]
    heat = panel.images[-1]
    expected = np.zeros((5, 5))
    expected[1, 2] = 1
    np.testing.assert_array_equal(centres_of(heat, 5), expected)
    assert tuple(heat.get_extent()) == (20, 60, 40, 0)
    frames = [patch for patch in panel.patches if patch.get_edgecolor()[:3] == (1, 1, 1)]
    assert frames[0].get_bbox().extents.tolist() == [36, 16, 44, 24]


def test_the_mean_of_all_queries_is_drawn_over_the_layers_own_cells() -> None:
    """No further than what the network saw."""
    weights = shares(UNFIT)
    figure = pictures.overlay(pictures.open_photo(photo_bytes()), layer_of(UNFIT, weights), PATCHES, model="swin")
    assert figure.axes[0].get_title() == "swin · layer 3 · head 0: what all patches attend to on average"
    heat = figure.axes[0].images[-1]
    assert tuple(heat.get_extent()) == (20, 68, 48, 0)
    clipped = heat.get_clip_box()
    assert clipped is not None
    corners = figure.axes[0].transData.inverted().transform(clipped.get_points())
    assert corners.min(0) == pytest.approx([20, 0])
    assert corners.max(0) == pytest.approx([60, 40])


def test_of_a_padded_photo_the_photo_is_shown() -> None:
    """Though the grid reaches below it, as SAM's does: 5 x 5 patches of 80 x 80 pixels, of which 80 x 40 are photo."""
    padded = dataclasses.replace(PATCHES, box=Box(0, 0, WIDTH, WIDTH))
    layer = LayerAttention(0, "self", ("head", "query", "key"), (0,), (3,), np.full((1, 1, 25), 0.04, np.float32))
    figure = pictures.head_grid(pictures.open_photo(photo_bytes()), layer, padded, model="sam")
    for axes in figure.axes[:2]:
        assert (axes.get_xlim(), axes.get_ylim()) == ((0, WIDTH), (HEIGHT, 0))
    assert tuple(figure.axes[1].images[-1].get_extent()) == (0, WIDTH, WIDTH, 0)
    whole = pictures.overlay(pictures.open_photo(photo_bytes()), layer, padded, model="sam").axes[0]
    clipped = whole.images[-1].get_clip_box()
    assert clipped is not None
    corners = whole.transData.inverted().transform(clipped.get_points())
    np.testing.assert_allclose([corners.min(0), corners.max(0)], [[0, 0], [WIDTH, HEIGHT]], atol=1e-9)


def test_a_table_has_the_rows_and_columns_of_the_layers_grid() -> None:
    """One for each layer, whatever the grid of another."""
    layers = (layer_of(SHIFTED, shares(SHIFTED)), layer_of(UNFIT, shares(UNFIT)))
    found = tables(Attention(layers, patches=PATCHES), model="swin")
    assert [(len(table.names), len(table.columns)) for table in found] == [(4, 4), (3, 3)]
    assert found[0].caption == "swin, layer 3, head 0: what all patches attend to on average"


def swin(*windows: AttentionWindow | None) -> Model:
    """A model of photos whose layers attend so."""
    layers = tuple(
        AttentionLayer(number, "self", 2, window is None, window is None, window)
        for number, window in enumerate(windows)
    )
    model = read_model(pb.Model(name="swin"))
    return dataclasses.replace(model, attention_layers=layers, patches=dataclasses.replace(PATCHES, box=None))


def test_queries_are_spread_over_the_grid_of_the_chosen_layer() -> None:
    """The last, of 3 x 3 cells; layers on several grids have no rows in common."""
    model = swin(SHIFTED, UNFIT)
    assert request_for("queries", ViewOptions(), model).rows == (0, 1, 2, 6, 7, 8)
    assert max(request_for("queries", ViewOptions(layers=(0,)), model).rows) == 15
    with pytest.raises(InputError, match=r"lie on grids of 4 x 4 and 3 x 3 cells; expected --row, or layers of one"):
        request_for("queries", ViewOptions(layers=(0, 1)), model)


def test_a_rollout_is_asked_of_layers_without_windows() -> None:
    """SAM's global ones; of a network with windows alone there is none, nor a distance."""
    assert request_for("overlay", ViewOptions(measure="rollout"), swin(SHIFTED, None, None)).layers == (1, 2)
    assert request_for("distance", ViewOptions(), swin(SHIFTED, None)).layers == (1,)
    assert request_for("entropy", ViewOptions(), swin(SHIFTED, None)).layers == ()
    with pytest.raises(InputError, match="--measure rollout: swin has attention in windows alone; expected self-att"):
        request_for("overlay", ViewOptions(measure="rollout"), swin(SHIFTED))


def test_a_window_that_is_the_whole_grid_has_what_layers_without_one_have() -> None:
    """As in Swin's last stage; a rollout is over layers of one grid."""
    larger, smaller = (AttentionWindow(size, size, size, size, 0, 0, 32 // size) for size in (4, 2))
    rolled = dataclasses.replace(smaller, shift_rows=1)
    model = swin(SHIFTED, larger, larger, rolled, smaller, smaller)
    assert request_for("overlay", ViewOptions(measure="rollout"), model).layers == (4, 5)
    assert request_for("distance", ViewOptions(), model).layers == (1, 2, 4, 5)
    assert request_for("overlay", ViewOptions(measure="rollout"), swin(SHIFTED, smaller, rolled)).layers == (1,)
    assert request_for("overlay", ViewOptions(measure="rollout"), swin(smaller, smaller)).layers == ()


def test_without_special_tokens_no_keys_are_asked_for() -> None:
    """Keys of a window are positions in it, not patches of the photo."""
    asked = request_for("overlay", ViewOptions(drop_special=True, rows=(3,)), swin(SHIFTED))
    assert asked == AttentionRequest(layers=(-1,), reduce_heads="mean", rows=(3,), renormalize=True)


def test_without_special_tokens_a_chart_drops_none() -> None:
    """A server refuses to drop what layers with windows do not have."""
    asked = request_for("entropy", ViewOptions(drop_special=True), swin(SHIFTED, None))
    assert asked == AttentionRequest(measure="entropy", renormalize=True)


def test_windows_are_read_from_descriptions_and_answers() -> None:
    """Where there are any."""
    message = pb.AttentionWindow(rows=5, cols=7, height=3, width=2, shift_rows=1, shift_cols=2, cell_size=4)
    expected = AttentionWindow(5, 7, 3, 2, 1, 2, 4)
    described = pb.Model(attention_layers=[pb.AttentionLayer(window=message), pb.AttentionLayer()])
    assert [layer.window for layer in read_model(described).attention_layers] == [expected, None]
    values = pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=[0], data=b"")
    layers = [pb.LayerAttention(window=message, weights=values), pb.LayerAttention(weights=values)]
    answer = rpc.AttendResponse(attention=pb.Attention(layers=layers))
    assert [layer.window for layer in read_attended(answer, None).layers] == [expected, None]
