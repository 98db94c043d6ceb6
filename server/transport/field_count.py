"""Counts the fields of a message in its bytes, before it is parsed: two bytes can make an object of a hundred."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from google.protobuf.descriptor import FieldDescriptor

from server.errors import MalformedMessage


class Field(NamedTuple):
    """A field that is looked at: a nested message with its own fields, or a list of integers, a text or a name."""

    descriptor: FieldDescriptor
    inner: "Fields | None"


Fields = dict[int, Field]
"""What is looked at of a message, by field number."""

_AT_A_TIME = 1024  # fields, about a millisecond
_VARINT, _LENGTH = 0, 2  # https://protobuf.dev/programming-guides/encoding
_FIXED_BYTES = {1: 8, 5: 4}
_MAX_VARINT_BYTES, _MORE = 10, 128
_SHORT_BYTES = 256  # a list of integers that is shorter counts by its bytes
_TEXTS = ("text", "items", "first", "second", "query", "candidate_labels")  # other strings are names, and lists
_UNNAMED = ("items", "value", "string_param")  # callers write pairs[1].first, parameters[prompt]
_MAX_KEY, _FIRST_TAG = 64, 0x0A  # bytes; of field 1, a string
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
        max_text_bytes: What --max-text-bytes says, where that is less: whose text is too long is told so. 0 where it is
            the same.
    """

    fields: int
    integers: int
    text_bytes: int
    max_text_bytes: int = 0

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
                fields[field.number] = Field(field, fields_of(field.message_type, known))
            elif field.type == FieldDescriptor.TYPE_STRING or field.type in _INTEGERS:
                fields[field.number] = Field(field, None)
    return known[message.full_name]


class _Message(NamedTuple):
    """A message that is walked over: what it has, where it lies, its field seen last and how many such before it."""

    end: int
    fields: Fields
    start: int
    last: int
    place: int


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
    position, end, counts = 0, len(content), _Counts(limits)
    start, last, place = 0, 0, 0  # of this message: where it begins, the field seen last, how many such stood before it
    outer = list[_Message]()
    while True:
        while position >= end:
            if position > end:
                raise MalformedMessage
            if not outer:
                return
            end, fields, start, last, place = outer.pop()
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
        last, place = (number, place + 1) if (number := tag >> 3) == last else (number, 0)
        field = fields.get(number)
        if field is not None and field.inner is not None:
            outer.append(_Message(end, fields, start, last, place))
            end, fields, start, last, place = position + length, field.inner, position, 0, 0
            continue
        if field is not None and field.descriptor.type == FieldDescriptor.TYPE_STRING:
            if length > limits.text_bytes:
                around = [*outer, _Message(end, fields, start, last, place)]
                raise _too_long(_name(content, around), field, length, limits)
        elif field is not None:
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


def _too_many(what: Literal["fields", "integers"], limit: int) -> MalformedMessage:
    expected = f"at most {limit} (the server's --max-message-{what}); tensors may travel raw"
    return MalformedMessage(f"more than {limit} {what} in the message; expected {expected}", what)


def _too_long(name: str, field: Field, length: int, limits: MessageLimits) -> MalformedMessage:
    """Refuse a text or a name in the words that a text gets once it is read."""
    is_text = not limits.max_text_bytes or field.descriptor.name in _TEXTS
    flag = " (the server's --max-text-bytes)" if is_text else ""
    most = limits.max_text_bytes or limits.text_bytes if is_text else limits.text_bytes
    return MalformedMessage(f"{name}: {length} bytes; expected at most {most}{flag}", "text")


def _name(content: bytes, messages: Sequence[_Message]) -> str:
    """Name the field that is looked at as callers write it: texts[3], pair.first or parameters[prompt]."""
    name, inner_starts = "", [*(message.start for message in messages[1:]), 0]
    for message, inner_start in zip(messages, inner_starts, strict=True):
        field = message.fields[message.last].descriptor
        name += "" if field.name in _UNNAMED else f".{field.name}" if name else field.name
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            key = read_first_text(content, _MAX_KEY, inner_start)
            name += f"[{key}]" if key else ""
        elif field.is_repeated:
            name += f"[{message.place}]"
    return name


def read_first_text(content: bytes, most: int, start: int = 0) -> str:
    """Read field 1 of a message, a text, where it stands first, has so many bytes at most and is printable; else empty.

    Raises:
        IndexError: The message ends within the field's head, or is empty.
        MalformedMessage: The field's length is no number.
    """
    if content[start] != _FIRST_TAG:
        return ""
    length, start = _read_varint(content, start + 1)
    text = content[start : start + min(length, most)].decode(errors="replace")
    return text if length <= most and text.isprintable() else ""


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
