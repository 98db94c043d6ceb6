"""What a move of the pointer has the page do: the picture at once, all else when it is idle; and the page's counter."""

from typing import Any

import pytest

from tests.explorer.browsing import Browser, Visit, expect, visiting
from tests.explorer.running import SANDAL, TEXT, Explorer

LONG = "a good film " * 20  # of more tokens than a screen has room for
SCREEN: dict[str, Any] = {"viewport": {"width": 900, "height": 360}}
# From here on nothing that waits for an idle page is done until window.rest(); what canvases draw is noted.
_HOLD = """() => {
  const waiting = new Map();
  let last = 0;
  window.requestIdleCallback = (work) => (waiting.set(++last, work), last);
  window.cancelIdleCallback = (handle) => waiting.delete(handle);
  window.held = () => waiting.size;
  window.slice = () => {
    const [handle, work] = [...waiting][0];
    waiting.delete(handle);
    work({ timeRemaining: () => 0 });
  };
  window.rest = () => {
    while (waiting.size) window.slice();
  };
  window.drawn = { photo: 0, matrix: 0, small: 0, other: 0 };
  for (const kind of [CanvasRenderingContext2D, OffscreenCanvasRenderingContext2D]) {
    const { drawImage } = kind.prototype;
    kind.prototype.drawImage = function (...values) {
      const small = this.canvas.closest?.(".head") ? "small" : "other";
      window.drawn[["photo", "matrix"].find((name) => this.canvas.classList?.contains(name)) ?? small] += 1;
      return drawImage.apply(this, values);
    };
  }
}"""
_FRAMES = "new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))"


def _hold(visit: Visit) -> None:
    """Let the page finish, and keep it from being idle after that."""
    visit.is_drawn()
    visit.page.evaluate(_HOLD)


def _drawn(visit: Visit, what: str) -> int:
    """How many pictures were drawn onto the canvases of a kind."""
    visit.page.evaluate(_FRAMES)
    count: int = visit.page.evaluate("(what) => window.drawn[what]", what)
    return count


def _grounds(visit: Visit) -> list[str]:
    found: list[str] = visit.page.evaluate(
        "[...document.querySelectorAll('.token')].map((token) => token.style.backgroundColor)"
    )
    return found


def test_moves_within_a_frame_are_drawn_once_and_small_heads_when_idle(browser: Browser, explorer: Explorer) -> None:
    """The ground and the map, for five moves; then each head once, whose ground is never resized again."""
    move = """() => {
      const canvas = document.querySelector("canvas.photo");
      const box = canvas.getBoundingClientRect();
      for (const col of [1, 2, 3, 4, 5]) {
        const [clientX, clientY] = [box.left + ((col + 0.5) * box.width) / 7, box.top + 0.5 * box.height];
        canvas.dispatchEvent(new PointerEvent("pointermove", { clientX, clientY, pointerType: "mouse" }));
      }
    }"""
    with visiting(browser, explorer) as visit:
        visit.give(SANDAL)
        visit.title_is("fashion", "layer 3", "mean of 4 heads")
        _hold(visit)
        visit.page.evaluate(move)
        visit.looks_is("What the patch in row 3, column 5 attends to")
        assert _drawn(visit, "photo") == 2
        assert _drawn(visit, "small") == 0
        expect(visit.find("#heads .heads")).to_have_attribute("aria-busy", "true")
        visit.page.evaluate("window.rest()")
        expect(visit.find("#heads .heads")).to_have_attribute("aria-busy", "false")
        assert _drawn(visit, "small") == 4 * 2
        assert _drawn(visit, "other") == 0


def test_a_move_calls_off_what_was_left_for_an_idle_page(browser: Browser, explorer: Explorer) -> None:
    """Each head is drawn once more, going on where the page was."""
    with visiting(browser, explorer) as visit:
        visit.give(SANDAL)
        visit.title_is("fashion", "layer 3", "mean of 4 heads")
        _hold(visit)
        visit.hover_patch(2, 2)
        visit.looks_is("What the patch in row 2, column 2 attends to")
        visit.page.evaluate("window.slice()")
        assert _drawn(visit, "small") == 1 * 2
        visit.hover_patch(4, 4)
        visit.looks_is("What the patch in row 4, column 4 attends to")
        assert visit.page.evaluate("window.held()") == 1
        visit.page.evaluate("window.rest()")
        assert _drawn(visit, "small") == (1 + 4) * 2


def test_steps_go_round_from_where_they_were(browser: Browser, explorer: Explorer) -> None:
    """Begun anew all are done, and from the first where their number is another."""
    run = """async () => {
      const { IdleSteps } = await import("./static/idle.js");
      const done = [];
      const steps = new IdleSteps((step) => done.push(step), (busy) => done.push(busy));
      steps.begin(3);
      window.slice();
      steps.begin(3);
      window.rest();
      steps.begin(2);
      window.rest();
      steps.begin(0);
      return [done, window.held()];
    }"""
    with visiting(browser, explorer) as visit:
        visit.page.evaluate(_HOLD)
        done, held = visit.page.evaluate(run)
        assert done == [True, 0, True, 1, 2, 0, False, True, 0, 1, False, False]
        assert held == 0


def test_tokens_on_the_screen_are_coloured_first(browser: Browser, explorer: Explorer) -> None:
    """All others, and every number, when the page is idle."""
    with visiting(browser, explorer, **SCREEN) as visit:
        visit.type(LONG)
        tokens = visit.find(".token")
        expect(tokens).to_have_count(len(LONG.split()) + 2)
        visit.page.evaluate("window.scrollTo(0, 0)")
        _hold(visit)
        before, numbers = _grounds(visit), tokens.locator("small").all_inner_texts()
        tokens.nth(1).hover()
        visit.looks_is("What “a” attends to")
        visit.page.evaluate(_FRAMES)
        at_once = _grounds(visit)
        visit.page.evaluate("window.rest()")
        after = _grounds(visit)
        changed = [at for at, ground in enumerate(after) if ground != before[at]]
        early = [at for at in changed if at_once[at] == after[at]]
        assert 0 < len(early) < len(changed)
        assert early == changed[: len(early)]
        assert all(at_once[at] == before[at] for at in changed[len(early) :])
        assert tokens.locator("small").all_inner_texts() != numbers


def test_pointing_into_a_large_matrix_paints_none_of_it(browser: Browser, explorer: Explorer) -> None:
    """The lines around row and column move over it."""
    with visiting(browser, explorer, **SCREEN) as visit:
        visit.type(LONG)
        matrix = visit.find("canvas.matrix")
        expect(matrix).to_be_visible()
        matrix.scroll_into_view_if_needed()
        matrix.hover(position={"x": 60, "y": 60})
        expect(visit.find(".told")).to_contain_text(" to ")
        _hold(visit)
        places = []
        for x, y in ((90, 120), (200, 70)):
            matrix.hover(position={"x": x, "y": y})
            visit.page.evaluate(_FRAMES)
            row, column = (visit.find(".marks div").nth(at).bounding_box() for at in (0, 1))
            box = matrix.bounding_box()
            assert row and column and box
            assert row["y"] - 1 <= box["y"] + y <= row["y"] + row["height"] + 1
            assert column["x"] - 1 <= box["x"] + x <= column["x"] + column["width"] + 1
            places.append((row["y"], column["x"]))
        assert places[0] != places[1]
        assert _drawn(visit, "matrix") == 0


@pytest.mark.parametrize("how", ["wheel", "keys", "fingers"])
def test_a_matrix_is_zoomed_about_the_pointer(browser: Browser, explorer: Explorer, how: str) -> None:
    """What is under it stays there; as small as it gets it fits again. The wheel alone scrolls."""
    with visiting(browser, explorer, **SCREEN, has_touch=True) as visit:
        visit.type(LONG)
        matrix, frame = visit.find("canvas.matrix"), visit.find(".zoomed")
        expect(matrix).to_be_visible()
        matrix.evaluate("(canvas) => canvas.closest('.zoomed').scrollIntoView()")
        matrix.hover(position={"x": 220, "y": 160})
        expect(visit.find(".told")).to_contain_text(" to ")
        told, before = visit.told(), visit.find(".sheet").evaluate("(sheet) => sheet.clientWidth")
        if how == "wheel":
            visit.page.keyboard.down("Control")
            visit.page.mouse.wheel(0, -200)
            visit.page.keyboard.up("Control")
        elif how == "keys":
            frame.focus()
            visit.page.keyboard.press("+")
        else:
            _pinch(visit, 220, 160, 20, 40)
        expect(visit.button("Smaller")).to_be_enabled()
        assert visit.find(".sheet").evaluate("(sheet) => sheet.clientWidth") > 1.5 * before
        if how != "keys":  # which hold the middle
            matrix.hover(position={"x": 221, "y": 161})
            visit.page.evaluate(_FRAMES)
            assert visit.told() == told
        frame.focus()
        visit.page.keyboard.press("0")
        expect(visit.button("Smaller")).to_be_disabled()
        assert visit.find(".sheet").evaluate("(sheet) => sheet.clientWidth") == before


def _pinch(visit: Visit, x: float, y: float, start: float, end: float) -> None:
    """Move two fingers apart about a point of the matrix: from so many pixels on each side of it to so many."""
    box = visit.find("canvas.matrix").bounding_box()
    assert box is not None
    session = visit.page.context.new_cdp_session(visit.page)
    for kind, away in (("touchStart", start), ("touchMove", end)):
        points = [{"x": box["x"] + x + side * away, "y": box["y"] + y, "id": at} for at, side in enumerate((-1, 1))]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def test_names_of_rows_and_columns_stay_at_the_sides(browser: Browser, explorer: Explorer) -> None:
    """Of a matrix that is scrolled, and only those of what is seen are written."""
    note = """() => {
      window.written = [];
      const { fillText } = CanvasRenderingContext2D.prototype;
      CanvasRenderingContext2D.prototype.fillText = function (text, ...where) {
        window.written.push(text);
        return fillText.call(this, text, ...where);
      };
    }"""
    with visiting(browser, explorer, **SCREEN) as visit:
        visit.type(LONG)
        expect(visit.find("canvas.matrix")).to_be_visible()
        visit.find(".zoomed").focus()
        for _ in range(8):
            visit.page.keyboard.press("+")
        expect(visit.button("Larger")).to_be_disabled()
        visit.page.evaluate(note)
        visit.find(".zoomed").evaluate("(frame) => frame.scrollTo(99999, 99999)")
        visit.page.evaluate(_FRAMES)
        written = visit.page.evaluate("window.written")
        assert written[:2] == ["attended to →", "← attends"]
        assert written.count("[SEP]") == 2
        assert "[CLS]" not in written
        assert 10 < len(written) < 60


_STROKES = """() => {
  window.strokes = { draws: 0, arcs: 0, below: 0, words: 0 };
  const note = (kind, name, as) => {
    const before = kind.prototype[name];
    kind.prototype[name] = function (...values) {
      if (as === "below" || this.canvas.classList.contains("arcs")) window.strokes[as] += 1;
      return before.apply(this, values);
    };
  };
  note(CanvasRenderingContext2D, "drawImage", "draws");
  note(CanvasRenderingContext2D, "stroke", "arcs");
  note(CanvasRenderingContext2D, "fillText", "words");
  note(OffscreenCanvasRenderingContext2D, "stroke", "below");
}"""


def _strokes(visit: Visit) -> dict[str, int]:
    """What was drawn of arcs since the last call."""
    visit.is_drawn()
    visit.page.evaluate(_FRAMES)
    counts: dict[str, int] = visit.page.evaluate("({ ...window.strokes })")
    visit.page.evaluate("window.strokes = { draws: 0, arcs: 0, below: 0, words: 0 }")
    return counts


def test_a_move_over_arcs_draws_those_of_one_token(browser: Browser, explorer: Explorer) -> None:
    """All others are below, drawn once for a head; from one token to the next no more than there are tokens."""
    count = len(LONG.split()) + 2
    with visiting(browser, explorer, f"model=tiny-text&layer=0&head=1&arcs=true&text={LONG}", **SCREEN) as visit:
        arcs = visit.find("canvas.arcs")
        expect(arcs).to_be_visible()
        arcs.hover(position={"x": 20, "y": 22 * 0.5})  # before that all arcs stood out
        visit.looks_is("What “[CLS]” attends to")
        visit.is_drawn()
        visit.page.evaluate(_STROKES)
        right = arcs.evaluate("(canvas) => canvas.clientWidth") - 20
        for at in (2, 5, 9):
            arcs.hover(position={"x": 20, "y": 22 * (at + 0.5)})
            drawn = _strokes(visit)
            assert 0 < drawn["arcs"] <= count * drawn["draws"]
            assert (drawn["below"], drawn["words"]) == (0, drawn["draws"])
        arcs.click(position={"x": 20, "y": 22 * 5.5})
        _strokes(visit)
        arcs.hover(position={"x": right, "y": 22 * 0.5})
        drawn = _strokes(visit)
        assert drawn["draws"] > 0
        assert drawn["below"] == 0
        assert drawn["arcs"] <= count * drawn["draws"]
        assert drawn["words"] <= 2 * drawn["draws"], "that which is pinned, and that which is pointed at"
        visit.choose("head-choices", 2)
        assert _strokes(visit)["below"] > 4 * count


def test_arcs_below_are_drawn_anew_where_they_change(browser: Browser, explorer: Explorer) -> None:
    """With head, scale and colours: all is as a page draws it that never drew another."""
    hashed = """async () => {
      const blob = await new Promise((done) => document.querySelector("canvas.arcs").toBlob(done));
      return Array.from(new Uint8Array(await crypto.subtle.digest("SHA-256", await blob.arrayBuffer()))).join();
    }"""

    def seen() -> str:
        expect(visit.find("canvas.arcs")).to_be_visible()
        visit.is_drawn()
        picture: str = visit.page.evaluate(hashed)
        return picture

    link = f"model=tiny-text&layer=0&head=1&query=1&arcs=true&text={TEXT}"
    with visiting(browser, explorer, link, color_scheme="light") as visit:
        pictures = [seen()]
        for change in (
            lambda: visit.choose("head-choices", 2),
            lambda: visit.page.locator("#clip").select_option("95", force=True),  # its section is closed
            lambda: visit.button("all tokens").click(),
            lambda: visit.page.emulate_media(color_scheme="dark"),
        ):
            change()
            pictures.append(seen())
            visit.page.reload()
            assert seen() == pictures[-1]
        assert len(set(pictures)) == len(pictures)


@pytest.mark.parametrize("how", ["", "&common=true", "&arcs=true&arc_heads=0.2", "&multiples=true"])
def test_a_scale_of_both_pictures_is_made_once(browser: Browser, explorer: Explorer, how: str) -> None:
    """Moves of the pointer neither join matrices nor sort their numbers; another percentile does both."""
    note = """(large) => {
      window.made = { set: 0, sort: 0 };
      for (const name of ["set", "sort"]) {
        const before = Float32Array.prototype[name];
        Float32Array.prototype[name] = function (...values) {
          if ((name === "set" ? values[0] : this).length >= large) window.made[name] += 1;
          return before.apply(this, values);
        };
      }
    }"""
    link = f"model=tiny-text&layer=0&head=1&beside=1.2&clip=90{how}&text={LONG}"
    with visiting(browser, explorer, link, **SCREEN) as visit:
        between = visit.find("canvas.arcs" if "arcs" in how else "canvas.matrix")
        expect(between).to_have_count(2)
        visit.is_drawn()
        visit.page.evaluate(note, (len(LONG.split()) + 2) ** 2)
        for at in (2, 5, 9):
            between.first.hover(position={"x": 40, "y": 60 + 10 * at})
            visit.page.evaluate(_FRAMES)
        visit.is_drawn()
        assert visit.page.evaluate("window.made") == {"set": 0, "sort": 0}
        visit.find("#scales summary").click()
        visit.page.select_option("#clip", "95")
        visit.is_drawn()
        made = visit.page.evaluate("window.made")
        assert made["sort"] > 0
        assert made["set"] > 0


def test_the_page_counts_its_frames_where_the_address_says_so(browser: Browser, explorer: Explorer) -> None:
    """And nowhere else; each that draws is a measure of the browser's."""
    with visiting(browser, explorer) as visit:
        expect(visit.page.locator("#frames")).to_be_hidden()
        visit.page.goto(f"{explorer.url}?frames#model=tiny-text&text=cats")
        expect(visit.find(".token").first).to_be_visible()
        for at in range(20):
            visit.find(".token").nth(at % 2).hover()
            visit.page.evaluate(_FRAMES)
        expect(visit.find("#frames")).to_contain_text("frames; of the last")
        assert "?frames#" in visit.page.url
        counts = "['draw', 'frame'].map((name) => performance.getEntriesByName(name).length)"
        draws, frames = visit.page.evaluate(counts)
        assert draws >= frames >= 20


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1024, 1440])
def test_the_page_fits_a_screen_and_is_used_by_keys(
    browser: Browser, explorer: Explorer, width: int, scheme: Any
) -> None:
    """A photo and a text of many tokens: nothing is wider than the screen, words can be read, keys choose."""
    with visiting(browser, explorer, viewport={"width": width, "height": 800}, color_scheme=scheme) as visit:
        visit.give(SANDAL)
        visit.title_is("fashion", "layer 3", "mean of 4 heads")
        visit.find("canvas.photo").focus()
        visit.page.keyboard.press("ArrowDown")
        visit.looks_is("What the patch in row 3, column 3 attends to")
        box = visit.find("canvas.photo").bounding_box()
        assert box is not None
        assert box["x"] + box["width"] <= width
        assert box["y"] + box["height"] <= 800
        visit.type(LONG)
        expect(visit.find(".token")).to_have_count(len(LONG.split()) + 2)
        visit.find(".token").first.focus()
        visit.page.keyboard.press("ArrowRight")
        visit.page.keyboard.press("Enter")
        expect(visit.find(".token").nth(1)).to_have_attribute("aria-pressed", "true")
        visit.is_drawn()
        assert visit.width() == (width, width)
        assert {words: ratio for words, ratio in visit.contrasts() if ratio < 4.5} == {}
