"""Checks a call's arguments before anything is sent: each refusal names the field, its value and what was expected."""

import math
import operator
import reprlib
from collections.abc import Sequence
from typing import Any

import grpc
import numpy as np

from regard.errors import InvalidCall, RegardError

MAX_INT32, MAX_UINT32 = 2**31 - 1, 2**32 - 1
_MAX_TIMEOUT_SECONDS = 1e9
"""gRPC counts a deadline in nanoseconds since 1970, as int64, and takes one that overflows for one that has passed."""
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60


def invalid(field: str, value: object, expected: str) -> InvalidCall:
    """Return the refusal of one argument."""
    return InvalidCall.of(f"{field}: {describe(value)}; expected {expected}")


def describe(value: object) -> str:
    """Write a value so that it fits a line, control characters escaped; one that is no text or number with its type."""
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} {list(value.shape)}"
    short = " ".join(_SHORT.repr(value).split())
    return short if value is None or isinstance(value, str | int | float) else f"{short} ({type(value).__name__})"


def text(field: str, value: object) -> str:
    """Return a text that UTF-8 can write.

    Raises:
        InvalidCall: It is none, or holds half of a surrogate pair.
    """
    if not isinstance(value, str):
        raise invalid(field, value, "a str")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise invalid(field, value, f"text that UTF-8 can write, unlike character {error.start}") from error
    return value


def name(field: str, value: object) -> str:
    """Return a name, which may be left empty; None is empty too."""
    return "" if value is None else text(field, value)


def names(field: str, value: Any) -> list[str]:
    """Return several names; None is no name.

    Raises:
        InvalidCall: They are no sequence of texts, but one text, say.
    """
    if isinstance(value, str | bytes):
        raise invalid(field, value, "a list of str")
    return [text(field, one) for one in items(field, () if value is None else value, "a list of str")]


def texts(field: str, value: Any) -> list[str]:
    """Return several texts, none of which is left out; an error names the index.

    Raises:
        InvalidCall: They are no sequence of texts, but one text, say.
    """
    if isinstance(value, str | bytes):
        raise invalid(field, value, "a list of str")
    return [text(f"{field}[{number}]", one) for number, one in enumerate(items(field, value, "a list of str"))]


def integer(field: str, value: Any, low: int, high: int) -> int:
    """Return a whole number of any type that is one, numpy's among them.

    Raises:
        InvalidCall: It is none, or True or False, or not from low to high.
    """
    expected = f"a whole number from {low} to {high}"
    if isinstance(value, bool):
        raise invalid(field, value, expected)
    try:
        number = operator.index(value)
    except TypeError as error:
        raise invalid(field, value, expected) from error
    if not low <= number <= high:
        raise invalid(field, number, expected)
    return number


def integers(field: str, value: Any) -> list[int]:
    """Return whole numbers that int32 holds.

    Raises:
        InvalidCall: They are none, or no sequence.
    """
    return [integer(field, one, -MAX_INT32 - 1, MAX_INT32) for one in items(field, value, "a list of int")]


def real(field: str, value: object) -> float:
    """Return a number.

    Raises:
        InvalidCall: It is none.
    """
    if not isinstance(value, int | float | np.number) or isinstance(value, np.complexfloating) or math.isnan(value):
        raise invalid(field, value, "a number")
    return float(value)


def flag(field: str, value: object) -> bool:
    """Return a truth value.

    Raises:
        InvalidCall: It is none.
    """
    if not isinstance(value, int | np.bool_):
        raise invalid(field, value, "True or False")
    return bool(value)


def choice(field: str, value: object, choices: Sequence[str | None]) -> None:
    """Check that a value is one of some words, or none where that is among them.

    Raises:
        InvalidCall: It is another.
    """
    if not (value is None or isinstance(value, str)) or value not in choices:
        *most, last = map(repr, choices)
        raise InvalidCall.of(f"{field} is {describe(value)}; expected {', '.join(most)} or {last}")


def seconds(field: str, value: Any) -> float | None:
    """Return a timeout; None means none.

    Raises:
        InvalidCall: It is no number, negative, or larger than gRPC can count.
    """
    if value is None:
        return None
    number = real(field, value)
    if not 0 <= number <= _MAX_TIMEOUT_SECONDS:
        raise invalid(field, value, f"0 to {_MAX_TIMEOUT_SECONDS:.0e} seconds")
    return number


def closed() -> RegardError:
    """Return what a call on a closed client raises."""
    return RegardError(grpc.StatusCode.CANCELLED, "the client is closed")


def items(field: str, value: Any, expected: str) -> list[Any]:
    """Return what a sequence holds.

    Raises:
        InvalidCall: It is none.
    """
    try:
        return list(value)
    except TypeError as error:
        raise invalid(field, value, expected) from error
