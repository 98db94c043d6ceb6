"""What a study asks of a model, and what it makes of each answer."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regard import checks
from regard.answers import AttentionLayer, Model
from regard.attention import Attention, AttentionRequest, Rectangle, Span, Statistic

_OF_ALL: tuple[Statistic, ...] = ("entropy", "distance", "sink", "previous", "next", "current")
_OF_TEXTS: tuple[Statistic, ...] = ("first", "separator", "special", "duplicate", "induction")


@dataclass(frozen=True)
class StudyOptions:
    """What is counted.

    Attributes:
        statistics: Which, see `regard.AttentionRequest`; empty for all that the model and its inputs have.
        layers: Which; empty for all that have these.
        value_weighted: Count weights times the lengths of value vectors.
        contributions: Count the contributions of all heads together, one number a layer.
        drop_special: Leave special or prefix tokens out of rows and keys.
        cls_only: Only the row of the class token.
        spans: Of "region" in texts: (start, end) in code points, the same of all.
        boxes: Of "region" in images: (left, top, right, bottom) in pixels, the same of all.
    """

    statistics: tuple[Statistic, ...] = ()
    layers: tuple[int, ...] = ()
    value_weighted: bool = False
    contributions: bool = False
    drop_special: bool = False
    cls_only: bool = False
    spans: tuple[Span, ...] = ()
    boxes: tuple[Rectangle, ...] = ()

    def request(self, model: Model, kind: str) -> AttentionRequest:
        """Choose what is asked of a model's inputs: its "images", "texts" or "pairs".

        Raises:
            InvalidArgument: The model has no attention to show, or an option has no such value.
        """
        if not model.attention_layers:
            raise checks.invalid("model", model.name, "one that was exported with attention")
        return AttentionRequest(
            layers=self.layers or self._layers(model),
            measure="contribution" if self.contributions else "weights",
            value_weighted=self.value_weighted,
            drop_special=self.drop_special,
            cls_only=self.cls_only,
            statistics=self.statistics or self._statistics(model, kind),
            spans=self.spans,
            boxes=self.boxes,
        )

    def _layers(self, model: Model) -> tuple[int, ...]:
        """Leave out what has no statistics, and, where there are others, what has few."""
        able = [layer for layer in model.attention_layers if self.contributions or not layer.mixes_heads]
        usual = [layer.layer for layer in able if _is_usual(layer)]
        chosen = usual or [layer.layer for layer in able]
        return () if len(chosen) == len(model.attention_layers) else tuple(chosen)

    def _statistics(self, model: Model, kind: str) -> tuple[Statistic, ...]:
        if not any(map(_is_usual, model.attention_layers)):
            return ("entropy",)
        found: list[Statistic] = [*_OF_ALL]
        if kind != "images":
            found += _OF_TEXTS
        elif model.patches and (prefix := model.patches.prefix_tokens):
            found += ["first"] if prefix == 1 else ["first", "registers", "special"]
        if self.drop_special:
            found = [one for one in found if one not in ("first", "separator", "registers", "special")]
        if self.cls_only and kind == "images":  # which has no place on the picture
            found.remove("distance")
        if self.value_weighted or self.contributions:
            found.append("norm")
        if self.spans or self.boxes:
            found.append("region")
        return tuple(found)


def _is_usual(layer: AttentionLayer) -> bool:
    """Whether its positions are those of the input, and its rows sum to 1."""
    return layer.kind != "cross" and not (layer.window or layer.mixes_heads or layer.class_attention)


def described(model: Model, kind: str, request: AttentionRequest) -> dict[str, Any]:
    """Say what is asked, for study.json: a run that goes on must ask the same."""
    by_number = {layer.layer: layer for layer in model.attention_layers}
    count = len(model.attention_layers)
    numbers = [number % count for number in request.layers] or sorted(by_number)
    return {
        "model": model.name,
        "version": model.version,
        "kind": kind,
        "modality": "image" if kind == "images" else "text",
        "statistics": list(request.statistics),
        "layers": [
            {
                "layer": number,
                "heads": [None] if request.measure == "contribution" else list(range(by_number[number].num_heads)),
            }
            for number in numbers
        ],
        "value_weighted": request.value_weighted,
        "contributions": request.measure == "contribution",
        "drop_special": request.drop_special,
        "cls_only": request.cls_only,
        "spans": [list(span) for span in request.spans],
        "boxes": [list(box) for box in request.boxes],
    }


def numbers_of(attention: Attention, shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """Return an answer's statistics, float32 [layer, head, statistic]; NaN where a layer has fewer heads."""
    found = np.full(shape, np.nan, np.float32)
    for at, layer in enumerate(attention.layers):
        numbers = layer.weights if "head" in layer.axes else layer.weights[np.newaxis]
        found[at, : len(numbers)] = numbers
    return found


def how_to_ask(client: Any, model: Model, kind: str) -> Callable[..., Any]:
    """Choose the cheapest call that carries attention: many inputs a call where the model classifies or embeds."""
    if model.can_classify:
        return partial(client.classify_many, top_k=1)
    many: Callable[..., Any] = client.attend_many
    if kind != "pairs" and model.can_embed and not (model.embedding_sparse or model.token_vector_dim):
        many = client.embed_many
    return many


def attention_of(answer: Any) -> Attention:
    """Return the attention of an answer, which may be that itself."""
    found: Attention = answer if isinstance(answer, Attention) else answer.attention
    return found
