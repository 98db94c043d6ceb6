"""Indices as callers choose them: counted from the end where negative, each at most once, none for all."""

from collections.abc import Sequence

from server.errors import InvalidInput


def resolve(field: str, wanted: Sequence[int], count: int) -> tuple[int, ...]:
    """Resolve negative indices; none wanted means all of them.

    Raises:
        InvalidInput: One is not there, or named twice; names the field.
    """
    if len(wanted) > count:
        raise InvalidInput(field, f"{len(wanted)} numbers", f"at most {count}, each once")
    for index in wanted:
        if not -count <= index < count:
            raise InvalidInput(field, index, f"from {-count} to {count - 1}")
    resolved = tuple(index % count for index in wanted) or tuple(range(count))
    if len(set(resolved)) < len(resolved):
        raise InvalidInput(field, list(wanted), "each at most once")
    return resolved


def resolve_in_each(field: str, wanted: Sequence[int], counts: Sequence[int]) -> tuple[int, ...] | None:
    """Resolve what must be there in every layer; None stands for all, of which each layer has its own number.

    Raises:
        InvalidInput: As resolve, or one is counted from the end where that is not the same in each.
    """
    if not wanted:
        return None
    sizes = sorted(set(counts))
    for place in wanted:
        if place < 0 and len(sizes) > 1:
            named = field.rpartition(".")[2]
            expected = f"{named} counted from 0: these layers have {' or '.join(map(str, sizes))}"
            raise InvalidInput(field, place, expected)
    return resolve(field, wanted, sizes[0])


def without_special(field: str, special: Sequence[int] | None, count: int) -> tuple[int, ...]:
    """Return which of so many positions are part of the input.

    Raises:
        InvalidInput: Nobody knows which are special, or all are.
    """
    if special is None:
        raise InvalidInput(field, "true", "false: only a text or an image says which positions are special")
    kept = tuple(sorted(set(range(count)) - set(special)))
    if not kept:
        raise InvalidInput(field, "true", "an input with at least one position that is not special")
    return kept
