"""A message as JSON in which integers are numbers, enumerations names, and nothing is left out: as Triton writes it."""

from typing import Any

from google.protobuf.message import Message


def to_plain(message: Message) -> dict[str, Any]:
    """Return the fields of a message, of those of which there can be one alone only what is set."""
    plain = dict[str, Any]()
    field: Any  # protobuf has several types of descriptors
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.message_type and field.message_type.GetOptions().map_entry:
            inner = field.message_type.fields_by_name["value"]
            plain[field.name] = {str(key): _plain(inner, one) for key, one in value.items()}
        elif field.is_repeated:
            plain[field.name] = [_plain(field, one) for one in value]
        elif not field.has_presence or message.HasField(field.name):
            plain[field.name] = _plain(field, value)
    return plain


def _plain(field: Any, value: Any) -> Any:
    if field.message_type:
        return to_plain(value)
    if field.enum_type:
        named = field.enum_type.values_by_number.get(value)
        return named.name if named else value
    return value
