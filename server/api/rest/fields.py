"""The fields of a JSON object, each with its type; what has another one, and what nobody knows, is refused by name."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from google.protobuf.message import Message

from server.api.rest.exchange import HttpAnswer
from server.errors import InvalidInput, MalformedMessage

_Kind = TypeVar("_Kind", str, bool, int, list[Any], dict[str, Any])
_NAMES: Mapping[type, str] = {
    str: "a string",
    bool: "true or false",
    int: "a whole number",
    list: "a list",
    dict: "an object",
}
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
Object = Mapping[str, Any]


def read_object(content: bytes, known: Sequence[str] = ()) -> dict[str, Any]:
    """Read a JSON object; nothing stands for an empty one.

    Args:
        content: In UTF-8.
        known: Its fields; none for any.

    Raises:
        MalformedMessage: It is none.
        InvalidInput: It has another field, or a string with half of a surrogate pair.
    """
    if not content:
        return {}
    try:
        text = content.decode()
        read = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_make_object)
    except UnicodeDecodeError as error:
        raise MalformedMessage(f"body: byte {error.start} is no UTF-8; expected JSON") from None
    except (ValueError, RecursionError) as error:
        raise MalformedMessage(f"body: no JSON: {error}; expected an object") from None
    if not isinstance(read, dict):
        raise MalformedMessage(f"body: {_kind(read)}; expected a JSON object")
    if _SURROGATE.search(text):
        _check_whole(read)
    check_known("", read, known)
    return read


def _check_whole(value: Any, where: str = "") -> None:
    """Refuse strings with half of a surrogate pair, which no message can have: protobuf has several errors for them."""
    if isinstance(value, dict):
        for name, one in value.items():
            _check_whole(name, where or "body")
            _check_whole(one, f"{where}.{name}" if where else name)
    elif isinstance(value, list):
        for number, one in enumerate(value):
            _check_whole(one, f"{where}[{number}]")
    elif isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise InvalidInput(where, repr(value), "whole characters, no half of a surrogate pair") from None


def check_known(where: str, fields: Object, known: Sequence[str]) -> None:
    """Refuse what nobody knows: a misspelt field would be ignored in silence.

    Raises:
        InvalidInput: Names the field.
    """
    for name in fields:
        if known and name not in known:
            raise InvalidInput(f"{where}{name}", "not known", f"one of {', '.join(known)}")


def take(fields: Object, name: str, kind: type[_Kind], where: str = "") -> _Kind | None:
    """Return a field of a type; None where it is not there, or null.

    Raises:
        InvalidInput: It has another type.
    """
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise InvalidInput(f"{where}{name}", show(value), _NAMES[getattr(kind, "__origin__", kind)])
    return value


def need(fields: Object, name: str, kind: type[_Kind], where: str = "") -> _Kind:
    """Return a field of a type.

    Raises:
        InvalidInput: It has another, or is not there.
    """
    value = take(fields, name, kind, where)
    if value is None:
        raise InvalidInput(f"{where}{name}", "missing", _NAMES[kind])
    return value


def take_texts(fields: Object, name: str) -> list[str]:
    """Return a list of strings.

    Raises:
        InvalidInput: It is none, or not there.
    """
    values = need(fields, name, list)
    for number, value in enumerate(values):
        if not isinstance(value, str):
            raise InvalidInput(f"{name}[{number}]", show(value), "a string")
    return values


def fill(message: Message, **fields: Any) -> Message:
    """Fill a message with what JSON had.

    Raises:
        InvalidInput: A number is beyond the field's.
    """
    for name, value in fields.items():
        if value is None:
            continue
        try:
            if isinstance(value, list):
                getattr(message, name).extend(value)
            else:
                setattr(message, name, value)
        except (TypeError, ValueError) as error:
            raise InvalidInput(name, show(value), f"what the field takes ({str(error)[:100]})") from None
    return message


def write_json(value: Any, status: int = 200) -> HttpAnswer:
    """Make an answer of what JSON can say."""
    return HttpAnswer(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(), status=status)


def show(value: object) -> str:
    """Say what came, for messages: a list or an object by its size."""
    if isinstance(value, list | dict):
        return f"{_kind(value)} of {len(value)}"
    return repr(value)[:100] if isinstance(value, str) else json.dumps(value)[:100]


def _kind(value: object) -> str:
    return _NAMES.get(type(value), "null" if value is None else "a number")


def _make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in made if names.count(name) > 1)[:100]!r} is given twice")
    return made


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name}, which JSON has not")
