"""Why a label, over the photo or token by token, in one colour for what spoke for it and one for what spoke against."""

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from regard.attention import Token
from regard.pictures.lettering import (
    POINTS_PER_INCH,
    cut,
    fonts_for,
    height_inches,
    printable,
    text_inches,
)
from regard.pictures.photos import darken_outside, draw_heat, placed
from regard.pictures.style import (
    MARGIN_INCHES,
    SCREEN,
    Canvas,
    Style,
    beside_beyond,
    canvas,
    draw_bar,
    draw_bar_below,
    inches_of,
    place,
    scale_inches,
    signed_colours,
    whole,
    write_title,
)
from regard.pictures.titles import Title, fit_title
from regard.reasons import headline, is_signed, on_patches, positions_of, unplaced
from regard.relevance import Relevance
from regard.scales import End, signed_end

_WANTED_INCHES, _LEAST_INCHES = 8.0, 3.6
UNIT = "against · logits · for"
_WORD_POINTS, _LINE_SHARE, _PAD_POINTS = 3.0, 1.9, 2.0
_DARK_INK, _LIGHT_INK, _BRIGHT = "#1a1a1a", "#ffffff", 0.45
_MARKS = ("##", "▁", "Ġ")
"""What vocabularies write where a word goes on, or begins."""


def relevance_map(
    photo: Image.Image, why: Relevance, *, model: str, style: Style = SCREEN, on: SubFigure | None = None
) -> Figure:
    """Draw the whole photo with what each patch did for a label laid over it.

    The scale is linear, and as long on both sides of 0 where numbers may be below. What has no place on the photo is
    written below it: prefix tokens, and what belongs to no position. A contour is of what spoke for the label.

    Args:
        photo: From `open_photo`; any resolution with the sides of the image that was sent.
        why: Of that image.
        model: Name for the title.
        style: Colours and measures; of its scale percentile and end, which are of the numbers without their signs.
        on: Draw on this part of a figure (see `side_by_side`).

    Returns:
        The whole figure.

    Raises:
        ValueError: It is of no image, or does not fit the patches.
    """
    on_grid = on_patches(why)
    assert why.patches is not None  # noqa: S101 -- on_patches has refused others
    width, height, _ = placed(why.patches)
    inches = style.width(_WANTED_INCHES)
    across = inches - scale_inches(style) - MARGIN_INCHES
    down = across * height / width
    end = signed_end(on_grid, style.scale)
    title = fit_title(headline(why, model), inches - 2 * MARGIN_INCHES, style.text_points + 2)
    note = _note(why, end, inches, style)
    around = title.height_inches + note.height_inches + 6 * MARGIN_INCHES
    drawn_on = canvas(style, on, inches, down + around, placed=True)
    write_title(drawn_on, title.text, title.points, style)
    top = title.height_inches + 3 * MARGIN_INCHES
    axes = place(drawn_on, MARGIN_INCHES, top, across, down)
    colours = signed_colours("dark", style.opacity, _lowest(why)), _scale(why, end)
    heat = draw_heat(axes, photo, on_grid, why.patches, None, style, end=end.value, seen=why.patches, colours=colours)
    darken_outside(axes, why.patches, style.paper)
    corner = (MARGIN_INCHES + across, top)
    draw_bar(drawn_on, corner, down, heat, style, _unit(why), beyond=end.beyond, over_photo=True)
    _write_note(drawn_on, note, top + down + MARGIN_INCHES, style)
    return whole(drawn_on)


def relevance_text(why: Relevance, *, model: str, style: Style = SCREEN, on: SubFigure | None = None) -> Figure:
    """Draw a text as a text, each token on a ground that says what it did for a label.

    Args, returns and raises: as `relevance_map`, but there is no photo.
    """
    if why.tokens is None:
        raise ValueError("relevance without tokens; expected that of a text")
    most = style.width(_WANTED_INCHES)
    words = _lay_out(why, most - 2 * MARGIN_INCHES, style)
    named = text_inches(headline(why, model), style.text_points + 2)
    inches = min(most, max(_LEAST_INCHES, named, *(word.right for word in words)) + 2 * MARGIN_INCHES)
    title = fit_title(headline(why, model), inches - 2 * MARGIN_INCHES, style.text_points + 2)
    end = signed_end(why.values, style.scale)
    note = _note(why, end, inches, style)
    down = (max((word.line for word in words), default=0) + 1) * _line_inches(style)
    bar = 2 * height_inches("", style.small()) + 0.2
    around = title.height_inches + note.height_inches + bar + 7 * MARGIN_INCHES
    drawn_on = canvas(style, on, inches, down + around, placed=True)
    write_title(drawn_on, title.text, title.points, style)
    top = title.height_inches + 3 * MARGIN_INCHES
    colours = ScalarMappable(_scale(why, end), signed_colours(style.theme, lowest=_lowest(why)))
    full, _ = inches_of(drawn_on)
    axes = place(drawn_on, MARGIN_INCHES, top, full - 2 * MARGIN_INCHES, down)
    axes.set(xlim=(0, full - 2 * MARGIN_INCHES), ylim=(down, 0))
    axes.set_axis_off()
    _draw_words(axes, words, why.values, colours, style)
    _write_note(drawn_on, note, top + down + MARGIN_INCHES, style)
    below = top + down + note.height_inches + 3 * MARGIN_INCHES
    draw_bar_below(drawn_on, below, colours, style, _unit(why), beyond=end.beyond)
    return whole(drawn_on)


def _unit(why: Relevance) -> str:
    """What the numbers of the scale are."""
    return UNIT if is_signed(why) else why.method


def _lowest(why: Relevance) -> float:
    """Where its scale begins, as a share of where it ends."""
    return -1.0 if is_signed(why) else 0.0


def _scale(why: Relevance, end: End) -> Normalize:
    return Normalize(_lowest(why) * end.value, end.value)


@dataclass(frozen=True)
class _Word:
    """A token where it is drawn.

    Attributes:
        text: What is written.
        line: Which line, from 0.
        left: Where its ground begins, in inches.
        right: Where that ends.
    """

    text: str
    line: int
    left: float
    right: float


def _lay_out(why: Relevance, room: float, style: Style) -> list[_Word]:
    """Put tokens into lines; those of one word stay together where a line has room for it."""
    assert why.tokens is not None  # noqa: S101 -- checked by the caller
    points, pad = style.text_points + _WORD_POINTS, _PAD_POINTS / POINTS_PER_INCH
    gap = text_inches("n", points) / 2
    words = list[list[tuple[str, float]]]()
    before = None
    for position in positions_of(why):
        token = why.tokens[position]
        text = printable(_bare(token.text))
        text = cut(text.replace(r"\$", "$"), room - 2 * pad, points) if text_inches(text, points) > room else text
        part = (text, text_inches(text.replace(r"\$", "$"), points) + 2 * pad)
        if _goes_on(before, token) and sum(width for _, width in words[-1]) + part[1] <= room:
            words[-1].append(part)
        else:
            words.append([part])
        before = token
    placed_words, line, left = list[_Word](), 0, 0.0
    for word in words:
        if left and left + sum(width for _, width in word) > room:
            line, left = line + 1, 0.0
        for text, width in word:
            placed_words.append(_Word(text, line, left, left + width))
            left += width
        left += gap
    return placed_words


def _goes_on(before: Token | None, token: Token) -> bool:
    """Whether a token is of the same word as the one before it."""
    if before is None or before.special or token.special:
        return False
    return token.start == before.end and token.of_text == before.of_text


def _bare(text: str) -> str:
    for mark in _MARKS:
        text = text.removeprefix(mark) or text
    return text


def _draw_words(
    axes: Axes, words: list[_Word], values: NDArray[np.float32], colours: ScalarMappable, style: Style
) -> None:
    high, points = _line_inches(style), style.text_points + _WORD_POINTS
    families = fonts_for([word.text for word in words])
    for word, ground in zip(words, colours.to_rgba(values), strict=True):
        corner, size = (word.left, (word.line + 0.1) * high), (word.right - word.left, 0.8 * high)
        axes.add_patch(Rectangle(corner, *size, facecolor=ground, linewidth=0))
        bright = float(np.dot(ground[:3], (0.2126, 0.7152, 0.0722))) > _BRIGHT
        middle = ((word.left + word.right) / 2, (word.line + 0.5) * high)
        axes.text(
            *middle,
            word.text,
            color=_DARK_INK if bright else _LIGHT_INK,
            fontsize=points,
            fontfamily=families,
            ha="center",
            va="center_baseline",
        )


def _line_inches(style: Style) -> float:
    return (style.text_points + _WORD_POINTS) * _LINE_SHARE / POINTS_PER_INCH


def _note(why: Relevance, end: End, inches: float, style: Style) -> Title:
    """Say what was added that has no place in the picture, and what lies beyond its scale."""
    told = beside_beyond(unplaced(why), end)
    return fit_title(told, inches - 2 * MARGIN_INCHES, style.small()) if told else Title("", style.small(), 0.0)


def _write_note(drawn_on: Canvas, note: Title, top: float, style: Style) -> None:
    across, down = inches_of(drawn_on)
    place_at = (MARGIN_INCHES / across, 1 - top / down)
    drawn_on.text(*place_at, note.text, va="top", color=style.ink, fontsize=note.points)
