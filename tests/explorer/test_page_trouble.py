"""The page when something goes wrong or takes long, on small screens, in the dark, and without a mouse: never blank."""

import grpc
import pytest

from tests.client.fake import FakeServer, free_address
from tests.explorer.browsing import Browser, expect, visiting
from tests.explorer.running import SANDAL, TEXT, Explorer, end_of_next_call, exploring

PHONE = {"width": 360, "height": 740}


def test_without_a_server_the_page_says_what_to_do(browser: Browser) -> None:
    """Where it looked, and how a server is started; it goes on trying by itself."""
    address = free_address()
    with exploring(address) as explorer, visiting(browser, explorer, refusals=True) as visit:
        expect(visit.find("#problem")).to_contain_text("No server answers")
        expect(visit.find("#problem")).to_contain_text(f"python -m server --listen {address}")
        expect(visit.find("#problem button")).to_contain_text("by itself in")
        expect(visit.find("#server")).to_have_text(address)
        expect(visit.find("#server")).to_have_attribute("data-state", "down")


def test_when_the_server_comes_the_page_goes_on_by_itself(
    browser: Browser, before_fake: Explorer, fake: FakeServer
) -> None:
    """Nothing has to be pressed or loaded again."""
    fake.error = (grpc.StatusCode.UNAVAILABLE, "starting")
    with visiting(browser, before_fake, refusals=True) as visit:
        expect(visit.find("#problem")).to_contain_text("UNAVAILABLE: starting")
        fake.error = None
        expect(visit.find("#server")).to_have_attribute("data-state", "up", timeout=15000)
        expect(visit.page.locator("#problem")).to_be_hidden()
        expect(visit.find("#empty")).to_be_visible()


def test_a_busy_server_is_asked_again_when_it_said(browser: Browser, before_fake: Explorer, fake: FakeServer) -> None:
    """With a countdown, and what was seen before still there."""
    with visiting(browser, before_fake, refusals=True) as visit:
        visit.type("cats")
        expect(visit.find(".token").first).to_be_visible()
        fake.error = (grpc.StatusCode.RESOURCE_EXHAUSTED, "the queue is full")
        fake.trailers = (("grpc-retry-pushback-ms", "2000"),)
        visit.choose("layers", 3)
        expect(visit.find("#problem")).to_contain_text("RESOURCE_EXHAUSTED: the queue is full")
        expect(visit.find("#problem button")).to_contain_text("by itself in 2 s")
        expect(visit.find(".token").first).to_be_visible()
        fake.error = None
        expect(visit.page.locator("#problem")).to_be_hidden(timeout=15000)


def test_a_slow_server_is_waited_for_and_can_be_left(browser: Browser, before_fake: Explorer, fake: FakeServer) -> None:
    """The time that has passed is seen; calling it off reaches the server."""
    with visiting(browser, before_fake) as visit:
        expect(visit.find("#empty")).to_be_visible()
        ended = end_of_next_call(fake)
        fake.held = True
        visit.type("cats")
        expect(visit.find("#status")).to_contain_text("Asking minilm")
        expect(visit.find("#status .seconds")).to_contain_text(" s")
        visit.button("Cancel").click()
        expect(visit.find("#problem")).to_contain_text("CANCELLED")
        assert ended.wait(10)
        fake.released.set()
        fake.held = False
        visit.button("Try again").click()
        expect(visit.find(".token").first).to_be_visible()


def test_a_new_choice_ends_the_wait_for_the_one_before(
    browser: Browser, before_fake: Explorer, fake: FakeServer
) -> None:
    """The last choice is what is shown."""
    with visiting(browser, before_fake) as visit:
        expect(visit.find("#empty")).to_be_visible()
        ended = end_of_next_call(fake)
        fake.held = True
        visit.type("cats")
        expect(visit.find("#status")).to_contain_text("Asking")
        fake.held = False
        visit.type("dogs")
        assert ended.wait(10)
        expect(visit.find(".token").first).to_be_visible()
        assert "text=dogs" in visit.page.url
        expect(visit.find("#status")).to_have_count(0)


def test_when_the_explorer_ends_the_page_says_so(browser: Browser, fake: FakeServer) -> None:
    """And keeps what it has."""
    with exploring(fake.address) as explorer:
        context = visiting(browser, explorer, refusals=True)
        visit = context.__enter__()
        visit.type("cats")
        expect(visit.find(".token").first).to_be_visible()
    visit.choose("layers", 2)
    expect(visit.find("#problem")).to_contain_text("The explorer does not answer")
    expect(visit.find(".token").first).to_be_visible()
    context.__exit__(None, None, None)


def test_a_damaged_photo_is_explained_in_the_servers_words(browser: Browser, explorer: Explorer) -> None:
    """The page goes on working."""
    with visiting(browser, explorer, refusals=True) as visit:
        visit.give(b"\xff\xd8\xff no more of it")
        expect(visit.find("#problem")).to_contain_text("INVALID_ARGUMENT: image")
        visit.give(SANDAL)
        visit.title_is("fashion", "layer 3", "mean of 4 heads")
        expect(visit.page.locator("#problem")).to_be_hidden()


def test_a_photo_that_is_too_large_is_not_even_sent(browser: Browser, fake: FakeServer) -> None:
    """With the limit."""
    with exploring(fake.address, max_photo_bytes=100) as explorer, visiting(browser, explorer) as visit:
        expect(visit.find("#empty")).to_be_visible()
        visit.give(SANDAL)
        expect(visit.find("#problem")).to_contain_text(f"photo: {SANDAL.stat().st_size} bytes; expected at most 100")


def test_a_server_without_models_for_photos_says_so(browser: Browser, before_fake: Explorer, fake: FakeServer) -> None:
    """Instead of an empty page."""
    with visiting(browser, before_fake, "model=tensors&text=a") as visit:
        expect(visit.find("#problem")).to_contain_text("model: 'tensors'")


def test_without_javascript_the_page_says_what_it_needs(browser: Browser, before_fake: Explorer) -> None:
    """And how the same is had without."""
    with visiting(browser, before_fake, java_script_enabled=False) as visit:
        expect(visit.find(".noscript")).to_contain_text("regard attend FILE")


def test_a_phone_shows_a_photo_without_scrolling_sideways(browser: Browser, explorer: Explorer) -> None:
    """Pictures side by side come one below the other; a tap pins a patch."""
    with visiting(browser, explorer, viewport=PHONE, has_touch=True, is_mobile=True) as visit:
        assert visit.width() == (360, 360)
        visit.give(SANDAL)
        visit.title_is("fashion", "layer 3", "mean of 4 heads")
        visit.button("Compare two heads").click()
        visit.page.get_by_text("Entropy and distance of every head").click()
        expect(visit.find("svg.chart")).to_have_count(2)
        visit.find("canvas.photo").first.tap(position=visit.photo_point(5, 6))  # type: ignore[arg-type]
        visit.looks_is("What the patch in row 5, column 6 attends to")
        assert visit.width() == (360, 360)
        visit.button("Release").click()
        visit.looks_is("What the class token attends to")


def test_a_phone_shows_a_long_text_without_scrolling_sideways(browser: Browser, explorer: Explorer) -> None:
    """The matrix is as wide as the screen."""
    with visiting(browser, explorer, viewport=PHONE, has_touch=True, is_mobile=True) as visit:
        visit.type(" ".join([TEXT] * 12))
        expect(visit.find(".token").first).to_be_visible()
        visit.find(".token").nth(3).tap()
        expect(visit.find(".token").nth(3)).to_have_attribute("aria-pressed", "true")
        assert visit.width() == (360, 360)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_can_be_read_in_light_and_in_the_dark(browser: Browser, explorer: Explorer, scheme: str) -> None:
    """The contrast of every kind of words with its ground is at least 4.5 to 1 (WCAG 2.2, 1.4.3)."""
    with visiting(browser, explorer, color_scheme=scheme) as visit:
        visit.type(TEXT)
        expect(visit.find(".token").first).to_be_visible()
        found = visit.contrasts()
        assert len(found) > 30
        assert {words: ratio for words, ratio in found if ratio < 4.5} == {}


def test_every_control_has_a_name(browser: Browser, explorer: Explorer) -> None:
    """For whoever cannot see the page."""
    with visiting(browser, explorer) as visit:
        visit.give(SANDAL)
        visit.title_is("fashion", "layer 3", "mean of 4 heads")
        visit.button("Compare two heads").click()
        expect(visit.find("canvas.photo")).to_have_count(2)
        assert visit.nameless() == []


def test_the_whole_way_goes_by_keyboard(browser: Browser, explorer: Explorer) -> None:
    """From the choice of the input over the text to a head and a token."""
    with visiting(browser, explorer) as visit:
        expect(visit.find("#empty")).to_be_visible()
        press = visit.page.keyboard.press
        visit.page.get_by_role("radio", name="Photo").focus()
        press("ArrowRight")
        press("Tab")
        press("Control+a")
        visit.page.keyboard.type(TEXT)
        press("Enter")
        visit.title_is("tiny-text", "layer 1", "mean of 4 heads")
        visit.page.locator("#layers input:checked").focus()
        press("ArrowLeft")
        visit.title_is("tiny-text", "layer 0", "mean of 4 heads")
        press("Tab")
        for _ in range(4):
            press("ArrowRight")
        visit.title_is("tiny-text", "layer 0", "head 1")
        press("Tab")
        press("Enter")
        expect(visit.find("canvas.matrix")).to_have_count(2)


def test_on_a_phone_the_page_goes_to_the_picture_that_was_asked_for(browser: Browser, explorer: Explorer) -> None:
    """It lies below the choices there."""
    with visiting(browser, explorer, viewport=PHONE, has_touch=True, is_mobile=True) as visit:
        visit.type(TEXT)
        expect(visit.find("#title")).to_be_in_viewport()
