"""Refuses graphs that answer otherwise when asked again: a server could not say what its answer is."""

from pathlib import Path

import numpy as np
import onnx

from artifact.dtypes import Array
from export.errors import VerificationError
from export.served import GRAPHS
from export.session import open_session
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
        session = open_session(path)
        first, second = (session.run(None, feed) for _ in range(2))
        if not all(map(_is_same, first, second)):
            raise VerificationError(f"{path.name} gives other outputs when it is run again; {_suspects(path)}")


def _is_same(one: Array, other: Array) -> bool:
    return np.array_equal(one, other, equal_nan=one.dtype.kind == "f")


def _suspects(path: Path) -> str:
    kinds = {node.op_type for node in onnx.load(path, load_external_data=False).graph.node} & _RANDOM
    return f"it has {', '.join(sorted(kinds))}; expected none of these" if kinds else "expected the same"
