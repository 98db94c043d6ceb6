"""The inputs that an export is verified on: batches of several sizes, of short and long inputs, padded and not."""

import math
from dataclasses import dataclass

from export.reach import Reach
from export.traits import Feed, pad

SEED = 0
# All the attention of one image takes layers x heads x patches^2 numbers: with more positions, smaller batches must do.
_MAX_ROWS = {64: 32, 512: 5}
# Of one row: 256 MiB in float32, which 6 layers of 12 heads have at 965 positions and 12 of 12 at 682.
MAX_WEIGHTS = 2**26
_SHORT, _BATCH = 9, 32


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


def make_cases(reach: Reach) -> list[Case]:
    """Make batches of 1, 2, 5 and 32 rows, of 1 to 64 positions and of as many as `held`; of texts even and ragged.

    32 are as many as a server batches unless told otherwise.
    """
    traits, longest = reach.traits, held(reach)
    if not traits.is_text:
        positions = max((axis for one in reach.axes.values() for axis in one[-1:] if isinstance(axis, int)), default=0)
        most = next((rows for most, rows in _MAX_ROWS.items() if positions <= most), 2)
        sizes = [(1, _SHORT), (2, _SHORT), (most, _SHORT), (2, 33), (1, 64), (2, longest)]
        fitting = ((rows, min(length, longest)) for rows, length in (sizes if traits.axes else sizes[:3]))
        return [_even_case(reach, *size) for size in dict.fromkeys(fitting)]
    many = tuple(1 + row % _SHORT for row in range(_BATCH))
    ragged = [(3,), (16, 16), (5, 17, 3, 9, 12), (64, 7), (33, 64, 1), many, (longest, min(_SHORT, longest))]
    if not traits.is_batched:
        ragged = [(3,), (17,), (64,), (longest,)]
    return [_text_case(reach, tuple(min(length, traits.longest) for length in lengths)) for lengths in ragged]


def make_longest_case(reach: Reach, length: int, *, beside: bool) -> Case:
    """Make one row of a length, of a text beside a short one where that is wanted."""
    if not reach.traits.is_text:
        return _even_case(reach, 1, length)
    return _text_case(reach, (length, min(_SHORT, length)) if beside else (length,))


def held(reach: Reach) -> int:
    """The longest of which all the attention of a row is compared: MAX_WEIGHTS numbers at most, but for short ones."""
    longest = reach.longest(lambda shapes: sum(map(math.prod, shapes)) <= MAX_WEIGHTS)
    return max(longest, min(_SHORT, reach.limit))


def _text_case(reach: Reach, lengths: tuple[int, ...]) -> Case:
    feed = reach.traits.example(len(lengths), reach.sizes(max(lengths)), SEED)
    return Case(pad(feed, reach.traits, lengths), lengths, max(lengths))


def _even_case(reach: Reach, rows: int, length: int) -> Case:
    sizes = reach.sizes(length)
    return Case(reach.traits.example(rows, sizes, SEED), positions=max(sizes.values(), default=0))
