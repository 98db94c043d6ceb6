"""Why a label, on the page: what each patch or token did for it, and whether that holds when it is taken away."""

import csv
import io
import json
import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from PIL import Image

from regard import Classification, Client, RelevanceRequest
from regard.reasons import headline, names, unplaced
from tests.explorer.browsing import Browser, Locator, Visit, expect, visiting
from tests.explorer.running import SANDAL, TEXT, Explorer, sandal
from tests.explorer.test_page_links import download
from tests.explorer.test_page_phone import AXE, PHONE

PAIR = {"label": "Sandal", "against": "Sneaker"}
LIKELIEST = "#labels button"


def _classified(server: str, image: bytes | None, **asked: Any) -> Classification:
    with Client(server) as client:
        given: dict[str, Any] = {"image": image, "model": "fashion"} if image else {"text": TEXT, "model": "tiny-text"}
        return client.classify(**given, top_k=10 if image else 2, relevance=RelevanceRequest(**asked))


@pytest.mark.parametrize("method", ["libra", "legrad"])
def test_relevance_is_what_the_client_gets(explorer: Explorer, real_server: str, method: Any) -> None:
    """Numbers, grid, words and the probabilities of both labels."""
    fields = {"model": "fashion", "photo": explorer.keep(sandal()), **PAIR, "method": method}
    answer = explorer.ask("POST", "/api/explain", fields)
    assert answer.status == 200, answer.body
    told = answer.json()
    wanted = _classified(real_server, sandal(), method=method, **PAIR)
    why = wanted.relevance
    assert why is not None and why.patches is not None
    np.testing.assert_allclose(told["values"], why.values, rtol=1e-6)
    assert told["positions"] == list(range(50))
    assert (told["label"], told["against"], told["method"]) == ("Sandal", "Sneaker", method)
    assert told["score"] == pytest.approx(why.score, rel=1e-6)
    assert (told["relative_error"] is None) == (method == "legrad")
    assert (told["headline"], told["unplaced"], told["names"]) == (headline(why), unplaced(why), names(why))
    assert (told["patches"]["rows"], told["patches"]["prefix_tokens"], told["tokens"]) == (7, 1, None)
    likely = {label.name: label.probability for label in wanted.labels}
    assert told["probabilities"] == pytest.approx([likely["Sandal"], likely["Sneaker"]], rel=1e-5)


def test_relevance_of_a_text_comes_with_its_tokens(explorer: Explorer, real_server: str) -> None:
    """By the model's usual method, of the likeliest label, where none is named."""
    told = explorer.ask("POST", "/api/explain", {"model": "tiny-text", "text": TEXT}).json()
    why = _classified(real_server, None).relevance
    assert why is not None and why.tokens is not None
    np.testing.assert_allclose(told["values"], why.values, rtol=1e-6)
    assert [token["text"] for token in told["tokens"]] == [token.text for token in why.tokens]
    assert (told["label"], told["against"], told["method"]) == (why.label, "", "libra")
    assert told["probabilities"][1] is None


@pytest.mark.parametrize(
    ("fields", "status", "message"),
    [
        ({"text": "a", "model": "minilm"}, 409, "model: 'minilm' has no relevance"),
        ({"text": "a", "photo": "b", "model": "photos"}, 400, "photo, text: "),
        ({"photo": "a", "model": "photos"}, 410, "the explorer no longer holds this photo"),
        ({"photo": "a", "second": "b"}, 400, "second: 'b'"),
        ({"text": "a", "model": "photos", "method": "legrad"}, 400, "method: 'legrad'; expected one of libra, genatt"),
        ({"text": "a", "label": 3}, 400, "label: 3"),
        ({"text": "a", "labels": "b"}, 400, "labels: 'b'"),
    ],
)
def test_what_cannot_be_explained_is_refused(
    before_fake: Explorer, fields: dict[str, Any], status: int, message: str
) -> None:
    """By name."""
    answer = before_fake.ask("POST", "/api/explain", fields)
    assert (answer.status, answer.json()["message"][: len(message)]) == (status, message)


def test_an_unknown_label_is_refused_in_the_servers_words(explorer: Explorer) -> None:
    """As any client hears them."""
    answer = explorer.ask("POST", "/api/explain", {"model": "tiny-text", "text": TEXT, "label": "teapot"})
    assert answer.status == 400
    assert "teapot" in answer.json()["message"]


def test_models_say_how_they_explain(explorer: Explorer, before_fake: Explorer) -> None:
    """Their usual method first; none where they do not."""
    fashion, tiny = explorer.ask("GET", "/api/models").json()["models"]
    assert fashion["relevance_methods"][0] == tiny["relevance_methods"][0] == "libra"
    assert {"genatt", "legrad", "integrated-gradients"} < set(fashion["relevance_methods"])
    listed = {model["name"]: model for model in before_fake.ask("GET", "/api/models").json()["models"]}
    assert listed["minilm"]["relevance_methods"] == []


# From here on it is counted what is painted by numbers or by a table of colours, and what of tokens is written anew.
_WATCH = """() => {
  let count = 0;
  const { putImageData } = OffscreenCanvasRenderingContext2D.prototype;
  OffscreenCanvasRenderingContext2D.prototype.putImageData = function (...values) {
    count += 1;
    return putImageData.apply(this, values);
  };
  const watcher = new MutationObserver((changes) => {
    count += changes.length;
  });
  const [tokens] = document.querySelectorAll("#why .tokens");
  if (tokens) watcher.observe(tokens, { subtree: true, childList: true, attributeFilter: ["style", "title"] });
  window.painted = () => count;
}"""

# Red and blue of the scale from left to right.
_STRIP = """() => {
  const strip = document.querySelector("#why .strip");
  const copy = new OffscreenCanvas(strip.width, 1).getContext("2d");
  copy.drawImage(strip, 0, -1);
  const { data } = copy.getImageData(0, 0, strip.width, 1);
  return Array.from({ length: strip.width }, (_, at) => [data[4 * at], data[4 * at + 2]]);
}"""
# How many pixels of the picture are white.
_WHITE = """() => {
  const canvas = document.querySelector("canvas.why-photo");
  const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d");
  copy.drawImage(canvas, 0, 0);
  const { data } = copy.getImageData(0, 0, canvas.width, canvas.height);
  let count = 0;
  for (let at = 0; at < data.length; at += 4) count += data[at] > 240 && data[at + 1] > 240 && data[at + 2] > 240;
  return count;
}"""


def _label(visit: Visit, name: str) -> Locator:
    """The button of a label; samples may have the same name."""
    return visit.page.locator(f"#labels button[value='{name}']")


def _fields(visit: Visit) -> dict[str, str]:
    """What the link says."""
    return {name: values[0] for name, values in parse_qs(urlsplit(visit.page.url).fragment).items()}


def _patch(visit: Visit, row: int, col: int) -> Any:
    """Where a patch lies on the picture of why, once nothing moves that any more."""
    canvas = visit.find("canvas.why-photo")
    canvas.hover(trial=True)
    box = canvas.bounding_box()
    assert box is not None
    return {"x": (col + 0.5) * box["width"] / 7, "y": (row + 0.5) * box["height"] / 7}


def _colour(visit: Visit, row: int, col: int) -> list[int]:
    """The colour at the middle of a patch."""
    found: list[int] = visit.page.evaluate(
        """([row, col]) => { const canvas = document.querySelector("canvas.why-photo");
          const side = canvas.width / 7, one = new OffscreenCanvas(1, 1).getContext("2d");
          one.drawImage(canvas, (col + 0.5) * side, (row + 0.5) * side, 1, 1, 0, 0, 1, 1);
          return [...one.getImageData(0, 0, 1, 1).data]; }""",
        [row, col],
    )
    return found


def test_labels_are_clicked_and_the_photo_says_why(browser: Browser, explorer: Explorer, real_server: str) -> None:
    """The first is explained, a second is what it is told apart from; the link holds both, and each lets go."""
    one, two = (_classified(real_server, sandal(), **asked).relevance for asked in ({"label": "Sandal"}, PAIR))
    assert one is not None and two is not None
    with visiting(browser, explorer) as visit:
        visit.give(SANDAL)
        expect(visit.find("#why-hint")).to_be_visible()
        expect(visit.page.locator("#why")).to_be_hidden()
        _label(visit, "Sandal").click()
        expect(visit.find("#why-title")).to_have_text(f"W{headline(one)[1:]}")
        expect(_label(visit, "Sandal")).to_have_attribute("aria-pressed", "true")
        expect(_label(visit, "Sandal")).to_be_focused()
        assert _fields(visit)["why"] == "Sandal" and "against" not in _fields(visit)
        _label(visit, "Sneaker").click()
        expect(visit.find("#why-title")).to_have_text(f"W{headline(two)[1:]}")
        expect(visit.find(".unplaced")).to_have_text(f"Without a place here: {unplaced(two)}")
        most = float(np.abs(two.values[1:]).max())
        ticks = visit.find("#why .scale span").all_inner_texts()
        assert [float(tick) for tick in ticks] == pytest.approx([-most, 0, most], rel=5e-3)
        link = visit.page.url
        assert (_fields(visit)["why"], _fields(visit)["against"]) == ("Sandal", "Sneaker")
        _label(visit, "Sandal").click()
        expect(visit.find("#why-title")).to_contain_text("Why Sneaker · ")
        _label(visit, "Sneaker").click()
        expect(visit.page.locator("#why")).to_be_hidden()
        assert "why" not in _fields(visit)
    with visiting(browser, explorer, urlsplit(link).fragment) as visit:
        expect(visit.find("#why-title")).to_have_text(f"W{headline(two)[1:]}")
        visit.button("Close").click()
        expect(visit.page.locator("#why")).to_be_hidden()


def test_what_spoke_for_is_orange_and_what_spoke_against_is_blue(
    browser: Browser, explorer: Explorer, real_server: str
) -> None:
    """Pointing at a patch tells its number; the strongest are listed with their signs."""
    why = _classified(real_server, sandal(), **PAIR).relevance
    assert why is not None
    on_grid = why.values[1:].reshape(7, 7)
    link = f"photo={explorer.keep(sandal())}&model=fashion&why=Sandal&against=Sneaker&rough=true"
    with visiting(browser, explorer, link) as visit:
        expect(visit.find("#why .top li")).to_have_count(5)
        listed = visit.find("#why .top .value").evaluate_all("all => all.map((one) => Number(one.title))")
        assert listed == pytest.approx(sorted(map(float, why.values), key=lambda each: -abs(each))[:5], rel=1e-6)
        for strongest, is_for in ((on_grid.argmax(), True), (on_grid.argmin(), False)):
            row, col = divmod(int(strongest), 7)
            red, _, blue, _ = _colour(visit, row, col)
            assert (red > blue + 40) if is_for else (blue > red + 40)
            visit.find("canvas.why-photo").hover(position=_patch(visit, row, col))
            told = visit.find("#why .told")
            expect(told).to_contain_text(f"row {row}, column {col}: {'+' if is_for else '-'}")
            expect(told).to_contain_text("for Sandal" if is_for else "for Sneaker")
            number = float(told.inner_text().split(": ")[1].split(",")[0])
            assert number == pytest.approx(float(on_grid[row, col]), rel=5e-3)
        before = _colour(visit, *divmod(int(on_grid.argmax()), 7))
        visit.page.get_by_text("Scale", exact=True).click()
        visit.page.locator("#opacity").fill("10")
        visit.is_drawn()
        assert _colour(visit, *divmod(int(on_grid.argmax()), 7)) != before


@pytest.mark.parametrize("what", ["photo", "text"])
def test_pointing_paints_nothing_that_stays(browser: Browser, explorer: Explorer, what: str) -> None:
    """Neither the map, nor the scale, nor the grounds and numbers of tokens; the list of the strongest points, too."""
    with visiting(browser, explorer) as visit:
        if what == "photo":
            visit.give(SANDAL)
        else:
            visit.type(TEXT)
        visit.find(LIKELIEST).first.click()
        expect(visit.find("#why .top li").first).to_be_visible()
        visit.is_drawn()
        visit.page.evaluate(_WATCH)
        for entry in visit.find("#why .top li").all()[:3]:
            entry.focus()
            expect(entry).to_have_class("pointed")
        assert visit.page.evaluate("window.painted()") == 0


def test_the_method_is_one_of_the_models(browser: Browser, explorer: Explorer) -> None:
    """The menu has them all; the headline says whether they add up."""
    with visiting(browser, explorer, f"photo={explorer.keep(sandal())}&model=fashion&why=Sandal") as visit:
        expect(visit.find("#why-title")).to_contain_text("adds up within")
        methods = visit.page.locator("#why-method option").evaluate_all("all => all.map((one) => one.value)")
        assert methods == ["libra", "gradient", "integrated-gradients", "genatt", "legrad"]
        visit.page.select_option("#why-method", "genatt")
        expect(visit.find("#why-title")).to_contain_text("genatt makes up no score")
        expect(visit.find("#why .scale p")).to_have_text("genatt")
        assert _fields(visit)["method"] == "genatt"
        visit.find("canvas.why-photo").click(position=_patch(visit, 3, 3))
        visit.button("Cover and compare").click()
        expect(visit.find(".claimed")).to_contain_text("% of all it gives; it makes up no score")


def test_covering_patches_checks_the_claim(browser: Browser, explorer: Explorer, real_server: str) -> None:
    """Both patches are covered, and no other; the sum of their relevance stands beside what the score really lost."""
    why = _classified(real_server, sandal(), **PAIR).relevance
    assert why is not None
    claimed = float(why.values[1 + 3 * 7 + 3] + why.values[1 + 4 * 7 + 3])
    link = f"photo={explorer.keep(sandal())}&model=fashion&why=Sandal&against=Sneaker"
    with visiting(browser, explorer, link) as visit:
        asked = list[dict[str, Any]]()
        visit.page.on(
            "request",
            lambda sent: asked.append(json.loads(sent.post_data or "")) if sent.url.endswith("explain") else None,
        )
        expect(visit.find("canvas.why-photo")).to_be_visible()
        expect(visit.page.locator("#why-mask")).to_be_hidden()
        for row, col in ((3, 3), (2, 2), (4, 3), (2, 2)):  # one is let go again
            visit.find("canvas.why-photo").click(position=_patch(visit, row, col))
        expect(visit.find("#why-picked")).to_have_text("row 3, column 3; row 4, column 3")
        visit.button("Cover and compare").click()
        expect(visit.find("#why-changed li")).to_have_count(4)
        expect(visit.find("#why-changed")).to_contain_text("Without row 3, column 3; row 4, column 3:")
        photo, other = (explorer.ask("GET", f"/api/photos/{one['photo']}").body for one in asked[-2:])
        pixels, covered = (explorer.pixels(one["photo"]) for one in asked[-2:])
        rows, columns = np.nonzero((pixels != covered).any(-1))
        assert (rows.min() // 4, rows.max() // 4, columns.min() // 4, columns.max() // 4) == (3, 4, 3, 3)
        before, after = (_classified(real_server, image, **PAIR) for image in (photo, other))
        assert before.relevance and after.relevance
        assert before.relevance.score == pytest.approx(why.score, rel=1e-3)  # a small photo is not enlarged
        found = visit.find(".claimed").inner_text()
        assert float(found.removeprefix("claimed by Libra: ").split()[0]) == pytest.approx(claimed, rel=5e-3)
        really = visit.find(".really").inner_text()
        lost = float(really.removeprefix("really: ").split(",")[0])
        assert lost == pytest.approx(before.relevance.score - after.relevance.score, rel=5e-3, abs=1e-4)
        now = {label.name: label.probability for label in after.labels}
        shown = visit.find("#why-changed li").nth(2).inner_text()
        assert shown.startswith("Sandal: ")
        assert float(shown.split("→ ")[1].removesuffix(" %")) == pytest.approx(100 * now["Sandal"], abs=0.6)
        visit.find("canvas.why-photo").click(position=_patch(visit, 0, 0))
        expect(visit.page.locator("#why-changed")).to_be_empty()


def test_tokens_say_why_and_are_left_out(browser: Browser, explorer: Explorer, real_server: str) -> None:
    """Each on its ground, with its number; a special one stands in no text and cannot be left out."""
    why = _classified(real_server, None).relevance
    assert why is not None
    with visiting(browser, explorer) as visit:
        visit.type(TEXT)
        _label(visit, why.label).click()
        tokens = visit.find("#why .token")
        expect(tokens).to_have_count(len(why.values))
        shown = tokens.evaluate_all("all => all.map((one) => Number(one.title))")
        assert shown == pytest.approx(why.values.tolist(), rel=1e-6)
        grounds = tokens.evaluate_all("all => all.map((one) => one.style.backgroundColor.match(/\\d+/g).map(Number))")
        most, least = grounds[int(why.values.argmax())], grounds[int(why.values.argmin())]
        assert most[0] > most[2] and least[2] > least[0]
        tokens.first.click()
        expect(visit.page.locator("#why-mask")).to_be_hidden()
        tokens.filter(has_text="good").click()
        with visit.page.expect_request("**/api/explain") as sent:
            visit.button("Leave out and compare").click()
        assert json.loads(sent.value.post_data or "")["text"] == TEXT.replace("good", "")
        expect(visit.find("#why-changed")).to_contain_text("Without “good”:")
        claimed = float(visit.find(".claimed").inner_text().removeprefix("claimed by Libra: ").split()[0])
        places = [place for place, token in enumerate(why.tokens or ()) if token.text == "good"]
        assert claimed == pytest.approx(float(why.values[places[0]]), rel=5e-3)
        visit.page.get_by_text("reading view").click()
        expect(visit.find("#why .reading-view")).to_be_visible()


def test_it_goes_by_keyboard(browser: Browser, explorer: Explorer) -> None:
    """Arrows move and are spoken, Enter picks, Escape lets go; so do tokens."""
    with visiting(browser, explorer, f"photo={explorer.keep(sandal())}&model=fashion&why=Sandal") as visit:
        visit.find("canvas.why-photo").focus()
        visit.page.keyboard.press("ArrowRight")
        expect(visit.page.locator("#why-spoken")).to_contain_text("row 3, column 3: ")
        visit.page.keyboard.press("ArrowDown")
        expect(visit.page.locator("#why-spoken")).to_contain_text("row 4, column 3: ")
        visit.page.keyboard.press("Enter")
        expect(visit.find("#why-picked")).to_have_text("row 4, column 3")
        visit.page.keyboard.press("Escape")
        expect(visit.page.locator("#why-mask")).to_be_hidden()
        expect(visit.find("#why-picked")).to_contain_text("Click patches")
        visit.type(TEXT)
        visit.find(LIKELIEST).first.focus()
        visit.page.keyboard.press("Enter")
        visit.find("#why .token").first.focus()
        visit.page.keyboard.press("ArrowRight")
        expect(visit.find("#why .token").nth(1)).to_be_focused()
        visit.page.keyboard.press("Enter")
        expect(visit.find("#why .token").nth(1)).to_have_attribute("aria-pressed", "true")


@pytest.mark.parametrize("what", ["photo", "text"])
def test_it_is_taken_away(browser: Browser, explorer: Explorer, real_server: str, what: str) -> None:
    """The picture with its title and scale, and the numbers as they came; only while something is explained."""
    image, method = (sandal(), "gradient") if what == "photo" else (None, "libra")
    shown = f"photo={explorer.keep(sandal())}&model=fashion" if image else f"model=tiny-text&text={TEXT}"
    with visiting(browser, explorer, shown) as visit:
        visit.find("#download summary").click()
        expect(visit.page.locator("#download-why")).to_be_hidden()
        visit.find("#download summary").click()
        visit.find(LIKELIEST).first.click()
        visit.page.select_option("#why-method", method)
        expect(visit.find("#why-title")).to_contain_text("no score" if image else "adds up")
        _, described = download(visit, "Why (JSON)")
        name, table = download(visit, "Why (CSV)")
        _, content = download(visit, "Why (PNG)")
        visit.button("Close").click()
        visit.find("#download summary").click()
        expect(visit.page.locator("#download-why")).to_be_hidden()
    told = json.loads(described)
    why = _classified(real_server, image, method=method).relevance
    assert why is not None
    model = "fashion" if image else "tiny-text"
    assert (told["model"], told["label"], told["method"]) == (model, why.label, method)
    assert re.sub(r"[^\w.-]+", "_", f"{told['model']}-why-{why.label}-{method}.csv") == name
    rows = list(csv.DictReader(io.StringIO(table.decode())))
    np.testing.assert_allclose([float(row["relevance"]) for row in rows], why.values, rtol=1e-6)
    if why.tokens:
        assert [row["token"] for row in rows] == [token.text for token in why.tokens]
    else:
        assert [(row["row"], row["column"]) for row in rows[:2]] == [("", ""), ("0", "0")]
    with Image.open(io.BytesIO(content)) as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3).astype(int)
    assert ((pixels[:, 0] > pixels[:, 2] + 60).sum(), (pixels[:, 2] > pixels[:, 0] + 60).sum()) > (300, 300)


def test_a_method_that_is_never_below_0_has_a_scale_from_0(
    browser: Browser, explorer: Explorer, real_server: str
) -> None:
    """Its numbers have no sign, and the strip no blue."""
    why = _classified(real_server, sandal(), label="Sandal", method="legrad").relevance
    assert why is not None
    link = f"photo={explorer.keep(sandal())}&model=fashion&why=Sandal&method=legrad"
    with visiting(browser, explorer, link) as visit:
        expect(visit.find("#why .scale p")).to_have_text("legrad")
        most = float(why.values[1:].max())
        ticks = visit.find("#why .scale span").all_inner_texts()
        assert [float(tick) for tick in ticks] == pytest.approx([0, most / 2, most], rel=5e-3)
        signs = [*ticks, *visit.find("#why .top .value").all_inner_texts()]
        assert not any("+" in each for each in signs)
        strip = visit.page.evaluate(_STRIP)
        assert all(red >= blue for red, blue in strip) and strip[-1][0] > strip[-1][1] + 40
        visit.page.select_option("#why-method", "libra")
        expect(visit.find("#why .scale p")).to_have_text("against · logits · for")
        strip = visit.page.evaluate(_STRIP)
        assert strip[0][1] > strip[0][0] + 40 and strip[-1][0] > strip[-1][1] + 40


def test_the_scale_ends_where_it_is_set(browser: Browser, explorer: Explorer, real_server: str) -> None:
    """At a percentile of the numbers without signs; what lies beyond is told. The line is around what spoke for it."""
    why = _classified(real_server, sandal(), label="Sandal").relevance
    assert why is not None
    sizes = np.abs(why.values[1:])
    with visiting(browser, explorer, f"photo={explorer.keep(sandal())}&model=fashion&why=Sandal&clip=90") as visit:
        end = float(np.percentile(sizes, 90))
        expect(visit.find("#why .scale p")).to_contain_text(f"at the 90th percentile; the largest is {sizes.max():.3g}")
        ticks = visit.find("#why .scale span").all_inner_texts()
        assert (ticks[0][0], ticks[2][-1]) == ("◂", "▸")
        assert float(ticks[2].split()[0]) == pytest.approx(end, rel=5e-3)
        before = visit.page.evaluate(_WHITE)
        visit.page.get_by_text("line around 60 %").click()
        visit.is_drawn()
        assert visit.page.evaluate(_WHITE) > before + 20


def test_another_model_has_other_labels(browser: Browser, explorer: Explorer) -> None:
    """What was explained of one is not asked of another."""
    with visiting(browser, explorer, f"photo={explorer.keep(sandal())}&model=fashion&why=Sandal") as visit:
        expect(visit.find("#why-title")).to_contain_text("Why Sandal")
        visit.type(TEXT)
        expect(visit.find("canvas.matrix")).to_be_visible()
        expect(visit.page.locator("#why")).to_be_hidden()
        assert "why" not in _fields(visit)


def test_a_model_without_relevance_has_labels_that_are_no_buttons(browser: Browser, before_fake: Explorer) -> None:
    """And a link that asks why shows its attention all the same."""
    photo = before_fake.keep(sandal())
    with visiting(browser, before_fake, f"photo={photo}&model=fashion&why=cat") as visit:
        expect(visit.find("#labels li").first).to_be_visible()
        expect(visit.page.locator(LIKELIEST)).to_have_count(0)
        expect(visit.page.locator("#why-hint")).to_be_hidden()
        expect(visit.page.locator("#why")).to_be_hidden()


def test_it_is_asked_again_by_itself(browser: Browser, explorer: Explorer) -> None:
    """Where nobody answers, and with the photo once more where the explorer has forgotten it."""
    gone = {"code": "PHOTO_GONE", "message": "the explorer no longer holds this photo"}
    with visiting(browser, explorer, refusals=True) as visit:
        visit.give(SANDAL)
        visit.page.route("**/api/explain", lambda route: route.abort())
        _label(visit, "Sandal").click()
        expect(visit.find("#why-status")).to_contain_text("EXPLORER_GONE")
        visit.page.unroute("**/api/explain")
        expect(visit.find("#why-title")).to_contain_text("Why Sandal")
        visit.page.route("**/api/explain", lambda route: route.fulfill(status=410, json=gone), times=1)
        with visit.page.expect_request("**/api/photos"):
            _label(visit, "Sneaker").click()
        expect(visit.find("#why-title")).to_contain_text("Why Sandal against Sneaker")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", ["desktop", "phone"])
@pytest.mark.parametrize("what", ["photo", "text"])
def test_everybody_can_read_it(browser: Browser, explorer: Explorer, scheme: Any, screen: str, what: str) -> None:
    """Names, contrast, width, beside attention where there is room; and axe-core, where it is installed."""
    sized = PHONE if screen == "phone" else {"viewport": {"width": 1440, "height": 900}}
    with visiting(browser, explorer, color_scheme=scheme, **sized) as visit:
        if what == "photo":
            visit.give(SANDAL)
        else:
            visit.type(TEXT)
        visit.find(LIKELIEST).nth(0).click()
        visit.find(LIKELIEST).nth(1).click()
        expect(visit.find("#why-title")).to_contain_text("against")
        place = visit.find("canvas.why-photo" if what == "photo" else "#why .token").nth(0 if what == "photo" else 1)
        place.click()
        visit.find("#why-mask").click()
        expect(visit.find(".really")).to_be_visible()
        visit.is_drawn()
        width, available = visit.width()
        assert width <= available
        first, why = visit.find(".panel").bounding_box(), visit.find("#why").bounding_box()
        assert first and why
        assert (why["x"] > first["x"] + first["width"]) == (screen == "desktop")
        assert [one for one in visit.contrasts() if one[1] < 4.5] == []
        assert visit.nameless() == []
        if AXE.is_file():
            visit.page.evaluate(AXE.read_text())
            found = visit.page.evaluate("axe.run()")
            assert {rule["id"]: [node["html"][:200] for node in rule["nodes"]] for rule in found["violations"]} == {}
