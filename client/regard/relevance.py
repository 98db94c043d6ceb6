"""Why a label: what each position of an input did for its logit."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from regard.attention import PatchGrid, TextOfPair, Token


RelevanceMethod = Literal["libra", "gradient", "integrated-gradients", "genatt", "legrad"]
"""How relevance is computed; see docs/relevance.md."""


@dataclass(frozen=True, kw_only=True)
class RelevanceRequest:
    """What is to be explained; the fields are those of regard.v1.RelevanceRequest.

    Attributes:
        label: One of the model's labels; empty for the most probable.
        against: Another one, whose logit is taken off; empty for none.
        drop_special: Leave out what is no part of the input.
        method: How it is explained, one of the model's relevance_methods.
        steps: Of integrated gradients, at how many points the gradient is taken; 0 for 64.
        labels: Several, each explained for itself, instead of label.
        top: So many of the most probable, likewise; 0 for none.
        by_layer: Tell it at each depth of the network, too, by "libra".
    """

    label: str = ""
    against: str = ""
    drop_special: bool = False
    method: RelevanceMethod = "libra"
    steps: int = 0
    labels: tuple[str, ...] = ()
    top: int = 0
    by_layer: bool = False


def tokens_by_word(words: Sequence[int]) -> list[list[int]]:
    """Return which tokens each word has, in their order; -1 is of none."""
    found = dict[int, list[int]]()
    for place, word in enumerate(words):
        if word >= 0:
            found.setdefault(word, []).append(place)
    return list(found.values())


@dataclass(frozen=True)
class WordRelevance:
    """What the tokens of a word did together.

    Attributes:
        start: Where in its text the word begins, in code points.
        end: Where it ends, exclusive.
        value: The sum of its tokens' numbers.
        tokens: Positions of these.
        of_text: Of a pair: "first" or "second", the text that it is in; else None.
    """

    start: int
    end: int
    value: float
    tokens: tuple[int, ...]
    of_text: "TextOfPair | None" = None


@dataclass(frozen=True, eq=False)
class LayerRelevance:
    """What makes up a score at each depth of the network: what enters the first layer, then what leaves each.

    At each depth the score is the sum of the row of `values`, `unsent` and `added`, but for rounding.

    Attributes:
        values: float32 [layers + 1, positions]: the state there times the score's gradient, positions as in Relevance.
            Read-only.
        unsent: Of each depth, the sum of the positions that are not sent.
        added: Of each depth, what is added behind it: biases mostly, times the gradient there.
        relative_errors: Of each depth, how far all of that is from the score, as a share of its sum without signs.
    """

    values: "NDArray[np.float32]"
    unsent: tuple[float, ...]
    added: tuple[float, ...]
    relative_errors: tuple[float, ...]


@dataclass(frozen=True, eq=False, repr=False)
class Relevance:
    """What each position did for a score.

    By "libra", `score` is the sum of `values`, `unsent` and `rest`, but for `error`; by "integrated-gradients" that of
    `values`, `unsent` and `baseline`. The numbers of other methods make up no score.

    Attributes:
        label: What is explained.
        against: What it is told apart from; empty for none.
        score: The label's logit, less that of against.
        values: float32 [positions], above 0 for the label, below 0 against it; "genatt" and "legrad" have nothing
            below 0. Read-only.
        positions: Which these are, counted from 0; empty for all.
        unsent: What the positions did that are not sent.
        rest: What belongs to no position; 0 by other methods than "libra".
        error: How far all of that is from making up the score, in its unit; None by methods that make up none.
        relative_error: The same as a share of the sum of all but the baseline, each part without its sign.
        tokens: Of a text, all of them.
        patches: Of an image, how positions lie on it.
        method: How it was computed.
        baseline: Of integrated gradients, the score of zeros in place of what enters the first layer; else None.
        words: Of a text, which word each of values is of, counted from 0; -1 for special tokens.
        by_layer: The same at each depth; None where it was not asked for.
        layer: Behind which layer this is, 0 for what enters the first; None for the whole. See at_layer.
    """

    label: str
    against: str
    score: float
    values: "NDArray[np.float32]"
    positions: tuple[int, ...]
    unsent: float
    rest: float
    error: float | None
    relative_error: float | None
    tokens: "tuple[Token, ...] | None" = None
    patches: "PatchGrid | None" = None
    method: RelevanceMethod = "libra"
    baseline: float | None = None
    words: tuple[int, ...] = ()
    by_layer: LayerRelevance | None = None
    layer: int | None = None

    def at_layer(self, layer: int) -> "Relevance":
        """Return what is there behind a layer, 0 for what enters the first; what is added behind is its `rest`.

        Raises:
            InvalidArgument: There is no such layer, or it was not asked for by layer.
        """
        from regard.reasons import at_layer

        return at_layer(self, layer)

    def by_word(self) -> "tuple[WordRelevance, ...]":
        """Sum the tokens of each word, in the order of the text; special tokens are left out.

        Raises:
            InvalidArgument: It is of no text, or the server does not tell words.
        """
        from regard.reasons import by_word

        return by_word(self)

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
        method = "" if self.method == "libra" else f", {self.method}"
        method += "" if self.layer is None else f", layer {self.layer}"
        within = "" if self.relative_error is None else f", within {self.relative_error:.1g}"
        return f"Relevance({what}: {self.score:.4g} of {len(self.values)} positions{method}{within})"
