"""The page when a server is killed, with files it does not take, and before anything is loaded."""

import base64
import io
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.client.fake import FakeServer, free_address
from tests.explorer.browsing import Browser, Visit, expect, visiting
from tests.explorer.running import SANDAL, TEXT, Explorer, exploring
from tests.processes import ROOT, serving

TINY = ROOT / "tests" / "golden" / "models" / "tiny-text"


def test_a_server_that_is_killed_while_it_answers_is_asked_again_by_itself(browser: Browser, tmp_path: Path) -> None:
    """With a countdown; nothing is pressed, and the answer is shown once a server is back at the same address."""
    (tmp_path / TINY.name).symlink_to(TINY)
    arguments = ("--listen", free_address(), "--models", str(tmp_path))
    with (
        serving(*arguments) as server,
        exploring(server.address) as explorer,
        visiting(browser, explorer, refusals=True) as visit,
    ):
        visit.type(TEXT)
        visit.title_is("tiny-text", "layer 1", "mean of 4 heads")
        server.process.send_signal(signal.SIGSTOP)
        visit.choose("layers", 0)
        expect(visit.find("#status")).to_contain_text("Asking tiny-text")
        server.stop(signal.SIGKILL)
        expect(visit.find("#problem")).to_contain_text("No server answers")
        expect(visit.find("#problem button")).to_contain_text("by itself in")
        expect(visit.find("#server")).to_have_attribute("data-state", "down")
        with serving(*arguments):
            visit.title_is("tiny-text", "layer 0", "mean of 4 heads")
            expect(visit.page.locator("#problem")).to_be_hidden()
            expect(visit.find("#server")).to_have_attribute("data-state", "up")


def test_an_explorer_that_comes_back_is_found_by_itself(browser: Browser, fake: FakeServer) -> None:
    """As a server is."""
    with exploring(fake.address) as explorer, visiting(browser, explorer, refusals=True) as visit:
        visit.type("cats")
        expect(visit.find(".token").first).to_be_visible()
        visit.page.route("**/api/attend", lambda route: route.abort())
        visit.choose("layers", 2)
        expect(visit.find("#problem")).to_contain_text("The explorer does not answer")
        expect(visit.find("#problem button")).to_contain_text("by itself in")
        visit.page.unroute("**/api/attend")
        visit.title_is("minilm", "layer 2", "mean of 3 heads")


def test_charts_are_asked_for_again_by_themselves(browser: Browser, before_fake: Explorer) -> None:
    """In their place."""
    with visiting(browser, before_fake, refusals=True) as visit:
        visit.type("cats")
        expect(visit.find(".token").first).to_be_visible()
        visit.page.route("**/api/attend", lambda route: route.abort())
        visit.page.get_by_text("Entropy and distance of every head").click()
        expect(visit.find("#plots-status button")).to_contain_text("by itself in")
        visit.page.unroute("**/api/attend")
        expect(visit.find("svg.chart")).to_have_count(2)


def test_a_spinner_lies_on_the_picture_while_another_is_asked_for(
    browser: Browser, before_fake: Explorer, fake: FakeServer
) -> None:
    """The picture itself stays as it is."""
    spinner = "getComputedStyle(document.querySelector('#panels'), '::after').animationName"
    with visiting(browser, before_fake) as visit:
        visit.type("cats")
        expect(visit.find(".token").first).to_be_visible()
        expect(visit.page.locator("#view")).to_have_attribute("aria-busy", "false")
        assert visit.page.evaluate(spinner) == "none"
        fake.held = True
        visit.choose("layers", 2)
        expect(visit.page.locator("#view")).to_have_attribute("aria-busy", "true")
        assert visit.page.evaluate(spinner) == "turn"
        assert visit.page.evaluate("getComputedStyle(document.querySelector('#shown')).opacity") == "1"
        fake.released.set()
        visit.title_is("minilm", "layer 2", "mean of 3 heads")
        assert visit.page.evaluate(spinner) == "none"


def test_buttons_that_need_a_picture_are_off_without_one(browser: Browser, explorer: Explorer) -> None:
    """And on with one."""
    with visiting(browser, explorer) as visit:
        expect(visit.find("#empty")).to_be_visible()
        for name in ("Copy link", "Compare two heads"):
            expect(visit.button(name)).to_be_disabled()
        expect(visit.page.locator("#download")).to_have_attribute("inert", "")
        visit.give(SANDAL)
        visit.title_is("fashion", "layer 3", "mean of 4 heads")
        for name in ("Copy link", "Compare two heads"):
            expect(visit.button(name)).to_be_enabled()
        visit.page.get_by_text("Download").click()
        expect(visit.button("Picture (PNG)")).to_be_visible()


@pytest.mark.parametrize(
    ("start", "kind"), [(b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"), (b"\0\0\0\x1cftypavif", "AVIF"), (b"GIF89a", "GIF")]
)
def test_a_file_of_another_kind_is_named(browser: Browser, explorer: Explorer, start: bytes, kind: str) -> None:
    """Before it is sent, with what to do."""
    with visiting(browser, explorer) as visit:
        sent = list[str]()
        visit.page.on("request", lambda request: sent.append(request.url))
        expect(visit.find("#empty")).to_be_visible()
        visit.give(start + bytes(100))
        expect(visit.find("#problem .said")).to_have_text(f"FILE_KIND: photo: {kind}; expected JPEG, PNG or WebP")
        expect(visit.find("#problem")).to_contain_text("Save it as a JPEG first")
        assert not [url for url in sent if url.endswith("/api/photos")]
        with visit.page.expect_file_chooser() as chooser:
            visit.button("Choose another file").click()
        chooser.value.set_files(SANDAL)
        visit.title_is("fashion", "layer 3", "mean of 4 heads")


_PASTE = """(data) => {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const pasted = new DataTransfer();
  pasted.items.add(new File([bytes], "image.png", { type: "image/png" }));
  document.body.dispatchEvent(new ClipboardEvent("paste", { clipboardData: pasted, bubbles: true }));
}"""


def _pasted(visit: Visit, explorer: Explorer, picture: Image.Image) -> bytes:
    """Paste a picture, and return what is sent to the explorer."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    with visit.page.expect_response("**/api/photos") as answer:
        visit.page.evaluate(_PASTE, base64.b64encode(file.getvalue()).decode())
    return explorer.ask("GET", f"/api/photos/{answer.value.json()['photo']}").body


def test_a_paste_that_one_can_see_through_lies_on_white(browser: Browser, explorer: Explorer) -> None:
    """The server would take the colours that nobody sees; a paste without holes is sent as it is."""
    with visiting(browser, explorer) as visit:
        expect(visit.find("#empty")).to_be_visible()
        clear = Image.new("RGBA", (40, 40), (255, 0, 0, 0))
        clear.paste((0, 0, 255, 255), (0, 0, 20, 40))
        with Image.open(io.BytesIO(_pasted(visit, explorer, clear))) as sent:
            pixels = np.asarray(sent.convert("RGB"))
        assert pixels[20, 5].tolist() == [0, 0, 255]
        assert pixels[20, 30].tolist() == [255, 255, 255]
        visit.title_is("fashion", "layer 3", "mean of 4 heads")
        opaque = Image.new("RGB", (40, 40), (9, 9, 9))
        file = io.BytesIO()
        opaque.save(file, "PNG")
        assert _pasted(visit, explorer, opaque) == file.getvalue()
