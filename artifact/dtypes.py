"""Element types by the names that contracts use."""

from functools import cache
from typing import Any, Literal

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
DType = Literal[
    "float32", "float16", "bfloat16", "float64", "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16",
    "uint8", "bool", "string",
]  # fmt: skip
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


@cache
def name_of(dtype: "np.dtype[Any]") -> str:
    """The contract's name of a dtype: numpy's, but string for objects."""
    return "string" if dtype.kind in "OSU" else dtype.name


@cache
def dtype_of(name: str) -> "np.dtype[Any]":
    """Numpy's dtype by the contract's name; strings are objects."""
    return BFLOAT16 if name == "bfloat16" else np.dtype(object if name == "string" else name)
