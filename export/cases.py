"""The inputs that an export is verified on: batches of several sizes, of short and long inputs, padded and not."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from export.probe import Axes, is_attention
from export.traits import Feed, Traits, pad

SEED = 0
# All the attention of one image takes layers x heads x patches^2 numbers: above this, batches of 1 and 2 must do.
_MANY_POSITIONS = 512
# Of one row: 256 MiB in float32, which 6 layers of 12 heads have at 965 positions and 12 of 12 at 682.
MAX_WEIGHTS = 2**26
_SHORT = 9


@dataclass(frozen=True, eq=False)
class Case:
    """One batch to try.

    Attributes:
        feed: By input name.
        lengths: True length of each row; of texts only.
        positions: Size of the longest axis that callers choose; 0 where there is none.
    """

    feed: Feed
    lengths: tuple[int, ...] = ()
    positions: int = 0

    @property
    def rows(self) -> int:
        """Size of the batch."""
        return len(next(iter(self.feed.values())))


def make_cases(traits: Traits, axes: Mapping[str, Axes]) -> list[Case]:
    """Make batches of 1, 2 and 5 rows, of 1 to 64 positions and of as many as `held`; of texts even and ragged."""
    if not traits.axes:
        positions = max((axis for one in axes.values() for axis in one[-1:] if isinstance(axis, int)), default=0)
        return [_even_case(traits, rows, _SHORT) for rows in ((1, 2, 5) if positions <= _MANY_POSITIONS else (1, 2))]
    longest = held(traits, axes)
    if not traits.is_text:
        sizes = [(1, _SHORT), (2, _SHORT), (5, _SHORT), (2, 33), (1, 64), (2, longest)]
        return [_even_case(traits, *size) for size in dict.fromkeys((rows, min(n, longest)) for rows, n in sizes)]
    ragged = [(3,), (16, 16), (5, 17, 3, 9, 12), (64, 7), (33, 64, 1), (longest, min(_SHORT, longest))]
    if not traits.is_batched:
        ragged = [(3,), (17,), (64,), (longest,)]
    return [_text_case(traits, tuple(min(length, traits.longest) for length in lengths)) for lengths in ragged]


def make_longest_case(traits: Traits, length: int, *, beside: bool) -> Case:
    """Make one row of a length, of a text beside a short one where that is wanted."""
    if not traits.is_text:
        return _even_case(traits, 1, length)
    return _text_case(traits, (length, min(_SHORT, length)) if beside else (length,))


def reach(traits: Traits) -> int:
    """The most positions of any axis that callers choose, in its units; 0 where there is none."""
    if traits.is_text:
        return traits.longest
    return max((-(-traits.limit(axis) // traits.unit(axis)) for axis in traits.axes), default=0)


def held(traits: Traits, axes: Mapping[str, Axes]) -> int:
    """The same, but for so many that the attention of one row alone would take MAX_WEIGHTS numbers."""
    layers = [one for name, one in axes.items() if is_attention(name) and len(one) == 4]
    heads = sum(one[1] for one in layers if isinstance(one[1], int))
    length = math.isqrt(MAX_WEIGHTS // max(1, heads))
    if any(None in one[2:] for one in layers):  # patches of images whose height and width are free: the product of both
        length = max(_SHORT, math.isqrt(length))
    return min(reach(traits), length)


def _text_case(traits: Traits, lengths: tuple[int, ...]) -> Case:
    feed, _ = _make_feed(traits, len(lengths), max(lengths))
    return Case(pad(feed, traits, lengths), lengths, max(lengths))


def _even_case(traits: Traits, rows: int, length: int) -> Case:
    feed, positions = _make_feed(traits, rows, length)
    return Case(feed, positions=positions)


def _make_feed(traits: Traits, rows: int, length: int) -> tuple[Feed, int]:
    """Make inputs of a length, other sequences a little longer; returns the longest of them, too."""
    sizes = traits.fit({name: length + 3 * place for place, name in enumerate(traits.axes)})
    return traits.example(rows, sizes, SEED), max(sizes.values(), default=0)
