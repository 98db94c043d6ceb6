"""A checked attention request: which outputs to fetch, what is made of them, how much that is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from artifact.contract import NUMBER_BYTES, AttentionContract, PatchContract
from server.attention.places import Places
from server.attention.request import CONTRIBUTIONS, ROLLOUTS, HeadReduction, Measure, SentDtype, Statistic

_INDEX_BYTES = 4


@dataclass(frozen=True)
class AttentionPlan:
    """A checked attention request.

    Attributes:
        indices: Which layers, counted from 0, in the order asked for.
        layers: These.
        heads: Indices, counted from 0, in the order asked for; None for all of each layer.
        reduction: "mean", "max" or "min" over these heads; None sends each.
        queries: Query positions, counted from 0; None for all.
        keys: Key positions, likewise.
        dtype: Of what is sent.
        measure: What is made of the weights.
        residual_share: Of a rollout.
        shapes: Query and key positions of each layer, for this request.
        value_weighted: Whether weights are multiplied by the lengths of the value vectors.
        top_k: How many keys of each row; 0 for all.
        renormalize: Whether rows are divided by the sum of what is left of them.
        patches: How positions lie on an image; None where there is none.
        statistics: What is made of each head's rows, and sent instead of them.
        places: Of statistics: what the positions of the input are.
    """

    indices: tuple[int, ...]
    layers: tuple[AttentionContract, ...]
    shapes: tuple[tuple[int, int], ...]
    heads: tuple[int, ...] | None
    reduction: HeadReduction | None
    queries: tuple[int, ...] | None
    keys: tuple[int, ...] | None
    dtype: SentDtype
    measure: Measure
    residual_share: float
    value_weighted: bool
    top_k: int
    renormalize: bool
    patches: PatchContract | None
    statistics: tuple[Statistic, ...] = ()
    places: Places | None = None

    @property
    def outputs(self) -> tuple[str, ...]:
        """The outputs to fetch: of the tapped graph, or of the contributions graph."""
        if self.takes_contributions:
            return tuple(layer.contribution for layer in self.layers if layer.contribution)
        norms = (layer.value_norms for layer in self.layers if self.value_weighted)
        return (*(layer.output for layer in self.layers), *(name for name in norms if name))

    @property
    def is_rollout(self) -> bool:
        """Whether the layers are multiplied into one."""
        return self.measure in ROLLOUTS

    @property
    def takes_contributions(self) -> bool:
        """Whether it is made of the contributions graph's outputs."""
        return self.measure in CONTRIBUTIONS

    @property
    def axes(self) -> list[str]:
        """Names of the axes of what is sent, without the batch."""
        heads = [] if self.reduction or self.is_rollout or self.takes_contributions else ["head"]
        if self.statistics:
            return [*heads, "statistic"]
        largest = ["query", "top" if self.top_k else "key"]
        rest = {"entropy": ["query"], "distance": list[str]()}.get(self.measure, largest)
        return [*heads, *rest]

    @property
    def index_counts(self) -> list[int]:
        """How many indices come with what is sent, layer by layer, at most."""
        keys = len(self.keys or ())
        return [
            layer.num_heads + (queries if self.queries is None else len(self.queries)) + keys
            for layer, (queries, _) in zip(self.layers, self.shapes, strict=True)
        ]

    def answer_bytes(self, rows: int) -> int:
        """Size of what will be sent for a request of so many rows."""
        return sum(self.layers_bytes(rows))

    def layers_bytes(self, rows: int) -> list[int]:
        """The same, layer by layer; of a rollout there is one."""
        item_bytes = np.dtype(self.dtype).itemsize + (_INDEX_BYTES if "top" in self.axes else 0)
        sent = list(zip(self.layers, self.shapes, strict=True))
        found = list[int]()
        for layer, (queries, keys) in sent[:1] if self.is_rollout else sent:
            sizes = {
                "head": layer.num_heads if self.heads is None else len(self.heads),
                "query": queries if self.queries is None else len(self.queries),
                "key": keys if self.keys is None else len(self.keys),
            }
            sizes |= {"top": min(self.top_k, sizes["key"]), "statistic": len(self.statistics)}
            found.append(rows * math.prod(sizes[axis] for axis in self.axes) * item_bytes)
        return found

    def computed_bytes(self, rows: int) -> int:
        """Size of the weights that are computed for it, float32, before anything is cut out or reduced."""
        pairs = zip(self.layers, self.shapes, strict=True)
        weights = sum(layer.num_heads * queries * keys for layer, (queries, keys) in pairs)
        return weights * rows * NUMBER_BYTES

    def grid(self, layer: AttentionContract) -> PatchContract | None:
        """How a layer's positions lie on an image: as patches do, or as cells of its own grid."""
        if window := layer.window:
            return PatchContract(prefix_tokens=0, rows=window.rows, cols=window.cols, patch_size=window.cell_size)
        return self.patches

    def on_input(self, chosen: Sequence[int] | None, count: int) -> list[int]:
        """Leave the prefix tokens of an image out of some positions; None stands for all."""
        positions = every(chosen, count)
        if self.patches is None:
            return list(positions)
        return [position for position in positions if position >= self.patches.prefix_tokens]


def every(chosen: Sequence[int] | None, count: int) -> Sequence[int]:
    """Resolve chosen positions; None stands for all of so many."""
    return range(count) if chosen is None else chosen
