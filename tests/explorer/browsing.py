"""The page in a browser, for tests: opens it, watches for errors, and reads what it shows."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright", reason="playwright is not installed: the page is not tested in a browser")

from playwright.sync_api import Browser as Browser
from playwright.sync_api import ConsoleMessage, Page
from playwright.sync_api import Locator as Locator
from playwright.sync_api import Route as Route
from playwright.sync_api import expect as expect

from tests.explorer.running import Explorer

expect.set_options(timeout=30_000)  # ms; 5 s are not enough for a server's first answer beside other tests
_BROWSERS = ("chromium-headless-shell", "chromium", "google-chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def find_chromium() -> str:
    """Return where a Chromium of this machine is: one without windows, if there is one, does half the work for a page.

    Where there is none, the test that asks is skipped, or fails where REGARD_REQUIRE_BROWSER=1, as in the checks.
    """
    path = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if path is None:
        lacking = f"none of {', '.join(_BROWSERS)} is installed: the page is not tested in a browser"
        if os.environ.get("REGARD_REQUIRE_BROWSER") == "1":
            pytest.fail(lacking)
        pytest.skip(lacking)
    return path


EMPTY = "head=mean"
"""Of a link to a page that shows nothing yet."""


@contextmanager
def visiting(
    browser: Browser, explorer: Explorer, fragment: str = EMPTY, *, refusals: bool = False, **context: Any
) -> Iterator["Visit"]:
    """Open the page, and insist at the end that the browser found no fault with it.

    Args:
        browser: Which one.
        explorer: Whose page.
        fragment: Of a link. Without any the page shows a sample.
        refusals: The test provokes answers that are errors, which the browser logs.
        context: What Playwright's contexts take: viewport, color_scheme.
    """
    opened = browser.new_context(**context)
    faults: list[str] = []
    try:
        page = opened.new_page()
        page.on("console", lambda message: faults.extend(_fault(message, refusals)))
        page.on("pageerror", lambda error: faults.append(str(error)))
        visit = Visit(page)
        page.goto(f"{explorer.url}#{fragment}")
        yield visit
        assert faults == [], faults
    finally:
        opened.close()


def _fault(message: ConsoleMessage, refusals: bool) -> list[str]:
    """Return what a message complains of: every error and warning, violations of the policy among them."""
    if message.type not in ("error", "warning") or (refusals and message.text.startswith("Failed to load resource")):
        return []
    return [message.text]


class Visit:
    """The page as a reader sees it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.asked = 0
        self.asked_to_write = 0
        page.on("request", self._count)

    def _count(self, request: Any) -> None:
        self.asked += request.url.endswith("/api/attend")
        self.asked_to_write += request.url.endswith("/api/write")

    def find(self, selector: str) -> Locator:
        """Find elements that are visible."""
        return self.page.locator(f"{selector}:visible")

    def button(self, name: str) -> Locator:
        """Find a button by what it says."""
        return self.page.get_by_role("button", name=name, exact=True)

    def give(self, photo: Path | bytes) -> None:
        """Choose a photo's file and wait for its picture."""
        file: Any = photo if isinstance(photo, Path) else {"name": "x.jpg", "mimeType": "image/jpeg", "buffer": photo}
        self.page.set_input_files("#file", file)

    def type(self, text: str) -> None:
        """Turn to texts and ask about one."""
        self.page.get_by_role("radio", name="Text").check()
        self.page.fill("#text", text)
        self.button("Show attention").click()

    def choose(self, group: str, value: str | int) -> None:
        """Choose a layer, a head or a measure by its group's id."""
        self.page.locator(f"#{group} input[value='{value}']").check()

    def title_is(self, *parts: str) -> None:
        """Wait until the picture's title is this."""
        expect(self.page.locator("#title")).to_have_text(" · ".join(parts))

    def looks_is(self, words: str) -> None:
        """Wait until it is said who looks, and nothing is asked for any more."""
        expect(self.page.locator("#view")).to_have_attribute("aria-busy", "false")
        expect(self.page.locator("#looks")).to_have_text(words)

    def is_drawn(self) -> None:
        """Wait until what was chosen last is drawn: the picture within two frames, then every head in small."""
        self.page.evaluate("new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
        expect(self.page.locator(".heads[aria-busy='true']")).to_have_count(0)

    def photo_point(self, row: int, col: int, rows: int = 7, cols: int = 7, panel: int = 0) -> dict[str, float]:
        """Return where a patch lies on the canvas, for a photo that is seen whole, once nothing moves it any more."""
        expect(self.page.locator("#view")).to_have_attribute("aria-busy", "false")
        self.find("canvas.photo").nth(panel).hover(trial=True)  # waits until it stands still
        box = self.find("canvas.photo").nth(panel).bounding_box()
        assert box is not None
        return {"x": (col + 0.5) * box["width"] / cols, "y": (row + 0.5) * box["height"] / rows}

    def hover_patch(self, row: int, col: int) -> None:
        """Move the pointer over a patch of the first picture."""
        self.find("canvas.photo").first.hover(position=self.photo_point(row, col))  # type: ignore[arg-type]

    def click_patch(self, row: int, col: int) -> None:
        """Click a patch of the first picture."""
        self.find("canvas.photo").first.click(position=self.photo_point(row, col))  # type: ignore[arg-type]

    def top(self, panel: int = 0) -> list[tuple[str, float]]:
        """Return the places that are attended to most, with their weights as the page has them."""
        entries = self.page.locator(".panel").nth(panel).locator(".top li:not([hidden])")
        found = entries.evaluate_all(
            "items => items.map((one) => [one.querySelector('.name').innerText, one.querySelector('.value').title])"
        )  # all at once, since another picture may be drawn meanwhile
        return [(name, float(value)) for name, value in found]

    def contrasts(self) -> list[tuple[str, float]]:
        """Return every piece of text that is seen, and its contrast with its ground, x to 1 (WCAG 2.2, 1.4.3)."""
        return [(words, ratio) for words, ratio in self.page.evaluate(_CONTRASTS)]

    def nameless(self) -> list[str]:
        """Return the controls that have no name for whoever cannot see the page."""
        found: list[str] = self.page.evaluate(
            """() => [...document.querySelectorAll("button, select, textarea, input, canvas[tabindex]")]
              .filter((node) => !(node.getAttribute("aria-label") || node.textContent.trim()
                || [...(node.labels ?? [])].some((label) => label.textContent.trim())))
              .map((node) => node.outerHTML)"""
        )
        return found

    def width(self) -> tuple[int, int]:
        """Return how wide the page's content is, and the screen."""
        width, screen = self.page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
        return width, screen

    def told(self, panel: int = 0) -> str:
        """Return the sentence below the picture."""
        return self.page.locator(".panel").nth(panel).locator(".told").inner_text()


_CONTRASTS = """() => {
  const numbers = (colour) => (colour.match(/[\\d.]+/g) ?? []).map(Number);
  const light = ([red, green, blue]) => [red, green, blue]
    .map((value) => (value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4))
    .reduce((sum, value, at) => sum + value * [0.2126, 0.7152, 0.0722][at], 0);
  const ground = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = numbers(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const words = [...document.querySelectorAll("body *")].filter((node) =>
    node.checkVisibility({ visibilityProperty: true }) && !node.disabled && node.tagName !== "OPTION" &&
    [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim()));
  return words.map((node) => {
    const [first, second] = [light(numbers(getComputedStyle(node).color)), light(ground(node))].sort((a, b) => b - a);
    return [`${node.tagName} ${node.className} ${node.textContent}`.slice(0, 60), (first + 0.05) / (second + 0.05)];
  });
}"""
