"""Pictures of why a label: signed colours over a photo and behind a text."""

import dataclasses
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb, to_rgba
from matplotlib.patches import Rectangle

from regard import Client, Relevance, pictures
from regard.pictures.style import signed_colours
from tests.client.drawn import centres_of
from tests.client.fake import RELEVANCE_OF_IMAGE, photo_bytes
from tests.client.test_relevance import of_image, of_text
from tests.client.test_showing import texts_of

PHOTO = pictures.open_photo(photo_bytes())
PATCHES = np.reshape(RELEVANCE_OF_IMAGE[1:], (2, 3))


def map_of(figure: Any) -> Any:
    """Return the map over a photo."""
    return figure.axes[0].images[-1]


def grounds_of(figure: Any) -> list[Rectangle]:
    """Return what the tokens stand on."""
    return [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]


def words_of(figure: Any) -> dict[str, tuple[Rectangle, tuple[float, ...]]]:
    """Return each token's ground and its colour."""
    both = zip(figure.axes[0].texts, grounds_of(figure), strict=True)
    return {text.get_text(): (ground, to_rgba(ground.get_facecolor())) for text, ground in both}


def test_a_map_is_centred_at_0(client: Client) -> None:
    """As long on both sides, whichever is the larger; each patch has its own number."""
    figure = pictures.relevance_map(PHOTO, of_image(client, label="cat", against="bird"), model="photos")
    heat = map_of(figure)
    assert heat.get_clim() == (-3, 3)
    np.testing.assert_allclose(centres_of(heat, 2), PATCHES)
    told = texts_of(figure)
    assert "photos · why cat against bird · score 3 · adds up within 5e-8" in told.replace("\n", " ")
    assert "class token +0.5 · no position -0.5" in told
    negative = dataclasses.replace(of_image(client), values=-np.array(RELEVANCE_OF_IMAGE, np.float32))
    assert map_of(pictures.relevance_map(PHOTO, negative, model="photos")).get_clim() == (-3, 3)


def test_a_percentile_ends_both_sides(client: Client) -> None:
    """Of the numbers without their signs; the bar has two arrows, and the largest is named."""
    style = dataclasses.replace(pictures.PRINT, scale=pictures.Scale(percentile=60), contour=0.5, smooth=False)
    figure = pictures.relevance_map(PHOTO, of_image(client), model="photos", style=style)
    assert map_of(figure).get_clim() == (-1, 1)
    assert np.asarray(map_of(figure).get_array()).min() == -1
    assert map_of(figure).colorbar.extend == "both"
    assert "to the 60th percentile; largest 3" in texts_of(figure)
    assert len(figure.axes[0].collections) == 2  # the contour of what spoke for it
    unclipped = pictures.relevance_map(PHOTO, of_image(client), model="photos")
    assert map_of(unclipped).colorbar.extend == "neither"


def test_what_is_never_below_0_has_a_scale_from_0(client: Client) -> None:
    """Over a photo and of a text; orange alone, no signs, and one arrow where numbers lie beyond."""
    values = np.abs(np.array(RELEVANCE_OF_IMAGE, np.float32))
    photo = dataclasses.replace(of_image(client), values=values, method="genatt", relative_error=None, rest=0.0)
    style = dataclasses.replace(pictures.PRINT, scale=pictures.Scale(percentile=60), contour=0.5, smooth=False)
    figure = pictures.relevance_map(PHOTO, photo, model="photos", style=style)
    heat = map_of(figure)
    assert heat.get_clim() == (0, 1)
    assert (heat.colorbar.extend, heat.colorbar.ax.get_ylabel().split(";")[0]) == ("max", "genatt")
    colours = heat.cmap(np.linspace(0, 1, 5))
    assert len(np.unique(colours[1:, :3], axis=0)) == 1  # at 0 it is clear
    assert colours[0, 3] == 0 < colours[-1, 3]
    assert "+" not in texts_of(figure)
    text = of_text(client)
    text = dataclasses.replace(text, values=np.abs(text.values), method="legrad", relative_error=None, rest=0.0)
    drawn = pictures.relevance_text(text, model="photos")
    assert drawn.axes[-1].get_xlim() == (0, float(text.values.max()))
    assert drawn.axes[-1].get_xlabel() == "legrad"
    assert texts_of(drawn).count("legrad") == 2  # of the scale and the title


def test_logits_are_in_no_units_of_1_n(client: Client) -> None:
    """Which are those of attention."""
    style = dataclasses.replace(pictures.SCREEN, scale=pictures.Scale(multiples=True, percentile=60))
    for drawn in (
        pictures.relevance_text(of_text(client), model="photos", style=style),
        pictures.token_matrix(client.generate_text("cat", model="g2p", relevance=True), style=style),
    ):
        axes = drawn.axes[-1]
        told = texts_of(drawn) + axes.get_xlabel() + axes.get_ylabel()
        assert "60th percentile" in told
        assert "1/N" not in told


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_colours_are_blue_below_and_orange_above(theme: Any) -> None:
    """From the paper's own colour; over a photo from clear to the opacity."""
    colours, paper = signed_colours(theme), to_rgb(pictures.make_style(theme=theme).paper)
    low, middle, high = (np.array(colours(share)[:3]) for share in (0.0, 0.5, 1.0))
    np.testing.assert_allclose(middle, paper, atol=0.02)
    assert low[2] > low[0] + 0.3 and high[0] > high[2] + 0.3
    over = signed_colours(theme, 0.88)
    np.testing.assert_allclose([over(share)[3] for share in (0.0, 0.5, 1.0)], [0.88, 0, 0.88], atol=0.02)


def test_a_text_is_written_as_a_text(client: Client) -> None:
    """Pieces of a word touch each other, words do not; each ground has its number's colour."""
    why = of_text(client)
    figure = pictures.relevance_text(why, model="photos")
    words = words_of(figure)
    assert list(words) == ["[CLS]", "cats", "sit", "ting", "[SEP]"]
    ground = {name: found[0] for name, found in words.items()}
    assert ground["sit"].get_x() + ground["sit"].get_width() == pytest.approx(ground["ting"].get_x())
    assert ground["cats"].get_x() + ground["cats"].get_width() < ground["sit"].get_x() - 0.01
    colours = signed_colours("dark")
    np.testing.assert_allclose(words["ting"][1], colours(1.0), atol=0.01)
    np.testing.assert_allclose(words["cats"][1], colours(0.125), atol=0.01)
    told = texts_of(figure).replace("\n", " ")
    assert "photos · why cat · score 1.5 · adds up within 5e-8" in told
    assert "no position +0.375" in told and "against · logits · for" in told


def many_words(why: Relevance, count: int) -> Relevance:
    """Return the relevance of a text of so many times the two words."""
    assert why.tokens is not None
    one = why.tokens[1:4]
    tokens = [
        dataclasses.replace(token, start=token.start + 13 * time, end=token.end + 13 * time)
        for time in range(count)
        for token in one
    ]
    values = np.linspace(-1, 1, len(tokens), dtype=np.float32)
    return dataclasses.replace(why, tokens=tuple(tokens), values=values)


@pytest.mark.parametrize("width_cm", [5, 17])
def test_a_long_text_goes_on_in_the_next_line(client: Client, width_cm: float) -> None:
    """Within the width, and no ground lies on another."""
    style = pictures.make_style("print", width_cm=width_cm)
    figure = pictures.relevance_text(many_words(of_text(client), 40), model="photos", style=style)
    axes = figure.axes[0]
    assert len(grounds_of(figure)) == 120
    assert max(one.get_x() + one.get_width() for one in grounds_of(figure)) <= axes.get_xlim()[1]
    assert max(one.get_y() + one.get_height() for one in grounds_of(figure)) <= axes.get_ylim()[0]
    order = [(one.get_y(), one.get_x(), one.get_x() + one.get_width()) for one in grounds_of(figure)]
    for (line, _, right), (next_line, left, _) in pairwise(order):
        assert next_line > line or left >= right - 1e-9
    assert figure.get_figwidth() <= width_cm / 2.54 + 1e-9


def test_a_token_wider_than_the_picture_is_cut(client: Client) -> None:
    """With … in its middle."""
    why = of_text(client)
    assert why.tokens is not None
    long = dataclasses.replace(why.tokens[1], text="m" * 30)
    wide = dataclasses.replace(why, tokens=(why.tokens[0], long, *why.tokens[2:]))
    figure = pictures.relevance_text(wide, model="photos", style=pictures.make_style("print", width_cm=4))
    assert "…" in list(words_of(figure))[1]
    assert max(one.get_x() + one.get_width() for one in grounds_of(figure)) <= figure.axes[0].get_xlim()[1]


def test_an_answer_draws_itself(client: Client) -> None:
    """Model and photo are known from the call."""
    assert "photos · why cat" in texts_of(of_text(client).plot())
    assert map_of(of_image(client).plot()).get_clim() == (-3, 3)
    kept = dataclasses.replace(of_image(client))
    assert map_of(kept.plot(photo=PHOTO)).get_clim() == (-3, 3)
    with pytest.raises(ValueError, match="without tokens"):
        pictures.relevance_text(of_image(client), model="photos")


def test_layers_of_a_photo_are_maps_of_one_scale(client: Client) -> None:
    """One of each depth, in their order; below each stands what is added behind it."""
    why = of_image(client, by_layer=True)
    figure = pictures.relevance_layers(why, model="photos", photo=PHOTO, style=pictures.PRINT)
    heats = [axes.images[-1] for axes in figure.axes if len(axes.images) > 1]
    assert [heat.get_clim() for heat in heats] == [(-3, 3)] * 3
    for heat, expected in zip(heats, (PATCHES, PATCHES / 2, 0 * PATCHES), strict=True):
        np.testing.assert_allclose(centres_of(heat, 2), expected)
    told = texts_of(figure).replace("\n", " ")
    for line in ("entering", "layer 1", "layer 2", "class token +3.5 · added behind -0.5"):
        assert line in told


@pytest.mark.parametrize("drop_special", [False, True])
def test_layers_of_a_text_are_rows_that_make_up_the_score(client: Client, drop_special: bool) -> None:
    """With a column for what is added behind, and for what was left out."""
    why = of_text(client, by_layer=True, drop_special=drop_special)
    axes = pictures.relevance_layers(why, model="photos").axes[0]
    drawn = np.asarray(axes.images[0].get_array())
    np.testing.assert_allclose(drawn.sum(1), [1.5] * 3)
    low, high = axes.images[0].get_clim()
    assert -low == high == np.abs(drawn).max()
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["entering", "layer 1", "layer 2"]
    columns = [tick.get_text() for tick in axes.get_xticklabels()]
    assert columns[-1] == "added behind"
    assert columns[:-1] == (
        ["cats", "sit", "##ting", "left out"] if drop_special else ["[CLS]", "cats", "sit", "##ting", "[SEP]"]
    )


def test_without_layers_there_is_nothing_to_draw(client: Client) -> None:
    """It says what was expected."""
    with pytest.raises(ValueError, match="relevance without layers; expected that of a request with by_layer"):
        pictures.relevance_layers(of_text(client), model="photos")
