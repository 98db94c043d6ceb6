"""Attention as a notebook shows it, pointed at in a browser."""

import dataclasses
from collections.abc import Iterator, Sequence
from io import BytesIO

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from regard import Attention, Box, LayerAttention, PatchGrid, Token
from regard.notebook_html import _MOST_WEIGHTS
from regard.origin import Origin, keep
from tests.explorer.browsing import Browser, expect

TOKENS = tuple(Token(number, text, 0, 0, False) for number, text in enumerate(["[CLS]", "<b>", "sat"]))
GRID = PatchGrid(prefix_tokens=1, rows=2, cols=2, patch_size=40, box=Box(0, 0, 80, 80), image_width=80, image_height=80)
WEIGHTS = np.array([[0.2, 0.1, 0.3, 0.4, 0.0], [0.5, 0.0, 0.1, 0.0, 0.4]], np.float32)


@pytest.fixture
def shown(browser: Browser) -> Iterator["Shown"]:
    """A page that a test fills; an error on it fails the test."""
    shown = Shown(browser)
    yield shown
    shown.page.close()
    assert shown.errors == []


class Shown:
    """A page with an output of a notebook."""

    def __init__(self, browser: Browser) -> None:
        self.page = browser.new_page()
        self.errors = list[str]()
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))

    def put(self, *shown: Attention) -> None:
        """Put outputs below one another."""
        self.page.set_content("".join(one._repr_html_() for one in shown))

    def colours(self, output: int = 0) -> list[float]:
        """How dark the cells of an output's second map are, 0 to 1."""
        found = self.page.locator("[data-second]").nth(output).locator("[data-cell]")
        shades: Sequence[str] = found.evaluate_all("all => all.map(cell => getComputedStyle(cell).backgroundColor)")
        return [float(one[:-1].split(",")[3]) if one.count(",") == 3 else 1.0 for one in shades]


def attention_of_photo(queries: tuple[int, ...], weights: NDArray[np.float32] = WEIGHTS) -> Attention:
    """Attention of a photo of 2 x 2 patches, of some of its rows."""
    file = BytesIO()
    Image.new("RGB", (80, 80), "grey").save(file, "PNG")
    layer = LayerAttention(3, "self", ("query", "key"), (), queries, weights[: len(queries)])
    found = Attention((layer,), None, GRID)
    keep(found, Origin("photos", image=file.getvalue()))
    return found


def test_a_token_that_is_pointed_at_shades_the_text(shown: Shown) -> None:
    """By what it attends to; each of two outputs by itself."""
    weights = np.array([[0.0, 0.5, 0.5], [1, 0, 0], [0.25, 0.75, 0]], np.float32)
    text = Attention((LayerAttention(1, "self", ("query", "key"), (), (0, 1, 2), weights),), TOKENS)
    shown.put(text, dataclasses.replace(text))
    cell = shown.page.locator("td").nth(7)
    cell.hover()
    expect(shown.page.locator("output").first).to_have_text("sat → <b>: 0.75")
    expect(shown.page.locator("[data-second] figcaption").first).to_have_text("sat attends to (darkest: 0.750)")
    assert shown.colours() == pytest.approx([(1 / 3) ** 0.5, 1, 0], abs=0.01)
    expect(shown.page.locator("[data-second]").last).not_to_be_visible()
    shown.page.locator("td").nth(9 + 3).hover()
    expect(shown.page.locator("output").last).to_have_text("<b> → [CLS]: 1")
    assert shown.colours(1) == pytest.approx([1, 0, 0], abs=0.01)


def test_a_patch_that_is_pointed_at_shows_its_own_map(shown: Shown) -> None:
    """Beside the first row's, whose weight it tells; a patch of which no row came tells that alone."""
    shown.put(attention_of_photo((0, 3)))
    patches, second = shown.page.locator("[data-row]"), shown.page.locator("[data-second]")
    expect(second).not_to_be_visible()
    patches.nth(1).hover()
    expect(shown.page.locator("output")).to_have_text("row 0, column 1: 0.3")
    expect(second).not_to_be_visible()
    patches.nth(2).hover()
    expect(shown.page.locator("output")).to_have_text("row 1, column 0: 0.4")
    expect(second.locator("figcaption")).to_have_text("row 1, column 0 attends to (darkest: 0.400)")
    assert shown.colours() == pytest.approx([0, 0.5, 0, 1], abs=0.01)
    assert second.locator("img").evaluate("photo => photo.naturalWidth") == 80


def test_a_single_row_has_no_second_map(shown: Shown) -> None:
    """Nor have more rows than a notebook should hold."""
    shown.put(attention_of_photo((0,)))
    shown.page.locator("[data-row]").nth(1).hover()
    expect(shown.page.locator("output")).to_have_text("row 0, column 1: 0.3")
    expect(shown.page.locator("[data-second]")).to_have_count(0)
    rows = _MOST_WEIGHTS // 4 + 1
    many = attention_of_photo(tuple(range(rows)), np.full((rows, 5), 0.2, np.float32))
    assert len(many._repr_html_()) < 10_000
