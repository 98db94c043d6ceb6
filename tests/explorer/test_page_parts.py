"""The page's modules without a page around them: numbers, links, places, photos, called in a real browser."""

import base64
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.client.fake import serving
from tests.explorer.browsing import Browser, Visit, visiting
from tests.explorer.running import exploring

# How a picture is stored so that its EXIF orientation stands it up.
UNDO = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.fixture(scope="module")
def visit(browser: Browser) -> Iterator[Visit]:
    """A page whose modules can be called."""
    with serving() as fake, exploring(fake.address) as explorer, visiting(browser, explorer) as opened:
        yield opened


def call(visit: Visit, module: str, function: str, *arguments: Any) -> Any:
    """Call an exported function of a module with values that JSON has."""
    script = "async ([module, name, values]) => (await import(module))[name](...values)"
    return visit.page.evaluate(script, [f"/static/{module}.js", function, list(arguments)])


def test_every_float16_is_read_as_numpy_reads_it(visit: Visit) -> None:
    """All 65,536 of them: subnormal, infinite and not a number among them."""
    read = visit.page.evaluate(
        "async () => (await import('/static/numbers.js')).halfTable().reduce((text, x) => text + x + ' ', '')"
    )
    expected = np.arange(65536, dtype=np.uint16).view(np.float16).astype(np.float32)
    np.testing.assert_array_equal(np.array([float(word) for word in read.split()], np.float32), expected)


def test_rows_are_reduced_over_heads_weight_by_weight(visit: Visit) -> None:
    """And averaged over the queries after that, as the server's reductions are."""
    weights = np.random.default_rng(0).random((3, 4, 5)).astype(np.float16)
    made = """async ([bits, head, query]) => {
      const { look } = await import('/static/numbers.js');
      const layer = { shape: [3, 4, 5], half: true, data: Uint16Array.from(bits) };
      return Array.from(look(layer, head, query));
    }"""
    bits, exact = weights.view(np.uint16).ravel().tolist(), weights.astype(np.float32)
    for head, reduced in (("mean", exact.mean(0)), ("max", exact.max(0)), ("min", exact.min(0)), (2, exact[2])):
        np.testing.assert_allclose(visit.page.evaluate(made, [bits, head, 1]), reduced[1], rtol=1e-6)
        np.testing.assert_allclose(visit.page.evaluate(made, [bits, head, "all"]), reduced.mean(0), rtol=1e-6)


@pytest.mark.parametrize(
    ("weight", "words"),
    [(0, "0.00 %"), (1, "100 %"), (0.123, "12 %"), (0.0123, "1.2 %"), (0.00123, "0.12 %"), (1e-6, "< 0.01 %")],
)
def test_a_weight_is_said_in_percent(visit: Visit, weight: float, words: str) -> None:
    """With two digits that count, down to a hundredth."""
    assert call(visit, "numbers", "percent", weight) == words


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"model": "m", "version": "2", "photo": "0a" * 32, "layer": 3, "head": 1, "query": 17},
        {"input": "text", "text": "a & b = c # d %20 ünï\n+", "truncate": True, "query": "all", "head": "max"},
        {"input": "text", "text": "x", "measure": "rollout", "other": {"layer": 0, "head": "min"}, "charts": True},
        {"input": "text", "text": "x", "other": {"text": "y & z", "query": 4}, "query": 3, "arcs": True},
        {"photo": "0a" * 32, "other": {"photo": "1b" * 32, "head": 0, "model": "m", "version": "7"}},
        {"input": "text", "text": "x", "other": {"layer": 2, "model": "m"}, "arcs": True, "arc_heads": [0, 11]},
    ],
)
def test_a_link_names_the_whole_state(visit: Visit, changes: dict[str, Any]) -> None:
    """What is written into the address is what is read from it."""
    script = """async (changes) => {
      const { FOLLOWING, START, toFragment, fromFragment } = await import('/static/state.js');
      const state = { ...START, ...changes, other: changes.other ? { ...FOLLOWING, ...changes.other } : null };
      return [state, fromFragment('#' + toFragment(state))];
    }"""
    written, read = visit.page.evaluate(script, changes)
    assert read == written


@pytest.mark.parametrize(
    "fragment", ["layer=-1&query=x&head=hull&beside=a.b&photo=../etc&measure=none", "%%%", "layer=1e9"]
)
def test_a_link_that_names_nonsense_is_as_the_start(visit: Visit, fragment: str) -> None:
    """Nothing of it reaches the server."""
    script = "async (f) => { const s = await import('/static/state.js'); return [s.fromFragment(f), s.START]; }"
    read, start = visit.page.evaluate(script, fragment)
    assert read == start


@pytest.mark.parametrize(
    ("most", "step", "top"), [(1, 0.2, 1), (7.2, 2, 8), (285, 100, 300), (0, 0.2, 1), (0.033, 0.01, 0.04)]
)
def test_an_axis_has_round_numbers(visit: Visit, most: float, step: float, top: float) -> None:
    """Its end is not far above the largest value."""
    found = call(visit, "charts", "niceTop", most)
    assert (found["step"], found["most"]) == (pytest.approx(step), pytest.approx(top))


def test_a_point_belongs_to_the_patch_whose_rectangle_it_is_in(visit: Visit) -> None:
    """Outside of what the network saw there is none."""
    box = {"left": 15, "top": 0, "right": 75, "bottom": 40}
    sizes = {"prefix_tokens": 5, "rows": 2, "cols": 3, "image_width": 90, "image_height": 40}
    patches: dict[str, Any] = {**sizes, "box": box}
    for position in range(5, 11):
        rect = call(visit, "places", "rectOf", patches, position)
        x, y = rect["x"] + rect["width"] / 2, rect["y"] + rect["height"] / 2
        assert call(visit, "places", "patchAt", patches, x, y) == position
    assert call(visit, "places", "patchAt", patches, 14.9, 20) is None
    assert call(visit, "places", "patchAt", patches, 30, 40) is None
    padded = {**patches, "box": {**box, "bottom": 80}}
    assert call(visit, "places", "patchAt", padded, 30, 39) == 5
    assert call(visit, "places", "patchAt", padded, 30, 41) is None


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_turned_as_the_server_turns_it(visit: Visit, file_format: str, orientation: int) -> None:
    """Also where this browser does not do so by itself."""
    script = """async ([data, orientation, type]) => {
      const { openPhoto } = await import('/static/upright.js');
      const blob = new Blob([Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0))], { type });
      const picture = await openPhoto(blob, { orientation, type });
      const shown = picture.getContext('2d').getImageData(0, 0, picture.width, picture.height).data;
      const at = (x, y) => shown[4 * (y * picture.width + x)];
      return [picture.width, picture.height, at(8, 4), at(72, 4), at(8, 36), at(72, 36)];
    }"""
    kind = f"image/{file_format.lower()}"
    photo = base64.b64encode(white_corner(file_format, orientation)).decode()
    width, height, *corners = visit.page.evaluate(script, [photo, orientation, kind])
    assert (width, height) == (80, 40)
    assert corners[0] > 200
    assert max(corners[1:]) < 60


def white_corner(file_format: str, orientation: int) -> bytes:
    """A photo 80 x 40 whose upper left quarter is white, stored turned as an EXIF orientation says."""
    upright = Image.new("RGB", (80, 40))
    upright.paste((255, 255, 255), (0, 0, 40, 20))
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    stored = upright.transpose(UNDO[orientation]) if orientation in UNDO else upright
    stored.save(file, file_format, exif=exif)
    return file.getvalue()
