"""A text that a model writes, as tests read it from the page and from the client."""

import numpy as np
from numpy.typing import NDArray

from regard import Generated
from tests.explorer.browsing import Locator, Visit, expect
from tests.explorer.writing import WORD

LINK = f"model=g2p&text={WORD}"
SHOWN = 6e-4
_MAX_LOOKS, _LOOK_MS = 100, 50


def alignment(whole: Generated, layer: int) -> NDArray[np.float32]:
    """Cross attention of a layer as the page has it, [4, written, read]."""
    return whole.results[0].alignment(layer).weights.astype(np.float16).astype(np.float32)


def names(whole: Generated) -> list[str]:
    """What the page calls the tokens that were written."""
    return [token.text.strip() or "(end)" for token in whole.results[0].tokens]


def expect_row(visit: Visit, row: NDArray[np.float32], panel: int = 0) -> None:
    """Insist that every token that was read shows the weight of a row."""
    tokens = visit.page.locator(".panel").nth(panel).locator(".named:not(.written) .token")
    expect_weights(tokens, row)


def expect_weights(tokens: Locator, row: NDArray[np.float32]) -> None:
    """Insist that these tokens show weights, which may be some frames later than the rest of the page."""
    expect(tokens).to_have_count(len(row))
    for _ in range(_MAX_LOOKS):
        shown = [float((token.get_attribute("title") or "").split()[-1]) for token in tokens.all()]
        if np.allclose(shown, row, rtol=SHOWN, atol=1e-7):
            return
        tokens.page.wait_for_timeout(_LOOK_MS)
    np.testing.assert_allclose(shown, row, rtol=SHOWN, atol=1e-7)


def is_whole(visit: Visit) -> None:
    """Wait until all is written, and drawn."""
    expect(visit.find("#facts")).to_contain_text("Ended by the model")
    expect(visit.find(".written .token span").last).to_have_text("(end)")
    expect(visit.page.locator("#view")).to_have_attribute("aria-busy", "false")


def written(visit: Visit) -> list[str]:
    """The tokens that the page shows as written."""
    return visit.find(".written .token span").all_inner_texts()
