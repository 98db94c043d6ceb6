"""What is taken away from the page: links that lead back to what was seen, pictures and numbers."""

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from regard import AttentionRequest, Client
from tests.explorer.browsing import Browser, Visit, expect, visiting
from tests.explorer.running import SANDAL, TEXT, Explorer


def fragment_of(visit: Visit) -> str:
    """The part of the address that names what is seen."""
    return visit.page.url.partition("#")[2]


def download(visit: Visit, what: str) -> tuple[str, bytes]:
    """Take something away: its file's name and content."""
    visit.find("#download summary").click()
    with visit.page.expect_download() as taken:
        visit.button(what).click()
    return taken.value.suggested_filename, Path(taken.value.path()).read_bytes()


def test_a_link_leads_another_browser_to_the_same_view(browser: Browser, explorer: Explorer) -> None:
    """Photo, layer, head, pinned patch, the second picture."""
    with visiting(browser, explorer) as visit:
        visit.give(SANDAL)
        visit.choose("layers", 1)
        visit.choose("head-choices", 2)
        visit.button("Compare two heads").click()
        visit.click_patch(4, 2)
        visit.looks_is("What the patch in row 4, column 2 attends to")
        link, seen = fragment_of(visit), (visit.top(0), visit.top(1), visit.find("#overlap").inner_text())
    with visiting(browser, explorer, link) as visit:
        visit.title_is("fashion", "layer 1", "head 2")
        visit.looks_is("What the patch in row 4, column 2 attends to")
        assert (visit.top(0), visit.top(1), visit.find("#overlap").inner_text()) == seen
        assert fragment_of(visit) == link


def test_a_link_to_a_text_holds_the_text(browser: Browser, explorer: Explorer) -> None:
    """Nothing else need be kept anywhere."""
    with visiting(browser, explorer) as visit:
        visit.type(f"{TEXT} & more")
        visit.find(".token").nth(2).click()
        link = fragment_of(visit)
    with visiting(browser, explorer, link) as visit:
        expect(visit.find(".token").nth(2)).to_have_attribute("aria-pressed", "true")
        assert visit.page.input_value("#text") == f"{TEXT} & more"


def test_a_link_followed_in_the_open_page_is_shown(browser: Browser, explorer: Explorer) -> None:
    """Without loading it anew."""
    with visiting(browser, explorer) as visit:
        visit.type(TEXT)
        visit.title_is("tiny-text", "layer 1", "mean of 4 heads")
        visit.page.evaluate("location.hash = 'model=tiny-text&text=film&layer=0&head=3'")
        visit.title_is("tiny-text", "layer 0", "head 3")


def test_a_link_whose_photo_is_gone_asks_for_it_again(browser: Browser, explorer: Explorer) -> None:
    """And then shows it as the link says."""
    link = f"model=fashion&version=1&photo={'0' * 64}&layer=2&head=1&query=9"
    with visiting(browser, explorer, link, refusals=True) as visit:
        expect(visit.find("#problem")).to_contain_text("photo is gone")
        expect(visit.button("Choose another file")).to_be_visible()
        visit.give(SANDAL)
        visit.title_is("fashion", "layer 2", "head 1")
        visit.looks_is("What the patch in row 1, column 1 attends to")
        expect(visit.page.locator("#problem")).to_be_hidden()


def test_a_link_to_a_model_that_is_not_served_says_so(browser: Browser, explorer: Explorer) -> None:
    """It does not quietly show another; choosing one goes on."""
    with visiting(browser, explorer, f"model=gone&version=3&text={TEXT}") as visit:
        expect(visit.find("#problem")).to_contain_text("NOT_FOUND: model: 'gone', version '3'")
        visit.page.select_option("#model", "tiny-text/1/text")
        visit.title_is("tiny-text", "layer 1", "mean of 4 heads")


def test_the_link_is_copied(browser: Browser, explorer: Explorer) -> None:
    """The whole address."""
    with visiting(browser, explorer, permissions=["clipboard-read", "clipboard-write"]) as visit:
        visit.type(TEXT)
        expect(visit.find(".token").first).to_be_visible()
        visit.button("Copy link").click()
        expect(visit.button("Copied")).to_be_visible()
        assert visit.page.evaluate("navigator.clipboard.readText()") == visit.page.url


def test_where_copying_is_not_allowed_the_link_is_shown(browser: Browser, explorer: Explorer) -> None:
    """Selected, to be copied by hand."""
    with visiting(browser, explorer) as visit:
        visit.give(SANDAL)
        visit.title_is("fashion", "layer 3", "mean of 4 heads")
        visit.page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('no')); }")
        visit.button("Copy link").click()
        expect(visit.find("#link")).to_have_value(visit.page.url)


@pytest.mark.parametrize("subject", ["photo", "text"])
def test_the_picture_is_saved_with_its_title(browser: Browser, explorer: Explorer, subject: str) -> None:
    """As PNG, large enough for a slide, and not empty."""
    with visiting(browser, explorer) as visit:
        if subject == "photo":
            visit.give(SANDAL)
        else:
            visit.type(TEXT)
        expect(visit.find("#shown")).to_be_visible()
        name, content = download(visit, "Picture (PNG)")
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 300
        assert len(picture.convert("RGB").getcolors(2**24) or []) > 20
    assert name.endswith(".png")


def _colours(content: bytes) -> dict[tuple[int, int, int], int]:
    """Colours of a picture, and how many pixels have each."""
    with Image.open(io.BytesIO(content)) as picture:
        return _counts(np.asarray(picture.convert("RGB")))


def _counts(pixels: NDArray[np.uint8]) -> dict[tuple[int, int, int], int]:
    found, counts = np.unique(pixels.reshape(-1, 3), axis=0, return_counts=True)
    return {(red, green, blue): int(count) for (red, green, blue), count in zip(found.tolist(), counts, strict=True)}


def _chips(visit: Visit) -> set[tuple[int, int, int]]:
    """The grounds of the tokens in the page."""
    visit.is_drawn()
    grounds = visit.find(".token").evaluate_all("(all) => all.map((one) => getComputedStyle(one).backgroundColor)")
    colours = ([int(part) for part in re.findall(r"\d+", ground)] for ground in grounds)
    return {(red, green, blue) for red, green, blue in colours}


@pytest.mark.parametrize("view", ["", "&reading=true", "&arcs=true&arc_heads=0.2", "&reading=true&arcs=true"])
def test_the_picture_of_a_text_has_what_is_seen(browser: Browser, explorer: Explorer, view: str) -> None:
    """Tokens or the text in their colours, and the matrix, or the arcs of each head in the colours of its legend."""
    with visiting(browser, explorer, f"model=tiny-text&text={TEXT}&layer=0&head=mean&curve=log{view}") as visit:
        expect(visit.find("canvas.arcs" if "arcs" in view else "canvas.matrix")).to_be_visible()
        chips = _chips(visit)
        _, content = download(visit, "Picture (PNG)")
    colours = _colours(content)
    assert len(chips) > 3, chips
    assert all(colours.get(chip, 0) > 300 for chip in chips)
    heads = {(0x56, 0xB4, 0xE9), (0x00, 0x9E, 0x73)}
    assert all((colours.get(head, 0) > 100) == ("arc_heads" in view) for head in heads)
    cells = [colour for colour, count in colours.items() if count > 2400 and colour not in chips]  # each is 52 x 52
    assert (len(cells) > 8) == ("arcs" not in view), cells


def test_the_picture_of_two_holds_both_beside_each_other(browser: Browser, explorer: Explorer) -> None:
    """In either half the tokens of one, on a scale that both have."""
    link = f"model=tiny-text&text={TEXT}&layer=0&curve=log&beside_text=a bad {TEXT}"
    with visiting(browser, explorer, link) as visit:
        expect(visit.find("canvas.matrix")).to_have_count(2)
        chips = _chips(visit)
        _, content = download(visit, "Picture (PNG)")
    with Image.open(io.BytesIO(content)) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    halves = [_counts(half) for half in (pixels[:, : pixels.shape[1] // 2], pixels[:, pixels.shape[1] // 2 :])]
    assert all(sum(half.get(chip, 0) > 300 for chip in chips) > 3 for half in halves)
    assert all(any(half.get(chip, 0) > 300 for half in halves) for chip in chips)


def test_numbers_are_saved_in_three_forms(browser: Browser, explorer: Explorer, real_server: str) -> None:
    """A table of the row, JSON of every head's, and the whole layer for NumPy: all as the client gets them."""
    with Client(real_server) as client:
        wanted = AttentionRequest(layers=(2,), dtype="float16")
        attention = client.embed(image=SANDAL, model="fashion", attention=wanted).attention
    assert attention is not None
    layer = attention.layer(2).weights
    with visiting(browser, explorer) as visit:
        visit.give(SANDAL)
        visit.choose("layers", 2)
        visit.choose("head-choices", 3)
        visit.title_is("fashion", "layer 2", "head 3")
        visit.click_patch(0, 1)
        visit.looks_is("What the patch in row 0, column 1 attends to")
        table_name, table = download(visit, "This row (CSV)")
        _, described = download(visit, "This row, every head (JSON)")
        _, array = download(visit, "The whole layer (NumPy)")
    assert table_name == "fashion-weights-layer2-head3-query-2.csv"
    rows = list(csv.DictReader(io.StringIO(table.decode())))
    assert [float(row["weight"]) for row in rows] == [float(weight) for weight in layer[3, 2]]
    assert (rows[0]["row"], rows[1]["row"], rows[49]["row"], rows[49]["column"]) == ("", "0", "6", "6")
    row = json.loads(described)
    assert (row["model"], row["layer"], row["head"], row["query"]) == ("fashion", 2, 3, 2)
    np.testing.assert_array_equal(np.array([head["weights"] for head in row["heads"]], np.float16), layer[:, 2])
    loaded = np.load(io.BytesIO(array))
    np.testing.assert_array_equal(loaded, layer)
    assert loaded.dtype == np.float16


def test_tokens_with_commas_and_quotes_keep_the_table_whole(browser: Browser, explorer: Explorer) -> None:
    """As RFC 4180 has it."""
    with visiting(browser, explorer) as visit:
        visit.type('a , "film"')
        expect(visit.find(".token").first).to_be_visible()
        tokens = visit.find(".token span").all_inner_texts()
        _, table = download(visit, "This row (CSV)")
    assert [row["token"] for row in csv.DictReader(io.StringIO(table.decode()))] == tokens
