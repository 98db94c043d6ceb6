"""A text that a model writes on the page, in a real browser: it grows, and each token points at what it read."""

import io
from pathlib import Path

import numpy as np
import pytest

from regard import AttentionRequest, Client, Generated
from tests.explorer.browsing import EMPTY, Browser, Route, Visit, expect, visiting
from tests.explorer.running import TEXT, Explorer
from tests.explorer.seen import LINK, SHOWN, alignment, expect_row, is_whole, names, written
from tests.explorer.writing import WORD, HeldTokens

CELL = 26


@pytest.fixture(scope="module")
def whole(writer: str) -> Generated:
    """What the client gets: every layer and head."""
    everything = AttentionRequest()
    with Client(writer) as client:
        return client.generate_text(
            WORD, model="g2p", num_beams=1, alternatives=5, cross_attention=everything, self_attention=everything
        )


def rows_seen(visit: Visit) -> int:
    """How many rows the matrix has, by its height."""
    box = visit.find("canvas.matrix").bounding_box()
    assert box is not None
    return int(box["height"] // CELL)


def test_the_alignment_grows_while_the_model_writes(
    browser: Browser, before_writer: Explorer, held_tokens: HeldTokens, whole: Generated
) -> None:
    """Token by token, a row of the matrix each; the newest looks; at the end the page says why and how it ended."""
    with visiting(browser, before_writer, LINK) as visit:
        held_tokens.let(1)
        visit.title_is("g2p", "alignment", "layer 2", "mean of 4 heads")
        expect(visit.find(".named:not(.written) .token span")).to_have_text([token.text for token in whole.source])
        expect(visit.find(".written .token span")).to_have_text(["T"])
        before = rows_seen(visit)
        held_tokens.let(2)
        expect(visit.find(".written .token span")).to_have_text(["T", "R", "AE"])
        expect(visit.find("#looks")).to_have_text("What “AE” attends to")
        expect(visit.find("#written")).to_have_text("T R AE")
        assert rows_seen(visit) == before + 2
        expect_row(visit, alignment(whole, 2)[:, 2].mean(0))
        expect(visit.find("#status")).to_contain_text("g2p writes")
        expect(visit.page.locator("#view")).to_have_attribute("aria-busy", "true")
        held_tokens.let(100)
        is_whole(visit)
        assert written(visit) == names(whole)
        expect(visit.find("#written")).to_have_text(whole.text)
        expect(visit.find("#looks")).to_have_text("What all tokens on average attend to")
        expect(visit.find("#facts")).to_contain_text(f"after {len(names(whole))} tokens")
        assert visit.asked_to_write == 1


# Counts layers that are laid out and lines that come; frames are drawn when a test says so.
HOLD_FRAMES = """async () => {
  const { Growing } = await import('/static/writing.js');
  const { layer, take } = Growing.prototype;
  const seen = (window.seen = { laid: 0, taken: 0, frames: new Map(), last: 0 });
  Growing.prototype.layer = function (...given) { seen.laid++; return layer.apply(this, given); };
  Growing.prototype.take = function (part) { take.call(this, part); seen.taken++; };
  window.requestAnimationFrame = (draw) => { seen.frames.set(++seen.last, draw); return seen.last; };
  window.cancelAnimationFrame = (number) => seen.frames.delete(number);
}"""
# Not by Playwright's wait_for_function, which evaluates text: the page's policy forbids that.
WAIT_FOR_FIVE = """() => new Promise((done) => {
  const look = () => (seen.taken >= 5 ? done() : setTimeout(look, 20));
  look();
})"""
DRAW_FRAME = "() => { const due = [...seen.frames.values()]; seen.frames.clear(); due.forEach((draw) => draw(0)); }"


def test_tokens_that_come_at_once_are_laid_out_at_once(
    browser: Browser, before_writer: Explorer, held_tokens: HeldTokens
) -> None:
    """All rows, once for each picture that is drawn, however many tokens came in between."""
    with visiting(browser, before_writer, LINK) as visit:
        held_tokens.let(1)
        expect(visit.find(".written .token")).to_have_count(1)
        visit.page.evaluate(HOLD_FRAMES)
        held_tokens.let(5)
        visit.page.evaluate(WAIT_FOR_FIVE)
        assert visit.page.evaluate("seen.laid") == 0
        visit.page.evaluate(DRAW_FRAME)  # lays out
        assert visit.page.evaluate("seen.laid") == 1
        visit.page.evaluate(DRAW_FRAME)  # draws
        expect(visit.find(".written .token")).to_have_count(6)
        assert visit.page.evaluate("seen.laid") == 1
        held_tokens.let(100)
        expect(visit.find("#facts")).to_contain_text("Ended by the model")
        expect(visit.page.locator("#view")).to_have_attribute("aria-busy", "false")
        visit.page.evaluate(DRAW_FRAME)
        is_whole(visit)


def test_the_whole_alignment_is_the_clients(browser: Browser, before_writer: Explorer, whole: Generated) -> None:
    """All heads of the layer, as NumPy loads them; at first, how much each token was attended to on average."""
    with visiting(browser, before_writer, LINK) as visit:
        is_whole(visit)
        expect_row(visit, alignment(whole, 2).mean(0).mean(0))
        visit.find("#download summary").click()
        with visit.page.expect_download() as taken:
            visit.button("The whole layer (NumPy)").click()
        assert taken.value.suggested_filename == "g2p-cross-layer2-mean.npy"
        loaded = np.load(io.BytesIO(Path(taken.value.path()).read_bytes()))
    np.testing.assert_array_equal(loaded, whole.results[0].alignment(2).weights.astype(np.float16))


def test_layer_and_head_are_chosen_without_writing_anew(
    browser: Browser, before_writer: Explorer, whole: Generated
) -> None:
    """Every layer has come with the text; a click on a small picture chooses its head."""
    with visiting(browser, before_writer, LINK) as visit:
        is_whole(visit)
        visit.choose("layers", 0)
        visit.choose("head-choices", 3)
        visit.title_is("g2p", "alignment", "layer 0", "head 3")
        visit.find(".written .token").nth(4).hover()
        expect(visit.find("#looks")).to_have_text("What “S” attends to")
        expect_row(visit, alignment(whole, 0)[3, 4])
        visit.find("button.head").nth(1).click()
        visit.find(".written .token").nth(4).hover()
        visit.title_is("g2p", "alignment", "layer 0", "head 1")
        expect_row(visit, alignment(whole, 0)[1, 4])
        assert visit.asked_to_write == 1


def test_a_choice_while_it_writes_does_not_begin_anew(
    browser: Browser, before_writer: Explorer, held_tokens: HeldTokens, whole: Generated
) -> None:
    """What has come is shown as chosen, and the rest when it comes."""
    with visiting(browser, before_writer, LINK) as visit:
        held_tokens.let(2)
        expect(visit.find(".written .token")).to_have_count(2)
        visit.choose("layers", 1)
        visit.choose("head-choices", 2)
        visit.title_is("g2p", "alignment", "layer 1", "head 2")
        expect_row(visit, alignment(whole, 1)[2, 1])
        held_tokens.let(1)
        expect(visit.find(".written .token")).to_have_count(3)
        expect_row(visit, alignment(whole, 1)[2, 2])
        held_tokens.let(100)
        is_whole(visit)
        visit.title_is("g2p", "alignment", "layer 1", "head 2")
        assert visit.asked_to_write == 1


def test_the_decoder_attends_to_what_it_has_written(
    browser: Browser, before_writer: Explorer, whole: Generated
) -> None:
    """And to what it began with; of what came later, to nothing."""
    with visiting(browser, before_writer, f"{LINK}&layer=1&head=0&measure=causal") as visit:
        is_whole(visit)
        visit.title_is("g2p", "decoder", "layer 1", "head 0")
        expect(visit.find(".named:not(.written) .token span")).to_have_text(["(start)", *names(whole)[:-1]])
        row = np.zeros(len(names(whole)), np.float32)
        (own,) = [one for one in whole.results[0].tokens[5].attention if (one.kind, one.layer) == ("causal", 1)]
        row[:6] = own.weights[0].astype(np.float16)
        visit.find(".written .token").nth(5).click()
        expect_row(visit, row)
        visit.choose("measures", "cross")
        visit.title_is("g2p", "alignment", "layer 1", "head 0")
        expect_row(visit, alignment(whole, 1)[0, 5])
        assert visit.asked_to_write == 1


def test_its_encoder_attends_as_that_of_any_text(browser: Browser, before_writer: Explorer, writer: str) -> None:
    """With rollout, contributions and charts, which a text that is written has not."""
    with Client(writer) as client:
        (answer,) = client.attend(text=WORD, model="g2p", attention=AttentionRequest(layers=(2,)))
    with visiting(browser, before_writer, LINK) as visit:
        is_whole(visit)
        expect(visit.find("#charts")).to_have_count(0)
        visit.choose("measures", "weights")
        visit.title_is("g2p", "encoder", "layer 2", "mean of 4 heads")
        expect(visit.find("#charts")).to_have_count(1)
        expect(visit.find("#written")).to_have_count(0)
        titles = [token.get_attribute("title") or "" for token in visit.find(".token").all()]
        shown = [float(title.split()[-1]) for title in titles]
        np.testing.assert_allclose(shown, answer.layer(2).weights.mean(0).mean(0), rtol=3e-3, atol=3e-4)
        assert "measure=weights" in visit.page.url


def test_each_token_tells_how_likely_it_was(browser: Browser, before_writer: Explorer, whole: Generated) -> None:
    """In percent, its logarithm where the pointer rests, and what else it might have been."""
    with visiting(browser, before_writer, LINK) as visit:
        is_whole(visit)
        expect(visit.find(".choices")).to_have_count(0)
        token = whole.results[0].tokens[4]
        chip = visit.find(".written .token").nth(4)
        chip.hover()
        expect(chip.locator("small")).to_have_text(f"{100 * np.exp(token.log_probability):.0f} %")
        assert float((chip.get_attribute("title") or "").split()[-1]) == pytest.approx(token.log_probability, rel=SHOWN)
        expect(visit.find(".choices .name")).to_have_text([one.text for one in token.alternatives])
        expected = [np.exp(one.log_probability) for one in token.alternatives]
        shown = [float(one.get_attribute("title") or "") for one in visit.find(".choices .value").all()]
        np.testing.assert_allclose(shown, expected, rtol=SHOWN)


def test_the_keyboard_moves_over_both_lines(browser: Browser, before_writer: Explorer, whole: Generated) -> None:
    """A token that was written shows its row, Enter pins it, one that was read then tells its weight."""
    with visiting(browser, before_writer, f"{LINK}&head=1") as visit:
        is_whole(visit)
        press = visit.page.keyboard.press
        visit.find(".written .token[tabindex='0']").focus()
        for key, position in (("ArrowRight", 1), ("End", 10), ("Home", 0), ("ArrowRight", 1)):
            press(key)
            expect(visit.find("#looks")).to_have_text(f"What “{names(whole)[position]}” attends to")
            expect_row(visit, alignment(whole, 2)[1, position])
        name = visit.find(".written .token").nth(1).get_attribute("aria-label") or ""
        assert name.startswith("R, probability ")
        assert name.endswith("attends most to “r”")
        press("Enter")
        expect(visit.find(".written .token").nth(1)).to_have_attribute("aria-pressed", "true")
        visit.find(".named:not(.written) .token[tabindex='0']").focus()
        press("ArrowRight")
        expect(visit.find(".told")).to_contain_text("from “R” to “r”")
        assert float(visit.told().split()[0]) == pytest.approx(float(alignment(whole, 2)[1, 1, 1]), rel=SHOWN)
        assert "query=1" in visit.page.url
        press("Escape")
        assert "query" not in visit.page.url


def test_a_cell_of_the_matrix_tells_who_attends_to_what(
    browser: Browser, before_writer: Explorer, whole: Generated
) -> None:
    """Rows are what was written, columns what was read."""
    with visiting(browser, before_writer, f"{LINK}&head=2") as visit:
        is_whole(visit)
        box = visit.find("canvas.matrix").bounding_box()
        assert box is not None
        queries, keys = alignment(whole, 2).shape[1:]
        x, y = box["width"] - (keys - 2.5) * CELL, box["height"] - (queries - 3.5) * CELL
        visit.find("canvas.matrix").hover(position={"x": x, "y": y})
        expect(visit.find(".told")).to_contain_text("from “N” to “a”")
        assert float(visit.told().split()[0]) == pytest.approx(float(alignment(whole, 2)[2, 3, 2]), rel=SHOWN)


def test_the_sides_of_the_matrix_are_what_was_written_and_what_was_read(
    browser: Browser, before_writer: Explorer, whole: Generated
) -> None:
    """What the axes are, then rows, then columns, however often they are drawn."""
    note = """() => {
      const { prototype } = CanvasRenderingContext2D;
      const { fillText } = prototype;
      window.words = [];
      prototype.fillText = function (word, ...where) { window.words.push(word); fillText.call(this, word, ...where); };
    }"""
    with visiting(browser, before_writer, LINK) as visit:
        is_whole(visit)
        visit.page.evaluate(note)
        visit.choose("layers", 1)
        visit.title_is("g2p", "alignment", "layer 1", "mean of 4 heads")
        sides = ["attended to →", "← attends", *names(whole), *(token.text for token in whole.source)]
        drawn = visit.page.evaluate("window.words")
        assert drawn == sides * (len(drawn) // len(sides))
        assert drawn


def test_two_heads_are_compared(browser: Browser, before_writer: Explorer, whole: Generated) -> None:
    """Both of the one text."""
    with visiting(browser, before_writer, f"{LINK}&layer=2&head=1&query=3&beside=0.2") as visit:
        is_whole(visit)
        expect(visit.find("canvas.matrix")).to_have_count(2)
        expect_row(visit, alignment(whole, 2)[1, 3], 0)
        expect_row(visit, alignment(whole, 0)[2, 3], 1)
        assert visit.asked_to_write == 1


def test_where_layers_come_one_by_one_each_is_written_anew(
    browser: Browser, before_writer: Explorer, held_tokens: HeldTokens, whole: Generated
) -> None:
    """And kept: both of two pictures, the second once it is as long as the first, and one that was seen before."""

    def one_by_one(route: Route) -> None:
        module = route.fetch()
        route.fulfill(response=module, body=module.text().replace("MOST_WEIGHTS = 2 ** 25", "MOST_WEIGHTS = 1"))

    watch = """async () => {
      for (const _ of [1, 2]) await new Promise(requestAnimationFrame);
      window.drawn = new Promise((drawn) => {
        new PerformanceObserver(drawn).observe({ type: "measure" });
      });
    }"""
    with visiting(browser, before_writer) as visit:
        visit.page.route("**/asking.js", one_by_one)
        visit.page.goto(f"{before_writer.url}?frames#{EMPTY}")  # which says when it draws
        expect(visit.find("#status")).to_contain_text("no model that shows attention over photos")
        visit.page.evaluate(f"location.hash = '{LINK}&layer=2&head=1&query=3&beside=0.2'")
        held_tokens.let(len(names(whole)) + 1)
        expect(visit.find(".written .token")).to_have_count(len(names(whole)))
        expect(visit.page.locator("#layers .kept")).to_have_count(1)
        visit.page.evaluate(watch)
        held_tokens.let(2)
        visit.page.evaluate("() => window.drawn")
        expect(visit.find("canvas.matrix")).to_have_count(1)
        held_tokens.let(100)
        expect(visit.find("canvas.matrix")).to_have_count(2)
        is_whole(visit)
        expect(visit.find("canvas.matrix")).to_have_count(2)
        expect_row(visit, alignment(whole, 2)[1, 3], 0)
        expect_row(visit, alignment(whole, 0)[2, 3], 1)
        assert visit.asked_to_write == 2
        visit.choose("layers", 0)
        visit.title_is("g2p", "alignment", "layer 0", "head 1")
        expect_row(visit, alignment(whole, 0)[1, 3], 0)
        assert visit.asked_to_write == 2


def test_a_link_leads_to_the_same_view(
    browser: Browser, before_writer: Explorer, held_tokens: HeldTokens, whole: Generated
) -> None:
    """What it pins is seen as soon as it is written, and pinned until then."""
    with visiting(browser, before_writer, f"{LINK}&layer=1&head=3&query=3&start=stress&measure=causal") as visit:
        held_tokens.let(2)
        expect(visit.find("#looks")).to_have_text("What “R” attends to")
        held_tokens.let(2)
        expect(visit.find(".written .token")).to_have_count(4)
        expect(visit.find("#looks")).to_have_text("What “1” attends to")
        held_tokens.let(100)
        is_whole(visit)
        expect(visit.find(".written .token").nth(3)).to_have_attribute("aria-pressed", "true")
        for part in ("layer=1", "head=3", "query=3", "start=stress", "measure=causal", f"text={WORD}"):
            assert part in visit.page.url
        expect(visit.page.locator("#start")).to_have_value("stress")
        visit.page.select_option("#start", "plain")
        held_tokens.let(100)
        expect(visit.find("#written")).to_have_text(whole.text)


def test_the_page_lets_a_model_write(browser: Browser, before_writer: Explorer) -> None:
    """It stands in the menu beside the others, is no one's first choice, and its button says what it does."""
    with visiting(browser, before_writer) as visit:
        visit.type(TEXT)
        visit.title_is("tiny-text", "layer 1", "mean of 4 heads")
        expect(visit.page.locator("#model optgroup[label='that write'] option")).to_have_text(["g2p"])
        visit.page.fill("#text", "attention")
        visit.page.select_option("#model", "g2p/1/text")
        is_whole(visit)
        visit.page.fill("#text", "attention")
        visit.button("Write").click()
        expect(visit.find("#written")).to_have_text("AH T EH N SH AH N")
        visit.page.select_option("#model", "tiny-text/1/text")
        visit.title_is("tiny-text", "layer 1", "mean of 4 heads")
        expect(visit.page.locator("#measures input")).to_have_count(4)
