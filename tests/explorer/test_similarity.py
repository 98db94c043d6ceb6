"""Similarity of positions: cosines of the vectors that leave a layer, beside what that layer attends to."""

import numpy as np
import pytest
from numpy.typing import NDArray

from regard import Client, HiddenStatesRequest
from tests.explorer.browsing import Browser, expect, visiting
from tests.explorer.running import SANDAL, TEXT, Explorer, sandal

LAYER = 2


@pytest.fixture(scope="module")
def cosines(real_server: str) -> NDArray[np.float32]:
    """Of the sandal's positions, [50, 50]."""
    with Client(real_server) as client:
        states = client.embed(
            image=SANDAL, model="fashion", hidden_states=HiddenStatesRequest(layers=(LAYER + 1,))
        ).hidden_states
    assert states is not None
    vectors = states.layers[0].values
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors @ vectors.T, dtype=np.float32)


def test_the_explorer_compares_all_positions(explorer: Explorer, cosines: NDArray[np.float32]) -> None:
    """With the labels that a model has, and where patches lie."""
    answer = explorer.attend(model="fashion", photo=explorer.keep(sandal()), measure="similarity", layers=[LAYER])
    head, (rows,) = answer.attention()
    assert (head["layers"][0]["layer"], head["layers"][0]["axes"]) == (LAYER, ["query", "key"])
    assert head["patches"]["rows"] == 7
    assert head["labels"][0]["name"] == "Sandal"
    np.testing.assert_allclose(rows, cosines, atol=1e-3)


def test_tokens_are_compared_too(explorer: Explorer) -> None:
    """Each with itself is 1."""
    head, (rows,) = explorer.attend(model="tiny-text", text=TEXT, measure="similarity", layers=[0]).attention()
    assert len(head["tokens"]) == len(rows)
    np.testing.assert_allclose(np.diag(rows), 1, atol=1e-3)


@pytest.mark.parametrize("layers", [[], [0, 1], [-1]])
def test_one_layer_is_compared_at_a_time(explorer: Explorer, layers: list[int]) -> None:
    """Another number of them is refused by name."""
    answer = explorer.attend(model="tiny-text", text=TEXT, measure="similarity", layers=layers)
    assert answer.status == 400
    assert answer.json()["message"].startswith(f"layers: {layers}; expected one layer")


def test_the_page_shows_what_is_like_a_patch(
    browser: Browser, explorer: Explorer, cosines: NDArray[np.float32]
) -> None:
    """In place of what it attends to; without heads, and not in percent."""
    with visiting(browser, explorer) as visit:
        visit.give(SANDAL)
        visit.title_is("fashion", "layer 3", "mean of 4 heads")
        visit.choose("layers", LAYER)
        visit.choose("measures", "similarity")
        visit.title_is("fashion", f"similarity after layer {LAYER}")
        expect(visit.page.locator("#head-choices")).to_be_hidden()
        visit.hover_patch(3, 4)
        visit.looks_is("What is like the patch in row 3, column 4")
        expect(visit.find(".told")).to_contain_text("Cosines of the vectors")
        wanted = np.sort(cosines[1 + 7 * 3 + 4, 1:])[::-1][:5]
        assert [weight for _, weight in visit.top()] == pytest.approx(wanted, abs=1e-3)
        assert "measure=similarity" in visit.page.url
