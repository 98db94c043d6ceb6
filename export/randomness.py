"""Refuses graphs that answer otherwise when asked again: a server could not say what its answer is."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx

from artifact.dtypes import Array
from export.errors import VerificationError
from export.tapping.view import attribute

_RANDOM = frozenset(
    {"Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)


def check_repeatable(path: Path, run: Callable[[], Mapping[str, Array]]) -> None:
    """Run a graph twice.

    Args:
        path: The graph's file.
        run: Runs it on one and the same feed, in one session; returns every output by name.

    Raises:
        VerificationError: Two runs differ; names the kinds of nodes that draw random numbers.
    """
    first, second = run(), run()
    if not all(_is_same(array, second[name]) for name, array in first.items()):
        raise VerificationError(f"{path.name} gives other outputs when it is run again; {_suspects(path)}")


def _is_same(one: Array, other: Array) -> bool:
    return np.array_equal(one, other, equal_nan=one.dtype.kind == "f")


def _suspects(path: Path) -> str:
    nodes = onnx.load(path, load_external_data=False).graph.node
    kinds = {one.op_type for one in nodes if one.op_type in _RANDOM or attribute(one, "training_mode", 0)}
    return f"it has {', '.join(sorted(kinds))}; expected none of these" if kinds else "expected the same"
