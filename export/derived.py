"""Finds how many positions a network makes of an input's: sound, whose samples become frames."""

from collections.abc import Callable

from artifact.contract import DerivedAxis


def find_derived(of: str, count: Callable[[int], int], min_size: int, max_size: int) -> DerivedAxis | None:
    """Find (n + offset) // unit, which is what convolutions make of n positions, one behind another as well.

    Two sizes are looked for at which one position more comes out: what lies between them is the unit.

    Args:
        of: The input's axis.
        count: Positions made of so many, 0 where the graph does not run on them.
        min_size: The size to begin with.
        max_size: The largest size to try.

    Returns:
        None where the count follows another rule, or grows too late to be seen.
    """
    first = _next_growth(count, min_size, max_size)
    second = _next_growth(count, first, max_size) if first else None
    if not first or not second:
        return None
    unit = second - first
    found = DerivedAxis(of=of, unit=unit, offset=count(first) * unit - first, least=count(1))
    tried = (1, min_size, first - 1, first, second - 1, second)
    return found if all(found.size(size) == count(size) for size in tried) else None


def _next_growth(count: Callable[[int], int], size: int, max_size: int) -> int | None:
    """The next larger size of which more positions are made."""
    before, step = count(size), 1
    while count(min(size + step, max_size)) == before:
        if size + step >= max_size:
            return None
        step *= 2
    same, grown = size + step // 2, min(size + step, max_size)
    while grown - same > 1:
        middle = (same + grown) // 2
        same, grown = (middle, grown) if count(middle) == before else (same, middle)
    return grown
