"""What is made of the rows of each head: a number a statistic, from the weights and what their positions are.

A pure function of weights and positions, of one input or of several that have the same positions. What previous,
duplicate and induction count is as TransformerLens defines it (`transformer_lens/head_detector.py`, error measure
"mul"): the sum of the weights that lie on the pattern over the sum of all.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artifact.contract import PatchContract
from server.attention.places import Places
from server.attention.request import Statistic
from server.engine import array_ops

ANYWHERE: tuple[Statistic, ...] = ("entropy", "sink", "norm")  # what needs no positions

Floats = NDArray[np.float32]
Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]


def head_statistics(
    weights: Any,
    wanted: Sequence[Statistic],
    places: Places,
    queries: Sequence[int] | None = None,
    keys: Sequence[int] | None = None,
    *,
    sums_to_1: bool = True,
    on: Any = array_ops,
) -> Floats:
    """Make a number a statistic of each head's rows.

    Args:
        weights: float32 [B, H, Q, K] without padding, where `on` computes; rows not below 0.
        wanted: Which, in this order; regard.v1.AttentionStatistic defines each.
        places: What the positions of the input are, the same of each of the B.
        queries: Position of each row; None for all.
        keys: Position of each column, likewise.
        sums_to_1: Whether each row does; else rows are divided by their sums.
        on: array_ops, or its like on a device.

    Returns:
        float32 [B, H, len(wanted)], on the host.
    """
    rows = weights if sums_to_1 else on.normalize_rows(weights)
    counting = _Counting(weights, rows, places, queries, keys, on)
    found = np.stack([np.asarray(counting.number(one)) for one in wanted], axis=-1)
    return found.astype(np.float32)


class _Counting:
    """The rows of a layer, and what is made of them once and used by several statistics."""

    def __init__(
        self,
        weights: Any,
        rows: Any,
        places: Places,
        queries: Sequence[int] | None,
        keys: Sequence[int] | None,
        on: Any,
    ) -> None:
        self._weights, self._rows, self._places, self._on = weights, rows, places, on
        self._queries = np.arange(weights.shape[2]) if queries is None else np.asarray(queries)
        self._keys = np.arange(weights.shape[3]) if keys is None else np.asarray(keys)
        self._received: Any = None

    def number(self, statistic: Statistic) -> Any:
        """Return it, [B, H]."""
        places, each = self._places, np.arange(self._places.count)
        special = list(places.special or ())
        match statistic:
            case "entropy":
                return self._entropy()
            case "distance":
                return self._distance()
            case "first":
                return self._to_keys([0])
            case "separator" | "registers":
                return self._to_keys([position for position in special if position])
            case "special":
                return self._to_keys(special)
            case "region":
                return self._to_keys(places.region)
            case "sink":
                return self._of_keys().max(axis=-1)
            case "previous":
                return self._to_pairs(each[1:], each[:-1])
            case "next":
                return self._to_pairs(each[:-1], each[1:])
            case "current":
                return self._to_pairs(each, each)
            case "duplicate":
                return self._to_pairs(*duplicates(_ids(places)))
            case "induction":
                return self._to_pairs(*inductions(_ids(places)))
            case "norm":
                return self._norm()

    def _entropy(self) -> Any:
        return self._on.to_host(self._on.entropy(self._rows)).mean(axis=-1, dtype=np.float64)

    def _norm(self) -> Any:
        return self._on.to_host(self._on.received(self._weights)).sum(axis=-1, dtype=np.float64)

    def _distance(self) -> Any:
        queries, keys = self._queries.tolist(), self._keys.tolist()
        distance = mean_distance(self._weights, queries, keys, self._places.patches, self._on)
        return self._on.to_host(distance)

    def _of_keys(self) -> Any:
        """What each key gets, averaged over the rows; [B, H, K]."""
        if self._received is None:
            self._received = self._on.to_host(self._on.received(self._rows))
        return self._received

    def _to_keys(self, positions: Sequence[int]) -> Any:
        return self._of_keys()[..., np.isin(self._keys, positions)].sum(axis=-1, dtype=np.float64)

    def _to_pairs(self, queries: NDArray[np.int64], keys: NDArray[np.int64]) -> Any:
        """Sum the weights of pairs of positions, averaged over the rows."""
        row_of, column_of = _index(self._queries, self._places.count), _index(self._keys, self._places.count)
        rows, columns = row_of[queries], column_of[keys]
        there = (rows >= 0) & (columns >= 0)
        flat = rows[there] * len(self._keys) + columns[there]
        if not len(flat):
            return np.zeros(self._weights.shape[:2], dtype=np.float32)
        return self._on.to_host(self._on.sum_places(self._rows, flat)) / len(self._queries)


def mean_distance(
    weights: Any, queries: Sequence[int], keys: Sequence[int], patches: PatchContract | None, on: Any
) -> Any:
    """Average distance that each head looks over, prefix tokens of an image left out; [B, H], where `on` computes.

    Args:
        weights: [B, H, Q, K].
        queries: Position of each row.
        keys: Position of each column.
        patches: How positions lie on an image; None where there is none.
        on: array_ops, or its like on a device.
    """
    first = 0 if patches is None else patches.prefix_tokens
    rows = [row for row, position in enumerate(queries) if position >= first]
    columns = [column for column, position in enumerate(keys) if position >= first]
    apart = np.zeros((len(queries), len(keys)), np.float32)
    on_input = [queries[row] for row in rows], [keys[column] for column in columns]
    apart[np.ix_(rows, columns)] = array_ops.distances(*on_input, patches)
    counted = np.zeros(len(keys), np.float32)
    counted[columns] = 1
    return on.mean_distance(weights, apart, counted, rows)


def duplicates(token_ids: NDArray[np.int64]) -> Pairs:
    """Return the pairs of a query and an earlier position with the same token."""
    queries, keys = np.nonzero(np.tril(token_ids[:, None] == token_ids[None, :], -1))
    return queries, keys


def inductions(token_ids: NDArray[np.int64]) -> Pairs:
    """Return the pairs of a query and a position, no later, behind an earlier occurrence of its token."""
    queries, keys = duplicates(token_ids)
    return queries, keys + 1


def _ids(places: Places) -> NDArray[np.int64]:
    assert places.token_ids is not None  # noqa: S101 -- as the plan has checked
    return places.token_ids


def _index(positions: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Where each of so many positions stands among the chosen; -1 for those that do not."""
    found = np.full(max(count, int(positions.max(initial=-1)) + 1), -1, dtype=np.int64)
    found[positions] = np.arange(len(positions))
    return found
