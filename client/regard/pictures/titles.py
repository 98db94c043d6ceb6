"""The title of a picture: what it says, broken into lines, and how high these are."""

from dataclasses import dataclass

from regard.attention import LayerAttention
from regard.matrices import layer_name
from regard.pictures.lettering import height_inches, wrapped


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
    """Break a title into lines that fit a width."""
    text = wrapped(title, width_inches, points)
    return Title(text, points, height_inches(text, points))
