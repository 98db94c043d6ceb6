"""The first visit: samples, what can be done, and what a model is for."""

import hashlib
import re
from pathlib import Path

import grpc
import pytest

from regard.explorer.app import STATIC
from regard.v1 import types_pb2 as pb
from tests.client import fake as fakes
from tests.client.fake import FakeServer
from tests.explorer.browsing import Browser, Visit, expect, visiting
from tests.explorer.conftest import serving_models
from tests.explorer.running import SANDAL, Explorer, exploring
from tests.processes import PHOTOS, ROOT

TIRED, WIDE = (f"The animal did not cross the street because it was too {word}." for word in ("tired", "wide"))
FIRST = ""


def _sample(visit: Visit, name: str) -> None:
    visit.page.get_by_role("button", name=name, exact=True).click()


def test_a_first_visit_shows_a_text_where_no_model_takes_photos(browser: Browser, explorer: Explorer) -> None:
    """At once; a toy for photos of clothes does not count. Another sentence differs from it in one word."""
    with visiting(browser, explorer, FIRST) as visit:
        visit.title_is("tiny-text", "layer 1", "mean of 4 heads")
        expect(visit.page.locator("#text")).to_have_value(TIRED)
        expect(visit.find("#can")).to_contain_text("Point at a patch or a token")
        expect(visit.button(TIRED)).to_have_attribute("aria-pressed", "true")
        _sample(visit, WIDE)
        expect(visit.button(WIDE)).to_have_attribute("aria-pressed", "true")
        expect(visit.page.locator("#text")).to_have_value(WIDE)
        visit.type("cats")
        expect(visit.page.locator("#can")).to_be_hidden()


def test_a_first_visit_shows_a_sandal_where_a_toy_is_all_there_is(browser: Browser, tmp_path: Path) -> None:
    """It knows clothes alone, and is offered nothing else."""
    with (
        serving_models(tmp_path, ROOT / "server" / "embedded" / "fashion") as address,
        exploring(address) as explorer,
        visiting(browser, explorer, FIRST) as visit,
    ):
        visit.title_is("fashion", "layer 3", "mean of 4 heads")
        expect(visit.find("#labels li").first).to_contain_text("Sandal")
        expect(visit.find("#photo-samples button")).to_have_text(["Sandal"])
        visit.page.get_by_role("radio", name="Text").check()
        expect(visit.find("#status")).to_contain_text("The server has no model that shows attention over texts")


def test_a_first_visit_shows_a_photograph(
    browser: Browser, before_fake: Explorer, fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A click shows the next one."""
    models = [model for model in fakes.models() if model.name != "fashion"]
    monkeypatch.setattr(fakes, "models", lambda: models)
    with visiting(browser, before_fake, FIRST) as visit:
        visit.title_is("photos", "layer 11", "mean of 3 heads")
        expect(visit.button("Cat")).to_have_attribute("aria-pressed", "true")
        _sample(visit, "Coffee")
        expect(visit.button("Coffee")).to_have_attribute("aria-pressed", "true")
        expect(visit.page.locator("#view")).to_have_attribute("aria-busy", "false")
        expect(visit.find("#can")).to_be_visible()
    photos = [request.image for request in fake.requests if getattr(request, "image", b"")]
    assert photos == [(PHOTOS / f"{name}.jpg").read_bytes() for name in ("chelsea", "coffee")]


def test_a_link_to_a_sample_works_in_an_explorer_that_never_had_it(browser: Browser, real_server: str) -> None:
    """Samples come with the page."""
    link = f"model=fashion&photo={hashlib.sha256(SANDAL.read_bytes()).hexdigest()}"
    with exploring(real_server) as anew, visiting(browser, anew, link) as visit:
        expect(visit.find("#labels li").first).to_contain_text("Sandal")
        expect(visit.find("#can")).to_be_visible()


def test_samples_are_those_of_the_examples_and_links_name_them() -> None:
    """Byte for byte, by their hashes."""
    script = (STATIC / "samples.js").read_text()
    for name, example in (
        ("sample-cat.jpg", PHOTOS / "chelsea.jpg"),
        ("sample-coffee.jpg", PHOTOS / "coffee.jpg"),
        ("sample-sandal.png", SANDAL),
    ):
        data = (STATIC / name).read_bytes()
        assert data == example.read_bytes()
        assert f'photo: "{hashlib.sha256(data).hexdigest()}",\n    file: "{name}"' in script


def test_the_page_says_what_a_model_is_for_and_how_large(browser: Browser, explorer: Explorer) -> None:
    """Its task, its layers and heads, what it takes."""
    with visiting(browser, explorer, "model=fashion") as visit:
        expect(visit.find("#task")).to_have_text(
            "Classifies photos into 10 labels; embeds photos as vectors of 64 numbers."
        )
        expect(visit.find("#about-model")).to_contain_text(re.compile(r"4 layers . 4 heads · 7 . 7 patches"))


def test_a_server_without_any_model_is_named_so(
    browser: Browser, before_fake: Explorer, fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what to do, in the page's words."""
    monkeypatch.setattr(fakes, "models", lambda: [pb.Model(name="tensors", version="1", family="bert")])
    with visiting(browser, before_fake, FIRST) as visit:
        expect(visit.find("#status")).to_contain_text("The server has no model that shows attention.")
        expect(visit.find("#status")).to_contain_text("regard export")


def test_without_a_server_the_pages_own_words_come_first(
    browser: Browser, before_fake: Explorer, fake: FakeServer
) -> None:
    """What the server said stands below; and when it comes, so does the sample."""
    fake.error = (grpc.StatusCode.UNAVAILABLE, "starting")
    with visiting(browser, before_fake, FIRST, refusals=True) as visit:
        expect(visit.find("#problem strong")).to_have_text("No server answers")
        expect(visit.find("#problem p").first).to_contain_text("Is a server running at")
        expect(visit.find("#problem .said")).to_have_text("UNAVAILABLE: starting")
        fake.error = None
        expect(visit.find("#can")).to_be_visible()
