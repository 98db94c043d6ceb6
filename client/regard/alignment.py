"""What align returns: which patch of an image answers to which token of a text."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from regard.answers import Timings
from regard.attention import PatchGrid, Token


@dataclass(frozen=True, eq=False)
class Alignment:
    """The answer to align: cosines in the space of two towers, in [-1, 1]. Arrays are read-only; copy one to change it.

    Attributes:
        model: Which model answered.
        version: Which version of it.
        tokens: Of the text, special ones and those that fill it up included.
        patches: How they lie on the image.
        similarities: float32 [tokens, rows * cols], of each token and each patch.
        text_similarities: float32 [rows * cols], of the whole text and each patch.
        similarity: Of the whole text and the whole image, as their vectors from embed have it.
        truncated: The text had more tokens than the model takes and was cut.
        timings: Of both together.
    """

    model: str
    version: str
    tokens: tuple[Token, ...]
    patches: PatchGrid
    similarities: NDArray[np.float32]
    text_similarities: NDArray[np.float32]
    similarity: float
    truncated: bool
    timings: Timings

    def grid(self, token: int | None = None) -> NDArray[np.float32]:
        """Return the cosines as they lie on the image, float32 [rows, cols].

        Args:
            token: Its position in tokens; None for the whole text.

        Raises:
            IndexError: There is no such token.
        """
        row = self.text_similarities if token is None else self.similarities[token]
        return row.reshape(self.patches.rows, self.patches.cols)
