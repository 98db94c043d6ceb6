"""What a move of the pointer over the explorer's page costs: `python -m bench.hovering`; needs Chromium.

A photograph at 518 pixels and a text of 512 tokens are pointed at along a fixed path, one move after the other. The
page's own counter says how long frames took; the browser how much CPU time of its main thread went into a move, and
how much of that into scripts. CPU time is what can be compared where the machine is shared.
"""

import argparse
import json
import math
import statistics
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.__main__ import newest_graph
from bench.programs import ROOT
from bench.servers import serving_regard
from regard.explorer.app import Settings
from regard.explorer.serve import listen, make_server, read_address
from tests.explorer.browsing import ARGUMENTS, find_chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PHOTO_MODEL, TEXT_MODEL, TOKENS = "vit-s14-518", "minilm", 512
_WORDS = (
    "The animal did not cross the street because it was too tired , and nobody in the house had seen the old dog run . "
)
PHOTO = ROOT / "examples" / "photos" / "chelsea.jpg"
_TURNS = (3, 7)  # of the path, across and down
_MARGIN = 4  # pixels
_WAIT_MS = 120_000
_TEXT = f"model={TEXT_MODEL}&truncate=true&layer=2&head=3&text={_WORDS * (TOKENS // 20)}"
# Scrolled to, and where it lies on the screen.
_PLACE = """(selector) => {
  const element = [...document.querySelectorAll(selector)].find((each) => each.checkVisibility());
  element.scrollIntoView();
  return [window.innerHeight, element.getBoundingClientRect().toJSON()];
}"""


@dataclass(frozen=True)
class Scene:
    """What is pointed at.

    Attributes:
        selector: Of the element.
        link: To it, without the photograph.
        title: What the page's title begins with: the model.
    """

    selector: str
    link: str
    title: str


SCENES = {
    "photo, one head": Scene("canvas.photo", "head=4", PHOTO_MODEL),
    "photo, mean of heads": Scene("canvas.photo", "head=mean", PHOTO_MODEL),
    "tokens": Scene(".tokens", _TEXT, TEXT_MODEL),
    "reading view": Scene(".tokens.reading-view", f"reading=true&{_TEXT}", TEXT_MODEL),
    "matrix": Scene("canvas.matrix", _TEXT, TEXT_MODEL),
    "arcs": Scene("canvas.arcs", f"arcs=true&{_TEXT}", TEXT_MODEL),
    "two matrices": Scene("canvas.matrix", f"beside=3.5&clip=99&{_TEXT}", TEXT_MODEL),
}


def main() -> None:
    """Print a table, in Markdown."""
    parser = argparse.ArgumentParser(prog="python -m bench.hovering", description=__doc__)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--moves", type=int, default=300, help="over each picture; 300 by default")
    parser.add_argument("--rounds", type=int, default=1, help="1 by default")
    parser.add_argument("--size", default="1440x900", help="of the window, in pixels; 1440x900 by default")
    parser.add_argument("--only", choices=SCENES, help="one picture alone")
    args = parser.parse_args()
    for name in (PHOTO_MODEL, TEXT_MODEL):
        if not newest_graph(args.models, name):
            parser.exit(1, f"{args.models}/{name} is not there: make demo exports it\n")
    from playwright.sync_api import sync_playwright

    width, height = map(int, args.size.split("x"))
    print(
        "| pointed at | moves | frames | median, ms | p95, ms | CPU a move, ms: page | of it script | whole browser |"
    )
    print("|---|---|---|---|---|---|---|---|")
    with explored(args.models) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=ARGUMENTS)
        for _ in range(args.rounds):
            for name in [args.only] if args.only else SCENES:
                page = browser.new_page(viewport={"width": width, "height": height})
                show(page, url, SCENES[name])
                figures = measure(page, SCENES[name], Meter(browser, page), args.moves)
                print(f"| {name} | {args.moves} | {figures} |", flush=True)
                page.close()
        browser.close()


@contextmanager
def explored(models: Path) -> Iterator[str]:
    """An explorer before a server of both models, the text model with all the positions that it has; its address."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for model in (PHOTO_MODEL, TEXT_MODEL):
            source = newest_graph(models, model).parent  # type: ignore[union-attr]
            version = folder / model / source.name
            version.mkdir(parents=True)
            for path in source.iterdir():
                (version / path.name).symlink_to(path.resolve())
        contract = version / "contract.json"
        longer = json.loads(contract.read_text())
        longer["text"]["max_tokens"] = TOKENS
        contract.unlink()
        contract.write_text(json.dumps(longer))
        with serving_regard(folder) as serving, exploring(serving.address) as url:
            yield url


@contextmanager
def exploring(server: str) -> Iterator[str]:
    """An explorer in a thread of this process."""
    with listen(read_address("127.0.0.1:0", allow_remote=False)) as opened:
        runner = make_server(Settings(server=server, timeout_seconds=_WAIT_MS / 1000))
        thread = threading.Thread(target=runner.run, kwargs={"sockets": [opened]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{opened.getsockname()[1]}/"
        finally:
            runner.should_exit = True
            thread.join()


def measure(page: "Page", scene: Scene, meter: "Meter", moves: int) -> str:
    """Point along the path; returns the cells of a row."""
    height, place = page.evaluate(_PLACE, scene.selector)
    page.mouse.move(place["x"] + 2, place["y"] + 2)
    page.evaluate("performance.clearMeasures()")
    before = meter.read()
    for x, y in path(moves):
        page.mouse.move(
            place["x"] + x * place["width"], place["y"] + y * min(place["height"], height - place["y"] - _MARGIN)
        )
    used = [1000 * (after - start) / moves for start, after in zip(before, meter.read(), strict=True)]
    frames = page.evaluate("performance.getEntriesByName('frame').map((each) => each.duration)")
    told = [statistics.median(frames), statistics.quantiles(frames, n=20)[-1], *used]
    return " | ".join([str(len(frames)), *(f"{number:.1f}" for number in told)])


def show(page: "Page", url: str, scene: Scene) -> None:
    """Open what a scene is of, and wait until all of it is drawn."""
    page.set_default_timeout(_WAIT_MS)
    page.goto(f"{url}?frames#{scene.link}")
    if scene.title == PHOTO_MODEL:
        page.set_input_files("#file", PHOTO)
    page.wait_for_selector(f"#title:has-text('{scene.title} ')")
    page.wait_for_selector("#view[aria-busy='false']")
    page.wait_for_selector("#heads [aria-busy='false']")


def path(moves: int) -> Iterator[tuple[float, float]]:
    """Where the pointer goes, from 0 to 1 across and down: a Lissajous figure, which meets most of a picture."""
    for move in range(moves):
        across, down = (0.5 + 0.49 * math.sin(2 * math.pi * turns * move / moves) for turns in _TURNS)
        yield across, down


class Meter:
    """CPU time that a page uses, in seconds."""

    def __init__(self, browser: "Browser", page: "Page") -> None:
        self._page = page.context.new_cdp_session(page)
        self._page.send("Performance.enable", {"timeDomain": "threadTicks"})
        self._browser = browser.new_browser_cdp_session()

    def read(self) -> list[float]:
        """Of the page's main thread, of scripts on it, and of all the browser's processes."""
        found = {each["name"]: each["value"] for each in self._page.send("Performance.getMetrics")["metrics"]}
        processes = self._browser.send("SystemInfo.getProcessInfo")["processInfo"]
        return [found["TaskDuration"], found["ScriptDuration"], sum(each["cpuTime"] for each in processes)]


if __name__ == "__main__":
    main()
