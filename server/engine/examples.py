"""Inputs made of a contract alone, for runs that nobody has asked for: to warm up, to measure, to compare."""

from collections.abc import Mapping

import numpy as np

from artifact.contract import BARE_ONNX, BATCH_AXIS, SEQUENCE_AXIS, Contract, TensorContract
from artifact.dtypes import Array, dtype_of
from artifact.generation import TARGET_AXIS

_LARGEST_ID = 50  # where a contract has no bound


def example(contract: Contract, rows: int, length: int) -> dict[str, Array]:
    """Every input of so many rows, of so many positions where these are free: ones for masks, else zeros."""
    written = min(length, contract.limits.get(TARGET_AXIS, length))
    sizes = {BATCH_AXIS: rows, SEQUENCE_AXIS: length, TARGET_AXIS: written}
    return {spec.name: _example(spec, sizes) for spec in contract.inputs}


def varied_example(contract: Contract, rows: int, length: int) -> dict[str, Array]:
    """The same with values that differ within their bounds; the last of several rows is half masked.

    Of a bare ONNX model nobody knows what its values may be: they stay zeros.
    """
    inputs = example(contract, rows, length)
    for spec in contract.inputs if contract.family != BARE_ONNX else ():
        array = inputs[spec.name]
        if spec.mask and rows > 1 and spec.axes[1:] == (SEQUENCE_AXIS,):
            array[-1, (length + 1) // 2 :] = 0
        elif not spec.mask:
            array[...] = _values(spec, array.size, whole=array.dtype.kind in "iu").reshape(array.shape)
    return inputs


def _values(spec: TensorContract, count: int, *, whole: bool) -> Array:
    if not whole:
        return np.cos(np.arange(count))
    low = int(spec.minimum or 0)
    high = min(int(_LARGEST_ID if spec.maximum is None else spec.maximum), low + _LARGEST_ID)
    return low + np.arange(count) % (max(high - low, 0) + 1)


def _example(spec: TensorContract, sizes: Mapping[str, int]) -> Array:
    shape = [axis if isinstance(axis, int) else sizes.get(axis, 1) for axis in spec.axes]
    if spec.dtype == "string":
        return np.full(shape, "", dtype=object)
    return np.full(shape, 1 if spec.mask else 0, dtype=dtype_of(spec.dtype))
