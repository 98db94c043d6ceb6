"""Counts the fields of a message in its bytes, before it is parsed: two bytes can make an object of a hundred."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from google.protobuf.descriptor import FieldDescriptor

from server.errors import MalformedMessage

Fields = dict[int, "Fields | FieldDescriptor"]
"""What is looked at of a message, by field number: the fields of a nested one, lists of integers, texts and names."""

_AT_A_TIME = 1024  # fields, about a millisecond
_VARINT, _LENGTH = 0, 2  # https://protobuf.dev/programming-guides/encoding
_FIXED_BYTES = {1: 8, 5: 4}
_MAX_VARINT_BYTES, _MORE = 10, 128
_SHORT_BYTES = 256  # a list of integers that is shorter counts by its bytes
_INTEGERS = (
    FieldDescriptor.TYPE_BOOL,
    FieldDescriptor.TYPE_ENUM,
    FieldDescriptor.TYPE_INT32,
    FieldDescriptor.TYPE_INT64,
    FieldDescriptor.TYPE_SINT32,
    FieldDescriptor.TYPE_SINT64,
    FieldDescriptor.TYPE_UINT32,
    FieldDescriptor.TYPE_UINT64,
)


@dataclass(frozen=True)
class MessageLimits:
    """Most of what a message may have.

    Attributes:
        fields: Those of nested messages included; each entry of a list of messages or texts is one.
        integers: In its lists of integers, which take up to eight times their bytes once they are parsed.
        text_bytes: Of a text or a name: it is copied whenever it is looked at, and checked letter by letter.
    """

    fields: int
    integers: int
    text_bytes: int

    @property
    def harmless_bytes(self) -> int:
        """A message of so many bytes is within them whatever it holds."""
        return min(2 * self.fields, self.integers, self.text_bytes)


def fields_of(message: Any, known: dict[str, Fields] | None = None) -> Fields:
    """Find what there is to be looked into; all else is stepped over as one.

    Args:
        message: The descriptor of a message.
        known: What was found of others, by full name.
    """
    known = {} if known is None else known
    if message.full_name not in known:
        fields = known[message.full_name] = {}
        for field in message.fields:
            if field.message_type:
                fields[field.number] = fields_of(field.message_type, known)
            elif field.type == FieldDescriptor.TYPE_STRING or field.type in _INTEGERS:
                fields[field.number] = field
    return known[message.full_name]


def check_fields(content: bytes, fields: Fields, limits: MessageLimits) -> Iterator[None]:
    """Walk over the fields of a message, up to the limits.

    Yields:
        Now and then, for others to be served.

    Raises:
        MalformedMessage: There are too many, or the bytes are no message.
    """
    try:
        yield from _walk(content, fields, limits)
    except IndexError:  # it ends within a field
        raise MalformedMessage from None


def _walk(content: bytes, fields: Fields, limits: MessageLimits) -> Iterator[None]:
    position, end, counts, texts = 0, len(content), _Counts(limits), 0
    outer = list[tuple[int, Fields, int]]()  # the messages around this one: where each ends, what it has, texts in it
    while True:
        while position >= end:
            if position > end:
                raise MalformedMessage
            if not outer:
                return
            end, fields, texts = outer.pop()
        tag, position = _read_varint(content, position)
        counts.add_field()
        if not counts.fields % _AT_A_TIME:
            yield
        if tag & 7 != _LENGTH:
            position = _step_over(content, position, tag & 7)
            continue
        length, position = _read_varint(content, position)
        if position + length > end:
            raise MalformedMessage
        inner = fields.get(tag >> 3)
        if isinstance(inner, dict):
            outer.append((end, fields, texts))
            end, fields, texts = position + length, inner, 0
            continue
        if inner is not None and inner.type == FieldDescriptor.TYPE_STRING:
            counts.check_text(inner, texts, length)
            texts += 1
        elif inner is not None:
            counts.add_integers(content, position, length)
        position += length


class _Counts:
    """What was seen of a message so far."""

    def __init__(self, limits: MessageLimits) -> None:
        self.limits = limits
        self.fields = self.integers = 0

    def add_field(self) -> None:
        self.fields += 1
        if self.fields > self.limits.fields:
            raise _too_many("fields", self.limits.fields)

    def add_integers(self, content: bytes, position: int, length: int) -> None:
        """Count a list of integers; the last byte of each has no highest bit, a signed byte's minus."""
        limit = self.limits.integers
        if _SHORT_BYTES < length <= limit * _MAX_VARINT_BYTES:
            self.integers += int(np.count_nonzero(np.frombuffer(content, np.int8, length, position) >= 0))
        else:
            self.integers += length
        if self.integers > limit:
            raise _too_many("integers", limit)

    def check_text(self, field: FieldDescriptor, number: int, length: int) -> None:
        """Refuse a text that is too long; of several in a message of their own (Texts) by its number."""
        if length > self.limits.text_bytes:
            lists, name = field.containing_type, field.name
            if lists and name == "items":
                name = f"{lists.name.lower()}[{number}]"
            expected = f"at most {self.limits.text_bytes} (see the server's --max-text-bytes)"
            raise MalformedMessage(f"{name}: {length} bytes; expected {expected}", "text")


def _too_many(what: Literal["fields", "integers"], limit: int) -> MalformedMessage:
    expected = f"at most {limit} (the server's --max-message-{what}); tensors may travel raw"
    return MalformedMessage(f"more than {limit} {what} in the message; expected {expected}", what)


def _read_varint(content: bytes, position: int) -> tuple[int, int]:
    """Read a number of seven bits a byte, lowest first; returns where it ends, too."""
    byte = content[position]
    if byte < _MORE:
        return byte, position + 1
    number = 0
    for shift in range(0, 7 * _MAX_VARINT_BYTES, 7):
        byte = content[position]
        position += 1
        number |= (byte & ~_MORE) << shift
        if byte < _MORE:
            return number, position
    raise MalformedMessage


def _step_over(content: bytes, position: int, kind: int) -> int:
    """Find the end of a value that does not say how long it is; groups are no part of our messages."""
    if kind == _VARINT:
        return _read_varint(content, position)[1]
    if kind not in _FIXED_BYTES:
        raise MalformedMessage
    return position + _FIXED_BYTES[kind]
