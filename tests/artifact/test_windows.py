"""Which cells lie in which window, against windows cut cell by cell."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from artifact.contract import AttentionContract, WindowContract
from artifact.windows import PADDING, places_in_windows, window_cells

WINDOWS = [
    WindowContract(rows=4, cols=4, height=2, width=2, cell_size=8),
    WindowContract(rows=4, cols=4, height=4, width=4, cell_size=8),
    WindowContract(rows=6, cols=4, height=2, width=4, shift_rows=1, shift_cols=2, cell_size=8),
    WindowContract(rows=5, cols=7, height=3, width=3, shift_rows=1, shift_cols=1, cell_size=8),
    WindowContract(rows=3, cols=2, height=5, width=4, cell_size=8),
    WindowContract(rows=1, cols=1, height=1, width=1, cell_size=8),
]


def cut(window: WindowContract) -> NDArray[np.int64]:
    """Cut windows one cell after the other, as the definition has it."""
    rows = (window.rows + window.height - 1) // window.height * window.height
    cols = (window.cols + window.width - 1) // window.width * window.width
    found = []
    for top in range(0, rows, window.height):
        for left in range(0, cols, window.width):
            for row in range(top, top + window.height):
                for col in range(left, left + window.width):
                    line, column = (row + window.shift_rows) % rows, (col + window.shift_cols) % cols
                    inside = line < window.rows and column < window.cols
                    found.append(line * window.cols + column if inside else PADDING)
    return np.array(found).reshape(-1, window.height * window.width)


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_windows_are_cut_from_the_rolled_grid(window: WindowContract) -> None:
    """Filled up first, where they do not fit."""
    np.testing.assert_array_equal(window_cells(window), cut(window))


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_every_cell_has_its_place_in_one_window(window: WindowContract) -> None:
    """So that taking these places brings windows back into the order of the grid."""
    places = places_in_windows(window)
    np.testing.assert_array_equal(window_cells(window).ravel()[places], np.arange(window.queries))


def test_a_window_has_the_axes_of_its_layer_and_nothing_of_its_values() -> None:
    """A contract that says otherwise is refused."""
    named: dict[str, Any] = {"output": "attention.0", "layer": 0, "kind": "self", "num_heads": 2, "window": WINDOWS[0]}
    AttentionContract(**named, query_axis=16, key_axis=4)
    for queries, keys in ((16, 16), (4, 16), ("seq_len", "seq_len")):
        with pytest.raises(ValidationError, match="window: of 16 queries and 4 keys; the axes are"):
            AttentionContract(**named, query_axis=queries, key_axis=keys)
    with pytest.raises(ValidationError, match="which are of no window"):
        AttentionContract(**named, query_axis=16, key_axis=4, value_norms="value_norms.0")
    with pytest.raises(ValidationError, match="window: given with kind 'cross'; expected 'self'"):
        AttentionContract(**{**named, "kind": "cross"}, query_axis=16, key_axis=4)


@pytest.mark.parametrize(
    "wrong",
    [{"rows": 0}, {"cols": 4097}, {"height": 2**40}, {"shift_rows": 2}, {"shift_cols": 3}, {"cell_size": 2**31}],
)
def test_sizes_that_no_window_has_are_refused(wrong: dict[str, int]) -> None:
    """They could not be sent, or would be wrong in silence."""
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        WindowContract.model_validate({**WINDOWS[0].model_dump(), **wrong})


WHOLE = [False, True, False, False, False, True]


@pytest.mark.parametrize(("window", "whole"), list(zip(WINDOWS, WHOLE, strict=True)), ids=str)
def test_a_window_that_is_the_whole_grid_is_told(window: WindowContract, whole: bool) -> None:
    """Its keys are then the cells, in their order; a shift or padding makes other ones of them."""
    assert window.is_whole == whole
    if whole:
        np.testing.assert_array_equal(window_cells(window), np.arange(window.queries)[np.newaxis])
    elif window.keys == window.queries:
        assert not np.array_equal(window_cells(window), np.arange(window.queries)[np.newaxis])


def test_a_whole_window_that_is_rolled_is_none() -> None:
    """Its keys are cells in another order."""
    assert not WindowContract(rows=4, cols=4, height=4, width=4, shift_rows=1, cell_size=8).is_whole
    assert not WindowContract(rows=4, cols=4, height=4, width=4, shift_cols=1, cell_size=8).is_whole
