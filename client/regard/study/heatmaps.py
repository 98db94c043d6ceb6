"""Heat maps of layers and heads as SVG: layers downwards, heads to the right, a bar below that says the scale."""

import html
from collections.abc import Callable, Sequence

_CELL, _LEFT, _TOP, _BAR, _BAR_STEPS = 22, 30, 18, 10, 32
_MIN_WIDTH = 200
# Nine of viridis' 256 colours (Smith, van der Walt 2015, CC0), evenly spaced: dark to light, readable without hues.
_VIRIDIS = (
    (68, 1, 84), (71, 44, 122), (59, 81, 139), (44, 113, 142), (33, 144, 141), (39, 173, 129), (92, 200, 99),
    (170, 220, 50), (253, 231, 37),
)  # fmt: skip
# Blue and vermilion of Okabe and Ito 2008, told apart with every common colour blindness, and a grey between.
_BLUE, _GREY, _VERMILION = (0, 114, 178), (235, 235, 235), (213, 94, 0)

Rgb = tuple[int, int, int]


def sequential(share: float) -> str:
    """Return the colour of a share of a scale, from 0 to 1."""
    place = min(max(share, 0.0), 1.0) * (len(_VIRIDIS) - 1)
    low = min(int(place), len(_VIRIDIS) - 2)
    return _mixed(_VIRIDIS[low], _VIRIDIS[low + 1], place - low)


def diverging(share: float) -> str:
    """Return the colour of a share of a two-sided scale, from -1 to 1."""
    share = min(max(share, -1.0), 1.0)
    return _mixed(_GREY, _VERMILION if share > 0 else _BLUE, abs(share))


def _mixed(one: Rgb, other: Rgb, share: float) -> str:
    red, green, blue = (round(first + (second - first) * share) for first, second in zip(one, other, strict=True))
    return f"#{red:02x}{green:02x}{blue:02x}"


def number_text(number: float) -> str:
    """Write a number with three digits, without an exponent where that is short."""
    if number != number:
        return "none"
    if number and not 1e-3 <= abs(number) < 1e5:
        return f"{number:.1e}"
    return f"{number:.3g}" if abs(number) < 1000 else f"{number:.0f}"


def head_name(layer: int, head: int | None) -> str:
    """Name a head, or a layer that has one number for all."""
    return f"layer {layer}" + ("" if head is None else f", head {head}")


def heat_map(
    layers: Sequence[tuple[int, Sequence[int | None]]],
    value: Callable[[int, int], float | None],
    colour: Callable[[float], str],
    told: Callable[[int, int], str],
    ends: tuple[float, float],
    label: str,
    *,
    is_pale: Callable[[int, int], bool] = lambda at, place: False,
    colour_of_share: Callable[[float], str] = sequential,
) -> str:
    """Return an SVG.

    Args:
        layers: Number and heads of each.
        value: Of a cell, by the places of layer and head; None where there is none.
        colour: Of a value.
        told: What pointing at a cell tells of it.
        ends: Of the scale.
        label: The map in words.
        is_pale: Whether a cell is drawn pale.
        colour_of_share: Of the bar, from 0 to 1.
    """
    most = max(len(heads) for _, heads in layers)
    width = max(_LEFT + most * _CELL, _MIN_WIDTH)
    bottom = _TOP + len(layers) * _CELL
    parts = [f'<text x="0" y="{_TOP - 6}">layer</text>' if most > 2 else ""]
    parts += [_text(_LEFT + (place + 0.5) * _CELL, _TOP - 6, str(place)) for place in range(most) if most > 2]
    for at, (layer, heads) in enumerate(layers):
        top = _TOP + at * _CELL
        parts.append(f'<text x="{_LEFT - 6}" y="{top + _CELL / 2 + 4}" text-anchor="end">{layer}</text>')
        for place, head in enumerate(heads):
            if (found := value(at, place)) is None:
                continue
            where = head_name(layer, head)
            pale = ' fill-opacity="0.35"' if is_pale(at, place) else ""
            parts.append(
                f'<rect x="{_LEFT + place * _CELL}" y="{top}" width="{_CELL - 1}" height="{_CELL - 1}" '
                f'fill="{colour(found)}"{pale}><title>{where}: {html.escape(told(at, place))}</title></rect>'
            )
    parts.append(_bar(bottom + 8, width, ends, colour_of_share))
    height = bottom + 8 + _BAR + 16
    shape = f'viewBox="0 0 {width} {height}" role="img" aria-label="{html.escape(label)}"'
    return f"<svg {shape}>{''.join(parts)}</svg>"


def _bar(top: float, width: int, ends: tuple[float, float], colour: Callable[[float], str]) -> str:
    step = (width - _LEFT) / _BAR_STEPS
    steps = "".join(
        f'<rect x="{_LEFT + at * step:.2f}" y="{top}" width="{step + 0.5:.2f}" height="{_BAR}" '
        f'fill="{colour(at / (_BAR_STEPS - 1))}"/>'
        for at in range(_BAR_STEPS)
    )
    low, high = (number_text(end) for end in ends)
    return (
        f'{steps}<text x="{_LEFT}" y="{top + _BAR + 13}">{low}</text>'
        f'<text x="{width}" y="{top + _BAR + 13}" text-anchor="end">{high}</text>'
    )


def _text(x: float, y: float, text: str) -> str:
    return f'<text x="{x}" y="{y}" text-anchor="middle">{text}</text>'
