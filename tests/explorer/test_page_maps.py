"""What is seen over a photo: the contour, the photo itself, places that are listed, and scales of several pictures."""

import re
from typing import Any

import numpy as np
import pytest

from regard import LayerAttention
from regard.scales import Scale, holding_mass, scale_end
from tests.explorer.browsing import Browser, Visit, expect, visiting
from tests.explorer.running import SANDAL, Explorer, striped

_PIXEL = """async ([across, down]) => {
  await new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)));
  const canvas = document.querySelector("canvas.photo");
  const context = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  context.drawImage(canvas, -Math.floor(across * canvas.width), -Math.floor(down * canvas.height));
  return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3);
}"""


def _run(visit: Visit, script: str, argument: Any = None) -> Any:
    return visit.page.evaluate(script, argument)


def test_a_contour_holds_what_the_pictures_hold(browser: Browser, explorer: Explorer) -> None:
    """The fewest patches with 60 % of the sum, and the line goes around each group of them; none of mixed heads."""
    numbers = np.random.default_rng(3).gamma(0.5, 1, (5, 7)).astype(np.float32)
    run = """async ([numbers, grid]) => {
      const { CONTOUR_SHARE, edgesOf, holdingMass } = await import("./static/contour.js");
      const held = holdingMass(Float32Array.from(numbers), CONTOUR_SHARE);
      return [[...held], edgesOf(held, grid), [...holdingMass(Float32Array.of(-1, 2), CONTOUR_SHARE)]];
    }"""
    grid = {"rows": 5, "cols": 7, "box": {"left": 10, "top": 20, "right": 80, "bottom": 70}}
    with visiting(browser, explorer) as visit:
        held, edges, mixed = _run(visit, run, [numbers.ravel().tolist(), grid])
    wanted = holding_mass(numbers, 0.6)
    assert np.array_equal(np.reshape(held, (5, 7)).astype(bool), wanted)
    inside = np.pad(wanted, 1)
    count = (inside[1:-1, 1:] != inside[1:-1, :-1]).sum() + (inside[1:, 1:-1] != inside[:-1, 1:-1]).sum()
    assert len(edges) == count
    assert all(10 <= x <= to_x <= 80 and 20 <= y <= to_y <= 70 for x, y, to_x, to_y in edges)
    assert mixed == [0, 0]


def test_a_contour_is_drawn_and_kept_by_a_link(browser: Browser, explorer: Explorer) -> None:
    """White, between a patch that is held and one that is not."""
    with visiting(browser, explorer) as visit:
        visit.give(SANDAL)
        visit.title_is("fashion", "layer 3", "mean of 4 heads")
        before = visit.page.evaluate("document.querySelector('canvas.photo').toDataURL()")
        visit.page.get_by_label("line around 60 %").check()
        expect(visit.page).to_have_url(re.compile("contour=true"))
        visit.is_drawn()
        assert visit.page.evaluate("document.querySelector('canvas.photo').toDataURL()") != before


def test_the_photo_is_seen_as_it_is(browser: Browser, explorer: Explorer) -> None:
    """In its colours, without the map; the heads below keep theirs."""
    photo = striped()
    with visiting(browser, explorer) as visit:
        visit.give(photo)
        visit.title_is("fashion", "layer 3", "mean of 4 heads")
        assert not np.allclose(_run(visit, _PIXEL, [0.25, 0.5]), [200, 30, 30], atol=12)
        visit.page.get_by_label("original photo").check()
        for across, colour in ((0.25, [200, 30, 30]), (0.75, [30, 30, 200])):
            np.testing.assert_allclose(_run(visit, _PIXEL, [across, 0.5]), colour, atol=12)
        assert "original=true" in visit.page.url
        visit.page.get_by_label("original photo").uncheck()
        assert not np.allclose(_run(visit, _PIXEL, [0.25, 0.5]), [200, 30, 30], atol=12)


@pytest.mark.parametrize("how", ["pointer", "keyboard"])
def test_a_listed_patch_lights_up(browser: Browser, explorer: Explorer, how: str) -> None:
    """On the photo, with its weight in words; then no longer."""
    with visiting(browser, explorer) as visit:
        visit.give(SANDAL)
        visit.looks_is("What the class token attends to")
        name, weight = visit.top()[1]
        row, column = (int(part.split()[1]) for part in name.split(", "))
        corner = [(column + 0.002) / 7, (row + 0.5) / 7]
        listed = visit.page.locator(".panel").first.locator(".top li").nth(1)
        listed.hover() if how == "pointer" else listed.focus()
        expect(visit.find(".told")).to_contain_text(f"from the class token to {name}")
        assert float(visit.told().split()[0]) == pytest.approx(weight, rel=1e-3)
        red, green, blue = _run(visit, _PIXEL, corner)
        assert blue > 200 and green > 170 > red + 20  # the frame's
        visit.page.mouse.move(5, 5)
        listed.blur()
        expect(visit.find(".told")).to_contain_text("lies on the class token")


def test_a_listed_token_lights_up(browser: Browser, explorer: Explorer) -> None:
    """In the line of tokens."""
    with visiting(browser, explorer) as visit:
        visit.type("a good film")
        expect(visit.find(".token").first).to_be_visible()
        visit.find(".panel .top li").first.hover()
        expect(visit.find(".token.key")).to_have_count(1)


def test_several_heads_end_at_the_percentile_of_all_their_numbers(browser: Browser, explorer: Explorer) -> None:
    """As panels of the pictures do."""
    numbers = np.random.default_rng(4).gamma(0.4, 1, (3, 1, 40)).astype(np.float32)
    run = """async (heads) => {
      const { joined } = await import("./static/numbers.js");
      const { endOf } = await import("./static/scales.js");
      return endOf({ measure: "weights" }, joined(heads.map((head) => Float32Array.from(head))), 90);
    }"""
    with visiting(browser, explorer) as visit:
        told = _run(visit, run, numbers[:, 0].tolist())
    layer = LayerAttention(0, "self", ("query", "key"), (0,), (0,), numbers[0])
    end = scale_end(layer, list(numbers), Scale(percentile=90))
    assert (told["end"], told["largest"]) == pytest.approx((end.value, end.largest), rel=1e-5)


def test_two_pictures_end_at_the_percentile_of_both(browser: Browser, explorer: Explorer) -> None:
    """Not at the larger of their own."""
    link = "model=tiny-text&text=a good film&head=0&beside=1.1&clip=50"
    run = """async () => {
      const { View } = await import("./static/view.js");
      const { endOf } = await import("./static/scales.js");
      const layers = [0.9, 0.1].map((most) => ({
        layer: 0, kind: "self", measure: "weights", heads: [0], window: null, half: false, shape: [1, 1, 4],
        data: Float32Array.of(most, most / 2, most / 4, 0),
      }));
      const state = { clip: 50, curve: null, opacity: null, smooth: true, contour: false, common: false,
        multiples: false, query: null };
      const model = { name: "a", layers: [{ layer: 0, num_heads: 1 }], writer: null };
      const [main, other] = layers.map((layer) => ({ layer, head: 0, side: { state, model, measure: "weights" },
        reply: { tokens: Array(4).fill({ text: "a" }), patches: null } }));
      const shown = { main, other, state, measure: "weights", query: 0, key: null, beside: { query: 0, key: null } };
      return View.prototype.viewsOf.call(View.prototype, shown).map(({ scale }) => scale.end);
    }"""
    with visiting(browser, explorer, link) as visit:
        ends = _run(visit, run)
    numbers = [0.9, 0.45, 0.225, 0, 0.1, 0.05, 0.025, 0]
    assert ends == pytest.approx([np.percentile(numbers, 50)] * 2, rel=1e-5)


def test_multiples_colour_the_rows_of_a_causal_matrix(browser: Browser, explorer: Explorer) -> None:
    """Each row times how many keys it has: rows that attend to all alike have one colour."""
    run = """async () => {
      const { toldMatrix, unitOf } = await import("./static/scales.js");
      const data = Float32Array.of(1, 0, 0, 1 / 2, 1 / 2, 0, 1 / 3, 1 / 3, 1 / 3);
      const layer = { kind: "causal", window: null, half: false, shape: [1, 3, 3], data };
      const told = (multiples) => [...toldMatrix(layer, 0, unitOf(layer, "all", { multiples, mixed: false }))];
      return [told(true), told(false)];
    }"""
    with visiting(browser, explorer) as visit:
        multiples, shares = _run(visit, run)
    assert multiples == pytest.approx([1, 0, 0, 1, 1, 0, 1, 1, 1])
    assert shares == pytest.approx([1, 0, 0, 1 / 2, 1 / 2, 0, 1 / 3, 1 / 3, 1 / 3])


def test_an_end_that_only_a_link_names_stands_in_the_menu(browser: Browser, explorer: Explorer) -> None:
    """It is no empty choice."""
    with visiting(browser, explorer, "model=tiny-text&text=cats&clip=97.5") as visit:
        expect(visit.find("canvas.matrix")).to_be_visible()
        expect(visit.page.locator("#clip")).to_have_value("97.5")
        assert visit.page.locator("#clip option:checked").text_content() == "percentile 97.5"


def test_heads_are_drawn_after_the_picture(browser: Browser, explorer: Explorer) -> None:
    """While the page has nothing else to do, and all of them in the end."""
    with visiting(browser, explorer) as visit:
        visit.page.evaluate("""() => {
          window.waiting = [];
          window.requestIdleCallback = (draw) => window.waiting.push(draw);
        }""")
        visit.give(SANDAL)
        visit.looks_is("What the class token attends to")
        expect(visit.page.locator(".heads[aria-busy='true']")).to_have_count(1)
        assert visit.page.locator(".head span").all_inner_texts() == [f"head {head}" for head in range(4)]
        assert len(visit.top()) == 5
        for count in range(1, 5):
            visit.page.evaluate("window.waiting.shift()({ timeRemaining: () => 0 })")
            assert sum("max" in words for words in visit.page.locator(".head span").all_inner_texts()) == count
        visit.page.evaluate("""() => {
          window.requestIdleCallback = (draw) => setTimeout(draw, 0, { timeRemaining: () => 0 });
          for (const draw of window.waiting) draw({ timeRemaining: () => 0 });
        }""")  # some may be drawn again, where the page had another size meanwhile
        expect(visit.page.locator(".heads").first).to_have_attribute("aria-busy", "false")
