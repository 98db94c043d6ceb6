"""A checked request for relevance: what of each logit is in the score, which positions are sent."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from artifact.contract import NUMBER_BYTES, RelevanceContract, RelevanceMethod
from artifact.dtypes import Array
from server.relevance.path import Path

SCORES = 2  # numbers of a row besides its positions: the rest, and the score
_DEPTH_NUMBERS = 3  # of a depth besides its positions: what is unsent, what is added behind, the error


@dataclass(frozen=True)
class Target:
    """What is explained.

    Attributes:
        label: Index of the label; None for the most probable.
        against: Index of the label that it is told apart from; None for none.
    """

    label: int | None = None
    against: int | None = None


@dataclass(frozen=True, eq=False)
class RelevancePlan:
    """A checked request for relevance.

    A row of the input becomes one for each target, and for each point of the path.

    Attributes:
        contract: Of the graph.
        method: Of those that it can do.
        targets: What is explained of each row, each for itself.
        settled_targets: Of each row its own in their place, once the logits are known; empty before, and where it is
            the same for all.
        row_bytes: Of the inputs of a row, which are copied for each row that becomes of one where there are several.
        top: How many of the most probable labels stand for targets, once the logits are known; 0 for those there are.
        num_labels: Of the model.
        is_list: Whether each target has a place in a list of answers.
        path: Of integrated gradients; None for other methods.
        positions: Which are sent, counted from 0; None for all.
        count: How many there are, for this request.
    """

    contract: RelevanceContract
    method: RelevanceMethod
    targets: tuple[Target, ...]
    top: int
    num_labels: int
    is_list: bool
    path: Path | None
    positions: tuple[int, ...] | None
    count: int
    settled_targets: tuple[tuple[Target, ...], ...] = ()
    row_bytes: int = 0

    @property
    def outputs(self) -> tuple[str, ...]:
        """The outputs of the relevance graph to fetch."""
        return self.contract.outputs

    @property
    def index_counts(self) -> list[int]:
        """How many indices come with what is sent: of positions, where these are some, and of words."""
        sent = self.count if self.positions is None else 2 * len(self.positions)
        return [sent] * self._answers

    @property
    def is_open(self) -> bool:
        """Whether the logits have to be known before it can be computed.

        The most probable label of the row itself: another may be so at another point of a path.
        """
        if self.settled_targets:
            return False
        return self.top > 0 or (self.path is not None and any(one.label is None for one in self.targets))

    @property
    def is_complete(self) -> bool:
        """Whether by this method positions and the rest make up a score."""
        return self.contract.rest is not None or self.path is not None

    @property
    def points(self) -> int:
        """Rows that each target takes."""
        return 1 if self.path is None else len(self.path.scales)

    @property
    def rows_each(self) -> int:
        """Rows that become of a row of the input."""
        return self._answers * self.points

    @property
    def _depths(self) -> int:
        """At how many depths it is told."""
        return self.contract.num_layers + 1 if self.contract.by_layer else 0

    @property
    def _answers(self) -> int:
        return self.top or len(self.targets)

    def settled(self, logits: Array) -> "RelevancePlan":
        """Return the same for the most probable labels of each row, float32 [rows, C]."""
        best = np.argsort(-logits, axis=-1, kind="stable")[:, : self.top or 1]
        return replace(self, settled_targets=tuple(tuple(Target(int(label)) for label in row) for row in best))

    def of_row(self, row: int) -> "RelevancePlan":
        """Return what is explained of one row."""
        if not self.settled_targets:
            return self
        return replace(self, targets=self.settled_targets[row], settled_targets=(), top=0)

    def spread(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Make the inputs of the graph from those of rows; those of a row, and of a target of it, lie together."""
        rows = next(iter(inputs.values())).shape[0]
        targets = [target for row in range(rows) for target in self.of_row(row).targets]
        weights = np.zeros((len(targets), self.num_labels), dtype=np.float32)
        for row, target in zip(weights, targets, strict=True):
            if target.label is not None:
                row[target.label] = 1
            if target.against is not None:
                row[target.against] = -1
        made = dict(inputs) if self.rows_each == 1 else repeated(inputs, self.rows_each)
        made[self.contract.weights] = np.repeat(weights, self.points, axis=0)
        if self.contract.scale:
            scales = np.ones(1, dtype=np.float32) if self.path is None else self.path.scales
            made[self.contract.scale] = np.tile(scales, len(targets))
        return made

    def answer_bytes(self, rows: int) -> int:
        """Size of what will be sent for a request of so many rows."""
        sent = self.count if self.positions is None else len(self.positions)
        return rows * self._answers * (sent + SCORES + self._depths * (sent + _DEPTH_NUMBERS)) * NUMBER_BYTES

    def computed_bytes(self, rows: int) -> int:
        """Size of what is fetched for it, and of the weights, logits and copied inputs of each row that is computed."""
        copied = self.row_bytes if rows > 1 and self.rows_each > 1 else 0
        numbers = self.count + SCORES + 2 * self.num_labels + self._depths * (self.count + 1)
        return rows * self.rows_each * (copied + numbers * NUMBER_BYTES)


def repeated(inputs: Mapping[str, Array], count: int) -> dict[str, Array]:
    """Show each row so many times, one after the other; one that is alone without copying it."""
    return {
        name: np.broadcast_to(array, (count, *array.shape[1:])) if len(array) == 1 else np.repeat(array, count, axis=0)
        for name, array in inputs.items()
    }
