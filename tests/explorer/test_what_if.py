"""What if a patch or a token were not there."""

import json
from typing import Any

import numpy as np
import pytest

from regard import Client
from tests.explorer.browsing import Browser, expect, visiting
from tests.explorer.running import SANDAL, TEXT, Explorer, sandal
from tests.processes import CLOTHING

BOOT = CLOTHING / "ankle-boot.png"


def test_labels_of_two_photos_are_compared(explorer: Explorer, real_server: str) -> None:
    """All of them, as the client gets them."""
    photo, other = explorer.keep(sandal()), explorer.keep(BOOT.read_bytes())
    answer = explorer.ask("POST", "/api/compare", {"model": "fashion", "photo": photo, "other": other})
    assert answer.status == 200, answer.body
    with Client(real_server) as client:
        wanted = [client.classify(image=image, model="fashion", top_k=10).labels for image in (SANDAL, BOOT)]
    for place, name in enumerate(("before", "after")):
        told = {one["name"]: one[name] for one in answer.json()["labels"]}
        assert told == pytest.approx({label.name: label.probability for label in wanted[place]}, abs=1e-5)
    assert answer.json()["labels"][0]["name"] == "Sandal"


@pytest.mark.parametrize(("other", "cosine"), [("cows", 1), ("dogs", 0)])
def test_vectors_of_two_texts_are_compared(before_fake: Explorer, other: str, cosine: float) -> None:
    """By their cosine, where the model does not classify; the fake one goes by the first letter."""
    answer = before_fake.ask("POST", "/api/compare", {"model": "minilm", "text": "cats", "other": other})
    assert answer.json() == {"cosine": pytest.approx(cosine)}


@pytest.mark.parametrize(
    ("fields", "status", "message"),
    [
        ({"text": "a"}, 400, "photo, text, other: "),
        ({"text": "a", "photo": "b", "other": "c"}, 400, "photo, text, other: "),
        ({"photo": "a", "other": "b"}, 410, "the explorer no longer holds this photo"),
        ({"text": "a", "other": "b", "model": "tensors"}, 409, "model: 'tensors' neither classifies nor embeds"),
        ({"text": "a", "other": "b", "model": "late"}, 409, "model: 'late' neither classifies nor embeds"),
        ({"text": 1, "other": "b"}, 400, "text: 1"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    before_fake: Explorer, fields: dict[str, Any], status: int, message: str
) -> None:
    """By name."""
    answer = before_fake.ask("POST", "/api/compare", fields)
    assert answer.status == status
    assert answer.json()["message"].startswith(message)


def test_a_patch_is_covered_and_labels_are_compared(browser: Browser, explorer: Explorer) -> None:
    """The two photos differ in that patch alone; what was said goes with the pin."""
    with visiting(browser, explorer) as visit:
        visit.give(SANDAL)
        visit.looks_is("What the class token attends to")
        expect(visit.page.locator("#mask")).to_be_hidden()
        visit.click_patch(3, 4)
        visit.looks_is("What the patch in row 3, column 4 attends to")
        with visit.page.expect_request("**/api/compare") as sent:
            visit.button("Cover it and compare").click()
        expect(visit.find("#changed")).to_contain_text("Without row 3, column 4:")
        expect(visit.find("#changed li")).to_have_count(5)
        expect(visit.find("#changed li").first).to_contain_text("%")
        asked = json.loads(sent.value.post_data or "")
        photo, covered = (explorer.pixels(asked[each]) for each in ("photo", "other"))
        edge = len(photo) / 7
        rows, columns = np.nonzero((photo != covered).any(-1))
        assert rows.min() >= np.floor(3 * edge) and rows.max() < np.ceil(4 * edge)
        assert columns.min() >= np.floor(4 * edge) and columns.max() < np.ceil(5 * edge)
        visit.page.keyboard.press("Escape")
        expect(visit.page.locator("#changed")).to_be_empty()
        expect(visit.page.locator("#mask")).to_be_hidden()


def test_a_token_is_left_out(browser: Browser, explorer: Explorer) -> None:
    """The text is sent without it; a special token stands in no text."""
    with visiting(browser, explorer) as visit:
        visit.type(TEXT)
        expect(visit.find(".token").first).to_be_visible()
        visit.find(".token").first.click()
        expect(visit.find(".token").first).to_have_attribute("aria-pressed", "true")
        expect(visit.page.locator("#mask")).to_be_hidden()
        visit.find(".token").filter(has_text="good").click()
        with visit.page.expect_request("**/api/compare") as sent:
            visit.button("Leave it out and compare").click()
        asked = json.loads(sent.value.post_data or "")
        assert (asked["text"], asked["other"]) == (TEXT, TEXT.replace("good", ""))
        expect(visit.find("#changed")).to_contain_text("Without “good”:")
        expect(visit.find("#changed li")).to_have_count(2)


def test_a_comparison_is_asked_for_again_by_itself(browser: Browser, explorer: Explorer) -> None:
    """Where nobody answers, as the page says."""
    with visiting(browser, explorer, refusals=True) as visit:
        visit.type(TEXT)
        visit.find(".token").filter(has_text="good").click()
        visit.page.route("**/api/compare", lambda route: route.abort())
        visit.button("Leave it out and compare").click()
        expect(visit.find("#changed")).to_contain_text("EXPLORER_GONE")
        expect(visit.find("#changed button")).to_contain_text("by itself in")
        visit.page.unroute("**/api/compare")
        expect(visit.find("#changed")).to_contain_text("Without “good”:")
