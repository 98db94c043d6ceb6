"""A text that a model writes on the page when something goes wrong or takes long, on small screens, in the dark."""

import threading
from collections.abc import Iterator

import pytest

from tests.client.fake import FakeServer
from tests.explorer.browsing import Browser, Visit, expect, visiting
from tests.explorer.running import Explorer, end_of_next_call, exploring
from tests.explorer.seen import LINK, is_whole, written
from tests.explorer.writing import WORD, HeldTokens

PHONE = {"width": 360, "height": 740}


@pytest.fixture
def before_fake_writer(before_fake: Explorer, fake: FakeServer) -> Iterator[Explorer]:
    """An explorer of a fake server that holds its third token back, where it is told to."""
    fake.has_writer = True
    yield before_fake


def begin_and_hold(visit: Visit, fake: FakeServer) -> threading.Event:
    """Let a fake server write two tokens, and no more until it is released; what is set when that call ends."""
    expect(visit.find("#empty")).to_be_visible()
    ended, fake.held = end_of_next_call(fake), True
    visit.page.evaluate("location.hash = 'model=g2p&text=cat'")
    expect(visit.find(".written .token span")).to_have_text(["K", "AE"])
    assert not ended.is_set()
    return ended


def test_a_model_without_an_encoder_to_be_seen_writes_too(browser: Browser, before_fake_writer: Explorer) -> None:
    """Its decoder is all that there is to choose."""
    with visiting(browser, before_fake_writer, "model=g2p&text=cat") as visit:
        is_whole(visit)
        assert written(visit) == ["K", "AE", "T", "(end)"]
        expect(visit.find("#measures label")).to_have_text(["alignment", "decoder"])
        expect(visit.page.locator("#model option[value='g2p/1/text']")).to_be_enabled()


@pytest.mark.parametrize("by", ["a new text", "another model", "Cancel"])
def test_what_is_no_longer_wanted_is_no_longer_written(
    browser: Browser, before_fake_writer: Explorer, fake: FakeServer, by: str
) -> None:
    """The server is told, though it has not answered; the last choice is what is shown."""
    with visiting(browser, before_fake_writer) as visit:
        ended = begin_and_hold(visit, fake)
        fake.held = by == "Cancel"
        if by == "a new text":
            visit.page.fill("#text", "dog")
            visit.button("Write").click()
            is_whole(visit)
            assert "text=dog" in visit.page.url
        elif by == "another model":
            visit.page.select_option("#model", "minilm/2/text")
            visit.title_is("minilm", "layer 11", "mean of 3 heads")
            expect(visit.find("#written")).to_have_count(0)
        else:
            visit.button("Cancel").click()
            expect(visit.find("#problem")).to_contain_text("CANCELLED")
            assert written(visit) == ["K", "AE"]
            fake.held = False
            assert ended.wait(10)
            visit.button("Try again").click()
            is_whole(visit)
        assert ended.wait(10)
        assert not fake.released.is_set()


def test_what_the_server_refuses_is_shown_in_its_words(browser: Browser, before_writer: Explorer) -> None:
    """A shorter text is written then."""
    with visiting(browser, before_writer, "model=g2p&text=" + 70 * "a", refusals=True) as visit:
        expect(visit.find("#problem")).to_contain_text("INVALID_ARGUMENT: text")
        visit.page.fill("#text", WORD)
        visit.button("Write").click()
        is_whole(visit)
        expect(visit.page.locator("#problem")).to_be_hidden()


def test_what_goes_wrong_while_it_writes_is_shown_beside_what_has_come(
    browser: Browser, before_fake_writer: Explorer, fake: FakeServer
) -> None:
    """And it is written anew where the reader wants so."""
    fake.breaks_off = True
    with visiting(browser, before_fake_writer, "model=g2p&text=cat") as visit:
        expect(visit.find("#problem")).to_contain_text("INTERNAL: the stream ended without its last message")
        expect(visit.find(".written .token")).to_have_count(4)
        expect(visit.page.locator("#view")).to_have_attribute("aria-busy", "false")
        fake.breaks_off = False
        visit.button("Try again").click()
        is_whole(visit)


def test_when_the_explorer_ends_while_it_writes_the_page_says_so(browser: Browser, fake: FakeServer) -> None:
    """And keeps what has come."""
    fake.has_writer = True
    with exploring(fake.address) as explorer:
        context = visiting(browser, explorer, refusals=True)
        visit = context.__enter__()
        begin_and_hold(visit, fake)
    expect(visit.find("#problem")).to_contain_text("The explorer does not answer")
    expect(visit.find(".written .token")).to_have_count(2)
    context.__exit__(None, None, None)


def test_a_phone_shows_what_is_written_without_scrolling_sideways(
    browser: Browser, before_writer: Explorer, held_tokens: HeldTokens
) -> None:
    """The page goes to the picture with the first token; a tap pins one."""
    with visiting(browser, before_writer, viewport=PHONE, has_touch=True, is_mobile=True) as visit:
        visit.page.get_by_role("radio", name="Text").check()
        visit.page.fill("#text", "incomprehensibilities")
        visit.page.select_option("#model", "g2p/1/text")
        visit.button("Write").click()
        held_tokens.let(1)
        expect(visit.find("#title")).to_be_in_viewport()
        held_tokens.let(100)
        is_whole(visit)
        visit.find(".written .token").nth(3).tap()
        expect(visit.find(".written .token").nth(3)).to_have_attribute("aria-pressed", "true")
        assert visit.width() == (360, 360)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_is_written_can_be_read_in_light_and_in_the_dark(
    browser: Browser, before_writer: Explorer, scheme: str
) -> None:
    """A pinned token too (WCAG 2.2, 1.4.3); and every control has a name."""
    with visiting(browser, before_writer, f"{LINK}&query=2", color_scheme=scheme) as visit:
        is_whole(visit)
        found = visit.contrasts()
        assert len(found) > 60
        assert {words: ratio for words, ratio in found if ratio < 4.5} == {}
        assert visit.nameless() == []


def test_the_written_tokens_stay_in_place_whatever_they_attend_to(browser: Browser, before_writer: Explorer) -> None:
    """Else the pointer would be on another one as soon as it is on one."""
    link = f"model=g2p&text={'in' * 16}{'mm' * 14}"
    with visiting(browser, before_writer, link, viewport={"width": 900, "height": 900}) as visit:
        is_whole(visit)
        tops = set[float]()
        for chip in visit.find(".written .token").all():
            chip.hover()
            expect(chip).to_have_class("token special looks" if "end" in chip.inner_text() else "token looks")
            box = visit.find(".written").bounding_box()
            assert box is not None
            tops.add(box["y"] + visit.page.evaluate("window.scrollY"))
        assert len(tops) == 1


def test_the_tokens_that_stay_keep_the_focus(
    browser: Browser, before_writer: Explorer, held_tokens: HeldTokens
) -> None:
    """While others come behind them."""
    with visiting(browser, before_writer, LINK) as visit:
        held_tokens.let(2)
        expect(visit.find(".written .token")).to_have_count(2)
        visit.find(".written .token").first.focus()
        held_tokens.let(2)
        expect(visit.find(".written .token")).to_have_count(4)
        expect(visit.find(".written .token").first).to_be_focused()
        expect(visit.find("#looks")).to_have_text("What “T” attends to")
        held_tokens.let(100)
        is_whole(visit)


def test_of_a_long_text_and_a_large_model_one_layer_is_asked_for(browser: Browser, before_writer: Explorer) -> None:
    """All of them would be more than a page holds with ease. A short text may make a long one."""
    script = """async ([text, layer, max_tokens]) => {
      const { START } = await import('/static/state.js');
      const { questionOf } = await import('/static/asking.js');
      const writer = { num_layers: 12, num_heads: 16, max_tokens, starts: [], default_start: '' };
      const model = { name: 'm', version: '1', modality: 'text', layers: [], writer };
      return questionOf({ ...START, text, layer }, model, layer, 'mean');
    }"""
    asked = {"model": "m", "version": "1", "truncate": False}
    with visiting(browser, before_writer) as visit:
        assert visit.page.evaluate(script, ["a" * 200, 3, 256]) == {**asked, "text": "a" * 200}
        assert visit.page.evaluate(script, ["a" * 600, 3, 256]) == {**asked, "text": "a" * 600, "layers": [3]}
        assert visit.page.evaluate(script, ["a", 3, 512]) == {**asked, "text": "a", "layers": [3]}
