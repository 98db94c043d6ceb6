"""Inputs for any artifact, made from its contract, and how far two answers are apart."""

from collections.abc import Mapping

import numpy as np

from artifact.contract import BATCH_AXIS, SEQUENCE_AXIS, Contract, TensorContract
from artifact.dtypes import Array, dtype_of
from server.engine.device_ops import Weights

_LARGEST_ID = 50  # where a contract has no bound


def make_inputs(contract: Contract, rows: int, length: int, seed: int = 0) -> dict[str, Array]:
    """Random inputs of so many rows; of several the last is padded to half, where there is a mask.

    Args:
        contract: Of the artifact.
        rows: How many.
        length: Tokens of each, where these are free; no more than the contract allows.
        seed: Another one gives others.
    """
    random, length = np.random.default_rng(seed), min(length, longest(contract))
    inputs = {spec.name: _random(random, spec, rows, length) for spec in contract.inputs}
    for spec in contract.inputs:
        if spec.mask and rows > 1 and spec.axes[1:] == (SEQUENCE_AXIS,):
            inputs[spec.name][-1, (length + 1) // 2 :] = 0
    return inputs


def longest(contract: Contract) -> int:
    """The most tokens of a text; positions where there is no text."""
    if contract.text:
        return contract.text.max_tokens
    return contract.limits.get(SEQUENCE_AXIS, contract.positions)


def _random(random: np.random.Generator, spec: TensorContract, rows: int, length: int) -> Array:
    shape = [axis if isinstance(axis, int) else rows if axis == BATCH_AXIS else length for axis in spec.axes]
    dtype = dtype_of(spec.dtype)
    if spec.mask:
        return np.ones(shape, dtype)
    if dtype.kind in "iub":
        low = int(spec.minimum or 0)
        high = 1 if dtype.kind == "b" or spec.token_types else int(spec.maximum or _LARGEST_ID)
        return random.integers(low, high + 1, shape).astype(dtype)
    return random.standard_normal(shape).astype(dtype)


def apart(found: Array, expected: Array) -> float:
    """The largest difference over the largest expected number; infinite where shapes differ or one is no number."""
    if found.shape != expected.shape:
        return float("inf")
    one, other = (np.asarray(array, dtype=np.float64) for array in (found, expected))
    if not np.isfinite(one).all() or not np.isfinite(other).all():
        return float("inf")
    largest = float(np.abs(other).max(initial=0))
    return float(np.abs(one - other).max(initial=0)) / (largest or 1.0)


def on_host(values: Mapping[str, Weights]) -> dict[str, Array]:
    """Copy what lies on a device."""
    return {
        name: np.asarray(value if isinstance(value, np.ndarray) else value.copy()) for name, value in values.items()
    }
