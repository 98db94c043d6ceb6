"""Texts on the page: words alone, as a text to be read, large matrices, and every layer and head."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from regard import Attention, AttentionRequest, Client
from tests.explorer.browsing import Browser, Visit, expect, visiting
from tests.explorer.running import SANDAL, TEXT, Explorer
from tests.explorer.seen import expect_weights


@pytest.fixture(scope="module")
def answer(real_server: str) -> Attention:
    """All attention over the text, [2 layers, 4 heads, tokens, tokens]."""
    with Client(real_server) as client:
        attention = client.embed(text=TEXT, model="tiny-text", attention=AttentionRequest(dtype="float16")).attention
    assert attention is not None
    return attention


def _among_words(answer: Attention, layer: int) -> NDArray[np.float32]:
    """A layer's heads without special tokens, rows made to sum to 1 again."""
    assert answer.tokens is not None
    words = [at for at, token in enumerate(answer.tokens) if not token.special]
    weights = answer.layer(layer).weights.astype(np.float32)[:, words][:, :, words]
    shares: NDArray[np.float32] = weights / weights.sum(-1, keepdims=True)
    return shares


def test_special_tokens_are_hidden_and_the_others_share_their_weight(
    browser: Browser, explorer: Explorer, answer: Attention
) -> None:
    """Head by head, before heads are averaged; a link keeps it, and what was pinned is released."""
    assert answer.tokens is not None
    words = [token.text for token in answer.tokens if not token.special]
    wanted = _among_words(answer, 1)
    with visiting(browser, explorer, f"model=tiny-text&text={TEXT}&query=1") as visit:
        expect(visit.find(".token")).to_have_count(len(answer.tokens))
        visit.page.get_by_label("hide special tokens").check()
        expect(visit.find(".token span")).to_have_text(words)
        visit.looks_is("What all tokens on average attend to")
        expect_weights(visit.find(".token"), wanted.mean(0).mean(0))
        visit.find(".token").nth(1).focus()
        expect_weights(visit.find(".token"), wanted.mean(0)[1])
        assert "words_only=true" in visit.page.url
        visit.page.get_by_label("hide special tokens").uncheck()
        expect(visit.find(".token")).to_have_count(len(answer.tokens))


def test_a_text_is_read_as_a_text(browser: Browser, explorer: Explorer) -> None:
    """Letter by letter as it was given, with weights as shading; without special tokens nothing else stands there."""
    text = "A good  film, really — 100 % good!"
    with visiting(browser, explorer) as visit:
        visit.type(text)
        expect(visit.find(".token").first).to_be_visible()
        visit.page.get_by_label("hide special tokens").check()
        visit.page.get_by_label("reading view").check()
        expect(visit.find(".tokens.reading-view")).to_be_visible()
        shown = visit.find(".reading-view .token span").all_text_contents()
        assert "".join(shown) == text
        expect(visit.find(".reading-view small")).to_have_count(0)
        colours = visit.page.evaluate(
            "[...document.querySelectorAll('.reading-view .token')].map((one) => getComputedStyle(one).backgroundColor)"
        )
        assert len(set(colours)) > 2
        assert "reading=true" in visit.page.url


@pytest.mark.parametrize(
    ("tokens", "text", "pieces"),
    [
        ([("good", 2, 6), ("film", 8, 12)], "a good  film", ["a good", "  film"]),
        ([("[CLS]", 0, 0), ("a", 0, 1)], "a", [" [CLS] ", "a"]),
        ([("\U0001f600", 0, 1), ("b", 1, 2)], "\U0001f600b", ["\U0001f600", "b"]),
        ([("a", 0, 1), ("b", 0, 1)], "a", ["a ", "b "]),
    ],
)
def test_pieces_of_a_text_are_the_text(
    browser: Browser, explorer: Explorer, tokens: list[tuple[str, int, int]], text: str, pieces: list[str]
) -> None:
    """With what lies between tokens; of a pair each token stands for itself."""
    given = [{"text": word, "special": word == "[CLS]", "start": start, "end": end} for word, start, end in tokens]
    run = """async ([tokens, text]) => {
      const { piecesOf } = await import("./static/tokens.js");
      return piecesOf(tokens, text);
    }"""
    with visiting(browser, explorer) as visit:
        assert visit.page.evaluate(run, [given, text]) == pieces


def _matrix_width(visit: Visit) -> float:
    box = visit.find(".sheet").bounding_box()
    assert box is not None
    return box["width"]


def test_a_large_matrix_is_zoomed_into(browser: Browser, explorer: Explorer) -> None:
    """In its own frame: the page grows no wider; pointing reads the cell that is seen there."""
    phone: Any = {"viewport": {"width": 390, "height": 844}}
    with visiting(browser, explorer, **phone) as visit:
        visit.type("film " * 60)
        expect(visit.find("canvas.matrix")).to_be_visible()
        expect(visit.button("Smaller")).to_be_disabled()
        before = _matrix_width(visit)
        visit.button("Larger").click()
        expect(visit.button("Smaller")).to_be_enabled()
        assert _matrix_width(visit) == pytest.approx(2 * before, rel=0.1)
        assert visit.width()[0] == 390
        visit.page.evaluate("document.querySelector('.zoomed').scrollTo(9999, 9999)")
        seen = visit.find("canvas.matrix").bounding_box()
        assert seen is not None
        visit.find("canvas.matrix").hover(position={"x": seen["width"] - 4, "y": seen["height"] - 4})
        expect(visit.find(".told")).to_contain_text("from “[SEP]” to “[SEP]”")
        visit.button("Smaller").click()
        expect(visit.button("Smaller")).to_be_disabled()
        assert _matrix_width(visit) == pytest.approx(before)


def test_arcs_are_those_that_can_be_seen(browser: Browser, explorer: Explorer) -> None:
    """From a fiftieth of the largest, the faintest first: all, those of a token, those to one, or one alone."""
    run = """async ([query, key]) => {
      const { arcsOf } = await import("./static/arcs.js");
      const matrix = Float32Array.of(0.5, 0.25, 0.009, 0, 1, 0.02);
      return arcsOf({ matrix, keys: 3, end: 0.5, query, key }).map((arc) => Object.values(arc));
    }"""
    wanted: list[tuple[list[Any], list[list[int]]]] = [
        (["all", None], [[1, 2], [0, 1], [0, 0], [1, 1]]),
        ([0, None], [[0, 1], [0, 0]]),
        (["all", 1], [[0, 1], [1, 1]]),
        ([1, 2], [[1, 2]]),
        ([1, 0], []),
    ]
    with visiting(browser, explorer) as visit:
        found = [visit.page.evaluate(run, seen) for seen, _ in wanted]
    assert [[arc[:2] for arc in arcs] for arcs in found] == [places for _, places in wanted]
    assert [arc[2] for arc in found[0]] == pytest.approx([0.04, 0.5, 1, 1])


def test_arcs_stand_in_place_of_the_matrix(browser: Browser, explorer: Explorer, answer: Attention) -> None:
    """Pointing at the left says who attends, at the right what is attended to; a click pins; a link keeps it."""
    assert answer.tokens is not None
    names = [token.text for token in answer.tokens]
    with visiting(browser, explorer) as visit:
        visit.type(TEXT)
        expect(visit.find("canvas.matrix")).to_be_visible()
        visit.page.get_by_label("arcs").check()
        expect(visit.find("canvas.matrix")).to_have_count(0)
        arcs = visit.find("canvas.arcs")
        arcs.hover(position={"x": 20, "y": 22 * 2.5})
        visit.looks_is(f"What “{names[2]}” attends to")
        arcs.click(position={"x": 20, "y": 22 * 1.5})
        visit.looks_is(f"What “{names[1]}” attends to")
        box = arcs.bounding_box()
        assert box is not None
        assert box["height"] == pytest.approx(22 * len(names), abs=1)
        arcs.hover(position={"x": box["width"] - 20, "y": 22 * 3.5})
        expect(visit.find(".told")).to_contain_text(f"from “{names[1]}” to “{names[3]}”")
        assert "arcs=true" in visit.page.url


def test_a_short_text_needs_no_zoom(browser: Browser, explorer: Explorer) -> None:
    """Its cells are as large as they get."""
    with visiting(browser, explorer) as visit:
        visit.type("cats")
        expect(visit.find("canvas.matrix")).to_be_visible()
        expect(visit.page.locator(".zoom").first).to_be_hidden()


@pytest.mark.parametrize(("what", "layers"), [("text", 2), ("photo", 4)])
def test_every_layer_and_head_is_shown(browser: Browser, explorer: Explorer, what: str, layers: int) -> None:
    """Row by row, each drawn; a click chooses a head, and nothing is asked for again."""
    with visiting(browser, explorer) as visit:
        visit.type(TEXT) if what == "text" else visit.give(SANDAL)
        expect(visit.page.locator("#title")).to_contain_text("mean of 4 heads")
        visit.page.get_by_text("Every layer and head", exact=True).click()
        cells = visit.find("#layers-of-heads button")
        expect(cells).to_have_count(4 * layers)
        expect(visit.page.locator("#layers-of-heads-status")).to_be_empty()
        asked = visit.asked
        assert asked == layers
        visit.page.get_by_role("button", name="layer 0, head 2", exact=True).click()
        expect(visit.page.locator("#title")).to_contain_text("layer 0 · head 2")
        chosen = visit.find("#layers-of-heads button[aria-pressed='true']")
        expect(chosen).to_have_attribute("aria-label", "layer 0, head 2")
        expect(visit.find("#layers-of-heads canvas").last).to_be_visible()
        painted = """() => [...document.querySelectorAll("#layers-of-heads canvas")].every((canvas) => {
          const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d");
          copy.drawImage(canvas, 0, 0);
          const { data } = copy.getImageData(0, 0, canvas.width, canvas.height);
          return data.every((value, at) => at % 4 < 3 || value === 255);
        })"""
        visit.page.wait_for_function(painted)
        assert visit.asked == asked
        assert "overview=true" in visit.page.url
