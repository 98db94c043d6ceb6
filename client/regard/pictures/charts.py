"""Entropy and attention distance of all heads as a chart: layers along x, one dot a head."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from numpy.typing import NDArray

from regard.attention import Attention, AttentionRequest, LayerAttention
from regard.matrices import HeadNumbers, counted, head_names, head_numbers, positions, reduction_of
from regard.pictures.lettering import POINTS_PER_INCH
from regard.pictures.style import SCREEN, Style, canvas, legend_below, whole
from regard.pictures.titles import fit_title

_LAYER_INCHES, _HEAD_INCHES, _MIN_INCHES, _MAX_INCHES = 0.75, 0.15, 5.0, 13.0
_HEIGHT_INCHES, _HEIGHT_SHARE = 4.0, 0.5
_AROUND_INCHES, _NUMBER_PAD_POINTS, _SIDES = 0.9, 4, ("top", "bottom")
_SLOT_SHARE = 0.8
"""Of the room between two layers, what its heads are spread over."""


def head_chart(
    attention: Attention,
    *,
    model: str,
    asked: AttentionRequest | None = None,
    style: Style = SCREEN,
    on: SubFigure | None = None,
) -> Figure:
    """Draw the entropy or the attention distance of every head that was sent; a bar marks each layer's mean.

    Of an entropy, which is averaged over the rows, the largest possible is marked: that of attending to all alike.
    The chart of distances is figure 7 of Dosovitskiy et al. 2020, "An Image is Worth 16x16 Words".

    Args:
        attention: An answer with that measure: entropies in nats, [H, Q], or distances in pixels of the network's
            input (of texts, in positions), [H]; no H where heads were reduced.
        model: Name for the title.
        asked: What was asked for, where the title should say so: a reduction other than the mean.
        style: Colours and measures.
        on: Draw on this part of a figure (see `side_by_side`).

    Returns:
        The whole figure.

    Raises:
        ValueError: It holds another measure, or no layer.
    """
    if not attention.layers:
        raise ValueError("an answer without layers; expected at least one")
    numbers = [head_numbers(layer) for layer in attention.layers]
    max_heads = max(len(layer.values) for layer in numbers)
    wanted = min(max(_MIN_INCHES, max(_LAYER_INCHES, _HEAD_INCHES * max_heads) * len(numbers) + 1.2), _MAX_INCHES)
    inches = style.width(wanted)
    title = fit_title(_title(attention.layers, model, asked), inches, style.text_points + 2)
    height = min(_HEIGHT_INCHES, _HEIGHT_SHARE * inches + 0.8)
    drawn_on = canvas(style, on, inches, height + title.height_inches)
    axes = drawn_on.add_subplot()
    _draw_dots(axes, numbers, style)
    axes.set_ylim(bottom=0)
    if attention.layers[0].measure == "entropy":
        _mark_maximum(axes, attention, style)
    _write_numbers(axes, numbers, (inches, height - _AROUND_INCHES), style)
    _label(axes, numbers, attention, style)
    drawn_on.suptitle(title.text, color=style.ink, fontsize=title.points)
    legend_below(drawn_on, axes.get_legend_handles_labels()[0], inches, style)
    return whole(drawn_on)


def _title(layers: Sequence[LayerAttention], model: str, asked: AttentionRequest | None) -> str:
    layer = layers[0]
    what = "entropy of attention" if layer.measure == "entropy" else "attention distance"
    counts = {len(each.queries) for each in layers}
    rows = "each layer's rows" if len(counts) > 1 else "1 row" if counts == {1} else f"{len(layer.queries)} rows"
    reduced = head_names(layer, asked)[0] if len({each.heads for each in layers}) == 1 else _fused(asked)
    heads = " of each head" if "head" in layer.axes else f", {reduced}"
    valued = ", weighted by value lengths" if asked and asked.value_weighted else ""
    return f"{model} · {what}{heads}, mean over {rows}{valued}"


def _fused(asked: AttentionRequest | None) -> str:
    """Name a reduction of heads, of which some layers have more than others."""
    return f"{reduction_of(asked)} of each layer's heads"


def _spread(layer: HeadNumbers) -> NDArray[np.float64]:
    """Where a layer's dots lie around it."""
    return np.linspace(-0.5, 0.5, len(layer.values)) * _SLOT_SHARE if len(layer.values) > 1 else np.zeros(1)


def _draw_dots(axes: Axes, numbers: Sequence[HeadNumbers], style: Style) -> None:
    """Draw each head in its own place around its layer, head 0 on the left."""
    colour = style.categories[1]
    max_heads = max(len(layer.heads) for layer in numbers)
    for place, layer in enumerate(numbers):
        spread = _spread(layer)
        label = "a head" if layer.heads else "all heads"
        axes.scatter(
            place + spread,
            layer.values,
            s=22,
            color=colour,
            linewidths=0,
            clip_on=False,
            zorder=3,
            label=None if place else label,
        )
    if max_heads > 1:
        means, places = [float(layer.values.mean()) for layer in numbers], np.arange(len(numbers))
        ends = places - _SLOT_SHARE / 2, places + _SLOT_SHARE / 2
        axes.hlines(means, *ends, color=style.categories[0], linewidth=2, label="mean of the layer")


def _write_numbers(axes: Axes, numbers: Sequence[HeadNumbers], inches: tuple[float, float], style: Style) -> None:
    """Write each head's number above its dot where there is room; below it, where a bar or a line is in the way."""
    max_heads = max(len(layer.heads) for layer in numbers)
    slot_points = (inches[0] - 1.2) * POINTS_PER_INCH / len(numbers) * _SLOT_SHARE
    if slot_points / max(max_heads, 1) < style.small() * 0.5 * len(str(max(max_heads - 1, 0))):
        return
    top = axes.get_ylim()[1]
    needed = (style.small() + _NUMBER_PAD_POINTS * 2) / (inches[1] * POINTS_PER_INCH) * top
    lines = [float(np.asarray(line.get_ydata())[0]) for line in axes.lines]
    for place, layer in enumerate(numbers):
        bars = [*lines, float(layer.values.mean())]
        for head, x, y in zip(layer.heads, place + _spread(layer), layer.values, strict=False):
            above = not any(y <= bar <= y + needed for bar in bars)
            away = {"xytext": (0, _NUMBER_PAD_POINTS if above else -_NUMBER_PAD_POINTS), "va": _SIDES[above]}
            options = {"color": style.ink, "fontsize": style.small(), "textcoords": "offset points", "ha": "center"}
            axes.annotate(str(head), (x, y), **options, **away)  # type: ignore[arg-type]


def _mark_maximum(axes: Axes, attention: Attention, style: Style) -> None:
    count = _num_keys(attention)
    crossing = [layer.layer for layer in attention.layers if layer.kind == "cross"]
    if not count or len(crossing) == len(attention.layers):
        return
    maximum = math.log(count)
    but = f" (not of {counted('layer', crossing)}, cross-attention)" if crossing else ""
    label = f"possible maximum, ln {count} = {maximum:.2f}{but}"
    axes.axhline(maximum, color=style.ink, linestyle="--", linewidth=1, label=label)
    axes.set_ylim(top=max(maximum * 1.08, axes.get_ylim()[1]))


def _num_keys(attention: Attention) -> int:
    """How many positions can be attended to; 0 where nobody knows."""
    keys = attention.layers[0].keys
    if keys:
        return len(keys)
    if windows := [layer.window for layer in attention.layers if layer.window]:
        return max(window.height * window.width for window in windows)
    if attention.tokens is not None:
        return len(attention.tokens)
    return positions(attention.patches) if attention.patches is not None else 0


def _label(axes: Axes, numbers: Sequence[HeadNumbers], attention: Attention, style: Style) -> None:
    units = {
        "entropy": "entropy in nats",
        "distance": "distance in input pixels" if attention.patches else "distance in positions",
    }
    points = style.text_points
    axes.set_xlabel("layer", color=style.ink, fontsize=points)
    axes.set_ylabel(units[attention.layers[0].measure], color=style.ink, fontsize=points)
    axes.set_xticks(range(len(numbers)), [str(layer.layer) for layer in numbers])
    axes.set_xlim(-0.6, len(numbers) - 0.4)
    axes.tick_params(colors=style.ink, labelsize=style.small(), length=0)
    axes.set_facecolor(style.paper)
    axes.grid(axis="y", color=style.faint, linewidth=0.5)
    axes.set_axisbelow(True)
    for name, spine in axes.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set_color(style.faint)
