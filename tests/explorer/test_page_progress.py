"""How far long work has come: in percent where that is known, else in seconds beside those of last time."""

import io
import json
import re

import numpy as np
from PIL import Image

from tests.explorer.browsing import Browser, Route, Visit, expect, visiting
from tests.explorer.running import SANDAL, TEXT, Explorer

_PERCENT = re.compile(r"^[1-9]\d? % · \d+\.\d s$")


def _slow_down(visit: Visit, bytes_a_second: int) -> None:
    """Let the browser send and receive slowly."""
    session = visit.page.context.new_cdp_session(visit.page)
    session.send("Network.enable")
    slow = {"downloadThroughput": bytes_a_second, "uploadThroughput": bytes_a_second}
    session.send("Network.emulateNetworkConditions", {"offline": False, "latency": 0, **slow})


def _noise() -> bytes:
    """A photo of about 200 kB."""
    pixels, file = np.random.default_rng(1).integers(0, 256, (260, 260, 3), np.uint8), io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_a_photo_is_handed_over_in_percent(browser: Browser, explorer: Explorer) -> None:
    """Of its bytes, as they are sent; then it is shown."""
    with visiting(browser, explorer) as visit:
        expect(visit.find("#empty")).to_be_visible()
        _slow_down(visit, 40_000)
        visit.give(_noise())
        expect(visit.find("#status")).to_contain_text(re.compile(r"Handing over the photo …\s*[1-9]\d? % · \d"))
        visit.title_is("fashion", "layer 3", "mean of 4 heads")


def test_an_answer_is_received_in_percent(browser: Browser, explorer: Explorer) -> None:
    """Of its bytes, once the server has it."""
    with visiting(browser, explorer, f"model=tiny-text&text={'film ' * 60}&layer=1") as visit:
        expect(visit.find("canvas.matrix")).to_be_visible()
        _slow_down(visit, 12_000)
        visit.choose("layers", 0)
        expect(visit.find("#status .seconds")).to_have_text(_PERCENT)
        expect(visit.find("#status progress")).to_be_visible()
        visit.title_is("tiny-text", "layer 0", "mean of 4 heads")


def test_seconds_stand_beside_those_of_last_time(browser: Browser, explorer: Explorer) -> None:
    """Nothing is known of what the server computes but how long the same took; of other work nothing is said."""
    held: list[Route] = []
    with visiting(browser, explorer, f"model=tiny-text&text={TEXT}&layer=1") as visit:
        expect(visit.find("canvas.matrix")).to_be_visible()
        visit.page.route("**/api/attend", lambda route: held.append(route))
        visit.choose("layers", 0)
        expect(visit.find("#status .seconds")).to_have_text(re.compile(r"^\d+\.\d s, last time \d+\.\d s$"))
        expect(visit.page.locator("#status progress")).to_be_hidden()
        visit.button("Cancel").click()
        visit.choose("measures", "rollout")
        expect(visit.find("#status .seconds")).to_have_text(re.compile(r"^\d+\.\d s$"))


def test_every_layer_and_head_is_told_in_percent(browser: Browser, explorer: Explorer) -> None:
    """Of the layers, of which one after the other is asked for."""
    held: list[Route] = []

    def hold_second_layer(route: Route) -> None:
        if json.loads(route.request.post_data or "{}").get("layers") == [1]:
            held.append(route)
        else:
            route.continue_()

    with visiting(browser, explorer) as visit:
        visit.give(SANDAL)
        visit.title_is("fashion", "layer 3", "mean of 4 heads")
        visit.page.route("**/api/attend", hold_second_layer)
        visit.page.get_by_text("Every layer and head", exact=True).click()
        status = visit.page.locator("#layers-of-heads-status")
        expect(status).to_contain_text("asking for layer 2 of 4")
        expect(status.locator(".seconds")).to_have_text(re.compile(r"^25 % · \d+\.\d s$"))
        assert status.locator("progress").evaluate("(bar) => bar.value") == 0.25
        held[0].continue_()
        expect(visit.find("#layers-of-heads button")).to_have_count(16)
        expect(status).to_be_empty()
