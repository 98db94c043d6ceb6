"""The inputs that an export is verified on: batches of several sizes, of short and long texts, padded and not."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from export.probe import Axes, is_attention
from export.traits import Feed, Traits, pad

SEED = 0
# All the attention of one image takes layers x heads x patches^2 numbers: above this, batches of 1 and 2 must do.
_MANY_POSITIONS = 512
# Of one text: 256 MiB in float32, which 6 layers of 12 heads have at 965 tokens and 12 of 12 at 682.
MOST_WEIGHTS = 2**26


@dataclass(frozen=True, eq=False)
class Case:
    """One batch to try, by input name, and the true length of each row (text only)."""

    feed: Feed
    lengths: tuple[int, ...] = ()

    @property
    def rows(self) -> int:
        """Size of the batch."""
        return len(next(iter(self.feed.values())))


def make_cases(traits: Traits, axes: Mapping[str, Axes]) -> list[Case]:
    """Make batches of 1, 2 and 5 rows; of texts with 1 to 64 tokens, even and ragged, and one beside the longest."""
    if not traits.is_text:
        positions = max((axis for one in axes.values() for axis in one[-1:] if isinstance(axis, int)), default=0)
        batches = (1, 2, 5) if positions <= _MANY_POSITIONS else (1, 2)
        return [Case(_feed(traits, batch, 9)) for batch in batches]
    longest = _longest(traits, axes)
    ragged = [(3,), (16, 16), (5, 17, 3, 9, 12), (64, 7), (33, 64, 1), (longest, min(9, longest))]
    if not traits.is_batched:
        ragged = [(3,), (17,), (64,), (longest,)]
    return [_text_case(traits, tuple(min(length, traits.longest) for length in lengths)) for lengths in ragged]


def _longest(traits: Traits, axes: Mapping[str, Axes]) -> int:
    """The most tokens of a text, but for so many that the attention of it alone would take MOST_WEIGHTS numbers."""
    heads = sum(
        one[1] for name, one in axes.items() if is_attention(name) and len(one) == 4 and isinstance(one[1], int)
    )
    return min(traits.longest, math.isqrt(MOST_WEIGHTS // max(1, heads)))


def _text_case(traits: Traits, lengths: tuple[int, ...]) -> Case:
    return Case(pad(_feed(traits, len(lengths), max(lengths)), traits, lengths), lengths)


def _feed(traits: Traits, batch: int, length: int) -> Feed:
    """Make inputs of a length, other sequences a little longer."""
    sizes = traits.fit({name: length + 3 * place for place, name in enumerate(traits.axes)})
    return traits.example(batch, sizes, SEED)
