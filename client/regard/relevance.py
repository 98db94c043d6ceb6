"""Why a label: what each position of an input did for its logit."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from regard.attention import PatchGrid, Token


@dataclass(frozen=True, kw_only=True)
class RelevanceRequest:
    """What is to be explained; the fields are those of regard.v1.RelevanceRequest.

    Attributes:
        label: One of the model's labels; empty for the most probable.
        against: Another one, whose logit is taken off; empty for none.
        drop_special: Leave out what is no part of the input.
    """

    label: str = ""
    against: str = ""
    drop_special: bool = False


@dataclass(frozen=True, eq=False, repr=False)
class Relevance:
    """What each position did for a score: `score` is the sum of `values`, `unsent` and `rest`, but for `error`.

    Libra (Mehri et al. 2025): attention's weights, the norms' denominators and the activations' gates are held as they
    were.

    Attributes:
        label: What is explained.
        against: What it is told apart from; empty for none.
        score: The label's logit, less that of against.
        values: float32 [positions], above 0 for the label, below 0 against it. Read-only.
        positions: Which these are, counted from 0; empty for all.
        unsent: What the positions did that are not sent.
        rest: What belongs to no position.
        error: How far all of that is from making up the score, in its unit.
        relative_error: The same as a share of the sum of all of it, each part without its sign.
        tokens: Of a text, all of them.
        patches: Of an image, how positions lie on it.
    """

    label: str
    against: str
    score: float
    values: "NDArray[np.float32]"
    positions: tuple[int, ...]
    unsent: float
    rest: float
    error: float
    relative_error: float
    tokens: "tuple[Token, ...] | None" = None
    patches: "PatchGrid | None" = None

    def plot(self, *, photo: Any = None) -> "Figure":
        """Draw it as a matplotlib figure: over the photo that was sent, or token by token.

        Model and photo are known from the call; `regard.pictures` draws in other sizes and colours.

        Args:
            photo: Bytes of an image, or an image of Pillow, instead of the one that was sent.

        Raises:
            InvalidArgument: There is no photo, or it says neither tokens nor patches.
            ModuleNotFoundError: matplotlib is not installed; it comes with the extra explore.
        """
        from regard.showing import plot_relevance

        return plot_relevance(self, photo)

    def _repr_html_(self) -> str:
        """Show it in a notebook: pointing at a token or a patch tells its number."""
        from regard.relevance_html import relevance_html

        return relevance_html(self)

    def __repr__(self) -> str:
        what = f"{self.label} against {self.against}" if self.against else self.label
        return f"Relevance({what}: {self.score:.4g} of {len(self.values)} positions, within {self.relative_error:.1g})"
