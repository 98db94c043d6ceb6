"""Refuses graphs that answer otherwise when asked again: a server could not say what its answer is."""

from pathlib import Path

import numpy as np
import onnx

from artifact.dtypes import Array
from export.errors import VerificationError
from export.probe import run_graph
from export.served import GRAPHS
from export.tapping.view import attribute
from export.traits import Feed

_RANDOM = frozenset(
    {"Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)


def check_repeatable(folder: Path, feed: Feed) -> None:
    """Run every graph of a folder twice in one session.

    Raises:
        VerificationError: Two runs differ; names the kinds of nodes that draw random numbers.
    """
    for path in (folder / name for name in GRAPHS if (folder / name).exists()):
        run = run_graph(path)
        first, second = (run(feed) for _ in range(2))
        if not all(_is_same(array, second[name]) for name, array in first.items()):
            raise VerificationError(f"{path.name} gives other outputs when it is run again; {_suspects(path)}")


def _is_same(one: Array, other: Array) -> bool:
    return np.array_equal(one, other, equal_nan=one.dtype.kind == "f")


def _suspects(path: Path) -> str:
    nodes = onnx.load(path, load_external_data=False).graph.node
    kinds = {one.op_type for one in nodes if one.op_type in _RANDOM or attribute(one, "training_mode", 0)}
    return f"it has {', '.join(sorted(kinds))}; expected none of these" if kinds else "expected the same"
