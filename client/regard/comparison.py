"""How similar two inputs are, and why: what each position did for it, and what pairs of them did."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from regard.answers import Timings
from regard.relevance import Relevance

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False, repr=False)
class SimilarityRelevance:
    """Why two inputs are as similar as they are.

    Attributes:
        first: What each position of the first did; its score is the similarity, and it has no label.
        second: What those of the second did for the same similarity.
        pairs: float32 [first, second], what each position of one does with each of the other, those that are sent; None
            where it was not asked for. Read-only.
        unpaired: What of the similarity is in none of these pairs.
        error: How far pairs and that are from making up the similarity, in its unit.
        relative_error: The same as a share of the sum of all of it, each part without its sign.
    """

    first: Relevance
    second: Relevance
    pairs: "NDArray[np.float32] | None" = None
    unpaired: float = 0.0
    error: float = 0.0
    relative_error: float = 0.0

    def plot(self) -> "Figure":
        """Draw the pairs as a matplotlib figure: rows are the first's positions, columns the second's.

        Raises:
            InvalidArgument: There are no pairs; `first.plot()` and `second.plot()` draw each input.
            ModuleNotFoundError: matplotlib is not installed; it comes with the extra explore.
        """
        from regard.showing import plot_pairs

        return plot_pairs(self)

    def _repr_html_(self) -> str:
        """Show it in a notebook: pointing at a cell tells its number."""
        from regard.relevance_html import pairs_html

        return pairs_html(self)

    def __repr__(self) -> str:
        shape = "no pairs" if self.pairs is None else f"{len(self.pairs)} x {self.pairs.shape[1]} pairs"
        return f"SimilarityRelevance({self.first.score:.4g}: {shape})"


@dataclass(frozen=True, eq=False)
class Comparison:
    """The answer to compare.

    Attributes:
        model: Which model answered.
        version: Which version of it.
        similarity: The cosine of both vectors, or their dot product where the model's similarity is "dot".
        first_truncated: The first had more tokens than the model takes and was cut.
        second_truncated: Likewise the second.
        relevance: Why; None where it was not asked for.
        timings: Of both together.
    """

    model: str
    version: str
    similarity: float
    first_truncated: bool
    second_truncated: bool
    relevance: SimilarityRelevance | None
    timings: Timings
