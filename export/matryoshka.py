"""Vectors that may be cut: the sizes that a network was trained for.

Kusupati et al. 2022, "Matryoshka Representation Learning", section 3.
"""

from collections.abc import Sequence
from typing import Any

from artifact.contract import EmbeddingContract
from model.checkpoint import CheckpointError

DIMS_OPTION = "--matryoshka-dims"
_CONFIG_FIELD = "matryoshka_dimensions"  # of config.json, where vLLM looks for it, too
_CONFIG_FLAG = "is_matryoshka"  # likewise; it says that vectors may be cut, not to which sizes


def told_by_config(embedding: EmbeddingContract | None, config: dict[str, Any]) -> EmbeddingContract | None:
    """Add the sizes that config.json tells; sparse vectors have none.

    Raises:
        CheckpointError: They are no sizes of these vectors.
    """
    told = config.get(_CONFIG_FIELD)
    if embedding is None or embedding.sparse or not told:
        return embedding
    if not isinstance(told, list) or not all(type(one) is int for one in told):
        raise CheckpointError(f"config.json: {_CONFIG_FIELD}: {told!r}; expected a list of integers")
    return with_dims(embedding, told, f"config.json: {_CONFIG_FIELD}")


def untold(config: dict[str, Any]) -> str:
    """Say that a folder allows vectors to be cut and names no sizes; empty where it does not."""
    if not config.get(_CONFIG_FLAG) or config.get(_CONFIG_FIELD):
        return ""
    return f"config.json has {_CONFIG_FLAG} and no sizes: vectors are cut to those of {DIMS_OPTION} alone"


def told_by_option(embedding: EmbeddingContract | None, told: str) -> EmbeddingContract:
    """Add the sizes of --matryoshka-dims.

    Raises:
        CheckpointError: They are no sizes of these vectors, or there are no vectors, or sparse ones.
    """
    if embedding is None or embedding.sparse:
        kind = "sparse" if embedding else "no"
        raise CheckpointError(f"{DIMS_OPTION}: {told}; expected none of a network that gives {kind} vectors")
    try:
        dims = [int(part) for part in told.split(",")]
    except ValueError:
        raise CheckpointError(f"{DIMS_OPTION}: {told!r}; expected integers separated by commas") from None
    return with_dims(embedding, dims, DIMS_OPTION)


def with_dims(embedding: EmbeddingContract, dims: Sequence[int], field: str) -> EmbeddingContract:
    """Say which sizes the vectors may be cut to; their own may be among them.

    Raises:
        CheckpointError: One is not between 1 and it.
    """
    if outside := [one for one in dims if not 1 <= one <= embedding.dim]:
        raise CheckpointError(f"{field}: {outside[0]}; expected from 1 to {embedding.dim}, the size of the vectors")
    cut = tuple(sorted({one for one in dims if one < embedding.dim}))
    return embedding.model_copy(update={"matryoshka_dims": cut})
