"""Asking for attention and finding a layer in the answer."""

from typing import Any, cast

import numpy as np
import pytest

from regard import Attention, AttentionRequest, LayerAttention


def _attention(*numbers: int) -> Attention:
    nothing = np.zeros((1, 1, 1), np.float32)
    return Attention(
        tuple(LayerAttention(number, "self", ("head", "query", "key"), (0,), (0,), nothing) for number in numbers)
    )


def test_a_layer_is_found_by_its_number_in_the_model() -> None:
    """Not by its place in the answer."""
    assert _attention(11, 0).layer(0).layer == 0
    assert _attention(11, 0).layer(11).layer == 11


def test_negative_numbers_count_from_the_deepest_layer_sent() -> None:
    """However they were ordered."""
    assert _attention(11, 0).layer(-1).layer == 11
    assert _attention(11, 0).layer(-2).layer == 0


@pytest.mark.parametrize("number", [3, 12, -3])
def test_a_layer_not_sent_is_a_lookup_error(number: int) -> None:
    """Which lists those that were."""
    with pytest.raises(LookupError, match=rf"no layer {number} in this answer, which holds \[0, 11\]"):
        _attention(11, 0).layer(number)


def test_an_unknown_dtype_is_refused_at_once() -> None:
    """Before anything is sent."""
    with pytest.raises(ValueError, match="attention dtype is 'int8'; expected 'float32', 'float16' or 'uint8'"):
        AttentionRequest(dtype=cast("Any", "int8"))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"statistics": ("entropie",)}, "attention statistics is 'entropie'; expected 'entropy', 'distance'"),
        ({"statistics": "entropy"}, "attention statistics is 'e'; expected 'entropy', 'distance'"),
        ({"spans": ((1, 2, 3),)}, r"attention spans: \(1, 2, 3\) \(tuple\); expected a start and an end"),
        ({"boxes": ((1, 2, 3),)}, r"attention boxes: \(1, 2, 3\) \(tuple\); expected left, top, right and bottom"),
        ({"boxes": ((1, 2, 3, "4"),)}, "attention boxes: '4'; expected a number"),
    ],
)
def test_statistics_that_cannot_be_written_are_refused_at_once(asked: dict[str, Any], message: str) -> None:
    """By field and value."""
    with pytest.raises(ValueError, match=message):
        AttentionRequest(**asked)
