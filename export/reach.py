"""Tells how much attention an input of a length has, and so how long one may be that is still verified."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from artifact.contract import DerivedAxis
from export.probe import Axes, is_attention
from export.traits import Traits


@dataclass(frozen=True, eq=False)
class Reach:
    """Attention by length, counted in units of the axes that callers choose.

    Attributes:
        traits: Of the inputs.
        axes: Of every output, by name.
        derived: The axes that follow from inputs'.
    """

    traits: Traits
    axes: Mapping[str, Axes]
    derived: Sequence[DerivedAxis] = ()

    @property
    def limit(self) -> int:
        """The most that is served of any axis; 0 where there is none."""
        if self.traits.is_text:
            return self.traits.longest
        return max((-(-self.traits.limit(axis) // self.traits.unit(axis)) for axis in self.traits.axes), default=0)

    def sizes(self, length: int) -> dict[str, int]:
        """Sizes of the axes that callers choose, each a little longer than the one before."""
        return self.traits.fit({name: length + 3 * place for place, name in enumerate(self.traits.axes)})

    def shapes(self, length: int) -> list[tuple[int, int, int]]:
        """Heads, queries and keys of each layer that is not of one size.

        An axis that nobody knows is taken for the product of all, as patches are of an image's free height and width.
        """
        sizes = self.sizes(length)
        named = sizes | {axis.name: axis.size(sizes[axis.of]) for axis in self.derived}
        whole = math.prod(sizes.values())
        layers = [one[1:] for name, one in self.axes.items() if is_attention(name) and len(one) == 4]
        layers = [one for one in layers if not all(isinstance(axis, int) for axis in one)]
        known = [[axis if isinstance(axis, int) else named.get(axis or "", whole) for axis in one] for one in layers]
        return [(heads, queries, keys) for heads, queries, keys in known]

    def longest(self, fits: Callable[[Sequence[tuple[int, int, int]]], bool]) -> int:
        """The greatest length, up to the limit, whose layers' shapes fit; 1 at least where there is one at all."""
        low, high = min(1, self.limit), self.limit
        while low < high:
            middle = (low + high + 1) // 2
            if fits(self.shapes(middle)):
                low = middle
            else:
                high = middle - 1
        return low
