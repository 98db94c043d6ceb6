"""The pictures of texts: matrices, heads side by side, arcs, and the charts of entropy and distance."""

import io
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from matplotlib import font_manager, ft2font
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray

from regard import Attention, AttentionRequest, LayerAttention, PatchGrid, Token, pictures
from regard.pictures import lettering
from regard.pictures.lettering import longest_inches
from regard.pictures.titles import fit_title

TOKENS = [Token(number, word, 0, 0, False) for number, word in enumerate(["[CLS]", "$5", "or", "$6", "[SEP]"])]


def _layer(
    weights: NDArray[Any], queries: tuple[int, ...] | None = None, kind: Any = "self", keys: tuple[int, ...] = ()
) -> LayerAttention:
    axes = ("head", "query", "key")[-weights.ndim :]
    heads = tuple(range(weights.shape[0])) if weights.ndim == 3 else (0, 1, 2)
    return LayerAttention(11, kind, axes, heads, queries or tuple(range(weights.shape[-2])), weights, keys)


def _line(title: str) -> str:
    return title.replace("\n", " ")


def _words(labels: Sequence[Text]) -> list[str]:
    return [label.get_text() for label in labels]


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_the_token_map_has_a_row_a_query_and_a_column_a_key(dtype: Any) -> None:
    """Tick labels are the tokens, dollar signs included; the title says what was averaged."""
    weights = np.full((2, 5), 0.2, dtype)
    figure = pictures.token_heatmap(_layer(weights, queries=(1, 3)), TOKENS, model="minilm")
    figure.savefig(io.BytesIO(), format="svg")
    panel, scale = figure.axes
    assert [label.get_text() for label in panel.get_xticklabels()] == ["[CLS]", r"\$5", "or", r"\$6", "[SEP]"]
    assert [label.get_text() for label in panel.get_yticklabels()] == [r"\$5", r"\$6"]
    assert figure.get_suptitle() == "minilm · layer 11 · mean of 3 heads"
    assert scale.get_ylabel() == "attention weight"
    drawn = panel.images[0].get_array()
    assert drawn is not None
    np.testing.assert_array_equal(drawn, weights.astype(np.float32))


def test_tokens_that_do_not_fit_the_weights_are_refused() -> None:
    """One key too few."""
    with pytest.raises(ValueError, match=r"shape \[1, 1, 4\]; expected \[1, 1, 5\]"):
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
    assert len(figure.axes[0].get_xticks()) < 256


def test_keys_that_were_left_out_have_no_column() -> None:
    """As after drop_special: only the ordinary tokens are queries and keys."""
    layer = _layer(np.full((3, 3), 1 / 3, np.float32), queries=(1, 2, 3), keys=(1, 2, 3))
    panel = pictures.token_heatmap(layer, TOKENS, model="minilm").axes[0]
    assert _words(panel.get_xticklabels()) == _words(panel.get_yticklabels()) == [r"\$5", "or", r"\$6"]


def test_what_was_not_sent_and_what_cannot_be_looked_at_stays_empty() -> None:
    """The largest of each row alone; later positions under a causal mask."""
    largest = LayerAttention(
        0,
        "self",
        ("query", "top"),
        (0,),
        (0, 1),
        np.array([[0.9], [0.8]], np.float32),
        indices=np.array([[4], [0]], np.int32),
    )
    assert _drawn_cells(pictures.token_heatmap(largest, TOKENS, model="m")) == {(0, 4), (1, 0)}
    causal = _layer(np.tri(5, dtype=np.float32), kind="causal")
    earlier = {(row, column) for row in range(5) for column in range(row + 1)}
    assert _drawn_cells(pictures.token_heatmap(causal, TOKENS, model="m")) == earlier


def test_queries_and_keys_of_different_sequences_have_their_own_names() -> None:
    """Cross-attention: two target tokens attend to five source tokens, in a matrix and as arcs."""
    layer = _layer(np.full((1, 2, 5), 0.2, np.float32), kind="cross")
    target = [Token(0, word, 0, 0, False) for word in ("eine", "Katze")]
    panel = pictures.token_heatmap(layer, target, key_tokens=TOKENS, model="m").axes[0]
    assert (_words(panel.get_yticklabels()), len(panel.get_xticklabels())) == (["eine", "Katze"], 5)
    arcs = pictures.token_arcs(layer, target, key_tokens=TOKENS, model="m").axes[0]
    assert _words(arcs.texts)[:2] == ["eine", "Katze"]
    assert len(arcs.texts) == 7


def test_attention_of_a_batch_or_another_measure_is_refused() -> None:
    """The message says what was expected."""
    batch = LayerAttention(0, "self", ("batch", "head", "query", "key"), (0,), (0,), np.ones((1, 1, 1, 5)))
    with pytest.raises(ValueError, match="expected that of one row of the batch"):
        pictures.token_heatmap(batch, TOKENS, model="m")
    with pytest.raises(ValueError, match="an entropy, which has no keys"):
        pictures.token_heatmap(_entropy([[1.0]]).layers[0], TOKENS, model="m")
    with pytest.raises(ValueError, match="expected the entropy or distance"):
        pictures.head_chart(Attention((_layer(np.ones((1, 5))),)), model="m")


def test_every_head_has_a_small_matrix_on_one_scale() -> None:
    """Named left and below only, so that twelve fit; the same colour is the same weight in each."""
    weights = np.full((12, 5, 5), 0.2, np.float32)
    weights[7, 0, 0] = 0.9
    figure = pictures.token_heads(_layer(weights), TOKENS, model="minilm")
    *panels, scale = figure.axes
    assert [panel.get_title() for panel in panels] == [f"head {head}" for head in range(12)]
    assert {panel.images[0].norm.vmax for panel in panels} == {np.float32(0.9)}
    assert [bool(_words(panel.get_yticklabels())) for panel in panels] == [True, False, False, False] * 3
    assert [bool(_words(panel.get_xticklabels())) for panel in panels] == [False] * 8 + [True] * 4
    assert figure.get_suptitle() == "minilm · layer 11 · rows attend to columns"
    assert scale.get_ylabel() == "attention weight"


def test_arcs_join_each_token_to_what_it_looks_at_most() -> None:
    """Wider and more opaque where the weight is larger; the weakest links are left out."""
    weights = np.array([[0.5, 0.3, 0.15, 0.05, 0.0]] + [[0.0, 1.0, 0, 0, 0]] * 4, np.float32)
    figure = pictures.token_arcs(_layer(weights), TOKENS, model="minilm", strongest=2)
    (arcs,) = _bundles(figure)
    ends = [(segment[0][1], segment[-1][1]) for segment in arcs.get_segments()]
    assert ends == [(0, 1), (0, 0), (1, 1), (2, 1), (3, 1), (4, 1)]
    widths, opacities = arcs.get_linewidths(), [colour[3] for colour in arcs.get_edgecolors()]
    assert list(widths) == sorted(widths)
    assert widths[0] < widths[1] < widths[2]
    assert opacities[0] < opacities[1] < opacities[2]
    assert _line(figure.get_suptitle()) == "minilm · layer 11 · mean of 3 heads: the 2 strongest links of each token"


def test_each_head_has_arcs_of_a_colour_and_place_of_its_own() -> None:
    """The legend names them; so no head hides another that looks the same way."""
    figure = pictures.token_arcs(_layer(np.tile(np.eye(5, dtype=np.float32), (8, 1, 1))), TOKENS, model="m")
    bundles = _bundles(figure)
    assert len({tuple(bundle.get_edgecolors()[0][:3]) for bundle in bundles}) == 8
    starts = [bundle.get_segments()[0][0][1] for bundle in bundles]
    assert len(set(starts)) == 8
    assert max(map(abs, starts)) < 0.5
    legend = _words(figure.legends[0].get_texts())
    assert legend[:8] == [f"head {head}" for head in range(8)]
    assert legend[8:] == ["attention weight 1", "attention weight 0.25"]


def test_more_heads_than_colours_are_refused() -> None:
    """Nine cannot be told apart."""
    with pytest.raises(ValueError, match="arcs of 9 heads; expected at most 8"):
        pictures.token_arcs(_layer(np.ones((9, 5, 5), np.float32)), TOKENS, model="m")


def test_what_was_asked_for_sets_the_number_of_arcs() -> None:
    """top_k of the request; nothing is drawn of a row that attends to nothing."""
    weights = np.zeros((5, 5), np.float32)
    weights[2] = 0.2
    figure = pictures.token_arcs(_layer(weights), TOKENS, model="m", asked=AttentionRequest(top_k=1))
    assert len(_bundles(figure)[0].get_segments()) == 1
    assert _line(figure.get_suptitle()).endswith("the strongest link of each token")


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_the_colours_of_heads_are_seen_on_their_paper(theme: Any) -> None:
    """Each differs from the paper by a contrast of at least two (WCAG 2, relative luminance)."""
    style = pictures.make_style(theme=theme)
    for colour in style.categories:
        lighter, darker = sorted((_luminance(colour), _luminance(style.paper)), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= 2, colour


def test_the_entropy_chart_has_a_dot_a_head_and_marks_the_maximum() -> None:
    """The mean over rows in nats, layers along x in the order sent; ln 5 is that of attending to all five alike."""
    values = np.array([[0.2, 0.4], [1.0, 1.2]])
    figure = pictures.head_chart(_entropy(values, values + 0.1), model="minilm")
    (axes,) = figure.axes
    dots = [np.asarray(dots.get_offsets()).tolist() for dots in axes.collections[:2]]
    np.testing.assert_allclose([[y for _, y in layer] for layer in dots], [[0.3, 1.1], [0.4, 1.2]])
    assert [round(x) for layer in dots for x, _ in layer] == [0, 0, 1, 1]
    (line,) = axes.lines
    assert np.asarray(line.get_ydata()).tolist() == pytest.approx([math.log(5)] * 2)
    assert axes.get_ylim()[1] > math.log(5)
    assert axes.get_ylabel() == "entropy in nats"
    assert _line(figure.get_suptitle()) == "minilm · entropy of attention of each head, mean over 2 rows"
    assert _words(figure.legends[0].get_texts()) == ["a head", "mean of the layer", "possible maximum, ln 5 = 1.61"]


def test_the_distance_chart_says_pixels_of_an_image_and_positions_of_a_text() -> None:
    """Its heads are numbered where there is room."""
    layers = tuple(
        LayerAttention(layer, "self", ("head",), (0, 1), (1, 2, 3), np.array([10.0, 20.0 + layer]), measure="distance")
        for layer in (0, 3)
    )
    of_image = pictures.head_chart(Attention(layers, patches=PatchGrid(1, 2, 3, 16)), model="vit").axes[0]
    assert of_image.get_ylabel() == "distance in input pixels"
    assert _words(of_image.texts) == ["0", "1", "0", "1"]
    assert _words(of_image.get_xticklabels()) == ["0", "3"]
    of_text = pictures.head_chart(Attention(layers, tokens=tuple(TOKENS)), model="m").axes[0]
    assert of_text.get_ylabel() == "distance in positions"


def test_reduced_heads_are_one_dot() -> None:
    """Named by what was asked for."""
    layer = LayerAttention(0, "self", ("query",), (0, 1, 2), (0, 1), np.array([1.0, 2.0]), measure="entropy")
    asked = AttentionRequest(measure="entropy", reduce_heads="max")
    figure = pictures.head_chart(Attention((layer,), tokens=tuple(TOKENS)), model="m", asked=asked)
    (axes,) = figure.axes
    assert np.asarray(axes.collections[0].get_offsets()).tolist() == [[0, 1.5]]
    assert _line(figure.get_suptitle()) == "m · entropy of attention, max of 3 heads, mean over 2 rows"


@pytest.mark.parametrize("inches", [3.2, 6.0])
def test_the_title_of_a_chart_is_on_it(inches: float) -> None:
    """Printed as narrow as a column, too; the axis to its left takes room."""
    values = np.array([[0.2, 0.4], [1.0, 1.2]])
    style = pictures.make_style("print", width_cm=inches * 2.54)
    figure = pictures.head_chart(_entropy(values, values), model="a model with a rather long name", style=style)
    figure.draw_without_rendering()
    (title,) = (text for text in figure.findobj(Text) if text.get_text() == figure.get_suptitle())
    box = title.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= inches * figure.dpi


@pytest.mark.filterwarnings("ignore::regard.pictures.MissingFont")
@pytest.mark.parametrize("words", [["猫", "\N{PILE OF POO}", "cat"], ["\x1b[31m", "\u202e", "a" * 100], ["", " ", "$"]])
def test_any_token_can_be_drawn(words: list[str]) -> None:
    """Letters that no font has come out as boxes, long words are cut, control characters are dots."""
    tokens = [Token(0, word, 0, 0, False) for word in words]
    layer = _layer(np.full((3, 3), 1 / 3, np.float32))
    for draw in (pictures.token_heatmap, pictures.token_heads, pictures.token_arcs):
        drawn = pictures.to_bytes(draw(layer, tokens, model="m"), "svg")
        assert b"</svg>" in drawn


def test_letters_that_the_usual_font_lacks_come_from_another() -> None:
    """STIX, which comes with matplotlib, has a d with a hook below; nobody is asked about a cat."""
    (usual,), (first, second) = _fonts_of("cat"), _fonts_of("\N{LATIN SMALL LETTER D WITH PALATAL HOOK}")
    assert usual == first == "DejaVu Sans"
    letters = ft2font.FT2Font(font_manager.findfont(second)).get_charmap()
    assert ord("\N{LATIN SMALL LETTER D WITH PALATAL HOOK}") in letters


def test_letters_that_no_font_has_are_named_in_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no other font is installed."""
    monkeypatch.setattr(lettering, "_installed", list)
    with pytest.warns(pictures.MissingFont, match="no installed font has 字漢: drawn as boxes"):
        _fonts_of("cat 漢字")


def _fonts_of(word: str) -> list[str]:
    figure = pictures.token_heatmap(_layer(np.ones((1, 1), np.float32)), [Token(0, word, 0, 0, False)], model="m")
    fonts: list[str] = figure.axes[0].get_yticklabels()[0].get_fontfamily()
    return fonts


def _drawn_cells(figure: Figure) -> set[tuple[int, int]]:
    cells = figure.axes[0].images[0].get_array()
    assert cells is not None
    return {(int(row), int(column)) for row, column in np.argwhere(~np.ma.getmaskarray(cells))}


def _bundles(figure: Figure) -> list[Any]:
    return [drawn for drawn in figure.axes[0].collections if isinstance(drawn, LineCollection)]


def _entropy(*values: Any) -> Attention:
    """Layers of entropies [H, Q] over five tokens."""
    layers = []
    for number, each in enumerate(np.asarray(value, np.float32) for value in values):
        heads, queries = (tuple(range(size)) for size in each.shape)
        layers.append(LayerAttention(number, "self", ("head", "query"), heads, queries, each, measure="entropy"))
    return Attention(tuple(layers), tokens=tuple(TOKENS))


def _luminance(colour: str) -> float:
    """Relative luminance of "#rrggbb" as WCAG 2 defines it."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def test_the_numbers_of_heads_are_clear_of_bars_and_lines() -> None:
    """Where the mean of a layer lies just above a dot, its number stands below it."""
    values = np.array([[1.0], [1.05], [1.1], [1.5]])
    chart = pictures.head_chart(_entropy(values, values + 0.05), model="m")
    chart.draw_without_rendering()
    (axes,) = chart.axes
    heights = [float(np.asarray(line.get_ydata())[0]) for line in axes.lines]
    heights += [float(np.mean(values)), float(np.mean(values + 0.05))]
    lines = [axes.transData.transform((0, height))[1] for height in heights]
    numbers = [text for text in axes.texts if text.get_text().isdigit()]
    assert len(numbers) == 8
    for place, text in enumerate(numbers):
        box, layer = text.get_window_extent(), place // 4
        beside = [lines[0], lines[1 + layer]]
        assert not any(box.y0 <= line <= box.y1 for line in beside), text


@pytest.mark.parametrize("width_inches", [2.2, 3.0, 5.0])
def test_a_title_is_broken_between_phrases_only(width_inches: float) -> None:
    """And in smaller type where the longest does not fit."""
    title = fit_title("vit-s14 · layer 11 · mean of 6 heads: what the class token attends to", width_inches, 11)
    phrases = ("vit-s14", "layer 11", "mean of 6 heads", "what the class token attends to")
    assert all(phrase in title.text for phrase in phrases)
    assert longest_inches(title.text.split("\n"), title.points) <= width_inches


def test_matrices_side_by_side_have_one_scale_unless_asked_otherwise() -> None:
    """It ends at the largest weight of both."""
    faint, strong = (_layer(np.full((5, 5), weight, np.float32)) for weight in (0.1, 0.4))
    drawings = [partial(pictures.token_heatmap, layer, TOKENS, model="m") for layer in (faint, strong)]
    own = replace(pictures.SCREEN, scale=pictures.Scale(common=False))
    for style, ends in ((pictures.SCREEN, [0.4, 0.4]), (own, [0.1, 0.4])):
        figure = pictures.side_by_side(drawings, style=style)
        found = [image.norm.vmax for axes in figure.axes for image in axes.images]
        assert found == pytest.approx(ends)
