"""Pictures side by side, styles, files and pages."""

import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from regard import Attention, LayerAttention, Token, pictures
from regard.pictures import Page, Table
from regard.pictures.page import page_html

TOKENS = [Token(number, word, 0, 0, False) for number, word in enumerate(["[CLS]", "a", "cat", "[SEP]"])]


def _matrix(layer: int = 0, size: int = 4) -> partial[Any]:
    weights = np.full((size, size), 1 / size, np.float32)
    attention = LayerAttention(layer, "self", ("query", "key"), (0, 1), tuple(range(size)), weights)
    return partial(pictures.token_heatmap, attention, TOKENS[:size], model="m")


def _chart(entropy: float, num_tokens: int) -> partial[Any]:
    values = np.full((2, 1), entropy, np.float32)
    layer = LayerAttention(0, "self", ("head", "query"), (0, 1), (0,), values, measure="entropy")
    return partial(pictures.head_chart, Attention((layer,), tokens=tuple(TOKENS[:num_tokens])), model="m")


def test_two_pictures_stand_side_by_side_each_as_it_is_alone() -> None:
    """Same size, the first on the left, none reaching into the other's half."""
    alone = _matrix()()
    both = pictures.side_by_side([_matrix(1), _matrix(2)])
    assert both.get_figwidth() == pytest.approx(2 * alone.get_figwidth())
    assert both.get_figheight() == pytest.approx(alone.get_figheight())
    titles = [part.get_suptitle() for part in both.subfigs]
    assert titles == [f"m · layer {layer} · mean of 2 heads" for layer in (1, 2)]
    pictures.to_bytes(both, "png")
    left, right = (part.get_tightbbox() for part in both.subfigs)
    assert left.x0 >= 0
    assert left.x1 <= right.x0
    assert right.x1 <= both.bbox.x1


def test_three_pictures_fill_two_lines() -> None:
    """As many columns as asked for."""
    figure = pictures.side_by_side([_matrix(number) for number in range(3)], columns=2)
    assert figure.get_figheight() == pytest.approx(2 * _matrix()().get_figheight())
    assert len({round(part.bbox.y0) for part in figure.subfigs}) == 2


def test_a_width_is_that_of_the_whole() -> None:
    """17 cm for both charts together."""
    figure = pictures.side_by_side([_chart(0.5, 2), _chart(1.0, 4)], style=pictures.PRINT)
    assert figure.get_figwidth() * 2.54 == pytest.approx(17)


def test_charts_side_by_side_reach_equally_high() -> None:
    """Or their dots could not be compared."""
    figure = pictures.side_by_side([_chart(0.5, 2), _chart(1.0, 4)])
    first, second = (part.axes[0] for part in figure.subfigs)
    assert first.get_ylim() == second.get_ylim()
    assert first.get_ylim()[1] > np.log(4)


def test_nothing_is_not_drawn() -> None:
    """With a message."""
    with pytest.raises(ValueError, match="0 drawings in 2 columns"):
        pictures.side_by_side([])


def test_print_is_light_seventeen_centimetres_and_fine_and_screen_is_dark() -> None:
    """Each part can be set."""
    assert pictures.make_style() == pictures.SCREEN
    printed = pictures.make_style("print")
    assert (printed.theme, printed.dpi) == ("light", 300)
    assert printed.width_inches == pytest.approx(17 / 2.54)
    changed = pictures.make_style("print", "dark", 8.5, 600)
    assert (changed.theme, changed.dpi) == ("dark", 600)
    assert changed.width_inches == pytest.approx(8.5 / 2.54)


def test_the_same_input_gives_the_same_pdf_and_a_saved_png_has_the_styles_dots(tmp_path: Path) -> None:
    """No date is written."""
    first, second = (pictures.to_bytes(_matrix()(), "pdf") for _ in range(2))
    assert first == second
    figure = _matrix()(style=pictures.make_style(dpi=72))
    pictures.save(figure, tmp_path / "small.PNG")
    with Image.open(tmp_path / "small.PNG") as picture:
        assert picture.width == int(figure.get_figwidth() * 72)


def _page(**changes: Any) -> Page:
    parts: dict[str, Any] = {
        "title": "What m attends to",
        "facts": [("Input", "a <b> & c")],
        "alt": 'the "cat" most',
        "drawing": _matrix(),
        "vector": True,
        "tables": [Table("weights", ["a", "<i>"], ["cat"], [[0.12345, None]])],
    }
    return Page(**(parts | changes))


def test_a_page_loads_nothing_and_runs_nothing() -> None:
    """Its policy forbids it; the one style sheet is allowed by its hash; every address is data."""
    page = page_html(_page(), pictures.SCREEN)
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert set(re.findall(r'(?:src|srcset|href)="(\w+):', page)) == {"data"}
    assert "<script" not in page


def test_what_a_page_shows_is_escaped() -> None:
    """Facts, alternative text, and the names in tables."""
    page = page_html(_page(), pictures.SCREEN)
    assert "<dd>a &lt;b&gt; &amp; c</dd>" in page
    assert 'alt="the &quot;cat&quot; most"' in page
    assert '<th scope="col">&lt;i&gt;</th>' in page
    assert '<tr><th scope="row">cat</th><td>0.123</td><td></td></tr>' in page


def test_a_page_is_light_or_dark_as_its_reader_prefers() -> None:
    """Unless one theme was chosen."""
    both = page_html(_page(), pictures.SCREEN)
    assert both.count("data:image/svg+xml;base64,") == 2
    assert '<source media="screen and (prefers-color-scheme: dark)"' in both
    dark = page_html(_page(), pictures.SCREEN, "dark")
    assert (dark.count("data:image/"), '<html lang="en" class="dark">' in dark) == (1, True)


def test_photos_are_embedded_as_webp() -> None:
    """Which is a fraction of the size."""
    assert "data:image/webp;base64," in page_html(_page(vector=False), pictures.SCREEN, "light")


def test_a_page_leaves_out_tables_that_no_browser_shows_with_ease() -> None:
    """And says how many, and where the numbers are."""
    large = Table("large", ["x"] * 300, ["y"] * 300, [[0.5] * 300] * 300)
    page = page_html(_page(tables=[_page().tables[0], large, large]), pictures.SCREEN)
    assert page.count("<table>") == 1
    assert "2 of 3 tables are too large for a page: regard attend --json." in page


def test_a_picture_in_words_names_the_largest_number() -> None:
    """For those who do not see it."""
    weights = np.array([[0.1, 0.2, 0.6, 0.1]], np.float32)
    layer = LayerAttention(3, "self", ("query", "key"), (0, 1), (1,), weights)
    said = pictures.in_words(Attention((layer,), tokens=tuple(TOKENS)), model="m")
    assert said == "m, layer 3, mean of 2 heads: rows attend to columns; most: a, cat, 0.6."
