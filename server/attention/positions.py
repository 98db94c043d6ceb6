"""What the positions of an input are, as attention is planned."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Positions:
    """What the positions of an input are.

    Attributes:
        rows: Rows of the input.
        sizes: Of its symbolic axes, by name.
        count: Tokens of a text, or patches and class token of an image.
        special: Which are no part of the input: special tokens, prefix tokens; None where nobody knows.
        pair: Which are tokens of each of two texts; None where there is no pair.
        token_ids: Of a single text or pair, int64 [count]; None of everything else.
        offsets: Likewise: where each token came from in its text, [start, end) in code points; (0, 0) for special ones.
        seen: Of a single image: left, top, right and bottom of what the network sees of it, in its pixels.
    """

    rows: int
    sizes: Mapping[str, int]
    count: int
    special: Sequence[int] | None = None
    pair: tuple[Sequence[int], Sequence[int]] | None = None
    token_ids: NDArray[np.int64] | None = None
    offsets: Sequence[tuple[int, int]] = ()
    seen: tuple[float, float, float, float] | None = None
