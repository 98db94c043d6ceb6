"""What the positions of an input are, as statistics of heads count them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from artifact.contract import PatchContract
from server.attention.request import Rectangle, Span
from server.errors import InvalidInput


@dataclass(frozen=True, eq=False)
class Places:
    """What the positions of an input are.

    Attributes:
        count: How many there are.
        token_ids: Of a text, int64 [count]; None of everything else.
        special: Which are no part of the input; None where nobody knows.
        patches: How they lie on an image; None where there is none.
        region: Those that spans or boxes hold.
    """

    count: int
    token_ids: NDArray[np.int64] | None = None
    special: Sequence[int] | None = None
    patches: PatchContract | None = None
    region: Sequence[int] = ()


def with_spans(places: Places, offsets: Sequence[Span], spans: Sequence[Span]) -> Places:
    """Count tokens that overlap a span.

    Args:
        places: Of the text.
        offsets: Where each token came from in it, [start, end) in code points; (0, 0) for special ones.
        spans: Likewise.

    Raises:
        InvalidInput: No token does.
    """
    starts, ends = np.asarray(offsets, dtype=np.int64).reshape(-1, 2).T
    inside = np.zeros(len(starts), dtype=bool)
    for start, end in spans:
        inside |= (starts < end) & (ends > start)
    if not inside.any():
        shown = ", ".join(f"{start} to {end}" for start, end in spans[:8])
        expected = f"one that holds some of the {max(ends, default=0)} characters of the text's tokens"
        raise InvalidInput("attention.spans", shown, expected)
    return replace(places, region=np.flatnonzero(inside).tolist())


def with_boxes(places: Places, seen: Rectangle, boxes: Sequence[Rectangle]) -> Places:
    """Count patches whose centre a box holds.

    Args:
        places: Of the image, with patches.
        seen: Left, top, right and bottom of what the network sees of the sent image, in its pixels.
        boxes: Likewise.

    Raises:
        InvalidInput: No centre lies in one.
    """
    grid = places.patches
    assert grid is not None  # noqa: S101 -- as the caller says
    left, top, right, bottom = seen
    across = left + (np.arange(grid.cols) + 0.5) * (right - left) / grid.cols
    down = top + (np.arange(grid.rows) + 0.5) * (bottom - top) / grid.rows
    inside = np.zeros((grid.rows, grid.cols), dtype=bool)
    for box_left, box_top, box_right, box_bottom in boxes:
        inside |= np.logical_and.outer(
            (down >= box_top) & (down < box_bottom), (across >= box_left) & (across < box_right)
        )
    if not inside.any():
        shown = ", ".join("({:g}, {:g}, {:g}, {:g})".format(*box) for box in boxes[:8])
        expected = f"one that holds the centre of a patch, within ({left:g}, {top:g}, {right:g}, {bottom:g})"
        raise InvalidInput("attention.boxes", shown, expected)
    return replace(places, region=(np.flatnonzero(inside) + grid.prefix_tokens).tolist())
