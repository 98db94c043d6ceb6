"""What an answer's attention came from, so that nobody has to say it again to draw it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from regard.attention import Attention, AttentionRequest

_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Origin:
    """Where attention came from.

    Attributes:
        model: Which model answered; empty where the answer does not say.
        asked: What was asked for; None for all.
        image: The image file that was sent, else None.
    """

    model: str = ""
    asked: AttentionRequest | None = None
    image: bytes | None = None


def keep(attention: Attention | None, origin: Origin) -> None:
    """Keep it beside the fields: it is nothing that the server sent, and no part of what is written out."""
    if attention is not None:
        object.__setattr__(attention, "_origin", origin)


def origin_of(attention: Attention) -> Origin:
    """Return what was kept, or nothing that is known."""
    found: Origin = getattr(attention, "_origin", Origin())
    return found


def told(answer: _Answer, request: Any, asked: AttentionRequest | None) -> _Answer:
    """Return an answer to one input after keeping what its attention came from."""
    model = getattr(answer, "model", "") or request.model
    image = request.image if request.WhichOneof("input") == "image" else None
    keep(answer if isinstance(answer, Attention) else getattr(answer, "attention", None), Origin(model, asked, image))
    return answer


def told_each(answers: Sequence[Any], request: Any, asked: AttentionRequest | None) -> None:
    """Keep for the answers to several inputs what the attention of each came from."""
    if asked is None:
        return
    images = request.images.items if request.WhichOneof("input") == "images" else ()
    for number, answer in enumerate(answers):
        image = images[number] if images else None
        keep(getattr(answer, "attention", None), Origin(getattr(answer, "model", ""), asked, image))
