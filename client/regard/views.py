"""Which view of attention fits an input and what to ask the server for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import grpc

from regard.answers import AttentionLayer, Classification, Embedding, Model
from regard.attention import Attention, AttentionRequest, HeadReduction, Measure, PatchGrid, TextOfPair
from regard.errors import RegardError
from regard.generation import StepKind
from regard.scales import Curve
from regard.sources import InputError
from regard.windows import layer_grid

View = Literal["overlay", "heads", "queries", "matrix", "arcs", "entropy", "distance"]
AttentionPart = Literal["cross", "self", "encoder"]
Theme = Literal["dark", "light"]
Size = Literal["screen", "print"]
_OF_STEPS = "what a model writes has weights of layers and heads alone; expected none, or --kind encoder"
CHARTS: tuple[View, ...] = ("entropy", "distance")
SHEETS: tuple[View, ...] = ("heads", "overlay")
_WITHOUT_HEADS: tuple[Measure, ...] = ("rollout", "contribution", "contribution_rollout")
_OF_ONE_LAYER: tuple[Measure, ...] = ("weights", "contribution")
_SELF_ONLY: tuple[Measure, ...] = ("rollout", "distance")
_OF_PHOTOS: tuple[View, ...] = ("heads", "overlay", "queries", *CHARTS)
_OF_TEXTS: tuple[View, ...] = ("matrix", "heads", "arcs", *CHARTS)


@dataclass(frozen=True)
class ViewOptions:
    """What is to be shown, and how; everything may be left open.

    Attributes:
        view: How to show it.
        measure: What to show.
        layers: Which layers.
        heads: Which heads.
        rows: Query positions.
        reduce: What heads are reduced by.
        residual_share: Of a rollout.
        value_weighted: Weigh by the lengths of the value vectors.
        drop_special: Leave out special or prefix tokens; what is left of a row sums to 1 again.
        top_k: Only the largest weights of each row; 0 for all.
        rows_of_text: Of a pair: rows of one text only.
        keys_of_text: Of a pair: keys of one text only.
        kind: Of a model that writes: cross attention of the tokens it writes to those it reads, their self attention,
            or that of its encoder.
    """

    view: View | None = None
    measure: Measure | None = None
    layers: tuple[int, ...] = ()
    heads: tuple[int, ...] = ()
    rows: tuple[int, ...] = ()
    reduce: HeadReduction | None = None
    residual_share: float | None = None
    value_weighted: bool = False
    drop_special: bool = False
    top_k: int = 0
    rows_of_text: TextOfPair | None = None
    keys_of_text: TextOfPair | None = None
    kind: AttentionPart | None = None


@dataclass(frozen=True)
class PictureStyle:
    """Colours and measures of a picture; None leaves it to the size.

    Attributes:
        size: For a screen or for print.
        theme: Dark or light.
        width_cm: Of the whole picture.
        dpi: Dots per inch.
        curve: How a scale runs.
        percentile: Where a scale ends.
        common_scale: Whether panels have one scale.
        multiples: Tell weights as multiples of uniform attention.
        opacity: Of the largest numbers over a photo.
        smooth: Whether maps run smoothly from patch to patch.
        contour: A line around the fewest patches that hold this many percent of a map's sum.
    """

    size: Size = "screen"
    theme: Theme | None = None
    width_cm: float | None = None
    dpi: int | None = None
    curve: Curve | None = None
    percentile: float | None = None
    common_scale: bool | None = None
    multiples: bool = False
    opacity: float | None = None
    smooth: bool = True
    contour: float | None = None


@dataclass(frozen=True)
class AttentionResult:
    """The attention of a model that neither classifies nor embeds."""

    model: str
    version: str
    attention: Attention
    truncated: bool = False

    @classmethod
    def join(cls, model: Model, parts: Sequence[Attention]) -> "AttentionResult":
        """Put together what a client's `attend` yielded of a model, layer by layer.

        Raises:
            RegardError: The server sent no layer (INTERNAL).
        """
        if not parts:
            raise RegardError(grpc.StatusCode.INTERNAL, "the server sent no attention")
        whole = Attention.join(parts)
        return cls(model.name, model.version, whole, whole.truncated)


@dataclass(frozen=True, eq=False)
class Answered:
    """A model's answer, the attention that came with it, what was asked for, and which layers mix their heads."""

    answer: Classification | Embedding | AttentionResult
    attention: Attention
    asked: AttentionRequest
    mixed: frozenset[int] = frozenset()


def choose_view(options: ViewOptions, *, is_photo: bool) -> View:
    """Return the view that was asked for, or the one that suits what was.

    Raises:
        InputError: It does not fit the input, or the other options.
    """
    view = options.view or _default_view(options, is_photo=is_photo)
    fitting, kind = (_OF_PHOTOS, "photo") if is_photo else (_OF_TEXTS, "text")
    if view not in fitting:
        raise InputError(f"--view {view} does not show a {kind}; expected {', '.join(fitting)}")
    measure = options.measure or "weights"
    if view in CHARTS and measure not in ("weights", view):
        raise InputError(f"--view {view} does not show --measure {measure}")
    if measure in CHARTS and measure != view:
        raise InputError(f"--measure {measure} is shown by --view {measure}, not {view}")
    if view == "heads" and measure in _WITHOUT_HEADS:
        raise InputError(f"--view heads: {measure} is one of all heads; expected another view")
    if view == "heads" and options.reduce:
        raise InputError(f"--view heads shows each head; expected no --reduce {options.reduce}")
    if view == "overlay" and len(options.rows) > 1:
        raise InputError(f"--view overlay shows one row, not {len(options.rows)}; --view queries shows several")
    return view


def request_for(view: View, options: ViewOptions, model: Model) -> AttentionRequest:
    """Ask for just what a view shows, and a chart or a rollout only of layers that have it.

    A photo's network without a class token is asked for all rows, of which the pictures show the mean.

    Raises:
        InputError: No layer of the model has what the view shows, or one mixes its heads and cannot drop keys.
    """
    has_class_token = model.patches is not None and model.patches.prefix_tokens > 0
    measure: Measure = (
        "entropy" if view == "entropy" else "distance" if view == "distance" else options.measure or "weights"
    )
    layers = options.layers or ((-1,) if measure in _OF_ONE_LAYER else _able_layers(measure, model))
    if options.drop_special and measure == "weights":
        _refuse_mixed(layers, model)
    rows = options.rows or (spread_rows(_grid_of(layers, model)) if model.patches and view == "queries" else ())
    # A photo's views are of chosen rows, beside which the server takes no drop_special: keys say the same.
    keyed = options.drop_special and model.patches is not None and view not in CHARTS
    first = _prefix_of(layers, model) if keyed else 0
    drops = options.drop_special and not keyed and (model.patches is None or has_class_token)  # else there is nothing
    return AttentionRequest(
        layers=layers,
        heads=options.heads,
        reduce_heads=_reduction(view, measure, options),
        rows=rows,
        cls_only=has_class_token and view in ("overlay", "heads") and not rows,
        keys=tuple(range(first, first + model.patches.rows * model.patches.cols)) if first and model.patches else (),
        measure=measure,
        residual_share=options.residual_share,
        value_weighted=options.value_weighted,
        top_k=options.top_k,
        drop_special=drops,
        renormalize=options.drop_special,
        rows_of_text=options.rows_of_text,
        keys_of_text=options.keys_of_text,
    )


def step_kind(options: ViewOptions, model: Model) -> StepKind | None:
    """Return what to show of the steps of a model that writes; None for what it reads.

    Raises:
        InputError: A kind is asked for of a model that writes nothing.
    """
    if model.generation is None or model.modality != "text":
        if options.kind:
            raise InputError(f"--kind {options.kind}: {model.name} writes no text from a text; expected none")
        return None
    return None if options.kind == "encoder" else options.kind or "cross"


def request_for_steps(view: View, options: ViewOptions) -> AttentionRequest:
    """Ask for just what a view shows of the steps of a model that writes.

    Raises:
        InputError: Something else than layers and heads is asked for, or a view that shows no such weights.
    """
    given = {
        f"--view {view}": view in CHARTS,
        f"--measure {options.measure}": options.measure not in (None, "weights"),
        f"--row {', '.join(map(str, options.rows))}": options.rows,
        f"--residual-share {options.residual_share}": options.residual_share is not None,
        "--value-weighted": options.value_weighted,
        "--drop-special": options.drop_special,
        f"--top-k {options.top_k}": options.top_k,
        f"--rows-of {options.rows_of_text}": options.rows_of_text,
        f"--keys-of {options.keys_of_text}": options.keys_of_text,
    }
    if wrong := [option for option, is_given in given.items() if is_given]:
        raise InputError(f"{wrong[0]}: {_OF_STEPS}")
    return AttentionRequest(
        layers=options.layers or (-1,), heads=options.heads, reduce_heads=_reduction(view, "weights", options)
    )


def spread_rows(patches: PatchGrid, lines: int = 2, columns: int = 4) -> tuple[int, ...]:
    """Choose query patches that lie evenly over an image, to be drawn by `pictures.query_maps`.

    Args:
        patches: The grid of the model or of an image.
        lines: How many of them stand below each other.
        columns: How many of them stand beside each other.

    Returns:
        Positions, prefix tokens counted, each once; fewer than lines * columns where the grid is smaller.
    """
    rows, cols = (
        [int((2 * number + 1) * size / (2 * count)) for number in range(count)]
        for size, count in ((patches.rows, lines), (patches.cols, columns))
    )
    chosen = (patches.prefix_tokens + row * patches.cols + column for row in rows for column in cols)
    return tuple(dict.fromkeys(chosen))


def _grid_of(layers: Sequence[int], model: Model) -> PatchGrid:
    """Return the grid on which the chosen layers lie: patches, or that of their windows.

    Raises:
        InputError: It is not one and the same.
    """
    assert model.patches is not None  # noqa: S101 -- asked of models of photos
    chosen = (layer_grid(one, model.patches) for one in _chosen(layers, model))
    grids = {(grid.rows, grid.cols): grid for grid in chosen}
    if len(grids) > 1:
        sizes = " and ".join(f"{rows} x {cols}" for rows, cols in grids)
        raise InputError(f"--view queries: the layers lie on grids of {sizes} cells; expected --row, or layers of one")
    return next(iter(grids.values()), model.patches)


def _prefix_of(layers: Sequence[int], model: Model) -> int:
    """Return how many keys of the chosen layers are no patches.

    Raises:
        InputError: It is not the same of all.
    """
    chosen = _chosen(layers, model) or model.attention_layers
    found = {layer_grid(layer, model.patches).prefix_tokens for layer in chosen if model.patches}
    if len(found) > 1:
        raise InputError(
            "--drop-special: some layers see the class token, others do not; expected --layer, of one kind"
        )
    return next(iter(found), 0)


def _chosen(layers: Sequence[int], model: Model) -> list[AttentionLayer]:
    """Return those that there are; others the server refuses."""
    known = model.attention_layers
    return [known[place] for place in layers if -len(known) <= place < len(known)]


def _refuse_mixed(layers: Sequence[int], model: Model) -> None:
    """Refuse to leave keys out where rows cannot be made to sum to 1 without them."""
    mixed = next((one.layer for one in _chosen(layers, model) if one.mixes_heads), None)
    if mixed is not None:
        which = f"layer {mixed} of {model.name}"
        raise InputError(f"--drop-special: {which} mixes its heads, so that rows need not sum to 1")


def _default_view(options: ViewOptions, *, is_photo: bool) -> View:
    if options.measure == "entropy" or options.measure == "distance":
        return options.measure
    if not is_photo:
        return (
            "heads"
            if len(options.heads) > 1 and not options.reduce and options.measure not in _WITHOUT_HEADS
            else "matrix"
        )
    if len(options.rows) > 1:
        return "queries"
    return "overlay" if len(options.heads) == 1 or options.reduce or options.measure in _WITHOUT_HEADS else "heads"


def _able_layers(measure: Measure, model: Model) -> tuple[int, ...]:
    """Return the layers that have a measure; empty where all do.

    Neither cross-attention nor attention in windows has distances or rollouts, but where one window is the whole grid.
    Layers that mix their heads have neither these nor entropies.
    A rollout is of layers on one grid: that of the last that can have one.
    """
    able = [
        place
        for place, layer in enumerate(model.attention_layers)
        if not (layer.mixes_heads and measure in ("entropy", *_SELF_ONLY))
        and (
            measure == "entropy"
            or (layer.kind != "cross" and _sees_all(layer) and (measure in _SELF_ONLY or layer.has_contributions))
        )
    ]
    if not able and any(layer.mixes_heads for layer in model.attention_layers):
        raise InputError(f"--measure {measure}: {model.name} mixes its heads, so that rows need not sum to 1")
    if model.attention_layers and not able and measure in _SELF_ONLY:
        found = "attention in windows" if any(layer.window for layer in model.attention_layers) else "cross-attention"
        raise InputError(f"--measure {measure}: {model.name} has {found} alone; expected self-attention")
    if measure == "rollout" and model.patches:
        able = [place for place in able if _shape_of(place, model) == _shape_of(able[-1], model)]
    return () if len(able) == len(model.attention_layers) else tuple(able)


def _sees_all(layer: AttentionLayer) -> bool:
    return layer.window is None or layer.window.is_whole


def _shape_of(place: int, model: Model) -> tuple[int, int, int]:
    """Prefix tokens, rows and columns of a layer's grid."""
    grid = _grid_of((place,), model)
    return grid.prefix_tokens, grid.rows, grid.cols


def _reduction(view: View, measure: Measure, options: ViewOptions) -> HeadReduction | None:
    """Reduce heads where a view shows one thing of all of them; some measures are that already."""
    if options.reduce or view in ("heads", *CHARTS) or measure in _WITHOUT_HEADS or len(options.heads) == 1:
        return options.reduce
    return None if view == "arcs" and options.heads else "mean"
