"""The check of arrays against what a model's contract says it takes."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from artifact.contract import BATCH_AXIS, SEQUENCE_AXIS, Contract, TensorContract
from artifact.dtypes import Array, name_of
from server.errors import InvalidInput

_MAX_BESIDE_ZERO = 2**31


class Declared(NamedTuple):
    """What a caller says of an array, before its elements are made; an array itself says the same."""

    dtype: "np.dtype[Any]"
    shape: tuple[int, ...]


def count_elements(field: str, shape: Sequence[int]) -> int:
    """Multiply sizes, none of them negative.

    Raises:
        InvalidInput: There are none, but of a shape that numpy cannot have.
    """
    if 0 in shape and math.prod(size for size in shape if size) > _MAX_BESIDE_ZERO:
        raise InvalidInput(field, list(shape), f"a product of at most {_MAX_BESIDE_ZERO} beside a size of 0")
    return math.prod(shape)


def check_names(names: Iterable[str], contract: Contract) -> None:
    """Refuse inputs that a model does not have.

    Raises:
        InvalidInput: Names the input.
    """
    known = [spec.name for spec in contract.inputs]
    for name in names:
        if name not in known:
            raise InvalidInput("inputs", repr(name), f"{' and '.join(sorted(known))}, the inputs of {contract.name}")


def check_inputs(arrays: Mapping[str, Array], contract: Contract, max_batch_size: int) -> dict[str, Array]:
    """Check arrays against what a model takes; see check_shapes and check_values.

    Raises:
        InvalidInput: Names the input, what came and what was expected.
    """
    check_shapes(arrays, contract, max_batch_size)
    return check_values(arrays, contract)


def check_values(arrays: Mapping[str, Array], contract: Contract) -> dict[str, Array]:
    """Check the elements of arrays whose shapes were checked.

    Args:
        arrays: By input name.
        contract: The model's.

    Returns:
        The arrays in the contract's order, all with the same rows and the same length.

    Raises:
        InvalidInput: Names the input, what came and what was expected.
    """
    if len(arrays) < len(contract.inputs):
        arrays = {**_token_types(arrays, contract), **arrays}
    checked = dict[str, Array]()
    for spec in contract.inputs:
        array = checked[spec.name] = arrays[spec.name]
        if spec.finite or spec.mask or spec.minimum is not None or spec.maximum is not None:
            _check_values(f"inputs[{spec.name}]", array, spec)
    return checked


def _token_types(arrays: Mapping[str, Array], contract: Contract) -> dict[str, Array]:
    """Make what a caller may leave out: zeros, as many as there are tokens."""
    left_out, sizes = [spec for spec in contract.inputs if spec.name not in arrays], contract.axis_sizes(arrays)
    shapes = {spec: [axis if isinstance(axis, int) else sizes[axis] for axis in spec.axes] for spec in left_out}
    return {spec.name: np.zeros(shape, spec.dtype) for spec, shape in shapes.items()}


def check_shapes(
    arrays: Mapping[str, Array] | Mapping[str, Declared],
    contract: Contract,
    max_batch_size: int,
    datatypes: Mapping[str, str] | None = None,
) -> None:
    """Check all of arrays but their elements against what a model takes.

    Args:
        arrays: By input name.
        contract: The model's.
        max_batch_size: Most rows.
        datatypes: What the protocol calls a dtype, for messages.

    Raises:
        InvalidInput: Names the input, what came and what was expected.
    """
    check_names(arrays, contract)
    sizes: dict[str, int] = {}
    for spec in contract.inputs:
        field = f"inputs[{spec.name}]"
        if spec.name not in arrays:
            if spec.token_types:
                continue
            dtype = (datatypes or {}).get(spec.dtype, spec.dtype)
            raise InvalidInput(field, "missing", f"{dtype} {_describe(spec)}")
        _check_dtype(field, arrays[spec.name], spec, datatypes or {})
        _check_shape(field, arrays[spec.name], spec, sizes)
    _check_sizes(sizes, contract, max_batch_size)


def _check_dtype(field: str, array: Array | Declared, spec: TensorContract, datatypes: Mapping[str, str]) -> None:
    found = name_of(array.dtype)
    if found != spec.dtype:
        label = "datatype" if datatypes else "dtype"
        raise InvalidInput(f"{field}.{label}", datatypes.get(found, found), datatypes.get(spec.dtype, spec.dtype))


def _check_shape(field: str, array: Array | Declared, spec: TensorContract, sizes: dict[str, int]) -> None:
    """Compare with the contract; `sizes` collects what each symbolic axis turned out to be."""
    fits = len(array.shape) == len(spec.axes) and all(
        size == (sizes.setdefault(axis, size) if isinstance(axis, str) else axis)
        for size, axis in zip(array.shape, spec.axes, strict=True)
    )
    if not fits:
        known = ", ".join(f"{axis} {size}" for axis, size in sizes.items() if axis in spec.axes)
        raise InvalidInput(f"{field}.shape", list(array.shape), _describe(spec) + (f" with {known}" if known else ""))
    if spec.finite and 0 in array.shape:
        raise InvalidInput(f"{field}.shape", list(array.shape), "at least one element")


def _check_values(field: str, array: Array, spec: TensorContract) -> None:
    if spec.finite and array.dtype.kind == "f" and not np.isfinite(array).all():
        place = tuple(int(index) for index in np.argwhere(~np.isfinite(array))[0])
        raise InvalidInput(field, f"{array[place]} at {list(place)}", "finite numbers")
    low, high = spec.minimum, spec.maximum
    if low is not None and (smallest := array.min()) < low:
        raise InvalidInput(field, f"a value of {smallest}", _describe_bounds(spec))
    if high is not None and (largest := array.max()) > high:
        raise InvalidInput(field, f"a value of {largest}", _describe_bounds(spec))
    if spec.mask and not array.any(axis=-1).all():
        row = int(np.argmin(array.any(axis=-1)))
        raise InvalidInput(field, f"only zeros in row {row}", "at least one 1 in every row")


def _describe_bounds(spec: TensorContract) -> str:
    bounds = (("from", spec.minimum), ("to", spec.maximum))
    return " ".join(["values", *(f"{word} {bound:g}" for word, bound in bounds if bound is not None)])


def _check_sizes(sizes: dict[str, int], contract: Contract, max_batch_size: int) -> None:
    rows, tokens = sizes.get(BATCH_AXIS), sizes.get(SEQUENCE_AXIS)
    if contract.batched and rows == 0:
        raise InvalidInput("inputs", "no rows", "at least one")
    if rows and rows > max_batch_size:
        raise InvalidInput("inputs", f"{rows} rows", f"at most {max_batch_size} (the server's --max-batch-size)")
    if contract.text and tokens and tokens > contract.text.max_tokens:
        raise InvalidInput("inputs", f"{tokens} tokens", f"at most {contract.text.max_tokens}")
    for axis, size in sizes.items():
        if axis in contract.limits and size > contract.limits[axis]:
            raise InvalidInput("inputs", f"{size} positions along {axis}", f"at most {contract.limits[axis]}")


def _describe(spec: TensorContract) -> str:
    return f"[{', '.join(map(str, spec.axes))}]"
