"""The command attend against the fake server: what it asks for, prints and writes."""

import json
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image

from regard import drawing, pictures
from regard.v1 import types_pb2 as pb
from tests.client import fake
from tests.client.conftest import Run
from tests.client.fake import FakeServer

SVG = "{http://www.w3.org/2000/svg}"
PHOTO_VIEWS = ["heads", "overlay", "queries", "entropy", "distance"]
TEXT_VIEWS = ["matrix", "heads", "arcs", "entropy", "distance"]


def test_attend_writes_a_picture_of_all_heads_of_a_photo(run: Run, server: FakeServer, photo: Path) -> None:
    """The class token's row of each head of the last layer, beside where you are."""
    done = run("attend", photo)
    wanted = server.requests[-1].attention
    assert (list(wanted.layers), list(wanted.heads), wanted.cls_only, wanted.head_reduction) == ([-1], [], True, 0)
    assert server.requests[-1].image == photo.read_bytes()
    assert done.err == "regard: using photos\nregard: wrote holiday-attention.png\n"
    with Image.open("holiday-attention.png") as picture:
        assert picture.width > 1000


def test_attend_takes_a_head_and_a_row(run: Run, server: FakeServer, photo: Path) -> None:
    """Then it is that head's view of that position."""
    done = run("attend", photo, "-o", "one.svg", "--layer", "3", "--head", "2", "--row", "6", "--model", "photos")
    wanted = server.requests[-1].attention
    assert (list(wanted.layers), list(wanted.heads), list(wanted.rows), wanted.cls_only) == ([3], [2], [6], False)
    assert done.code == 0
    assert "<svg" in Path("one.svg").read_text()


def test_attend_draws_a_text_in_the_terminal(run: Run, server: FakeServer) -> None:
    """The mean over heads, which the title says; no file is written."""
    done = run("attend", "cats sitting")
    title, *_, last = done.out.splitlines()
    assert title == "minilm · layer 11 · mean of 3 heads · percent of attention, rows attend to columns"
    assert last == " [SEP]  19 19 20 21 21"
    assert server.requests[-1].attention.head_reduction == 1
    assert list(Path().iterdir()) == []


def test_attend_passes_a_prompt_on(run: Run, server: FakeServer) -> None:
    """By the call that takes one, though the model classifies too."""
    run("attend", "cats sitting", "--prompt", "query")
    assert (server.requests[-1].prompt, type(server.requests[-1]).__name__) == ("query", "EmbedRequest")
    run("attend", "cats sitting", "--prompt", "query", "--model", "fashion")
    assert (server.requests[-1].prompt, type(server.requests[-1]).__name__) == ("query", "EmbedRequest")


def test_attend_saves_a_text_too_if_asked(run: Run) -> None:
    """Beside the terminal's picture."""
    done = run("attend", "cats sitting", "-o", "cats.png", "--head", "1")
    assert "minilm · layer 11 · head 1 ·" in done.out
    with Image.open("cats.png") as picture:
        assert picture.format == "PNG"


def test_attend_as_json_holds_weights_and_tokens(run: Run, photo: Path) -> None:
    """And draws nothing unless -o is given."""
    attention = json.loads(run("attend", "cats sitting", "--json").out)["attention"]
    assert [token["text"] for token in attention["tokens"]] == ["[CLS]", "cats", "sit", "##ting", "[SEP]"]
    assert sum(attention["layers"][0]["weights"][0]) == pytest.approx(1, abs=1e-5)
    assert json.loads(run("attend", photo, "--json").out)["attention"]["patches"]["box"]["left"] == 15
    assert list(Path().iterdir()) == [Path("holiday.png")]


def test_a_picture_of_an_unknown_kind_is_a_usage_error(run: Run, server: FakeServer) -> None:
    """Found before the server is asked."""
    done = run("attend", "cats", "-o", "cats.gif")
    assert done.code == 2
    assert "a picture ends in .png, .svg, .pdf" in done.err
    assert server.requests == []


def test_a_picture_that_cannot_be_written_is_one_line(run: Run) -> None:
    """Exit code 1."""
    done = run("attend", "cats", "-o", "no/such/folder.png")
    assert done.code == 1
    assert done.err.splitlines()[-1] == "regard: -o no/such/folder.png: no/such is no folder"


@pytest.mark.parametrize("view", PHOTO_VIEWS)
def test_every_view_of_a_photo_is_written(run: Run, photo: Path, view: str) -> None:
    """As a picture of its own."""
    done = run("attend", photo, "--view", view, "-o", "picture.png")
    assert (done.code, done.err.splitlines()[-1]) == (0, "regard: wrote picture.png")
    assert _kind(Path("picture.png")) == "png"


@pytest.mark.parametrize("view", TEXT_VIEWS)
def test_every_view_of_a_text_is_written(run: Run, view: str) -> None:
    """As a picture of its own."""
    done = run("attend", "cats sitting", "--view", view, "-o", "picture.svg")
    assert (done.code, done.err.splitlines()[-1]) == (0, "regard: wrote picture.svg")
    assert _kind(Path("picture.svg")) == "svg"


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf", "html"])
def test_the_suffix_says_the_format(run: Run, photo: Path, suffix: str) -> None:
    """Of a photo's and a text's picture; capitals do not matter."""
    run("attend", photo, "-o", f"photo.{suffix}")
    run("attend", "cats sitting", "-o", f"text.{suffix.upper()}")
    assert (_kind(Path(f"photo.{suffix}")), _kind(Path(f"text.{suffix.upper()}"))) == (suffix, suffix)


def test_each_head_and_layer_of_a_text_is_printed(run: Run) -> None:
    """In the order asked for."""
    done = run("attend", "cats", "--layer", "1", "--layer", "-1", "--head", "2", "--head", "0")
    titles = [line.partition(" · percent")[0] for line in done.out.splitlines() if line.startswith("minilm")]
    assert titles == [f"minilm · layer {layer} · head {head}" for layer in (1, 11) for head in (2, 0)]


def test_a_rollout_is_printed_as_what_it_is(run: Run, server: FakeServer) -> None:
    """Of all layers, with the share that was asked for."""
    done = run("attend", "cats", "--measure", "rollout", "--residual-share", "0.25")
    wanted = server.requests[-1].attention
    assert (wanted.measure, wanted.residual_share, list(wanted.layers)) == (pb.ATTENTION_MEASURE_ROLLOUT, 0.25, [])
    assert done.out.startswith("minilm · rollout over layers 0 to 11 · mean of 3 heads · percent of the rollout")


def test_what_is_no_share_is_printed_as_a_share_of_its_row(run: Run) -> None:
    """Weights times value lengths do not sum to 1."""
    title, *_, last = run("attend", "cats", "--value-weighted").out.splitlines()
    assert "percent of each row's attention weight x value length" in title
    assert abs(sum(map(int, last.split()[1:])) - 100) <= 2


def test_weights_of_mixed_heads_are_not_called_shares(
    run: Run, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the layer that mixes its heads; numbers below 0 are drawn as 0, and special tokens cannot be dropped."""
    served, weights = fake.models(), fake.weights
    for model in served:
        for layer in model.attention_layers[11:]:
            layer.mixes_heads = True
    monkeypatch.setattr(fake, "models", lambda: served)
    monkeypatch.setattr(fake, "weights", lambda queries, keys: weights(queries, keys) - np.eye(queries, keys))
    title, *_, last = run("attend", "cats").out.splitlines()
    whole = "minilm · layer 11 · mean of 3 heads · "
    assert title == f"{whole}hundredths of attention weight (below 0 as 0), rows attend to columns"
    assert last == " [SEP]  19 19 20 21  ·"
    assert " · percent of attention, rows" in run("attend", "cats", "--layer", "0").out
    title, *_, last = run("attend", "cats", "--value-weighted").out.splitlines()
    assert title.startswith(f"{whole}percent of each row's absolute attention weight x value length (below 0 as 0),")
    assert max(int(cell) for cell in last.replace("·", "0").split()[1:]) <= 100
    refused = run("attend", "cats", "--drop-special")
    words = "--drop-special: layer 11 of minilm mixes its heads, so that rows need not sum to 1"
    assert (refused.code, refused.err.splitlines()[-1]) == (1, f"regard: {words}")
    assert run("attend", "cats", "--drop-special", "--layer", "0").code == 0
    refused = run("attend", "cats", "--multiples", "-o", "cats.svg")
    words = "--multiples: layer 11 mixes its heads, so that rows need not sum to 1; expected none"
    assert (refused.code, refused.err.splitlines()[-1]) == (1, f"regard: {words}")
    assert run("attend", "cats", "--multiples", "-o", "cats.svg", "--layer", "0").code == 0


def test_the_numbers_of_a_chart_are_printed(run: Run) -> None:
    """One row a layer, one column a head; of a text nothing is written."""
    lines = run("attend", "cats", "--measure", "distance", "--layer", "0", "--layer", "11").out.splitlines()
    assert lines[0] == "minilm: attention distance"
    assert [line.split()[2:] for line in lines[-2:]] == [["0.000", "1.000", "2.000"], ["110.000", "111.000", "112.000"]]
    assert list(Path().iterdir()) == []


def test_dropped_special_tokens_have_no_row_and_no_column(run: Run, server: FakeServer) -> None:
    """What is left sums to 1 again."""
    lines = run("attend", "cats", "--drop-special").out.splitlines()
    assert (server.requests[-1].attention.drop_special, server.requests[-1].attention.renormalize) == (True, True)
    rows = [line.split() for line in lines[-3:]]
    assert [row[0] for row in rows] == ["cats", "sit", "##ting"]
    assert all(abs(sum(map(int, row[1:])) - 100) <= 2 for row in rows)


def test_options_reach_the_server(run: Run, server: FakeServer, photo: Path) -> None:
    """Reduction, value weighting, the largest keys; a photo's prefix tokens are left out by naming the patches."""
    run("attend", photo, "--reduce", "max", "--value-weighted", "--top-k", "2", "--drop-special")
    wanted = server.requests[-1].attention
    assert (wanted.head_reduction, wanted.value_weighted, wanted.top_k) == (pb.HEAD_REDUCTION_MAX, True, 2)
    assert (list(wanted.keys), wanted.renormalize, wanted.drop_special) == ([1, 2, 3, 4, 5, 6], True, False)


def test_two_layers_stand_side_by_side(run: Run) -> None:
    """Twice as wide as one."""
    run("attend", "cats", "--layer", "0", "-o", "one.png")
    run("attend", "cats", "--layer", "0", "--layer", "-1", "-o", "two.png")
    with Image.open("one.png") as one, Image.open("two.png") as two:
        assert two.width == pytest.approx(2 * one.width, abs=2)
        assert two.height == pytest.approx(one.height, abs=2)


def test_a_second_model_is_asked_the_same_and_stands_beside_the_first(
    run: Run, server: FakeServer, photo: Path
) -> None:
    """Same input, same attention; grids of a photo's heads stand below each other."""
    run("attend", photo, "--model", "photos", "-o", "one.png")
    run("attend", photo, "--model", "photos", "--compare", "fashion", "-o", "two.png")
    first, second = server.requests[-2:]
    assert (first.model, second.model) == ("photos", "fashion")
    assert (first.image, first.attention) == (second.image, second.attention)
    with Image.open("one.png") as one, Image.open("two.png") as two:
        assert two.height == pytest.approx(2 * one.height, abs=2)


def test_both_models_answers_are_printed(run: Run) -> None:
    """A text's, one after the other; as JSON a line each."""
    both = ("attend", "cats", "--model", "minilm", "--compare", "minilm")
    assert run(*both).out.count("minilm · layer 11") == 2
    assert [json.loads(line)["model"] for line in run(*both, "--json").out.splitlines()] == ["minilm", "minilm"]


def test_a_model_of_the_other_kind_is_not_compared(run: Run, photo: Path) -> None:
    """It could not take the input."""
    done = run("attend", photo, "--model", "photos", "--compare", "minilm")
    assert (done.code, done.err) == (1, "regard: --compare minilm: this model takes texts; expected one for images\n")


def test_what_the_server_refuses_is_said(run: Run, server: FakeServer) -> None:
    """In its words."""
    server.error = (grpc.StatusCode.INVALID_ARGUMENT, "attention.layers: 99; expected from -12 to 11")
    done = run("attend", "cats", "--model", "minilm", "--layer", "99")
    assert (done.code, done.out) == (1, "")
    assert done.err == "regard: INVALID_ARGUMENT: attention.layers: 99; expected from -12 to 11\n"


def test_a_view_that_does_not_fit_is_refused_before_the_server_is_asked(
    run: Run, server: FakeServer, photo: Path
) -> None:
    """With those that do."""
    done = run("attend", photo, "--view", "arcs")
    assert done.code == 1
    assert "--view arcs does not show a photo; expected heads, overlay, queries" in done.err
    assert server.requests == []


def test_more_pictures_than_fit_are_refused(run: Run) -> None:
    """Four are the most."""
    layers = [argument for layer in range(5) for argument in ("--layer", str(layer))]
    done = run("attend", "cats", *layers, "-o", "five.png")
    assert done.code == 1
    assert done.err.splitlines()[-1] == "regard: 5 pictures side by side; expected at most 4: fewer --layer"
    assert not Path("five.png").exists()


def test_print_is_white_and_as_wide_as_a_page(run: Run, photo: Path) -> None:
    """17 cm at 300 dpi."""
    run("attend", photo, "-o", "page.png", "--size", "print")
    with Image.open("page.png") as picture:
        assert picture.info["dpi"] == pytest.approx((300, 300), abs=0.1)
        assert picture.width / 300 * 2.54 == pytest.approx(17, abs=0.02)
        assert picture.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_width_dots_and_theme_can_be_set(run: Run, photo: Path) -> None:
    """Each by itself."""
    run("attend", photo, "-o", "small.png", "--width-cm", "10", "--dpi", "100", "--theme", "light")
    with Image.open("small.png") as picture:
        assert picture.width == pytest.approx(100 * 10 / 2.54, abs=1)
        assert picture.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_the_page_of_a_text_shows_it_as_text(run: Run) -> None:
    """Whatever it holds: no tag of the input becomes one of the page."""
    text = "<script>alert('cats & dogs')</script>"
    run("attend", text, "-o", "page.html")
    page = _Page(Path("page.html").read_text(encoding="utf-8"))
    assert "script" not in page.tags
    assert text in page.words
    assert {"details", "table", "picture", "img"} <= set(page.tags)


def _kind(path: Path) -> str:
    """Tell a file's format by what is in it."""
    data = path.read_bytes()
    if data.startswith(b"%PDF"):
        return "pdf"
    if data.startswith(b"<!doctype html>"):
        return "html" if _Page(data.decode()).tags.count("img") == 1 else "a page without a picture"
    if data.startswith(b"<?xml"):
        return "svg" if ET.fromstring(data).tag == f"{SVG}svg" else "xml"  # noqa: S314 -- our own file
    with Image.open(path) as picture:
        return str(picture.format).lower()


class _Page(HTMLParser):
    """The tags and texts of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_a_model_that_gives_nothing_else_shows_its_attention(
    run: Run, server: FakeServer, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A segmenter exported from an ONNX file, say: layers come one by one, and are drawn as any."""
    bare = [model for model in fake.models() if model.name == "photos"]
    for model in bare:
        model.name, model.can_classify, model.can_embed = "bare", False, False
    monkeypatch.setattr(fake, "models", lambda: bare)
    picture = tmp_path / "bare.png"
    done = run("attend", photo, "--layer", "0", "--layer", "-1", "-o", picture)
    assert done.code == 0, done.err
    assert "using bare" in done.err
    assert picture.stat().st_size > 1000


def test_a_folder_of_photos_is_drawn_as_one_sheet(run: Run, server: FakeServer, photo: Path) -> None:
    """Each is asked for by itself; the sheet is named by the folder."""
    folder = Path("holiday")
    folder.mkdir()
    for name in ("b.png", "a.png"):
        (folder / name).write_bytes(photo.read_bytes())
    (folder / "notes.txt").write_text("none of them")
    done = run("attend", folder, "--head", "0", "--head", "2", "--model", "photos")
    assert (done.code, done.err) == (0, "regard: wrote holiday-attention.png\n")
    assert [list(each.attention.heads) for each in server.requests[-2:]] == [[0, 2], [0, 2]]
    with Image.open("holiday-attention.png") as picture:
        assert picture.width > 400


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--view", "queries"], "--view queries: photos are drawn as one sheet; expected heads or overlay"),
        (["--layer", "0", "--layer", "1"], "--layer 0, 1: photos are drawn as one sheet; expected one"),
        (["--row", "3", "--row", "4"], "--row 3, 4: photos are drawn as one sheet; expected one"),
        (["--json"], "--json: many inputs are drawn as one sheet or written"),
        (["-o", "sheet.html"], "-o sheet.html: a sheet ends in .png, .svg, .pdf"),
    ],
)
def test_what_a_sheet_cannot_show_is_refused(run: Run, photo: Path, arguments: list[str], told: str) -> None:
    """Before anything is asked."""
    Path("holiday").mkdir()
    (Path("holiday") / "a.png").write_bytes(photo.read_bytes())
    done = run("attend", "holiday", *arguments)
    assert done.code == 1
    assert told in done.err


def test_a_folder_without_photos_is_refused(run: Run) -> None:
    """It is no text."""
    Path("empty").mkdir()
    assert "empty: a folder without photos or .txt files; expected" in run("attend", "empty").err


def test_scale_and_contour_are_options_of_every_picture(run: Run, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the picture's own words."""
    styles = list[pictures.Style]()

    def draw(*given: Any, style: pictures.Style, **named: Any) -> Any:
        styles.append(style)
        return pictures.overlay(*given, style=style, **named)

    monkeypatch.setitem(drawing._OF_PHOTOS, "overlay", draw)
    options = ["--scale", "log", "--clip", "90", "--multiples", "--opacity", "0.5", "--no-smooth", "--contour", "60"]
    done = run("attend", photo, "--view", "overlay", "-o", "one.svg", *options, "--model", "photos")
    assert done.code == 0
    (style,) = styles
    assert (style.opacity, style.smooth, style.contour) == (0.5, False, 0.6)
    assert style.scale == pictures.Scale("log", 90, multiples=True)
    assert "in units of 1/N" in Path("one.svg").read_text()
    assert run("attend", photo, "--clip", "0").code == 2
    assert run("attend", photo, "--contour", "120").code == 2
