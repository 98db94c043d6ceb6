"""Makes the pictures of docs/explorer.md from a server with the demo's models: python -m tests.explorer.pictures.

Needs Chromium, and a server that runs: python -m server --models models, where server/embedded/g2p was linked to.
"""

import argparse
import io
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from tests.explorer.browsing import ARGUMENTS, Browser, Visit, expect, find_chromium, visiting
from tests.explorer.running import Explorer, exploring
from tests.processes import PHOTOS, ROOT

SIZE = {"width": 1120, "height": 760}
SENTENCE = "The animal did not cross the street because it was too tired."


def main() -> None:
    """Write all pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", default="127.0.0.1:8001", help="HOST:PORT of the regard server")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images", help="the folder for the pictures")
    args = parser.parse_args()
    with exploring(args.server) as explorer, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=ARGUMENTS)
        photo(browser, explorer, args.out / "explorer-photo.png")
        text(browser, explorer, args.out / "explorer-text.png")
        writing(browser, explorer, args.out / "explorer-writing.png")
        browser.close()


def photo(browser: Browser, explorer: Explorer, path: Path) -> None:
    """The eye of a cat, attended to by a patch of it."""
    with visiting(browser, explorer, viewport=SIZE, color_scheme="light") as visit:
        visit.page.select_option("#model", "vit-s14-518/1/image")
        visit.give(PHOTOS / "chelsea.jpg")
        expect(visit.find("canvas.photo")).to_be_visible(timeout=60000)
        visit.choose("head-choices", 4)
        visit.page.evaluate("window.scrollTo(0, 0)")
        visit.find("canvas.photo").hover(position=visit.photo_point(17, 14, 37, 37))  # type: ignore[arg-type]
        visit.looks_is("What the patch in row 17, column 14 attends to")
        take(visit, path)


def text(browser: Browser, explorer: Explorer, path: Path) -> None:
    """Two heads of one layer on a sentence, in the dark."""
    link = f"model=minilm&text={SENTENCE}&layer=2&head=3&query=9&beside=2.8"
    with visiting(browser, explorer, link, viewport=SIZE, color_scheme="dark") as visit:
        expect(visit.find("canvas.matrix")).to_have_count(2)
        take(visit, path)


def writing(browser: Browser, explorer: Explorer, path: Path) -> None:
    """A word as phonemes, one of them pinned."""
    link = "model=g2p&text=transformer&query=6"
    with visiting(browser, explorer, link, viewport=SIZE, color_scheme="light") as visit:
        expect(visit.find("#facts")).to_contain_text("Ended by the model")
        take(visit, path)


def take(visit: Visit, path: Path) -> None:
    """Write what is seen, once all of it is drawn."""
    visit.is_drawn()
    shot = visit.page.screenshot(caret="initial")
    with Image.open(io.BytesIO(shot)) as picture:
        picture.convert("RGB").save(path, optimize=True)
    print(f"wrote {path}, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
