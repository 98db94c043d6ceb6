"""How many entries the lists of a request may have, checked before anything walks through them."""

from server.errors import InvalidInput

MAX_TENSORS = 1024  # inputs, and outputs asked for: more than a graph has
MAX_NUMBERS = 2**16  # layers, heads, rows or keys: more positions than a model has


def check_count(field: str, count: int, limit: int) -> None:
    """Refuse a list by its length.

    Raises:
        InvalidInput: It is longer than the limit.
    """
    if count > limit:
        raise InvalidInput(field, f"{count} entries", f"at most {limit}")
