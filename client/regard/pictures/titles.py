"""The title of a picture: what it says, broken into lines, and how high these are."""

from dataclasses import dataclass

from regard.attention import LayerAttention
from regard.matrices import layer_name
from regard.pictures.lettering import SMALLEST_POINTS, height_inches, longest_inches, wrapped

_KEPT = "\u00a0"
_BREAKS = ((f"{_KEPT}·{_KEPT}", f"{_KEPT}· "), *((f"{mark}{_KEPT}", f"{mark} ") for mark in ":;"))
"""Where lines may end: behind these, with the space that no line is broken at and the one that any may be."""


@dataclass(frozen=True)
class Title:
    """A title as it is drawn.

    Attributes:
        text: Its lines.
        points: Size of its type.
        height_inches: How high the lines are together.
    """

    text: str
    points: float
    height_inches: float


def layer_title(model: str, layer: LayerAttention, what: str) -> str:
    """Return the title of one layer's picture, in one line."""
    return f"{model} · {layer_name(layer)} · {what}"


def fit_title(title: str, width_inches: float, points: float) -> Title:
    """Break a title into lines that fit a width, between its phrases; smaller type rather than within one.

    Phrases end at " · ", ": " and "; ". Where one does not fit alone in type of 7 points, all breaks between words.
    """
    kept = "".join(letter if letter != " " else _KEPT for letter in title)
    for separator, broken in _BREAKS:
        kept = kept.replace(separator, broken)
    size = points
    while size > SMALLEST_POINTS and longest_inches(kept.split(" "), size) > width_inches:
        size = max(SMALLEST_POINTS, size - 1)
    fits = longest_inches(kept.split(" "), size) <= width_inches
    text = wrapped(kept if fits else title, width_inches, size).replace(_KEPT, " ")
    return Title(text, size, height_inches(text, size))
