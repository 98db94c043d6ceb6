"""Attention as callers ask for it and as it comes back; used by the clients, the pictures and the command line."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

AttentionKind = Literal["self", "cross", "unspecified"]


@dataclass(frozen=True)
class AttentionRequest:
    """Which attention weights to send along with an answer.

    Layers, heads and rows count from 0; negative numbers count from the end. Empty means all.

    Attributes:
        layers: Layers, answered in this order.
        heads: Heads of each of them.
        mean_heads: Send the mean over the chosen heads, not each of them.
        rows: Query positions (those that look), within the request's own length.
        cls_only: Only the row of the class token; may not be given together with rows.
        dtype: What the weights travel as. float16 halves the size, and is off by 2.5e-4 at most.

    Raises:
        ValueError: dtype is neither "float32" nor "float16".
    """

    layers: tuple[int, ...] = ()
    heads: tuple[int, ...] = ()
    mean_heads: bool = False
    rows: tuple[int, ...] = ()
    cls_only: bool = False
    dtype: Literal["float32", "float16"] = "float32"

    def __post_init__(self) -> None:
        if self.dtype not in ("float32", "float16"):
            raise ValueError(f"attention dtype is {self.dtype!r}; expected 'float32' or 'float16'")


@dataclass(frozen=True)
class Token:
    """One token of a text.

    Attributes:
        id: Number in the vocabulary.
        text: As the vocabulary spells it, e.g. "##ing".
        start: Where in the text it begins, in code points; 0 for special tokens.
        end: Where it ends, exclusive; 0 for special tokens.
        special: Added by the tokenizer ("[CLS]", "[SEP]"), not found in the text.
    """

    id: int
    text: str
    start: int
    end: int
    special: bool


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels; right and bottom are exclusive."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class PatchGrid:
    """How the positions of an image's sequence lie on the picture.

    The first `prefix_tokens` positions are no patch (class token, registers); rows * cols patches follow, row by row.

    Attributes:
        prefix_tokens: Positions before the first patch.
        rows: Patches from top to bottom.
        cols: Patches from left to right.
        patch_size: Edge of a patch in pixels of the network's input.
        image_width: Width of the sent image in pixels after its EXIF orientation was applied; None for a model's own.
        image_height: Height of it, likewise.
        box: The part of that image which the grid covers, in its pixels; None in a model's description.
    """

    prefix_tokens: int
    rows: int
    cols: int
    patch_size: int
    image_width: int | None = None
    image_height: int | None = None
    box: Box | None = None


@dataclass(frozen=True, eq=False)
class LayerAttention:
    """The attention weights of one layer; each row sums to 1 over the key axis.

    Attributes:
        layer: Which layer, from 0.
        kind: "self", or "cross" where queries and keys come from different sequences.
        axes: Names of the axes of weights: "batch" (predict only), "head" (absent after a mean), "query", "key".
        heads: Which heads lie along "head", or were averaged, from 0.
        queries: Which positions lie along "query", from 0.
        weights: float32 or float16, shaped as axes says, e.g. [H, Q, K]. Read-only; copy it to change it.
    """

    layer: int
    kind: AttentionKind
    axes: tuple[str, ...]
    heads: tuple[int, ...]
    queries: tuple[int, ...]
    weights: NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class Attention:
    """The attention of one request, over its own length: padding never shows.

    Attributes:
        layers: One entry per layer, in the order asked for.
        tokens: What the positions stand for where a text was sent, else None.
        patches: Where the positions lie where an image was sent, else None.
    """

    layers: tuple[LayerAttention, ...]
    tokens: tuple[Token, ...] | None = None
    patches: PatchGrid | None = None

    def layer(self, number: int) -> LayerAttention:
        """Return one layer by its number in the model, or, if negative, counted from the last of those sent.

        So after asking for layers (0, -1) of twelve, `layer(11)` and `layer(-1)` are the same.

        Raises:
            LookupError: The answer does not hold this layer.
        """
        by_number = {entry.layer: entry for entry in self.layers}
        sent = sorted(by_number)
        wanted = sent[number] if -len(sent) <= number < 0 else number
        if wanted not in by_number:
            raise LookupError(f"no layer {number} in this answer, which holds {sent}")
        return by_number[wanted]
