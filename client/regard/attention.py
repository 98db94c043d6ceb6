"""Attention as callers ask for it and as it comes back."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from regard.checks import MAX_INT32, choice, flag, integer, integers, invalid, items, real
from regard.errors import InvalidCall

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from regard.showing import PlotView

AttentionKind = Literal["self", "causal", "cross", "unspecified"]
HeadReduction = Literal["mean", "max", "min"]
TextOfPair = Literal["first", "second"]
Measure = Literal["weights", "rollout", "entropy", "distance", "contribution", "contribution_rollout"]

Statistic = Literal[
    "entropy",
    "distance",
    "first",
    "separator",
    "registers",
    "special",
    "sink",
    "previous",
    "next",
    "current",
    "duplicate",
    "induction",
    "region",
    "norm",
]
STATISTICS: tuple[Statistic, ...] = get_args(Statistic)
Span = tuple[int, int]
Rectangle = tuple[float, float, float, float]


class _Numbered(Protocol):
    """A layer of an answer."""

    @property
    def layer(self) -> int:
        """Which."""
        ...


Layer = TypeVar("Layer", bound=_Numbered)
_CHOICES = {
    "reduce_heads": (None, "mean", "max", "min"),
    "measure": ("weights", "rollout", "entropy", "distance", "contribution", "contribution_rollout"),
    "dtype": ("float32", "float16", "uint8"),
    "rows_of_text": (None, "first", "second"),
    "keys_of_text": (None, "first", "second"),
}


@dataclass(frozen=True)
class AttentionRequest:
    """Which attention weights to send along with an answer.

    Layers, heads, rows and keys count from 0; negative numbers count from the end. Empty means all.

    Example:
        `AttentionRequest(layers=(-1,), reduce_heads="mean", cls_only=True)`: the last layer's mean over the heads, of
        the class token alone, [1, K].

    Attributes:
        layers: Layers, answered in this order; a rollout multiplies them.
        heads: Heads of each of them.
        reduce_heads: Send the "mean", "max" or "min" over the chosen heads, not each of them. A rollout takes the mean
            unless told otherwise.
        rows: Query positions (those that attend), within the request's own length.
        cls_only: Only the row of the class token; may not be given together with rows.
        dtype: What the weights travel as. float16 halves the size, and is off by 2.5e-4 at most; uint8 quarters it, and
            is off by half of 1/255 of the largest weight. Both are read as floats.
        keys: Key positions (those attended to).
        measure: "weights", or what the server makes of them: "rollout" (Abnar and Zuidema 2020) over the layers,
            "entropy" of each row in nats, "distance" (Dosovitskiy et al. 2020, figure 7) of each head, "contribution",
            the length of what each key adds to each query, heads summed, residual connection included, and
            "contribution_rollout", their product over the layers (Modarressi et al. 2022).
        residual_share: Of a rollout: what the residual connection keeps of each position, in [0, 1).
        value_weighted: Multiply weights by the lengths of the value vectors (Kobayashi et al. 2020).
        top_k: Only so many keys of each row, the largest first; 0 for all.
        drop_special: Leave out special tokens of a text, prefix tokens of an image.
        renormalize: Divide rows by the sum of what is left of them.
        rows_of_text: Of a pair: only the rows of its "first" or "second" text, without special tokens.
        keys_of_text: Of a pair: only the keys of one text; with rows_of_text, what one text attends to in the other.
        statistics: Numbers that the server makes of each head's rows and sends instead of them, [H, S]: "entropy",
            "distance", attention to the "first" position, "separator", "registers", "special" positions, a "sink", the
            "previous", "next" and "current" position, "duplicate" and "induction" patterns, a "region", and the "norm"
            of what is added. The documentation's page "Over a data set" says what each is.
        spans: Of "region" in a text: its parts, (start, end) in code points.
        boxes: Of "region" in an image: (left, top, right, bottom) in pixels of the sent image.

    Raises:
        InvalidArgument: A field has another type or value than the ones above. It is a ValueError too.
    """

    layers: tuple[int, ...] = ()
    heads: tuple[int, ...] = ()
    reduce_heads: HeadReduction | None = None
    rows: tuple[int, ...] = ()
    cls_only: bool = False
    dtype: Literal["float32", "float16", "uint8"] = "float32"
    keys: tuple[int, ...] = ()
    measure: Measure = "weights"
    residual_share: float | None = None
    value_weighted: bool = False
    top_k: int = 0
    drop_special: bool = False
    renormalize: bool = False
    rows_of_text: TextOfPair | None = None
    keys_of_text: TextOfPair | None = None
    statistics: tuple[Statistic, ...] = ()
    spans: tuple[Span, ...] = ()
    boxes: tuple[Rectangle, ...] = ()

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            choice(f"attention {name}", getattr(self, name), choices)
        for name in ("layers", "heads", "rows", "keys"):
            integers(f"attention {name}", getattr(self, name))
        for name in ("cls_only", "value_weighted", "drop_special", "renormalize"):
            flag(f"attention {name}", getattr(self, name))
        integer("attention top_k", self.top_k, 0, MAX_INT32)
        if self.residual_share is not None:
            real("attention residual_share", self.residual_share)
        for statistic in items("attention statistics", self.statistics, "names of statistics"):
            choice("attention statistics", statistic, STATISTICS)
        for span in items("attention spans", self.spans, "pairs of a start and an end"):
            if len(integers("attention spans", span)) != 2:
                raise invalid("attention spans", span, "a start and an end")
        for box in items("attention boxes", self.boxes, "left, top, right and bottom of each"):
            if len([real("attention boxes", edge) for edge in items("attention boxes", box, "four numbers")]) != 4:
                raise invalid("attention boxes", box, "left, top, right and bottom")


@dataclass(frozen=True)
class Token:
    """One token of a text.

    Attributes:
        id: Number in the vocabulary.
        text: As the vocabulary spells it, e.g. "##ing".
        start: Where in the text it begins, in code points; 0 for special tokens.
        end: Where it ends, exclusive; 0 for special tokens.
        special: Added by the tokenizer ("[CLS]", "[SEP]"), not found in the text.
        of_text: Of a pair: "first" or "second", the text it came from, in which start and end count; else None.
    """

    id: int
    text: str
    start: int
    end: int
    special: bool
    of_text: TextOfPair | None = None


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels, from the image's upper left corner.

    Attributes:
        left: Where it begins from the left.
        top: Where it begins from above.
        right: Where it ends from the left, exclusive.
        bottom: Where it ends from above, exclusive.
    """

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
        box: The part of that image which the grid covers, in its pixels; it reaches over the image's edge where that
            was padded to a square. None in a model's description.
    """

    prefix_tokens: int
    rows: int
    cols: int
    patch_size: int
    image_width: int | None = None
    image_height: int | None = None
    box: Box | None = None


@dataclass(frozen=True)
class AttentionWindow:
    """How a layer attends in windows (Liu et al. 2021, "Swin Transformer").

    Its positions are a grid of cells, filled up with padding below and on the right to whole windows, rolled up and to
    the left by the shift, and cut into windows. Queries are the cells of the grid, row by row; keys are the positions
    of the query's window, row by row: `regard.windows.key_cells` says which cell each is.

    Attributes:
        rows: Cells of the layer's grid from top to bottom.
        cols: Cells from left to right.
        height: Cells of a window from top to bottom.
        width: Cells from left to right.
        shift_rows: How far the grid is rolled up, in cells; what leaves comes in at the other edge.
        shift_cols: How far to the left.
        cell_size: Edge of a cell in pixels of the network's input.
    """

    rows: int
    cols: int
    height: int
    width: int
    shift_rows: int
    shift_cols: int
    cell_size: int

    @property
    def is_whole(self) -> bool:
        """Whether its one window is the grid, cell for cell: then keys are what queries are."""
        return (self.height, self.width) == (self.rows, self.cols) and not (self.shift_rows or self.shift_cols)


@dataclass(frozen=True, eq=False, repr=False)
class LayerAttention:
    """The attention weights of one layer, or what was made of them.

    Each row sums to 1 over the key axis, but where the layer mixes its heads (`AttentionLayer.mixes_heads`).

    Attributes:
        layer: Which layer, from 0; for a rollout the last that it covers.
        kind: "self", "causal" where no position attends to a later one, or "cross" where queries and keys come from
            different sequences.
        axes: Names of the axes of weights: "batch" (tensors only), "head" (absent after a reduction), "query", "key"
            or "top"; an entropy has no "key", a distance neither "query" nor "key".
        heads: Which heads lie along "head", or were reduced, from 0.
        queries: Which positions lie along "query", from 0.
        weights: float32 or float16, shaped as axes says, e.g. [H, Q, K]. Read-only; copy it to change it.
        keys: Which positions lie along "key", from 0; empty for all in their order.
        measure: What the numbers are.
        indices: After top_k, the key position of each weight, int32 of the same shape; else None.
        covered_layers: Those that a rollout multiplied.
        window: Where it attends in windows, of which the keys are positions; else None.
        class_attention: Whether its one query is the class token, and its keys are that, then the patches, whatever
            the grid says of prefix tokens.
        statistics: Which lie along "statistic", where some were asked for; queries are empty where all were averaged.
    """

    layer: int
    kind: AttentionKind
    axes: tuple[str, ...]
    heads: tuple[int, ...]
    queries: tuple[int, ...]
    weights: NDArray[np.floating]
    keys: tuple[int, ...] = ()
    measure: Measure = "weights"
    indices: NDArray[np.int32] | None = None
    covered_layers: tuple[int, ...] = ()
    window: AttentionWindow | None = None
    class_attention: bool = False
    statistics: tuple[Statistic, ...] = ()

    def __repr__(self) -> str:
        sizes = ", ".join(f"{axis} {size}" for axis, size in zip(self.axes, self.weights.shape, strict=True))
        return f"layer {self.layer}: {self.measure} [{sizes}]"


@dataclass(frozen=True, eq=False, repr=False)
class Attention:
    """The attention of one request, over its own length: padding never shows.

    Attributes:
        layers: One entry per layer, in the order asked for.
        tokens: What the positions stand for where a text was sent, else None.
        key_tokens: What keys stand for where queries stand for other tokens, else None.
        patches: Where the positions lie where an image was sent, else None.
        truncated: The text had more tokens than the model takes and was cut.
    """

    layers: tuple[LayerAttention, ...]
    tokens: tuple[Token, ...] | None = None
    patches: PatchGrid | None = None
    truncated: bool = False
    key_tokens: tuple[Token, ...] | None = None

    @classmethod
    def join(cls, parts: Sequence["Attention"]) -> "Attention":
        """Put together what `Client.attend` yields one by one.

        Args:
            parts: In their order, all of one answer.

        Raises:
            InvalidArgument: There is none. It is a ValueError too.
        """
        if not parts:
            raise InvalidCall.of("parts: (); expected at least one")
        from regard.origin import keep, origin_of

        whole = dataclasses.replace(parts[0], layers=tuple(layer for part in parts for layer in part.layers))
        keep(whole, origin_of(parts[0]))
        return whole

    def layer(self, number: int) -> LayerAttention:
        """Return one layer by its number in the model, or, if negative, counted from the last of those sent.

        So after asking for layers (0, -1) of twelve, `layer(11)` and `layer(-1)` are the same.

        Args:
            number: From 0; negative numbers count from the last layer sent.

        Raises:
            LookupError: The answer does not hold this layer.
        """
        return pick_layer(self.layers, number)

    def plot(
        self,
        *,
        layer: int = -1,
        head: int | None = None,
        row: int | None = None,
        view: "PlotView | None" = None,
        photo: Any = None,
    ) -> "Figure":
        """Draw one layer as a matplotlib figure: over the photo that was sent, or token by token.

        Model, patches and photo are known from the call; `regard.pictures` draws whatever else is wanted.

        Args:
            layer: As for `layer`.
            head: Only this; None for a panel each.
            row: Of an image: the query position; None for the first that came, the class token where there is one.
            view: "heads" for a panel each, "overlay" for their mean over a photo, "matrix" or "arcs" for their mean
                between tokens; None for what fits.
            photo: Bytes of an image, or an image of Pillow, instead of the one that was sent.

        Raises:
            InvalidArgument: An argument has no such value, or there is no photo.
            LookupError: The answer does not hold this layer.
            ModuleNotFoundError: matplotlib is not installed; it comes with the extra explore.
        """
        from regard.showing import plot

        return plot(self, layer, head, row, view, photo)

    def to_numpy(self) -> NDArray[np.floating]:
        """Return all layers as one array, [layer, ...] as `axes` of each goes on, e.g. [L, H, Q, K].

        Raises:
            InvalidArgument: Their shapes differ; `layer(n).weights` has each.
        """
        from regard.showing import to_numpy

        return to_numpy(self)

    def to_xarray(self) -> Any:
        """Return all layers as an xarray.DataArray with named axes, numbers of layers, heads and positions, and tokens.

        After top_k the last axis is "rank", and "key" and "key_token" say of each number which key it is of.

        Raises:
            InvalidArgument: As `to_numpy`.
            ModuleNotFoundError: xarray is not installed.
        """
        from regard.showing import to_xarray

        return to_xarray(self)

    def to_dataframe(self) -> Any:
        """Return a pandas.DataFrame with a row for each number: layer, head, query and key, their tokens, the number.

        Raises:
            ModuleNotFoundError: pandas is not installed.
        """
        from regard.showing import to_dataframe

        return to_dataframe(self)

    def _repr_html_(self) -> str:
        """Show the last layer in a notebook: pointing at a cell tells its number, and shows what its row attends to."""
        from regard.notebook_html import to_html

        return to_html(self)

    def __repr__(self) -> str:
        what = f"{len(self.tokens)} tokens" if self.tokens is not None else "no tokens"
        if self.patches is not None:
            what = f"{self.patches.rows} x {self.patches.cols} patches"
        return f"Attention({', '.join(map(repr, self.layers))}; {what})"


def pick_layer(layers: Sequence[Layer], number: int) -> Layer:
    """Return one of the layers of an answer; see `Attention.layer`."""
    by_number = {entry.layer: entry for entry in layers}
    sent = sorted(by_number)
    wanted = sent[number] if -len(sent) <= number < 0 else number
    if wanted not in by_number:
        raise LookupError(f"no layer {number} in this answer, which holds {sent}")
    return by_number[wanted]
