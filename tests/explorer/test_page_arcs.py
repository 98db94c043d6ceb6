"""Arcs of several heads at once, each in its colour."""

import itertools
import re
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.explorer.browsing import Browser, Visit, expect, visiting
from tests.explorer.running import TEXT, Explorer

_LINK = f"model=tiny-text&text={TEXT}&arcs=true"
_SIGHTS = {  # of Machado, Oliveira and Fernandes 2009, at their full severity, on linear RGB
    "usual": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def _linear(colour: str) -> NDArray[np.float64]:
    shares = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)


def _lab(linear: NDArray[np.float64]) -> NDArray[np.float64]:
    xyz = _XYZ @ np.clip(linear, 0, 1) / _XYZ.sum(1)
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_colours_of_heads_differ_for_colour_blind_people(browser: Browser, explorer: Explorer) -> None:
    """By 15 in CIELAB, on either ground, and from that by 3 to 1; heads of one colour differ in their dashes."""
    run = """async () => {
      const { LINES, lineOfHead } = await import("./static/colour.js");
      return [LINES.light.heads, LINES.dark.heads, Array.from({ length: 12 }, (_, head) => lineOfHead(head, false))];
    }"""
    with visiting(browser, explorer) as visit:
        light, dark, lines = visit.page.evaluate(run)
    for colours, ground in ((light, "#faf9f6"), (dark, "#121317")):
        for sight in _SIGHTS.values():
            for one, two in itertools.combinations(colours, 2):
                assert np.linalg.norm(_lab(sight @ _linear(one)) - _lab(sight @ _linear(two))) > 15, (one, two)
        for colour in colours:
            darker, lighter = sorted(float(_XYZ[1] @ _linear(each)) for each in (colour, ground))
            assert (lighter + 0.05) / (darker + 0.05) > 3, colour
    assert len({tuple(line.values()) for line in lines}) == 12


def _colours(visit: Visit) -> set[str]:
    """Colours that many pixels of the arcs have."""
    visit.is_drawn()
    found: list[str] = visit.page.evaluate(
        """() => {
          const canvas = document.querySelector("canvas.arcs");
          const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
          copy.drawImage(canvas, 0, 0);
          const { data } = copy.getImageData(0, 0, canvas.width, canvas.height);
          const counts = new Map();
          for (let at = 0; at < data.length; at += 4) {
            if (data[at + 3] < 250) continue;
            const name = [...data.subarray(at, at + 3)].map((part) => part.toString(16).padStart(2, "0")).join("");
            counts.set(name, (counts.get(name) ?? 0) + 1);
          }
          return [...counts].filter(([, count]) => count > 20).map(([name]) => `#${name}`);
        }"""
    )
    return set(found)


def test_arcs_of_several_heads_have_a_colour_each(browser: Browser, explorer: Explorer) -> None:
    """Chosen by pointer or keyboard from a legend in these colours; a link keeps them."""
    with visiting(browser, explorer, f"{_LINK}&head=1", color_scheme="light") as visit:
        expect(visit.find("canvas.arcs")).to_be_visible()
        buttons = visit.find(".arc-heads button")
        expect(buttons).to_have_count(4)
        assert "#136f74" in _colours(visit)
        buttons.nth(0).click()
        buttons.nth(2).focus()
        visit.page.keyboard.press("Enter")
        expect(visit.find(".arc-heads [aria-pressed='true']")).to_have_text(["0", "2"])
        expect(visit.page).to_have_url(re.compile(r"arc_heads=0\.2\b"))
        seen = _colours(visit)
        assert {"#0072b2", "#009e73"} <= seen
        assert "#136f74" not in seen
        assert "heads 0, 2" in (visit.find("canvas.arcs").get_attribute("aria-label") or "")
        swatch = visit.find(".arc-heads i").nth(2).evaluate("(one) => getComputedStyle(one).borderTopColor")
        assert swatch == "rgb(0, 158, 115)"
        link = visit.page.url.partition("#")[2]
    with visiting(browser, explorer, link, color_scheme="light") as visit:
        expect(visit.find(".arc-heads [aria-pressed='true']")).to_have_text(["0", "2"])
        assert _colours(visit) == seen
        for head in (0, 2):
            visit.find(".arc-heads button").nth(head).click()
        expect(visit.find(".arc-heads [aria-pressed='true']")).to_have_count(0)
        assert "arc_heads" not in visit.page.url


@pytest.mark.parametrize("heads", ["7", "x.-1", "0.0.9"])
def test_heads_that_there_are_not_have_no_arcs(browser: Browser, explorer: Explorer, heads: str) -> None:
    """Of a link, to another model say; those that there are have theirs."""
    with visiting(browser, explorer, f"{_LINK}&arc_heads={heads}") as visit:
        expect(visit.find("canvas.arcs")).to_be_visible()
        expect(visit.find(".arc-heads [aria-pressed='true']")).to_have_count(int(heads.startswith("0")))
        label = visit.find("canvas.arcs").get_attribute("aria-label") or ""
        assert re.findall(r"arcs of heads ([^;]*);", label) == ["0"] * heads.startswith("0")


def test_one_scale_holds_for_all_arcs(browser: Browser, explorer: Explorer) -> None:
    """Its end is the largest weight of all chosen heads, so that arcs of one width are weights of one size."""
    run = """async (heads) => {
      const { View } = await import("./static/view.js");
      const layer = { layer: 0, kind: "self", measure: "weights", heads: [0, 1], window: null, half: false,
        shape: [2, 1, 2], data: Float32Array.of(0.9, 0.1, 0.4, 0.6) };
      const state = { clip: null, curve: null, opacity: null, common: false, multiples: false, query: null,
        arcs: true, arc_heads: heads };
      const model = { name: "a", layers: [{ layer: 0, num_heads: 2 }], writer: null };
      const reply = { tokens: Array(2).fill({ text: "a" }), patches: null };
      const main = { layer, head: 1, side: { state, model, measure: "weights" }, reply };
      const seen = { main, other: null, state, measure: "weights", query: 0, key: null, beside: null };
      return View.prototype.viewsOf.call(View.prototype, seen)[0].scale.end;
    }"""
    wanted: list[tuple[list[int], Any]] = [([], 0.6), ([1], 0.6), ([0, 1], 0.9)]
    with visiting(browser, explorer) as visit:
        for heads, end in wanted:
            assert visit.page.evaluate(run, heads) == pytest.approx(end, rel=1e-6)
