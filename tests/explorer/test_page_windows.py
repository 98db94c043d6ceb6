"""A photo whose layers attend in windows, each on a grid of its own: what the explorer sends and the page shows."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from regard import AttentionRequest, AttentionWindow, Client
from regard.matrices import one_matrix
from regard.windows import PADDING, key_cells
from tests.explorer.browsing import Browser, Visit, expect, visiting
from tests.explorer.conftest import serving_models
from tests.explorer.running import SANDAL, Explorer, exploring
from tests.golden import GOLDEN_WINDOWS

MODEL = "tiny-swin"
SHOWN = 6e-4  # four digits of what travelled as float16
WINDOWS = [(10, 10, 4, 4, 2, 2), (5, 7, 3, 3, 1, 2), (3, 2, 5, 4, 0, 0), (4, 4, 4, 4, 0, 0)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server of the small Swin alone."""
    with serving_models(tmp_path_factory.mktemp("models"), GOLDEN_WINDOWS / MODEL) as address:
        yield address


@pytest.fixture(scope="module")
def swin(server: str) -> Iterator[Explorer]:
    """Its explorer."""
    with exploring(server) as running:
        yield running


def on_cells(server: str, layer: int, photo: Path = SANDAL) -> NDArray[np.float32]:
    """The mean of a layer's heads, every query and every cell, [cells, cells]."""
    with Client(server) as client:
        answer = client.classify(image=photo, model=MODEL, attention=AttentionRequest(layers=(layer,), dtype="float16"))
    assert answer.attention is not None
    return one_matrix(answer.attention.layers[0], 0).weights


def expect_top(visit: Visit, row: NDArray[np.float32], cols: int, panel: int = 0) -> None:
    """Insist that the five cells named are those with the largest weights of a row."""
    visit.is_drawn()
    shown = visit.top(panel)
    np.testing.assert_allclose([weight for _, weight in shown], np.sort(row)[::-1][:5], rtol=SHOWN, atol=1e-7)
    for name, weight in shown:
        line, column = (int(part.split()[1]) for part in name.split(", "))
        assert row[line * cols + column] == pytest.approx(weight, rel=SHOWN, abs=1e-7)


def test_a_layer_comes_with_its_window_and_grid(swin: Explorer, server: str) -> None:
    """The numbers as the server sends them; the grid over the photo, and what the network saw of it."""
    photo = swin.keep(SANDAL.read_bytes())
    head, numbers = swin.attend(model=MODEL, photo=photo, layers=[3]).attention()
    (layer,) = head["layers"]
    assert numbers[0].shape == (4, 25, 16)
    assert layer["window"] == {
        "rows": 5,
        "cols": 5,
        "height": 4,
        "width": 4,
        "shift_rows": 2,
        "shift_cols": 2,
        "cell_size": 8,
    }
    grid = layer["grid"]
    assert (grid["rows"], grid["cols"], grid["prefix_tokens"]) == (5, 5, 0)
    assert grid["box"] == grid["seen"] == head["patches"]["box"]
    (model,) = swin.ask("GET", "/api/models").json()["models"]
    assert [each["window"]["rows"] for each in model["layers"]] == [10, 10, 5, 5]


def test_a_photo_is_shown_on_the_grid_of_the_layer(browser: Browser, swin: Explorer, server: str) -> None:
    """What all patches attend to, then one under the pointer, in its shifted window."""
    weights = on_cells(server, 3)
    with visiting(browser, swin) as visit:
        visit.give(SANDAL)
        visit.title_is(MODEL, "layer 3", "mean of 4 heads")
        visit.looks_is("What all positions on average attends to")
        expect_top(visit, weights.mean(0), 5)
        assert visit.told() == "", "no class token on which something lies"
        for row, col in ((0, 0), (4, 4), (2, 1)):
            visit.find("canvas.photo").first.hover(position=visit.photo_point(row, col, 5, 5))  # type: ignore[arg-type]
            visit.looks_is(f"What the patch in row {row}, column {col} attends to")
            expect_top(visit, weights[row * 5 + col], 5)
        assert visit.asked == 1


def test_who_looks_stays_at_its_place_on_another_grid(browser: Browser, swin: Explorer, server: str) -> None:
    """Row 3, column 1 of 5 x 5 is row 6, column 2 of 10 x 10; and the other way round beside it."""
    fine, coarse = on_cells(server, 1), on_cells(server, 2)
    with visiting(browser, swin) as visit:
        visit.give(SANDAL)
        visit.choose("layers", 2)
        visit.title_is(MODEL, "layer 2", "mean of 4 heads")
        visit.find("canvas.photo").first.click(position=visit.photo_point(3, 1, 5, 5))  # type: ignore[arg-type]
        visit.looks_is("What the patch in row 3, column 1 attends to")
        visit.page.mouse.move(0, 0)
        expect(visit.find(".told")).to_have_text("Pinned. Point at a patch to read its weight.")
        visit.choose("layers", 1)
        visit.looks_is("What the patch in row 6, column 2 attends to")
        expect_top(visit, fine[62], 10)
        visit.find("#compare").click()
        visit.page.get_by_label("Layer of the second picture").select_option("2")
        visit.page.get_by_label("Head of the second picture").select_option("mean")
        expect(visit.find("#overlap")).to_contain_text("grids of their own")
        expect_top(visit, coarse[16], 5, panel=1)
        second = visit.find("canvas.photo").nth(1)
        visit.page.keyboard.press("Escape")
        second.hover(position=visit.photo_point(3, 9, 10, 10, panel=1))  # type: ignore[arg-type]
        visit.looks_is("What the patch in row 3, column 9 attends to")
        expect_top(visit, coarse[9], 5, panel=1)


def test_what_windows_do_not_have_is_not_offered(browser: Browser, swin: Explorer) -> None:
    """No rollout, and no chart of distances; the entropy's bound is that of a window."""
    with visiting(browser, swin) as visit:
        visit.give(SANDAL)
        visit.title_is(MODEL, "layer 3", "mean of 4 heads")
        expect(visit.page.locator("#measures input")).to_have_count(1)
        visit.page.locator("#charts summary").first.click()
        expect(visit.find(".plot figcaption strong")).to_have_text(["Entropy"])
        expect(visit.find("#plots .legend")).to_contain_text("ln 16: all alike")


def test_distances_are_asked_of_layers_that_cut_nothing_up(browser: Browser, swin: Explorer) -> None:
    """One window may be the whole grid, as in Swin's last stage."""
    whole = {"rows": 2, "cols": 3, "height": 2, "width": 3, "shift_rows": 0, "shift_cols": 0, "cell_size": 8}
    windows = [None, whole, whole | {"height": 1}, whole | {"width": 1}, whole | {"shift_cols": 1}]
    layers = [{"layer": number, "heads": 1, "window": window} for number, window in enumerate(windows)]
    model = {"name": "m", "version": "1", "modality": "image", "layers": layers}
    script = """async (model) => {
      const { START } = await import('/static/state.js');
      const { chartQuestion } = await import('/static/asking.js');
      return chartQuestion({ ...START, photo: 'a' }, model, 'distance');
    }"""
    with visiting(browser, swin) as visit:
        assert visit.page.evaluate(script, model)["layers"] == [0, 1]


def test_rollouts_are_offered_of_layers_of_one_grid_that_cut_nothing_up(browser: Browser, swin: Explorer) -> None:
    """Windows that are the whole grid among them."""
    whole = {"rows": 2, "cols": 3, "height": 2, "width": 3, "shift_rows": 0, "shift_cols": 0, "cell_size": 8}
    other = whole | {"rows": 1, "height": 1}
    patches = {"rows": 2, "cols": 3}
    script = """async ([windows, patches]) => {
      const { measuresOf } = await import('/static/measures.js');
      const layers = windows.map((window, layer) => ({ layer, window, has_contributions: false }));
      return measuresOf({ layers, patches, writer: null, compared_layers: [] }).includes('rollout');
    }"""
    with visiting(browser, swin) as visit:
        for windows in ([whole, whole], [None, whole], [None, None]):
            assert visit.page.evaluate(script, [windows, patches]), windows
        assert visit.page.evaluate(script, [[None, None], None]), "of a text"
        for windows in ([whole, other], [None, other], [whole, whole | {"height": 1}], [whole | {"shift_cols": 1}] * 2):
            assert not visit.page.evaluate(script, [windows, patches]), windows


def test_of_mixed_heads_nothing_is_offered_that_takes_rows_for_shares(browser: Browser, swin: Explorer) -> None:
    """Talking heads have no rollout, entropy or distance; the class token's layer no distance. Numbers have a sign."""
    script = """async (layers) => {
      const { START } = await import('/static/state.js');
      const { chartQuestion } = await import('/static/asking.js');
      const { measuresOf } = await import('/static/measures.js');
      const about = { name: 'm', version: '1', modality: 'image', writer: null, compared_layers: [] };
      const model = { ...about, patches: { rows: 2, cols: 3 }, layers };
      const charts = ['entropy', 'distance'].map((what) => chartQuestion({ ...START, photo: 'a' }, model, what));
      return [measuresOf(model), ...charts.map((question) => question && (question.layers ?? 'all'))];
    }"""
    usual = {"window": None, "has_contributions": True, "mixes_heads": False, "class_attention": False}
    mixed, of_class = usual | {"mixes_heads": True}, usual | {"class_attention": True}
    with visiting(browser, swin) as visit:
        for layers, expected in (
            ([usual, usual], [["weights", "rollout", "contribution_rollout"], "all", "all"]),
            ([mixed, usual, of_class], [["weights", "contribution_rollout"], [1, 2], [1]]),
            ([mixed, mixed], [["weights", "contribution_rollout"], None, None]),
        ):
            assert visit.page.evaluate(script, layers) == expected
        percent = "async (weight) => (await import('/static/numbers.js')).percent(weight)"
        shown = [visit.page.evaluate(percent, weight) for weight in (-0.5, -0.021, -1e-6)]
        assert shown == ["\N{MINUS SIGN}50 %", "\N{MINUS SIGN}2.1 %", "≈ 0 %"]


@pytest.mark.parametrize("sizes", WINDOWS)
def test_keys_are_the_cells_that_the_client_says(sizes: tuple[int, ...], browser: Browser, swin: Explorer) -> None:
    """For every query; and a row lies on them, padding left out."""
    names = ("rows", "cols", "height", "width", "shift_rows", "shift_cols")
    given = dict(zip(names, sizes, strict=True))
    cells = key_cells(AttentionWindow(**given, cell_size=4))
    with visiting(browser, swin) as visit:
        found = visit.page.evaluate(
            """async ([window, queries]) => {
              const { keyCells } = await import('/static/windows.js');
              return Array.from({ length: queries }, (_, query) => keyCells(window, query));
            }""",
            [given, len(cells)],
        )
        np.testing.assert_array_equal(found, cells)
        row = visit.page.evaluate(
            """async ([window, queries, keys]) => {
              const { rowOf } = await import('/static/numbers.js');
              const data = Float32Array.from({ length: queries * keys }, (_, at) => at + 1);
              return Array.from(rowOf({ shape: [1, queries, keys], half: false, data, window }, 0, queries - 1));
            }""",
            [given, *cells.shape],
        )
    expected = np.zeros(len(cells))
    for place, cell in enumerate(cells[-1]):
        if cell != PADDING:
            expected[cell] = (len(cells) - 1) * cells.shape[1] + place + 1
    np.testing.assert_array_equal(row, expected)
