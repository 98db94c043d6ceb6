"""The page on a phone, by touch, and what axe-core finds."""

import re
from typing import Any

import pytest

from tests.explorer.browsing import Browser, Visit, expect, visiting
from tests.explorer.running import SANDAL, TEXT, Explorer
from tests.processes import ROOT

PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"


class Finger:
    """One that is laid on the screen, moved and lifted."""

    def __init__(self, visit: Visit) -> None:
        self._session = visit.page.context.new_cdp_session(visit.page)

    def _send(self, kind: str, points: list[dict[str, float]]) -> None:
        self._session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    def lay(self, x: float, y: float) -> None:
        """Onto the screen."""
        self._send("touchStart", [{"x": x, "y": y}])

    def move(self, x: float, y: float) -> None:
        """Over the screen."""
        self._send("touchMove", [{"x": x, "y": y}])

    def lift(self) -> None:
        """Off the screen."""
        self._send("touchEnd", [])


def _centre(box: Any) -> tuple[float, float]:
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_the_picture_comes_first_and_layers_are_at_the_thumb(browser: Browser, explorer: Explorer) -> None:
    """The picture begins above the middle of the screen; the strip stays at its lower edge."""
    with visiting(browser, explorer, **PHONE) as visit:
        visit.give(SANDAL)
        visit.title_is("fashion", "layer 3", "mean of 4 heads")
        visit.page.evaluate("window.scrollTo(0, 0)")
        photo, strip = visit.find("canvas.photo").bounding_box(), visit.find("#strip").bounding_box()
        assert photo and strip
        assert photo["y"] < 422
        assert strip["y"] + strip["height"] == pytest.approx(844, abs=1)
        visit.page.evaluate("window.scrollTo(0, 9999)")
        assert visit.find("#strip").bounding_box() == strip
        assert visit.width() == (390, 390)
        expect(visit.find("#hint")).to_have_text("Tap a patch, or drag sideways over the picture.")


def test_a_finger_dragged_over_the_strip_chooses_layers(browser: Browser, explorer: Explorer) -> None:
    """One after the other."""
    with visiting(browser, explorer, **PHONE) as visit:
        visit.give(SANDAL)
        visit.title_is("fashion", "layer 3", "mean of 4 heads")
        boxes = [visit.page.locator("#layers label").nth(at).bounding_box() for at in (3, 2, 1)]
        finger = Finger(visit)
        finger.lay(*_centre(boxes[0]))
        finger.move(*_centre(boxes[1]))
        visit.title_is("fashion", "layer 2", "mean of 4 heads")
        finger.move(*_centre(boxes[2]))
        finger.lift()
        visit.title_is("fashion", "layer 1", "mean of 4 heads")


def test_a_finger_dragged_over_the_photo_chooses_patches(browser: Browser, explorer: Explorer) -> None:
    """Whatever is pinned; the last of them stays."""
    with visiting(browser, explorer, **PHONE) as visit:
        visit.give(SANDAL)
        visit.title_is("fashion", "layer 3", "mean of 4 heads")
        visit.page.evaluate("document.querySelector('canvas.photo').scrollIntoView()")
        photo = visit.find("canvas.photo").bounding_box()
        assert photo
        where = [
            (photo["x"] + (col + 0.5) * photo["width"] / 7, photo["y"] + 2.5 * photo["height"] / 7) for col in (1, 3, 5)
        ]
        visit.page.touchscreen.tap(*where[0])
        visit.looks_is("What the patch in row 2, column 1 attends to")
        finger = Finger(visit)
        finger.lay(*where[0])
        finger.move(*where[1])
        visit.looks_is("What the patch in row 2, column 3 attends to")
        finger.move(*where[2])
        visit.looks_is("What the patch in row 2, column 5 attends to")
        finger.lift()
        expect(visit.page).to_have_url(re.compile(rf"query={1 + 2 * 7 + 5}\b"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", ["desktop", "phone"])
@pytest.mark.parametrize("what", ["photo", "text", "nothing"])
def test_axe_finds_nothing(browser: Browser, explorer: Explorer, scheme: Any, screen: str, what: str) -> None:
    """No rule of axe-core (WCAG 2.2 A and AA, and best practices) is broken."""
    if not AXE.is_file():
        pytest.skip("axe-core is not installed: npm ci")
    sized = PHONE if screen == "phone" else {}
    with visiting(browser, explorer, color_scheme=scheme, **sized) as visit:
        if what == "photo":
            visit.give(SANDAL)
            visit.title_is("fashion", "layer 3", "mean of 4 heads")
            visit.button("Compare two heads").click()
            visit.page.get_by_text("Entropy and distance of every head").click()
            expect(visit.find("svg.chart")).to_have_count(2)
        elif what == "text":
            visit.type(TEXT)
            visit.find(".token").nth(2).click()
            visit.button("Compare two heads").click()
            expect(visit.find("canvas.matrix")).to_have_count(2)
            visit.page.get_by_text("Every layer and head", exact=True).click()
            expect(visit.find("#layers-of-heads button")).to_have_count(8)
        else:
            expect(visit.find("#empty")).to_be_visible()
        visit.page.evaluate(AXE.read_text())
        found = visit.page.evaluate("axe.run()")
        broken = {rule["id"]: [node["html"][:200] for node in rule["nodes"]] for rule in found["violations"]}
        assert len(found["passes"]) > 10
        assert broken == {}
