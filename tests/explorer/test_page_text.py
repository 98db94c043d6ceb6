"""A text on the page, in a real browser: tokens and matrix by pointer and by keyboard."""

import numpy as np
import pytest
from numpy.typing import NDArray

from regard import Attention, AttentionRequest, Client
from tests.explorer.browsing import Browser, Visit, expect, visiting
from tests.explorer.running import TEXT, Explorer
from tests.explorer.seen import SHOWN, expect_weights


@pytest.fixture(scope="module")
def answer(real_server: str) -> Attention:
    """All attention over the text, [2 layers, 4 heads, tokens, tokens]."""
    with Client(real_server) as client:
        wanted = AttentionRequest(dtype="float16")
        attention = client.embed(text=TEXT, model="tiny-text", attention=wanted).attention
    assert attention is not None
    return attention


def weights(answer: Attention, layer: int) -> NDArray[np.float32]:
    """One layer as float32 [4, tokens, tokens]."""
    return answer.layer(layer).weights.astype(np.float32)


def expect_row(visit: Visit, row: NDArray[np.float32], panel: int = 0) -> None:
    """Insist that every token shows the weight of a row."""
    expect_weights(visit.page.locator(".panel").nth(panel).locator(".token"), row)


def test_a_text_is_shown_token_by_token(browser: Browser, explorer: Explorer, answer: Attention) -> None:
    """As the vocabulary spells them, special ones marked; at first, how much each is attended to on average."""
    assert answer.tokens is not None
    with visiting(browser, explorer) as visit:
        visit.type(TEXT)
        visit.title_is("tiny-text", "layer 1", "mean of 4 heads")
        visit.looks_is("What all tokens on average attend to")
        expect(visit.find(".token span")).to_have_text([token.text for token in answer.tokens])
        expect(visit.find(".token.special")).to_have_count(sum(token.special for token in answer.tokens))
        expect_row(visit, weights(answer, 1).mean(0).mean(0))
        expect(visit.find("#labels li")).to_have_count(2)


def test_the_keyboard_moves_over_tokens(browser: Browser, explorer: Explorer, answer: Attention) -> None:
    """One of them is in the tab order; arrows, Home and End go on; each shows what it attends to."""
    assert answer.tokens is not None
    last = len(answer.tokens) - 1
    with visiting(browser, explorer) as visit:
        visit.type(TEXT)
        visit.looks_is("What all tokens on average attend to")
        assert visit.find(".token[tabindex='0']").count() == 1
        visit.find(".token[tabindex='0']").focus()
        for key, position in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", last), ("Home", 0)):
            visit.page.keyboard.press(key)
            visit.looks_is(f"What “{answer.tokens[position].text}” attends to")
            expect_row(visit, weights(answer, 1)[:, position].mean(0))
        name = visit.find(".token").nth(1).get_attribute("aria-label") or ""
        assert name.startswith(f"{answer.tokens[1].text}, ")
        assert name.endswith(" %")


def test_enter_pins_a_token_and_moving_on_reads_weights(
    browser: Browser, explorer: Explorer, answer: Attention
) -> None:
    """Until Escape releases it."""
    assert answer.tokens is not None
    with visiting(browser, explorer) as visit:
        visit.type(TEXT)
        visit.choose("head-choices", 2)
        visit.find(".token").nth(1).focus()
        visit.page.keyboard.press("Enter")
        expect(visit.find(".token").nth(1)).to_have_attribute("aria-pressed", "true")
        visit.page.keyboard.press("ArrowRight")
        expect(visit.find(".told")).to_contain_text(f"from “{answer.tokens[1].text}” to “{answer.tokens[2].text}”")
        assert float(visit.told().split()[0]) == pytest.approx(float(weights(answer, 1)[2, 1, 2]), rel=SHOWN)
        visit.page.keyboard.press("Escape")
        visit.page.keyboard.press("ArrowRight")
        visit.looks_is(f"What “{answer.tokens[3].text}” attends to")


def test_pointing_into_the_matrix_shows_query_and_key(browser: Browser, explorer: Explorer, answer: Attention) -> None:
    """Rows attend to columns; a click pins the row."""
    assert answer.tokens is not None
    count = len(answer.tokens)
    with visiting(browser, explorer) as visit:
        visit.type(TEXT)
        visit.choose("head-choices", 0)
        visit.title_is("tiny-text", "layer 1", "head 0")
        box = visit.find("canvas.matrix").bounding_box()
        assert box is not None
        cell = 26  # the largest, for a text so short
        band = box["width"] - count * cell
        cell_at = {"x": band + 3.5 * cell, "y": box["height"] - (count - 1.5) * cell}
        visit.find("canvas.matrix").hover(position=cell_at)  # type: ignore[arg-type]
        expect(visit.find(".told")).to_contain_text(f"from “{answer.tokens[1].text}” to “{answer.tokens[3].text}”")
        assert float(visit.told().split()[0]) == pytest.approx(float(weights(answer, 1)[0, 1, 3]), rel=SHOWN)
        visit.find("canvas.matrix").click(position=cell_at)  # type: ignore[arg-type]
        expect(visit.find(".token").nth(1)).to_have_attribute("aria-pressed", "true")


def test_two_layers_are_compared(browser: Browser, explorer: Explorer, answer: Attention) -> None:
    """Token by token, side by side."""
    with visiting(browser, explorer) as visit:
        visit.type(TEXT)
        visit.choose("head-choices", 3)
        visit.button("Compare two heads").click()
        visit.page.get_by_label("Layer of the second picture").select_option("0")
        visit.page.get_by_label("Head of the second picture").select_option("1")
        expect(visit.page.get_by_label("Head of the second picture")).to_have_value("1")
        visit.find(".token").nth(2).hover()
        expect(visit.find("canvas.matrix")).to_have_count(2)
        expect(visit.page.locator(".token.looks")).to_have_count(2)
        expect_row(visit, weights(answer, 1)[3, 2], 0)
        expect_row(visit, weights(answer, 0)[1, 2], 1)


def test_what_a_server_sends_is_shown_as_text(browser: Browser, explorer: Explorer) -> None:
    """Markup is nothing but letters."""
    with visiting(browser, explorer) as visit:
        visit.type('<img src=x onerror="alert(1)"><b>film</b>')
        expect(visit.find(".token").first).to_be_visible()
        assert visit.page.locator("#shown img, #shown b").count() == 0


def test_a_text_that_is_too_long_is_refused_and_then_cut(browser: Browser, explorer: Explorer) -> None:
    """The server's own words; the box below cuts, and the page says so."""
    with visiting(browser, explorer, refusals=True) as visit:
        visit.type("film " * 100)
        expect(visit.find("#problem")).to_contain_text("INVALID_ARGUMENT: text")
        expect(visit.find("#problem")).to_contain_text("64")
        visit.page.check("#truncate")
        expect(visit.find(".token")).to_have_count(64)
        expect(visit.find("#facts")).to_contain_text("was cut to 64 tokens")
        expect(visit.page.locator("#problem")).to_be_hidden()


def test_distances_of_a_text_are_in_tokens(browser: Browser, explorer: Explorer) -> None:
    """As the axis says."""
    with visiting(browser, explorer) as visit:
        visit.type(TEXT)
        visit.page.get_by_text("Entropy and distance of every head").click()
        expect(visit.find("svg.chart").nth(1)).to_contain_text("tokens")
        assert "charts=true" in visit.page.url
