"""What is said of a model that takes something else than it was given."""

from typing import Literal

from server.errors import NotPossible
from server.repository.loading import LoadedModel

_KINDS = {"text": ("text", "a text"), "image": ("images", "an image"), "audio": ("audio", "audio")}


def takes_no(model: LoadedModel, kind: Literal["text", "image", "audio"]) -> NotPossible:
    """Say what a model takes in place of a text, an image or a sound."""
    none_of, _ = _KINDS[kind]
    for other, (_, expected) in _KINDS.items():
        if other != kind and getattr(model.contract, other) is not None:
            return NotPossible(f"{kind}: {model.name} takes no {none_of}; expected {expected}")
    return NotPossible(f"{kind}: {model.name} takes tensors only; expected its own inputs")
