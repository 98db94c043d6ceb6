"""What is counted of a JSON text, however it is cut into pieces."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.api.rest.json_bounds import JsonBounds
from server.errors import MalformedMessage

_SCALARS = st.none() | st.booleans() | st.integers() | st.text('ab"\\[]{},:é', max_size=6)
_TEXTS = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('a"\\,', max_size=3), inner, max_size=3),
)


def count(value: Any) -> int:
    """Values and names, lists and objects: an empty one counts as if it had one more."""
    if isinstance(value, list):
        return 1 + (sum(map(count, value)) if value else 1)
    if isinstance(value, dict):
        return 1 + (sum(1 + count(one) for one in value.values()) if value else 1)
    return 1


@given(_TEXTS, st.lists(st.integers(0, 60), max_size=12), st.booleans())
def test_pieces_count_as_the_whole(value: Any, cuts: list[int], is_ascii: bool) -> None:
    """Quotation marks, backslashes and brackets in strings count for nothing, wherever a piece ends."""
    content, bounds = json.dumps(value, ensure_ascii=is_ascii).encode(), JsonBounds(10**6)
    places = [0, *sorted(min(cut, len(content)) for cut in cuts), len(content)]
    for begin, end in pairwise(places):
        bounds.look(content[begin:end])
    assert bounds.values == count(value)


def test_one_value_more_is_refused_and_so_is_a_bracket_deeper() -> None:
    """Of 5 values, and of 32 brackets."""
    JsonBounds(5).look(b'[1,"a,b,c",{}]')
    with pytest.raises(MalformedMessage, match="more than 4 values"):
        JsonBounds(4).look(b'[1,"a,b,c",{}]')
    deep = JsonBounds(10**6)
    deep.look(b"[" * 32)
    deep.look(b"]" * 31)
    with pytest.raises(MalformedMessage, match="deeper than 32"):
        deep.look(b"[" * 32)


def test_a_string_without_an_end_is_looked_at_once() -> None:
    """A megabyte of quotation marks that are none takes no time; looked at again and again it would take hours."""
    bounds = JsonBounds(10)
    bounds.look(b'["' + b'\\"' * 2**20)
    assert bounds.values == 2
