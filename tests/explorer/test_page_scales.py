"""Scales on the page: colours say the weight, and rules are those of the pictures."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from regard import LayerAttention
from regard.scales import Scale, scale_end, smoothed
from tests.explorer.browsing import Browser, Visit, expect, visiting
from tests.explorer.running import SANDAL, Explorer

GREY = 130
_PIXEL = """async ([selector, across, down]) => {
  await new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)));
  const canvas = document.querySelector(selector);
  const copy = new OffscreenCanvas(1, 1);
  const context = copy.getContext("2d", { willReadFrequently: true });
  context.drawImage(canvas, -Math.floor(across * canvas.width), -Math.floor(down * canvas.height));
  return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3);
}"""


def _grey() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (280, 280), (GREY, GREY, GREY)).save(file, "PNG")
    return file.getvalue()


def _pixel(visit: Visit, selector: str, across: float, down: float) -> Any:
    return visit.page.evaluate(_PIXEL, [selector, across, down])


def _set(visit: Visit, name: str, value: str) -> None:
    if visit.page.locator("#scales").get_attribute("open") is None:
        visit.page.get_by_text("Scale", exact=True).click()
    visit.page.select_option(f"#{name}", value)


@pytest.mark.parametrize("curve", ["linear", "sqrt", "log"])
@pytest.mark.parametrize("smooth", [True, False])
def test_the_colour_at_a_patchs_centre_is_the_bars_for_its_weight(
    browser: Browser, explorer: Explorer, curve: str, smooth: bool
) -> None:
    """Over a photo of one grey, where the bar shows that grey."""
    with visiting(browser, explorer) as visit:
        visit.give(_grey())
        visit.title_is("fashion", "layer 3", "mean of 4 heads")
        _set(visit, "curve", curve)
        visit.page.set_checked("#smooth", smooth)
        top = visit.top()
        for name, weight in top:
            row, column = (int(part.split()[1]) for part in name.split(", "))
            shown = _pixel(visit, "canvas.photo", (column + 0.5) / 7, (row + 0.5) / 7)
            share = weight / top[0][1]
            place = {"linear": share, "sqrt": share**0.5, "log": 1 + np.log10(share) / 3}[curve]
            told = _pixel(visit, "canvas.strip", (round(255 * place) + 0.5) / 256, 1 - GREY / 255)
            np.testing.assert_allclose(shown, told, atol=8, err_msg=f"{name}: {weight}")


def test_maps_are_smoothed_and_scales_end_as_in_the_pictures(browser: Browser, explorer: Explorer) -> None:
    """The page's own functions on the same numbers; an isolated patch keeps its weight."""
    on_grid = np.random.default_rng(5).gamma(0.3, 1, (6, 9)).astype(np.float32)
    on_grid[:3, :3] = np.diag([0, 1, 0])
    run = """async ([numbers, percentile]) => {
      const { smoothed, endOf } = await import("./static/scales.js");
      const row = Float32Array.from(numbers);
      return [[...smoothed(row, 9, 6, 5)], endOf({ measure: "rollout" }, row, percentile)];
    }"""
    layer = LayerAttention(0, "self", ("query", "key"), (0,), (0,), on_grid.reshape(1, -1), measure="rollout")
    with visiting(browser, explorer) as visit:
        for percentile in (None, 90, 100):
            fine, told = visit.page.evaluate(run, [on_grid.ravel().tolist(), percentile])
            end = scale_end(layer, [on_grid], Scale(percentile=percentile))
            assert (told["end"], told["largest"]) == pytest.approx((end.value, end.largest), rel=1e-5)
        ours = smoothed(on_grid, 5)
        np.testing.assert_allclose(np.reshape(fine, ours.shape), ours, atol=1e-5)
        assert np.reshape(fine, ours.shape)[7, 7] == 1


def test_a_rollouts_scale_ends_at_a_percentile_and_says_so(browser: Browser, explorer: Explorer) -> None:
    """As in the pictures; the reader may choose the largest."""
    with visiting(browser, explorer) as visit:
        visit.give(SANDAL)
        visit.title_is("fashion", "layer 3", "mean of 4 heads")
        expect(visit.page.locator(".beyond").first).to_have_text("")
        visit.choose("measures", "rollout")
        visit.title_is("fashion", "rollout to layer 3", "mean of 4 heads")
        expect(visit.find(".beyond")).to_contain_text("The scale ends at the 99th percentile; the largest is 0.")
        expect(visit.find(".scale div span").last).to_contain_text("▸")
        _set(visit, "clip", "100")
        expect(visit.page.locator(".beyond").first).to_have_text("")
        assert "clip=100" in visit.page.url


def test_two_heads_that_are_compared_have_one_scale(browser: Browser, explorer: Explorer) -> None:
    """That of the larger weights."""
    with visiting(browser, explorer) as visit:
        visit.give(SANDAL)
        visit.title_is("fashion", "layer 3", "mean of 4 heads")
        visit.button("Compare two heads").click()
        visit.page.get_by_label("Head of the second picture").select_option("3")
        expect(visit.page.get_by_label("Head of the second picture")).to_have_value("3")
        ends = visit.find(".scale div span:last-child")
        expect(ends).to_have_count(2)
        largest = max(visit.top(panel)[0][1] for panel in (0, 1))
        expect(ends.first).to_contain_text(f"{float(f'{largest:.3g}'):g}")
        assert visit.top(0)[0][1] != visit.top(1)[0][1]
        words = [words.removesuffix(" ▸") for words in ends.all_inner_texts()]
        assert words[0] == words[1]


def test_weights_are_told_in_multiples_of_uniform(browser: Browser, explorer: Explorer) -> None:
    """Times the 50 positions of the sandal; a link keeps it."""
    with visiting(browser, explorer) as visit:
        visit.give(SANDAL)
        visit.title_is("fashion", "layer 3", "mean of 4 heads")
        visit.page.get_by_text("Scale", exact=True).click()
        visit.page.get_by_label("multiples of uniform, 1/N").check()
        first = visit.page.locator(".panel").first.locator(".top .value").first
        expect(first).to_contain_text(" / N")
        weight = visit.top()[0][1]
        assert float(first.inner_text().removesuffix(" / N")) == pytest.approx(50 * weight, rel=6e-3)
        assert "multiples=true" in visit.page.url


def test_a_link_restores_the_scale(browser: Browser, explorer: Explorer) -> None:
    """And what no scale has is as usual."""
    link = "model=tiny-text&text=cats&curve=log&clip=95&opacity=0.5&rough=true&multiples=true&common=true"
    with visiting(browser, explorer, link) as visit:
        expect(visit.find("canvas.matrix")).to_be_visible()
        for name, value in (("curve", "log"), ("clip", "95"), ("opacity", "50")):
            expect(visit.page.locator(f"#{name}")).to_have_value(value)
        for name, checked in (("smooth", False), ("multiples", True), ("common", True)):
            expect(visit.page.locator(f"#{name}")).to_be_checked(checked=checked)
        assert all(part in visit.page.url for part in link.split("&")[2:])
    with visiting(browser, explorer, "model=tiny-text&text=cats&curve=cubic&clip=900&opacity=7") as visit:
        expect(visit.find("canvas.matrix")).to_be_visible()
        for name, value in (("curve", ""), ("clip", ""), ("opacity", "88")):
            expect(visit.page.locator(f"#{name}")).to_have_value(value)


def test_every_head_may_have_one_scale(browser: Browser, explorer: Explorer) -> None:
    """Then a faint head is drawn faintly: its brightest pixel changes."""
    brightest = """() => {
      return [...document.querySelectorAll(".head canvas")].map((canvas) => {
        const context = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
        context.drawImage(canvas, 0, 0);
        return context.getImageData(0, 0, canvas.width, canvas.height).data
          .reduce((most, value, at) => (at % 4 === 0 ? Math.max(most, value) : most), 0);
      });
    }"""
    with visiting(browser, explorer) as visit:
        visit.give(_grey())
        visit.title_is("fashion", "layer 3", "mean of 4 heads")
        visit.is_drawn()
        own = visit.page.evaluate(brightest)
        visit.page.get_by_text("Scale", exact=True).click()
        visit.page.get_by_label("one scale for every head").check()
        visit.is_drawn()
        shared = visit.page.evaluate(brightest)
        most = [float(words.split("max ")[1]) for words in visit.find(".head").all_inner_texts()]
        faintest = int(np.argmin(most))
        assert max(own) - min(own) < 15
        assert shared[faintest] < own[faintest] - 15


def test_weights_of_mixed_heads_are_not_told_in_percent(browser: Browser, explorer: Explorer) -> None:
    """They are no shares of 1, and may be below 0; multiples of uniform mean nothing there."""
    run = """async () => {
      const { tell } = await import("./static/panel.js");
      const { unitOf } = await import("./static/scales.js");
      const layer = { kind: "self", window: null, shape: [1, 2, 2] };
      const reply = { tokens: [{ text: "a" }, { text: "b" }], patches: null };
      const unit = unitOf(layer, 0, { multiples: true, mixed: true });
      const view = { reply, unit, row: Float32Array.of(-0.25, 1.5), query: 0, pinned: false, scale: { curve: "sqrt" } };
      return [tell({ ...view, key: 0 }), tell({ ...view, key: null })];
    }"""
    with visiting(browser, explorer) as visit:
        pointed, rest = visit.page.evaluate(run)
    assert pointed == "-0.25 from “a” to “a”"
    assert rest == "Heads of this layer are mixed: weights are no shares of 1."


def test_an_end_that_is_forced_on_a_cut_text_is_named_so(browser: Browser, explorer: Explorer) -> None:
    """As in the pictures; a token that leaves a character open is not."""
    run = """async (text) => {
      const { Growing } = await import("./static/writing.js");
      const growing = new Growing();
      growing.take({ token: { text: "K", attention: [] } });
      growing.take({ token: { text: "", attention: [] } });
      growing.take({ end: { text, finish_reason: "length" } });
      return growing.written.at(-1).text;
    }"""
    with visiting(browser, explorer) as visit:
        assert [visit.page.evaluate(run, text) for text in ("K", "K\ufffd")] == ["(end)", "·"]


def test_a_downloaded_picture_has_its_scale(browser: Browser, explorer: Explorer, tmp_path: Path) -> None:
    """Below the map, over black and over the brightest grey that a photo may have."""
    with visiting(browser, explorer) as visit:
        visit.give(SANDAL)
        visit.title_is("fashion", "layer 3", "mean of 4 heads")
        visit.page.get_by_text("Download", exact=False).first.click()
        with visit.page.expect_download() as started:
            visit.page.get_by_role("button", name="Picture (PNG)").click()
        started.value.save_as(tmp_path / "map.png")
        with Image.open(tmp_path / "map.png") as opened:
            pixels = np.asarray(opened.convert("RGB")).astype(int)
        size = visit.page.evaluate("document.querySelector('canvas.photo').height")
        top = 24 + 48 + 24 + size + 24  # a title and the map, with margins around
        strip = pixels[top : top + 16, 24 : 24 + 420]
        assert strip[8, 415].sum() > 500  # the end of the scale
        assert strip[0, 2].min() > 140  # its beginning is clear: the brightest grey above
        assert strip[15, 2].max() < 30  # and black below
