"""What statistics of heads are by their definitions, a row at a time in float64: the server's are compared with these.

Previous, duplicate and induction are as TransformerLens' `transformer_lens/head_detector.py` describes them: a matrix
of zeros and ones over query and key, and, by its error measure "mul", the sum of the weights on the ones over that of
all. It has no pattern for current, whose ones are the diagonal; a matrix of one's own is scored alike.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from artifact.contract import PatchContract

Matrix = NDArray[np.float64]


def pattern(name: str, ids: Sequence[int]) -> Matrix:
    """What a detector of heads looks for, [N, N]."""
    found = np.zeros((len(ids), len(ids)))
    for query in range(len(ids)):
        for key in range(query + 1):
            earlier = [place for place in range(query) if ids[place] == ids[query]]
            found[query, key] = {
                "previous": key == query - 1,
                "current": key == query,
                "duplicate": key in earlier,
                "induction": key - 1 in earlier,
            }[name]
    return found


def detected(name: str, weights: Matrix, ids: Sequence[int]) -> float:
    """The score of one head, [N, N]."""
    return float((weights * pattern(name, ids)).sum() / weights.sum())


def by_definition(
    name: str,
    rows: Matrix,
    queries: Sequence[int],
    keys: Sequence[int],
    *,
    special: Sequence[int],
    ids: Sequence[int],
    region: Sequence[int] = (),
    patches: PatchContract | None = None,
) -> float:
    """A statistic of one head; rows [Q, K] are of these positions, and need not sum to 1."""
    numbers = [
        _of_row(name, row, query, keys, special, ids, region, patches)
        for row, query in zip(rows, queries, strict=True)
        if not (name == "distance" and patches and query < patches.prefix_tokens)
    ]
    if name == "sink":
        return float(np.max(np.mean([row / row.sum() for row in rows], axis=0)))
    return float(np.mean(numbers))


def _of_row(
    name: str,
    row: Matrix,
    query: int,
    keys: Sequence[int],
    special: Sequence[int],
    ids: Sequence[int],
    region: Sequence[int],
    patches: PatchContract | None,
) -> float:
    shares = row / row.sum()
    if name == "norm":
        return float(row.sum())
    if name == "entropy":
        return float(-sum(share * np.log(share) for share in shares if share))
    if name == "distance":
        return _distance(shares, query, keys, patches)
    earlier = [place for place in range(query) if len(ids) > query and ids[place] == ids[query]]
    counted: dict[str, Callable[[int], bool]] = {
        "first": lambda key: key == 0,
        "separator": lambda key: key in special and key > 0,
        "registers": lambda key: key in special and key > 0,
        "special": lambda key: key in special,
        "previous": lambda key: key == query - 1,
        "next": lambda key: key == query + 1,
        "current": lambda key: key == query,
        "duplicate": lambda key: key in earlier,
        "induction": lambda key: key - 1 in earlier and key <= query,
        "region": lambda key: key in region,
        "sink": lambda key: False,
    }
    return float(sum(share for share, key in zip(shares, keys, strict=True) if counted[name](key)))


def _distance(shares: Matrix, query: int, keys: Sequence[int], patches: PatchContract | None) -> float:
    total = apart = 0.0
    for share, key in zip(shares, keys, strict=True):
        if patches is None:
            far = float(abs(query - key))
        elif key < patches.prefix_tokens:
            continue
        else:
            (down, across), (key_down, key_across) = (
                divmod(place - patches.prefix_tokens, patches.cols) for place in (query, key)
            )
            far = patches.patch_size * float(np.hypot(down - key_down, across - key_across))
        total, apart = total + share, apart + share * far
    return apart / total
