"""Two texts, two photos or two models beside each other: one scale, and what is pointed at in one is shown in both."""

import re
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from regard import AttentionRequest, Client
from tests.explorer.browsing import Browser, Visit, expect, visiting
from tests.explorer.running import SANDAL, Explorer, sandal, striped
from tests.explorer.test_page_phone import AXE, PHONE

FIRST, SECOND = "a good film , it was short", "a really bad film , it was long"
_LINK = f"model=tiny-text&text={FIRST}&layer=1&head=2&beside_text={SECOND}"


def _weights(server: str, layer: int, **given: Any) -> NDArray[np.float32]:
    """A layer's heads as the page has them, [4, N, N]."""
    with Client(server) as client:
        attention = client.embed(**given, attention=AttentionRequest(layers=(layer,), dtype="float16")).attention
    assert attention is not None
    return attention.layer(layer).weights.astype(np.float32)


def _lookers(visit: Visit) -> list[str]:
    """The token that looks in each picture, once what was pointed at last is drawn."""
    visit.is_drawn()
    return [
        "".join(visit.page.locator(".panel").nth(panel).locator(".token.looks span").all_inner_texts())
        for panel in (0, 1)
    ]


def _token(visit: Visit, panel: int, text: str) -> Any:
    tokens = visit.page.locator(".panel").nth(panel).locator(".token:visible")
    return tokens.filter(has=visit.page.get_by_text(text, exact=True))


def _ends(visit: Visit) -> list[str]:
    return visit.page.locator(".panel .scale div span:last-child").all_inner_texts()


def test_a_second_text_is_shown_beside_the_first(browser: Browser, explorer: Explorer, real_server: str) -> None:
    """With the layer and head of the first, in line with it, and one scale: that of the numbers of both."""
    with visiting(browser, explorer, f"model=tiny-text&text={FIRST}") as visit:
        expect(visit.find("canvas.matrix")).to_have_count(1)
        visit.page.get_by_text("Beside it", exact=True).click()
        visit.page.fill("#beside-text", SECOND)
        visit.page.press("#beside-text", "Enter")
        expect(visit.find("canvas.matrix")).to_have_count(2)
        visit.choose("layers", 0)
        visit.choose("head-choices", 3)
        expect(visit.find(".panel figcaption strong")).to_have_text(["tiny-text · layer 0 · head 3"] * 2)
        visit.is_drawn()
        rows = [_weights(real_server, 0, text=text, model="tiny-text")[3].mean(axis=0) for text in (FIRST, SECOND)]
        assert _ends(visit) == [str(float(f"{max(row.max() for row in rows):.3g}"))] * 2
        for part in ("figcaption strong", ".tokens:visible", ".scale"):
            tops = [box["y"] for box in map(_box, visit.page.locator(f".panel {part}").all())]
            assert tops[0] == pytest.approx(tops[1], abs=1), part
        asked = visit.asked
        visit.page.get_by_label("Layer of the second picture").select_option("1")
        expect(visit.find(".panel figcaption strong").nth(1)).to_have_text("tiny-text · layer 1 · head 3")
        assert visit.asked == asked, "layer 1 came with the start"
        visit.page.get_by_label("Layer of the second picture").select_option("same layer")
        visit.button("One picture alone").click()
        expect(visit.find("canvas.matrix")).to_have_count(1)
        sample = visit.find("#beside-texts button").first
        sample.click()
        expect(visit.find("canvas.matrix")).to_have_count(2)
        expect(sample).to_have_attribute("aria-pressed", "true")
        assert visit.page.input_value("#beside-text") == sample.inner_text()


def _box(locator: Any) -> dict[str, float]:
    box: dict[str, float] | None = locator.bounding_box()
    assert box is not None
    return box


def test_who_looks_is_the_same_word_in_both_texts(browser: Browser, explorer: Explorer) -> None:
    """Whichever is pointed at, by mouse or keyboard; a word that only one has is itself, and stands for one there."""
    with visiting(browser, explorer, _LINK) as visit:
        expect(visit.find("canvas.matrix")).to_have_count(2)
        _token(visit, 0, "film").hover()
        assert _lookers(visit) == ["film", "film"]
        _token(visit, 1, "it").focus()
        assert _lookers(visit) == ["it", "it"]
        visit.page.keyboard.press("ArrowRight")
        assert _lookers(visit) == ["was", "was"]
        _token(visit, 1, "bad").hover()
        first, second = _lookers(visit)
        assert (first, second) == ("good", "bad")
        expect(visit.find(".panel figcaption .fine")).to_have_text(["of “good”", "of “bad”"])
        _token(visit, 1, "it").click()
        visit.page.mouse.move(5, 5)
        assert _lookers(visit) == ["it", "it"]
        _token(visit, 0, "was").hover()
        keys = visit.find(".token.key span").all_inner_texts()
        assert keys == ["was", "was"], "pinned: pointing reads a weight in both"


def test_a_link_holds_both_texts_and_who_is_pinned_in_each(browser: Browser, explorer: Explorer) -> None:
    """Also a word that stands for none of the other's: of two that were written for one."""
    with visiting(browser, explorer, _LINK) as visit:
        expect(visit.find("canvas.matrix")).to_have_count(2)
        _token(visit, 1, "bad").click()
        visit.page.mouse.move(5, 5)
        seen = _lookers(visit), visit.top(0), visit.top(1)
        assert seen[0][1] == "bad"
        link = visit.page.url.partition("#")[2]
    with visiting(browser, explorer, link) as visit:
        expect(visit.find("canvas.matrix")).to_have_count(2)
        assert (_lookers(visit), visit.top(0), visit.top(1)) == seen
        assert visit.page.url.partition("#")[2] == link
        assert visit.page.input_value("#beside-text") == SECOND


_PARTNERS = """async ([tokens, others, text, other]) => {
  const { partnersOf } = await import("./static/partners.js");
  const cut = (words, whole) => words.map((word) => word.startsWith("[")
    ? { text: word, special: true, start: 0, end: 0 }
    : { text: word, special: false, start: whole.indexOf(word), end: whole.indexOf(word) + word.length });
  return partnersOf(cut(tokens, text), cut(others, other), text, other);
}"""


@pytest.mark.parametrize(
    ("tokens", "others", "text", "other", "partners"),
    [
        (["[C]", "ab", "cd", "[S]"], ["[C]", "ab", "cd", "[S]"], "ab cd", "ab cd", [0, 1, 2, 3]),
        (["[C]", "abc", "de"], ["a", "bc", "d", "e"], "abc de", "abc de", [0, 0, 2]),
        (["a", "bc", "d"], ["a", "xy", "z", "d"], "a bc d", "a xy z d", [0, 1, 3]),
        (["a", "x", "y", "d"], ["a", "d"], "a x y d", "a d", [0, 0, 0, 1]),
        (["p", "a", "b", "q"], ["r", "n", "a", "b", "sssss"], "p a b q", "r n a b sssss", [0, 2, 3, 4]),
    ],
    ids=["the same", "other tokens", "another word", "words left out", "two edits"],
)
def test_tokens_of_two_texts_belong_together(
    browser: Browser,
    explorer: Explorer,
    tokens: list[str],
    others: list[str],
    text: str,
    other: str,
    partners: list[int],
) -> None:
    """By their letters where the texts are the same, by the words that both have where they are not."""
    with visiting(browser, explorer) as visit:
        assert visit.page.evaluate(_PARTNERS, [tokens, others, text, other]) == partners


def test_a_second_photo_is_shown_beside_the_first(browser: Browser, explorer: Explorer, real_server: str) -> None:
    """Both maps have one scale; who is pointed at in one looks in both; a link holds both."""
    row = [_weights(real_server, 2, image=image, model="fashion")[1, 1 + 2 * 7 + 3] for image in (sandal(), striped())]
    wanted = [sorted(map(float, each[1:]), reverse=True)[:5] for each in row]
    with visiting(browser, explorer) as visit:
        visit.give(SANDAL)
        visit.choose("layers", 2)
        visit.choose("head-choices", 1)
        visit.page.get_by_text("Beside it", exact=True).click()
        visit.page.set_input_files(
            "#beside-file",
            {"name": "x.png", "mimeType": "image/png", "buffer": striped()},
        )
        expect(visit.find("canvas.photo")).to_have_count(2)
        where: Any = visit.photo_point(2, 3, panel=1)
        visit.find("canvas.photo").nth(1).click(position=where)
        visit.looks_is("What the patch in row 2, column 3 attends to")
        visit.is_drawn()
        for panel in (0, 1):
            assert [weight for _, weight in visit.top(panel)] == pytest.approx(wanted[panel], rel=1e-3)
        assert _ends(visit) == [str(float(f"{max(wanted[0][0], wanted[1][0]):.3g}"))] * 2
        link, seen = visit.page.url.partition("#")[2], (visit.top(0), visit.top(1))
        colours = _colours(visit)
    assert re.search("beside_photo=[0-9a-f]{64}", link)
    with visiting(browser, explorer, link) as visit:
        expect(visit.find("canvas.photo")).to_have_count(2)
        visit.looks_is("What the patch in row 2, column 3 attends to")
        visit.is_drawn()
        assert (visit.top(0), visit.top(1)) == seen
        assert _colours(visit) == colours
        visit.page.get_by_label("original photo").check()
        visit.is_drawn()
        first, second = _colours(visit)
        np.testing.assert_allclose(second, [200, 30, 30, 255], atol=12)
        assert max(first[:3]) - min(first[:3]) < 12, "grey, as the sandal is"


def test_patches_of_two_photos_belong_together_by_their_place(browser: Browser, explorer: Explorer) -> None:
    """As far across and down, whatever the photos' sizes and grids are; the class token belongs to the class token."""
    run = """async ([from, to, position]) => (await import("./static/windows.js")).carried(from, to, position)"""

    def grid(side: int, width: int, height: int) -> dict[str, Any]:
        box = {"left": 0, "top": 0, "right": width, "bottom": height}
        return {
            "prefix_tokens": 1,
            "rows": side,
            "cols": side,
            "image_width": width,
            "image_height": height,
            "box": box,
        }

    small, large = grid(4, 100, 100), grid(8, 200, 400)
    with visiting(browser, explorer) as visit:
        carried = [visit.page.evaluate(run, [small, large, 1 + 4 * row + col]) for row, col in ((0, 0), (1, 2), (3, 3))]
        assert carried == [1, 1 + 8 * 2 + 4, 1 + 8 * 6 + 6]
        assert visit.page.evaluate(run, [large, small, 1 + 8 * 3 + 7]) == 1 + 4 + 3
        assert visit.page.evaluate(run, [small, large, 0]) == 0


def _colours(visit: Visit) -> list[list[int]]:
    """The colour at a quarter of the width of both pictures."""
    found: list[list[int]] = visit.page.evaluate(
        """() => [...document.querySelectorAll("canvas.photo")].map((canvas) => {
          const context = new OffscreenCanvas(1, 1).getContext("2d");
          context.drawImage(canvas, -canvas.width / 4, -canvas.height / 2);
          return [...context.getImageData(0, 0, 1, 1).data];
        })"""
    )
    return found


def test_a_link_whose_second_photo_is_gone_asks_for_that(browser: Browser, explorer: Explorer) -> None:
    """The first stays what it was."""
    link = f"model=fashion&photo={explorer.keep(sandal())}&layer=2&head=1&beside_photo={'0' * 64}"
    with visiting(browser, explorer, link, refusals=True) as visit:
        expect(visit.find("#problem")).to_contain_text("photo is gone")
        with visit.page.expect_file_chooser() as asked:
            visit.button("Choose another file").click()
        assert asked.value.element.get_attribute("id") == "beside-file"
        asked.value.set_files({"name": "x.png", "mimeType": "image/png", "buffer": striped()})
        expect(visit.find("canvas.photo")).to_have_count(2)
        visit.title_is("fashion", "layer 2", "head 1")
        expect(visit.page.locator("#problem")).to_be_hidden()


def test_a_second_model_is_shown_beside_the_first(browser: Browser, before_writer: Explorer) -> None:
    """Each divides the text in its own way; the same letters look in both. A link holds it."""
    with visiting(browser, before_writer, "model=tiny-text&text=good film&measure=weights") as visit:
        expect(visit.find("canvas.matrix")).to_have_count(1)
        visit.page.get_by_text("Beside it", exact=True).click()
        visit.page.locator("#beside-model").select_option("g2p")
        expect(visit.find("canvas.matrix")).to_have_count(2)
        expect(visit.find(".panel figcaption strong")).to_have_text(
            ["tiny-text · layer 1 · mean of 4 heads", "g2p · encoder · layer 1 · mean of 4 heads"]
        )
        _token(visit, 0, "film").hover()
        assert _lookers(visit) == ["film", "f"]
        expect(visit.find("#overlap")).to_contain_text("divide the text in their own ways")
        ends = _ends(visit)
        assert ends[0] == ends[1]
        link = visit.page.url.partition("#")[2]
    with visiting(browser, before_writer, link) as visit:
        expect(visit.find("canvas.matrix")).to_have_count(2)
    with visiting(browser, before_writer, "model=tiny-text&text=film&beside_model=gone") as visit:
        expect(visit.find("#problem")).to_contain_text("NOT_FOUND: model: 'gone'")


def test_models_for_the_other_input_are_not_offered_beside(browser: Browser, explorer: Explorer) -> None:
    """A photo is shown to models for photos."""
    with visiting(browser, explorer, f"model=tiny-text&text={FIRST}") as visit:
        expect(visit.find("canvas.matrix")).to_have_count(1)
        assert visit.page.locator("#beside-model option").all_text_contents() == ["the same", "tiny-text"]


@pytest.mark.parametrize(("multiples", "ends"), [(False, [0.9, 0.9]), (True, [0.5, 1.0])])
def test_multiples_of_uniform_attention_have_one_scale(
    browser: Browser, explorer: Explorer, multiples: bool, ends: list[float]
) -> None:
    """A weight of 0.5 among four keys is twice 1/N, one of 0.9 among two is 1.8 times: twice 1/N ends both scales."""
    run = """async (multiples) => {
      const { View } = await import("./static/view.js");
      const state = { clip: null, common: false, multiples, query: null };
      const model = { name: "a", layers: [{ layer: 0, num_heads: 1 }], writer: null };
      const [main, other] = [[0.5, 0.5, 0, 0], [0.9, 0.1]].map((weights) => ({
        layer: { layer: 0, kind: "self", measure: "weights", heads: [0], window: null, half: false,
          shape: [1, 1, weights.length], data: Float32Array.from(weights) },
        head: 0, side: { state, model, measure: "weights" },
        reply: { tokens: weights.map(() => ({ text: "a" })), patches: null } }));
      const places = { query: 0, key: null };
      const seen = { main, other, state, measure: "weights", ...places, beside: places };
      const views = View.prototype.viewsOf.call(View.prototype, seen);
      return views.flatMap(({ scale, rowEnd }) => [scale.end, rowEnd.end]);
    }"""
    with visiting(browser, explorer) as visit:
        assert visit.page.evaluate(run, multiples) == pytest.approx([ends[0], ends[0], ends[1], ends[1]], rel=1e-6)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", ["desktop", "phone"])
def test_axe_finds_nothing_beside(browser: Browser, explorer: Explorer, scheme: Any, screen: str) -> None:
    """Two texts with arcs of several heads, and all choices open; nothing is wider than the screen."""
    if not AXE.is_file():
        pytest.skip("axe-core is not installed: npm ci")
    sized = PHONE if screen == "phone" else {}
    with visiting(browser, explorer, f"{_LINK}&arcs=true&arc_heads=0.2", color_scheme=scheme, **sized) as visit:
        expect(visit.find("canvas.arcs")).to_have_count(2)
        visit.page.get_by_text("Beside it", exact=True).click()
        expect(visit.find("#beside-text")).to_be_visible()
        width, screen_width = visit.width()
        assert width == screen_width
        visit.page.evaluate(AXE.read_text())
        found = visit.page.evaluate("axe.run()")
        broken = {rule["id"]: [node["html"][:200] for node in rule["nodes"]] for rule in found["violations"]}
        assert len(found["passes"]) > 10
        assert broken == {}
