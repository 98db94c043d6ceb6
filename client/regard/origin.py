"""What an answer's attention or relevance came from, so that nobody has to say it again to draw it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from regard.attention import Attention, AttentionRequest
from regard.relevance import Relevance

Drawn = Attention | Relevance

_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Origin:
    """Where attention or relevance came from.

    Attributes:
        model: Which model answered; empty where the answer does not say.
        asked: Which attention was asked for; None for all.
        image: The image file that was sent, else None.
    """

    model: str = ""
    asked: AttentionRequest | None = None
    image: bytes | None = None


def keep(drawn: Drawn, origin: Origin) -> None:
    """Keep it beside the fields: it is nothing that the server sent, and no part of what is written out."""
    object.__setattr__(drawn, "_origin", origin)


def origin_of(drawn: Drawn) -> Origin:
    """Return what was kept, or nothing that is known."""
    found: Origin = getattr(drawn, "_origin", Origin())
    return found


def told(answer: _Answer, request: Any, asked: AttentionRequest | None) -> _Answer:
    """Return an answer to one input after keeping what its attention and relevance came from."""
    model = getattr(answer, "model", "") or request.model
    image = request.image if request.WhichOneof("input") == "image" else None
    for drawn in _drawn_of(answer):
        keep(drawn, Origin(model, asked, image))
    return answer


def told_each(answers: Sequence[Any], request: Any, asked: AttentionRequest | None) -> None:
    """Keep for the answers to several inputs what the attention and relevance of each came from."""
    images = request.images.items if request.WhichOneof("input") == "images" else ()
    for number, answer in enumerate(answers):
        for drawn in _drawn_of(answer):
            keep(drawn, Origin(getattr(answer, "model", ""), asked, images[number] if images else None))


def _drawn_of(answer: Any) -> list[Drawn]:
    parts = answer, getattr(answer, "attention", None), *getattr(answer, "relevances", ())
    return [part for part in parts if isinstance(part, Drawn)]
