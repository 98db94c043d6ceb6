"""Scales: where they end, what lies between the patches of a map, and colours that say the weight."""

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from regard import AttentionRequest, AttentionWindow, Box, LayerAttention, PatchGrid, pictures
from regard.scales import holding_mass, in_multiples, scale_end, smoothed
from tests.client.drawn import centres_of

SIDE = 90
GRID = PatchGrid(0, 9, 9, 10, SIDE, SIDE, Box(0, 0, SIDE, SIDE))
GREYS = (0, 130, 255)


def _layer(weights: Any, measure: Any = "weights", kind: Any = "self", **more: Any) -> LayerAttention:
    array = np.asarray(weights, np.float32)
    axes = ("head", "query", "key")[-array.ndim :]
    heads = tuple(range(len(array))) if array.ndim == 3 else (0,)
    return LayerAttention(2, kind, axes, heads, tuple(range(array.shape[-2])), array, measure=measure, **more)


def _isolated() -> NDArray[np.float32]:
    """Three patches far from each other, of weights 1, a half and a quarter, [1, 81]."""
    on_grid = np.zeros((9, 9), np.float32)
    on_grid[1, 1], on_grid[4, 6], on_grid[7, 2] = 1, 0.5, 0.25
    return on_grid.reshape(1, 81)


def _pixels(figure: Figure) -> NDArray[np.int64]:
    return np.asarray(Image.open(io.BytesIO(pictures.to_bytes(figure, "png"))).convert("RGB")).astype(np.int64)


def _at(drawn: NDArray[np.int64], axes: Axes, point: Any, *, across: float | None = None) -> NDArray[np.int64]:
    """Return the colour at a point of the axes' data, or at its height and a share of the axes' width."""
    x, y = axes.transData.transform(point)
    if across is not None:
        x = axes.bbox.x0 + across * axes.bbox.width
    colour: NDArray[np.int64] = drawn[drawn.shape[0] - 1 - int(y), int(x)]
    return colour


@pytest.mark.parametrize("curve", ["linear", "sqrt", "log"])
@pytest.mark.parametrize("smooth", [True, False])
@pytest.mark.parametrize("grey", GREYS)
def test_the_colour_at_a_patchs_centre_is_the_bars_for_its_weight(curve: Any, smooth: bool, grey: int) -> None:
    """Over a photo of one grey, where the bar shows that grey; an isolated weight of 1 is drawn as 1."""
    style = replace(pictures.SCREEN, scale=pictures.Scale(curve), smooth=smooth)
    photo = Image.new("RGB", (SIDE, SIDE), (grey, grey, grey))
    figure = pictures.overlay(photo, _layer(_isolated()), GRID, model="vit", style=style)
    drawn, (panel, bar) = _pixels(figure), figure.axes
    for (row, column), weight in (((1, 1), 1.0), ((4, 6), 0.5), ((7, 2), 0.25)):
        shown = _at(drawn, panel, (10 * column + 5, 10 * row + 5))
        across = min(max(grey / 255, 0.03), 0.97)
        told = _at(drawn, bar, (0, min(weight, 0.995)), across=across)
        np.testing.assert_allclose(shown, told, atol=8, err_msg=f"weight {weight}")


@pytest.mark.parametrize("times", [3, 13])
def test_a_smooth_map_has_each_patchs_weight_at_its_centre_and_nothing_above_the_largest(times: int) -> None:
    """Also along the edges; between two patches it lies between their weights."""
    on_grid = np.random.default_rng(1).gamma(0.3, 1, (5, 7))
    fine = smoothed(on_grid, times)
    half = times // 2
    np.testing.assert_allclose(fine[half::times, half::times], on_grid, atol=1e-12)
    assert fine.max() <= on_grid.max() + 1e-12
    assert fine.min() >= on_grid.min() - 1e-12
    between = fine[half, half : half + times + 1]
    assert (np.diff(between) >= -1e-12).all() or (np.diff(between) <= 1e-12).all()


def test_a_smooth_map_of_a_slope_is_that_slope() -> None:
    """Away from its ends no steps are seen."""
    fine = smoothed(np.arange(6.0)[np.newaxis], 3)[1]
    np.testing.assert_allclose(np.diff(fine[5:-5]), 1 / 3, atol=1e-12)


def test_a_map_that_is_not_smooth_has_one_colour_a_patch() -> None:
    """As the numbers came; one that is has many."""
    photo, rough = Image.new("RGB", (SIDE, SIDE)), replace(pictures.SCREEN, smooth=False)
    shapes = [
        pictures.overlay(photo, _layer(_isolated()), GRID, model="vit", style=style).axes[0].images[1].get_size()
        for style in (rough, pictures.SCREEN)
    ]
    assert shapes[0] == (9, 9)
    assert min(shapes[1]) > 400


def test_the_bar_shows_the_opacity_that_was_chosen() -> None:
    """At 0 every map is the photo."""
    style = replace(pictures.SCREEN, opacity=0.0)
    figure = pictures.overlay(Image.new("RGB", (SIDE, SIDE)), _layer(_isolated()), GRID, model="vit", style=style)
    drawn, (panel, bar) = _pixels(figure), figure.axes
    assert _at(drawn, panel, (15, 15)).max() == 0
    left, right = (_at(drawn, bar, (0, 0.9), across=across) for across in (0.03, 0.97))
    assert left.max() < 10
    assert right.min() > 150


def test_a_scale_ends_at_the_percentile_that_was_chosen_and_says_so() -> None:
    """By default at the largest weight, of a rollout at the 99th percentile; with nearly all 0, at the largest."""
    numbers = np.arange(1, 102, dtype=np.float32)
    layer, rollout = _layer(numbers[np.newaxis]), _layer(numbers[np.newaxis], "rollout")
    usual, chosen = pictures.Scale(), pictures.Scale(percentile=90)
    assert scale_end(layer, [numbers], usual).value == 101
    assert scale_end(rollout, [numbers], usual).value == 100
    end = scale_end(layer, [numbers], chosen)
    assert (end.value, end.largest, end.beyond) == (91, 101, True)
    assert scale_end(layer, [np.eye(40, dtype=np.float32)], chosen).value == 1
    assert scale_end(layer, [numbers, 2 * numbers], usual).value == 202
    assert scale_end(layer, [np.zeros(3, np.float32)], usual).value > 0
    style = replace(pictures.SCREEN, scale=pictures.Scale(percentile=99))
    figure = pictures.overlay(Image.new("RGB", (SIDE, SIDE)), _layer(_isolated()), GRID, model="vit", style=style)
    told = figure.axes[1].get_ylabel().replace("\n", " ")
    assert told == "attention weight; to the 99th percentile; largest 1"
    assert centres_of(figure.axes[0].images[1], 9).max() == pytest.approx(np.percentile(_isolated(), 99))


def test_multiples_of_uniform_attention_are_1_where_a_row_attends_to_all_alike() -> None:
    """Of all keys; of those before it; of those in its window; of those that were kept."""
    np.testing.assert_allclose(in_multiples(_layer(np.full((4, 4), 0.25)), 4).weights, 1)
    causal = np.tril(np.ones((4, 4))) / np.arange(1, 5)[:, np.newaxis]
    np.testing.assert_allclose(in_multiples(_layer(causal, kind="causal"), 4).weights, np.tril(np.ones((4, 4))))
    for size in (4, 3):  # cells an edge: two windows, or one and a half and padding, which is attended to as well
        window = AttentionWindow(size, size, 2, 2, 0, 0, 8)
        in_windows = _layer(np.full((2, size**2, 4), 0.25), window=window)
        np.testing.assert_allclose(in_multiples(in_windows, size**2).weights, 1)
    kept = _layer(np.full((3, 2), 0.5), keys=(1, 2))
    np.testing.assert_allclose(in_multiples(kept, 9, AttentionRequest(renormalize=True)).weights, 1)
    np.testing.assert_allclose(in_multiples(kept, 8).weights, 4)


def test_a_picture_in_multiples_says_so_and_numbers_that_are_no_shares_are_refused() -> None:
    """A contribution is a length."""
    style = replace(pictures.SCREEN, scale=pictures.Scale(multiples=True))
    photo = Image.new("RGB", (SIDE, SIDE))
    uniform = _layer(np.full((1, 81), 1 / 81))
    figure = pictures.overlay(photo, uniform, GRID, model="vit", style=style)
    assert figure.axes[1].get_ylabel() == "attention weight, in units of 1/N"
    np.testing.assert_allclose(centres_of(figure.axes[0].images[1], 9), 1, rtol=1e-6)
    with pytest.raises(ValueError, match="contribution; expected weights or a rollout"):
        pictures.overlay(photo, replace(uniform, measure="contribution"), GRID, model="vit", style=style)
    with pytest.raises(ValueError, match="weights times value lengths"):
        in_multiples(uniform, 81, AttentionRequest(value_weighted=True))


def test_a_contour_encloses_what_dino_keeps_of_the_mass() -> None:
    """As its code has it: sorted, summed up, and kept beyond 1 - threshold."""
    numbers = np.random.default_rng(3).gamma(0.3, 1, 81)
    order = np.argsort(numbers)
    beyond = np.cumsum(numbers[order]) / numbers.sum() > 1 - 0.6
    expected = np.zeros(81, bool)
    expected[order[beyond]] = True
    np.testing.assert_array_equal(holding_mass(numbers.reshape(9, 9), 0.6), expected.reshape(9, 9))
    assert not holding_mass(np.zeros((2, 2)), 0.6).any()


def test_the_contour_is_drawn_around_those_patches() -> None:
    """Of a single one its four sides, white on a dark rim."""
    style = replace(pictures.SCREEN, contour=0.5)
    figure = pictures.overlay(Image.new("RGB", (SIDE, SIDE)), _layer(_isolated()), GRID, model="vit", style=style)
    rim, line = figure.axes[0].collections
    sides = {tuple(sorted(map(tuple, np.asarray(path.vertices).tolist()))) for path in line.get_paths()}
    corners = (10.0, 10.0), (20.0, 10.0), (20.0, 20.0), (10.0, 20.0)
    assert sides == {tuple(sorted((corners[at - 1], corners[at]))) for at in range(4)}
    rims = [np.asarray(each.get_edgecolor())[0, :3].tolist() for each in (rim, line)]
    assert rims == [[0, 0, 0], [1, 1, 1]]


def test_panels_have_one_scale_where_that_is_asked_for() -> None:
    """Then its numbers stand beside it; else each ends at its own largest."""
    heads = _layer(np.stack([_isolated(), 0.5 * _isolated()]))
    for common, ends in ((None, [1, 0.5]), (True, [1, 1])):
        style = replace(pictures.SCREEN, scale=pictures.Scale(common=common))
        figure = pictures.head_grid(Image.new("RGB", (SIDE, SIDE)), heads, GRID, model="vit", style=style)
        assert [axes.images[1].norm.vmax for axes in figure.axes[1:3]] == ends
        assert [axes.get_title().partition("max ")[2] for axes in figure.axes[1:3]] == ["1", "0.5"]


def test_the_photo_of_a_grid_begins_and_ends_where_its_panels_do() -> None:
    """No band is left dead above, below or beside it; titles stand at one height."""
    photo = Image.new("RGB", (SIDE, SIDE))
    figure = pictures.head_grid(photo, _layer(np.stack([_isolated()] * 6)), GRID, model="vit")
    first, *panels, bar = (axes.get_position() for axes in figure.axes)
    assert panels[0].width > 0.15  # three beside each other: none is a stamp beside the photo
    assert (first.y1, bar.y1) == pytest.approx((panels[0].y1, panels[0].y1))
    assert (first.y0, bar.y0) == pytest.approx((panels[-1].y0, panels[-1].y0))
    assert (1 - bar.x1) * figure.get_figwidth() > 0.4  # room for the scale's numerals and name
    assert figure.axes[0].get_position().width * figure.get_figwidth() == pytest.approx(
        figure.axes[0].get_position().height * figure.get_figheight()
    )


def _sheet(count: int, **changes: Any) -> list[pictures.SheetPhoto]:
    photo = Image.new("RGB", (SIDE, SIDE))
    weights = np.stack([_isolated(), 0.5 * _isolated()])
    return [
        pictures.SheetPhoto(f"{number}.jpg", photo, replace(_layer(weights / (number + 1)), **changes), GRID)
        for number in range(count)
    ]


@pytest.mark.parametrize("count", [1, 2, 7])
def test_a_contact_sheet_has_one_title_and_one_scale_for_many_photos(count: int) -> None:
    """Each photo with its name, then a panel a head; all inside the figure."""
    figure = pictures.contact_sheet(_sheet(count), model="vit")
    *cells, bar = figure.axes
    assert figure.get_suptitle() == "vit · layer 2 · what the patch in row 0, column 0 attends to"
    assert [axes.get_title() for axes in cells[::3]] == [f"{number}.jpg" for number in range(count)]
    assert [axes.get_title() for axes in cells[1:3]] == ["head 0 · max 1", "head 1 · max 0.5"]
    assert {axes.images[1].norm.vmax for axes in cells if len(axes.images) > 1} == {1.0}
    assert bar.get_ylabel() == "attention weight"
    for axes in figure.axes:
        box = axes.get_position()
        assert min(box.x0, box.y0) >= 0
        assert max(box.x1, box.y1) <= 1


def test_a_contact_sheet_of_what_cannot_be_compared_is_refused() -> None:
    """No photo, other heads, several rows."""
    with pytest.raises(ValueError, match="0 photos; expected one layer"):
        pictures.contact_sheet([], model="vit")
    with pytest.raises(ValueError, match="2 photos; expected one layer and the same heads of all"):
        pictures.contact_sheet([*_sheet(1), *_sheet(1, heads=(3, 4))], model="vit")
    rows = _layer(np.tile(_isolated(), (2, 1)))
    grid = replace(GRID, prefix_tokens=0)
    with pytest.raises(ValueError, match="2 query rows of a"):
        pictures.contact_sheet([pictures.SheetPhoto("a.jpg", Image.new("RGB", (SIDE, SIDE)), rows, grid)], model="vit")
