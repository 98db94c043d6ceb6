"""Hidden states as callers ask for them and as they come back."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from regard.attention import PatchGrid, Token, pick_layer
from regard.checks import choice, flag, integers

Pooling = Literal["cls", "mean", "last"]
_CHOICES = {"pooling": (None, "cls", "mean", "last"), "dtype": ("float32", "float16", "uint8")}


@dataclass(frozen=True)
class HiddenStatesRequest:
    """Which hidden states to send along with an answer.

    Layers and positions count from 0; negative numbers count from the end. Empty means all.

    Example:
        `HiddenStatesRequest(layers=(-1,), pooling="cls")`: what leaves the last layer at the class token, [D].

    Attributes:
        layers: 0 for what enters the first layer, n for what leaves the n-th, as `output_hidden_states` of the
            transformers library counts; answered in this order.
        positions: Tokens or patches, within the request's own length.
        drop_special: Leave out special tokens of a text, prefix tokens of an image.
        pooling: Send one vector a layer: that of the class token ("cls"), the "mean" over the chosen positions, or that
            of the "last"; None sends each.
        normalize: Scale each vector that is sent to Euclidean length 1.
        dtype: What they travel as. float16 halves the size; uint8 quarters it, each vector in 255 steps from its
            smallest number to its largest. Both are read as floats.

    Raises:
        InvalidArgument: A field has another type or value than the ones above. It is a ValueError too.
    """

    layers: tuple[int, ...] = ()
    positions: tuple[int, ...] = ()
    drop_special: bool = False
    pooling: Pooling | None = None
    normalize: bool = False
    dtype: Literal["float32", "float16", "uint8"] = "float32"

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            choice(f"hidden_states {name}", getattr(self, name), choices)
        for name in ("layers", "positions"):
            integers(f"hidden_states {name}", getattr(self, name))
        for name in ("drop_special", "normalize"):
            flag(f"hidden_states {name}", getattr(self, name))


@dataclass(frozen=True, eq=False)
class LayerHiddenStates:
    """What enters the first layer, or leaves a layer.

    Attributes:
        layer: 0 for what enters the first layer, n for what leaves the n-th.
        axes: Names of the axes of values: "batch" (tensors only), "position" (absent after pooling), "dim".
        values: float32 or float16, shaped as axes says, e.g. [N, D]. Read-only; copy it to change it.
        positions: Which lie along "position", or were averaged, from 0; empty for all in their order.
    """

    layer: int
    axes: tuple[str, ...]
    values: NDArray[np.floating]
    positions: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class HiddenStates:
    """The hidden states of one request, over its own length: padding never shows.

    Attributes:
        layers: One entry per layer, in the order asked for.
        tokens: What the positions stand for where a text was sent and each is there, else None.
        patches: Where the positions lie where an image was sent and each is there, else None.
    """

    layers: tuple[LayerHiddenStates, ...]
    tokens: tuple[Token, ...] | None = None
    patches: PatchGrid | None = None

    def layer(self, number: int) -> LayerHiddenStates:
        """Return one layer by its number, or, if negative, counted from the last of those sent.

        Args:
            number: From 0; negative numbers count from the last layer sent.

        Raises:
            LookupError: The answer does not hold this layer.
        """
        return pick_layer(self.layers, number)
