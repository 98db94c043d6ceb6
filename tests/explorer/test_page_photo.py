"""A photo on the page, in a real browser: what is shown is what the client gets, and asked for no more than once."""

import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from regard import AttentionRequest, Client
from tests.explorer.browsing import Browser, Visit, expect, visiting
from tests.explorer.running import SANDAL, Explorer, sandal

# The page shows four digits of what travelled as float16.
SHOWN = 6e-4


@pytest.fixture(scope="module")
def attention(real_server: str) -> NDArray[np.float32]:
    """The sandal's attention, float32 [4 layers, 4 heads, 50 queries, 50 keys]."""
    with Client(real_server) as client:
        answer = client.embed(image=SANDAL, model="fashion", attention=AttentionRequest(dtype="float16"))
    assert answer.attention is not None
    return np.stack([layer.weights for layer in answer.attention.layers]).astype(np.float32)


def expect_top(visit: Visit, row: NDArray[np.float32], panel: int = 0) -> None:
    """Insist that the five patches named are those with the largest weights of a row [50], with these weights."""
    most = np.sort(row[1:])[::-1][:5]
    shown = visit.top(panel)
    np.testing.assert_allclose([weight for _, weight in shown], most, rtol=SHOWN)
    for name, weight in shown:
        line, column = (int(part.split()[1]) for part in name.split(", "))
        assert row[1 + 7 * line + column] == pytest.approx(weight, rel=SHOWN)


def test_a_photo_is_shown_with_what_its_class_token_looks_at(
    browser: Browser, explorer: Explorer, attention: NDArray[np.float32]
) -> None:
    """The last layer, the mean of its heads; the model's labels beside it."""
    with visiting(browser, explorer) as visit:
        expect(visit.find("#empty")).to_contain_text("See what a transformer attends to")
        visit.give(SANDAL)
        visit.title_is("fashion", "layer 3", "mean of 4 heads")
        visit.looks_is("What the class token attends to")
        expect(visit.find("#labels li").first).to_contain_text("Sandal")
        expect(visit.find("#facts")).to_contain_text("compute")
        expect_top(visit, attention[3, :, 0].mean(0))


def test_a_photo_that_comes_before_the_list_of_models_is_shown(browser: Browser, explorer: Explorer) -> None:
    """The page does not say that there is none, and asks again for the list that it called off."""
    opened = browser.new_context()
    try:
        page, held = opened.new_page(), list[object]()
        page.route("**/models", lambda route: route.continue_() if held else held.append(route))
        page.goto(explorer.url)
        visit = Visit(page)
        visit.give(SANDAL)
        visit.looks_is("What the class token attends to")
    finally:
        opened.close()


@pytest.mark.parametrize("how", ["given", "named by a link"])
def test_what_is_chosen_while_a_photo_is_on_its_way_is_shown_when_it_is_here(
    browser: Browser, explorer: Explorer, how: str
) -> None:
    """The choice does not call the photo off: it is seen, under the weights of the layer and head that were chosen."""
    with visiting(browser, explorer) as visit:
        if how == "named by a link":
            visit.give(SANDAL)
            visit.looks_is("What the class token attends to")
            link = visit.page.url
            visit.page.goto("about:blank")
        held = list[Any]()
        visit.page.route("**/api/photos**", lambda route: held.append(route))
        if how == "given":
            expect(visit.find("#choices")).to_be_visible()  # or the list is called off, and asked for after the photo
            visit.give(SANDAL)
        else:
            visit.page.goto(link)
        visit.choose("layers", 2)
        visit.choose("head-choices", 3)
        expect(visit.find("#status")).to_contain_text("the photo")
        assert len(held) == 1
        held[0].continue_()
        visit.title_is("fashion", "layer 2", "head 3")
        expect(visit.find("#drop.has-photo")).to_be_visible()


def test_asking_what_is_served_does_not_lose_a_photo_on_its_way(browser: Browser, explorer: Explorer) -> None:
    """It is handed over again."""
    with visiting(browser, explorer) as visit:
        held = list[Any]()
        visit.page.route("**/api/photos", lambda route: route.continue_() if held else held.append(route))
        expect(visit.find("#choices")).to_be_visible()
        visit.give(SANDAL)
        expect(visit.find("#status")).to_contain_text("Handing over the photo")
        visit.button("Reload the models").click()
        visit.looks_is("What the class token attends to")


def test_pointing_at_a_patch_shows_at_once_what_it_looks_at(
    browser: Browser, explorer: Explorer, attention: NDArray[np.float32]
) -> None:
    """Without asking anybody; away from the picture the class token looks again."""
    with visiting(browser, explorer) as visit:
        visit.give(SANDAL)
        visit.looks_is("What the class token attends to")
        for row, col in ((2, 3), (6, 0), (0, 6)):
            visit.hover_patch(row, col)
            visit.looks_is(f"What the patch in row {row}, column {col} attends to")
            expect_top(visit, attention[3, :, 1 + 7 * row + col].mean(0))
        visit.page.mouse.move(5, 5)
        visit.looks_is("What the class token attends to")
        assert visit.asked == 1


def test_a_click_pins_a_patch_and_the_pointer_then_reads_weights(
    browser: Browser, explorer: Explorer, attention: NDArray[np.float32]
) -> None:
    """Until Escape releases it."""
    with visiting(browser, explorer) as visit:
        visit.give(SANDAL)
        visit.looks_is("What the class token attends to")
        visit.click_patch(3, 3)
        visit.hover_patch(4, 5)
        expect(visit.find(".told")).to_contain_text("to row 4, column 5")
        visit.looks_is("What the patch in row 3, column 3 attends to")
        weight = attention[3, :, 1 + 7 * 3 + 3, 1 + 7 * 4 + 5].mean()
        assert float(visit.told().split()[0]) == pytest.approx(float(weight), rel=SHOWN)
        visit.page.keyboard.press("Escape")
        visit.looks_is("What the class token attends to")


def test_arrow_keys_move_the_patch_that_looks(browser: Browser, explorer: Explorer) -> None:
    """From the middle, not over the edge; Enter pins it, and a screen reader is told."""
    with visiting(browser, explorer) as visit:
        visit.give(SANDAL)
        visit.looks_is("What the class token attends to")
        visit.find("canvas.photo").focus()
        visit.page.keyboard.press("ArrowLeft")
        visit.looks_is("What the patch in row 3, column 3 attends to")
        for key in ["ArrowUp"] * 5 + ["ArrowRight"]:
            visit.page.keyboard.press(key)
        visit.looks_is("What the patch in row 0, column 4 attends to")
        expect(visit.page.locator("#spoken")).to_contain_text("the patch in row 0, column 4 attends most to row ")
        visit.page.keyboard.press("Enter")
        visit.find("#copy").focus()
        visit.looks_is("What the patch in row 0, column 4 attends to")
        assert "query=5" in visit.page.url


def test_another_layer_is_asked_for_once(browser: Browser, explorer: Explorer, attention: NDArray[np.float32]) -> None:
    """And is in the page from then on, as a mark on it says."""
    with visiting(browser, explorer) as visit:
        visit.give(SANDAL)
        visit.title_is("fashion", "layer 3", "mean of 4 heads")
        for layer in (0, 3, 0):
            visit.choose("layers", layer)
            visit.title_is("fashion", f"layer {layer}", "mean of 4 heads")
            expect_top(visit, attention[layer, :, 0].mean(0))
        assert visit.asked == 2
        expect(visit.page.locator("#layers .kept")).to_have_text(["0", "3"])


def test_heads_and_reductions_need_no_asking(
    browser: Browser, explorer: Explorer, attention: NDArray[np.float32]
) -> None:
    """All heads of a layer are in the page."""
    with visiting(browser, explorer) as visit:
        visit.give(SANDAL)
        visit.title_is("fashion", "layer 3", "mean of 4 heads")
        layer = attention[3, :, 0]
        for choice, words, row in (
            ("max", "max of 4 heads", layer.max(0)),
            ("min", "min of 4 heads", layer.min(0)),
            (2, "head 2", layer[2]),
        ):
            visit.choose("head-choices", choice)
            visit.title_is("fashion", "layer 3", words)
            expect_top(visit, row)
        visit.button("whole picture").click()
        visit.looks_is("What all positions on average attends to")
        expect_top(visit, attention[3, 2].mean(0))
        assert visit.asked == 1


def test_every_head_is_shown_in_small_and_chosen_by_a_click(
    browser: Browser, explorer: Explorer, attention: NDArray[np.float32]
) -> None:
    """With its own largest weight."""
    with visiting(browser, explorer) as visit:
        visit.give(SANDAL)
        expect(visit.find(".head")).to_have_count(4)
        expect(visit.find("#heads .heads")).to_have_attribute("aria-busy", "false")
        for head, words in enumerate(visit.find(".head").all_inner_texts()):
            assert float(words.split("max ")[1]) == pytest.approx(float(attention[3, head, 0, 1:].max()), rel=0.06)
        visit.find(".head").nth(1).click()
        visit.title_is("fashion", "layer 3", "head 1")
        expect(visit.find(".head").nth(1)).to_have_attribute("aria-pressed", "true")


def test_a_rollout_is_made_by_the_server(browser: Browser, explorer: Explorer, real_server: str) -> None:
    """From the first layer to the one that is chosen."""
    with Client(real_server) as client:
        wanted = AttentionRequest(layers=(0, 1, 2), measure="rollout", reduce_heads="max", dtype="float16")
        answer = client.embed(image=SANDAL, model="fashion", attention=wanted)
    assert answer.attention is not None
    with visiting(browser, explorer) as visit:
        visit.give(SANDAL)
        visit.title_is("fashion", "layer 3", "mean of 4 heads")
        visit.choose("layers", 2)
        visit.choose("head-choices", "max")
        visit.choose("measures", "rollout")
        visit.title_is("fashion", "rollout to layer 2", "max of 4 heads")
        expect(visit.find("#facts")).to_contain_text("Rollout through layers 0 to 2.")
        expect_top(visit, answer.attention.layers[0].weights[0].astype(np.float32))


def test_contributions_are_followed_through_the_layers_by_the_server(
    browser: Browser, explorer: Explorer, real_server: str
) -> None:
    """All heads together: there are none to choose."""
    with Client(real_server) as client:
        wanted = AttentionRequest(layers=(0, 1, 2), measure="contribution_rollout", dtype="float16")
        answer = client.embed(image=SANDAL, model="fashion", attention=wanted)
    assert answer.attention is not None
    with visiting(browser, explorer) as visit:
        visit.give(SANDAL)
        visit.title_is("fashion", "layer 3", "mean of 4 heads")
        visit.choose("layers", "2")
        visit.choose("measures", "contribution_rollout")
        visit.title_is("fashion", "contributions to layer 2", "all heads")
        expect_top(visit, answer.attention.layers[0].weights[0].astype(np.float32))
        expect(visit.find("#head-choices")).to_be_hidden()
        expect(visit.find("#every-head")).to_be_hidden()


def test_two_heads_are_compared_side_by_side(
    browser: Browser, explorer: Explorer, attention: NDArray[np.float32]
) -> None:
    """Each with its own layer and head, for one query; and how much the two rows share."""
    with visiting(browser, explorer) as visit:
        visit.give(SANDAL)
        visit.looks_is("What the class token attends to")
        visit.choose("head-choices", 1)
        visit.button("Compare two heads").click()
        expect(visit.find("canvas.photo")).to_have_count(2)
        visit.page.get_by_label("Layer of the second picture").select_option("1")
        visit.page.get_by_label("Head of the second picture").select_option("3")
        expect(visit.page.get_by_label("Head of the second picture")).to_have_value("3")
        visit.hover_patch(2, 2)
        visit.looks_is("What the patch in row 2, column 2 attends to")
        first, second = attention[3, 1, 17], attention[1, 3, 17]
        expect_top(visit, first, 0)
        expect_top(visit, second, 1)
        shared = float(visit.find("#overlap").inner_text().split()[4])
        assert shared == pytest.approx(float(np.minimum(first, second).sum()), abs=2e-3)
        visit.button("Compare two heads").click()
        expect(visit.find("canvas.photo")).to_have_count(1)


def test_entropy_and_distance_of_every_head_are_drawn(browser: Browser, explorer: Explorer, real_server: str) -> None:
    """With units, and as a table of the numbers that the client gets; a dot leads to its head."""
    with visiting(browser, explorer) as visit:
        visit.give(SANDAL)
        visit.title_is("fashion", "layer 3", "mean of 4 heads")
        visit.page.get_by_text("Entropy and distance of every head").click()
        expect(visit.find("svg.chart")).to_have_count(2)
        expect(visit.find("svg.chart").nth(0)).to_contain_text("nats")
        expect(visit.find("svg.chart").nth(1)).to_contain_text("pixels of the network's input")
        for number, measure in enumerate(("entropy", "distance")):
            with Client(real_server) as client:
                wanted = AttentionRequest(measure=measure)  # type: ignore[arg-type]
                answer = client.embed(image=SANDAL, model="fashion", attention=wanted)
            assert answer.attention is not None
            means = np.array([layer.weights.reshape(4, -1).mean(1) for layer in answer.attention.layers])
            chart = visit.page.locator(".plot").nth(number)
            chart.get_by_text("Numbers:").click()
            cells = [float(text) for text in chart.locator("tbody td").all_inner_texts()]
            np.testing.assert_allclose(np.reshape(cells, (4, 4)), means, rtol=SHOWN)
            assert chart.locator("svg.chart .dot").count() == 16
        visit.find("svg.chart").first.locator(".dot").nth(4 * 1 + 2).dispatch_event("click")
        visit.title_is("fashion", "layer 1", "head 2")


def test_a_photo_may_be_dropped_anywhere(browser: Browser, explorer: Explorer) -> None:
    """On the picture before, too."""
    with visiting(browser, explorer) as visit:
        expect(visit.find("#empty")).to_be_visible()
        transfer = visit.page.evaluate_handle(
            """bytes => {
              const transfer = new DataTransfer();
              transfer.items.add(new File([new Uint8Array(bytes)], "dropped.png", { type: "image/png" }));
              return transfer;
            }""",
            list(sandal()),
        )
        visit.find("#view").dispatch_event("drop", {"dataTransfer": transfer})
        visit.title_is("fashion", "layer 3", "mean of 4 heads")
        expect(visit.find("#thumb")).to_be_visible()


def test_a_photo_that_stands_by_its_exif_orientation_stands_on_the_page(browser: Browser, explorer: Explorer) -> None:
    """As WebP, which Chromium does not turn by itself."""
    stored, exif, file = Image.new("RGB", (80, 40)), Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    stored.save(file, "WEBP", exif=exif)
    with visiting(browser, explorer) as visit:
        visit.give(file.getvalue())
        visit.title_is("fashion", "layer 3", "mean of 4 heads")
        width, height = visit.find("canvas.photo").evaluate("canvas => [canvas.width, canvas.height]")
        assert height == 2 * width


def test_of_two_photos_the_later_stays_however_long_the_earlier_takes(browser: Browser, explorer: Explorer) -> None:
    """The first is decoded when the second is long shown."""
    hold = """() => {
      const decode = window.createImageBitmap;
      window.begun = new Promise((begin) => {
        window.createImageBitmap = (blob) => {
          window.createImageBitmap = decode;
          window.late = new Promise((resolve) => (window.release = resolve)).then(() => decode(blob));
          begin();
          return window.late;
        };
      });
    }"""
    file = io.BytesIO()
    Image.new("RGB", (40, 80)).save(file, "PNG")
    with visiting(browser, explorer) as visit:
        visit.page.evaluate(hold)
        visit.give(SANDAL)
        visit.page.evaluate("() => window.begun")
        visit.give(file.getvalue())
        visit.title_is("fashion", "layer 3", "mean of 4 heads")
        link = visit.page.url
        visit.page.evaluate("async () => { window.release(); await window.late; }")
        assert visit.page.url == link
        visit.choose("layers", 0)
        visit.title_is("fashion", "layer 0", "mean of 4 heads")
        width, height = visit.find("canvas.photo").evaluate("canvas => [canvas.width, canvas.height]")
        assert height == 2 * width
        assert visit.asked == 2
