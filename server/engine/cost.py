"""What a batch costs in seconds, fitted to measurements."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Cutting a batch, handing it to a thread and handing the answers out, measured at 0.2 to 0.5 ms on a busy server.
_HANDOVER_SECONDS = 0.0003


@dataclass(frozen=True)
class CostModel:
    """Seconds of one engine run: a fixed part, a part for each token, a part for each pair of tokens.

    The fixed part is what batching saves; the pairs are attention's own growth with the length.

    Attributes:
        run_seconds: For a run, whatever is in it.
        token_seconds: For each token or patch, padding included.
        pair_seconds: For each pair of positions of a row, padding included.
    """

    run_seconds: float = _HANDOVER_SECONDS
    token_seconds: float = 0.0
    pair_seconds: float = 0.0

    def rows_seconds(self, rows: int, length: int) -> float:
        """Cost of so many rows of one length, without the fixed part."""
        return rows * length * (self.token_seconds + self.pair_seconds * length)

    def seconds(self, rows: int, length: int) -> float:
        """Cost of a run of so many rows, all padded to one length."""
        return self.run_seconds + self.rows_seconds(rows, length)


@dataclass(frozen=True)
class Sample:
    """One measured run."""

    rows: int
    length: int
    seconds: float


def fit_costs(samples: Sequence[Sample]) -> CostModel:
    """Fit a cost model by least squares of relative errors; no part is negative.

    Args:
        samples: At least one. What they cannot tell apart (a single length, a single run) is given to the tokens.
    """
    rows = np.array([sample.rows for sample in samples], dtype=np.float64)
    length = np.array([sample.length for sample in samples], dtype=np.float64)
    seconds = np.array([sample.seconds for sample in samples])
    columns = {"token_seconds": rows * length}
    if len(samples) > 1:
        columns["run_seconds"] = np.ones_like(rows)
    if len(set(length)) > 1:
        columns["pair_seconds"] = rows * length**2
    found = _solve(columns, seconds)
    return CostModel(
        run_seconds=found.get("run_seconds", 0.0) + _HANDOVER_SECONDS,
        token_seconds=found.get("token_seconds", 0.0),
        pair_seconds=found.get("pair_seconds", 0.0),
    )


def _solve(columns: dict[str, np.ndarray], seconds: np.ndarray) -> dict[str, float]:
    """Least squares over the columns; the one with the most negative part is dropped until none is."""
    while True:
        weighted = np.stack([column / seconds for column in columns.values()], axis=1)
        found = dict(zip(columns, np.linalg.lstsq(weighted, np.ones_like(seconds))[0].tolist(), strict=True))
        worst = min(found, key=lambda name: found[name])
        if found[worst] >= 0 or len(columns) == 1:
            return {name: max(part, 0.0) for name, part in found.items()}
        columns = {name: column for name, column in columns.items() if name != worst}
