"""What is compared: everything that a server says of where a network looks or why it gave a label."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from artifact.contract import Contract
from bench.faithfulness.rows import Row, classify
from regard import AttentionRequest, Client, FailedPrecondition, RelevanceRequest
from regard.relevance import RelevanceMethod

Maps = dict[str, list[NDArray[np.float64]]]
"""By measure: a number for each part of each row."""

DEFAULT, RANDOM = "libra", "random"
_ATTENDING = {
    "attention, last layer": AttentionRequest(layers=(-1,), reduce_heads="mean"),
    "rollout": AttentionRequest(measure="rollout"),
    "contributions (GlobEnc)": AttentionRequest(measure="contribution_rollout"),
}


@dataclass(frozen=True)
class _Rows:
    """Which rows of a matrix of attention are read: the class token's, or all, of which the mean counts."""

    name: str
    first: int | None


_ROWS = (_Rows("CLS row", 1), _Rows("mean of rows", None))


def methods() -> tuple[RelevanceMethod, ...]:
    """The methods of relevance that the client knows, the default first."""
    return get_args(RelevanceMethod)


def ask(client: Client, contract: Contract, rows: Sequence[Row], seed: int = 0) -> Maps:
    """Ask for the maps of all measures; says which methods of relevance the model was exported without.

    Args:
        client: Of the server.
        contract: Of the model.
        rows: Of which row.label is explained.
        seed: Of the random order.

    Raises:
        RegardError: The model has no attention or no relevance by the default method, or an input is refused.
    """
    maps: Maps = {}
    for method in methods():
        try:
            maps[method] = relevance(client, contract, rows, method)
        except FailedPrecondition as error:
            if method == DEFAULT:
                raise
            print(f"{method} is left out: {error}")
    sources = [row.given.source for row in rows]
    for name, request in _ATTENDING.items():
        answers = classify(client, sources, model=contract.name, top_k=1, attention=request)
        matrices = [answer.attention.layers[0].weights for answer in answers if answer.attention]
        for chosen in _ROWS:
            maps[f"{name}, {chosen.name}"] = [
                matrix.reshape(matrix.shape[-2:])[: chosen.first].mean(axis=0)[row.parts].astype(float)
                for matrix, row in zip(matrices, rows, strict=True)
            ]
    random = np.random.default_rng(seed)
    return {**maps, RANDOM: [random.random(len(row.parts)) for row in rows]}


def relevance(
    client: Client, contract: Contract, rows: Sequence[Row], method: RelevanceMethod
) -> list[NDArray[np.float64]]:
    """Ask why each row has its label, by one method."""
    found = dict[int, NDArray[np.float64]]()
    for label in sorted({row.label for row in rows}):
        places = [place for place, row in enumerate(rows) if row.label == label]
        wanted = RelevanceRequest(label=contract.labels[label], method=method)
        sources = [rows[place].given.source for place in places]
        answers = classify(client, sources, model=contract.name, top_k=1, relevance=wanted)
        for place, answer in zip(places, answers, strict=True):
            assert answer.relevance is not None  # noqa: S101 -- asked for
            found[place] = answer.relevance.values[rows[place].parts].astype(float)
    return [found[place] for place in range(len(rows))]
