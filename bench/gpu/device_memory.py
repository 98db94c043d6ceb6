"""Takes what is left of a GPU's memory, by CUDA's own calls: ONNX Runtime would keep it for itself afterwards."""

import ctypes
import time
from collections.abc import Iterator
from contextlib import contextmanager

_MAX_SECONDS = 10.0  # to take it
_STEPS = (2**30, 2**27, 2**24)  # bytes of an allocation: as many as there is room for, then smaller ones
_LIBRARIES = ("libcudart.so.13", "libcudart.so.12", "libcudart.so")


def load_cuda() -> ctypes.CDLL:
    """Load CUDA's runtime.

    Raises:
        RuntimeError: It is not there.
    """
    for name in _LIBRARIES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise RuntimeError(f"none of {', '.join(_LIBRARIES)} can be loaded")


def check_cuda(error: int) -> None:
    """Raise what a call of CUDA returned.

    Raises:
        RuntimeError: Unless that is success.
    """
    if error:
        raise RuntimeError(f"CUDA says error {error}")


@contextmanager
def all_taken(gpu: int) -> Iterator[int]:
    """Take a GPU's memory, yield how many bytes, and give it back."""
    library, pieces, taken, ends = load_cuda(), list[ctypes.c_void_p](), 0, time.monotonic() + _MAX_SECONDS
    check_cuda(library.cudaSetDevice(gpu))
    try:
        for step in _STEPS:
            while time.monotonic() < ends and (piece := _allocate(library, step)):
                pieces.append(piece)
                taken += step
        yield taken
    finally:
        for piece in pieces:
            library.cudaFree(piece)


def _allocate(library: ctypes.CDLL, size: int) -> ctypes.c_void_p | None:
    address = ctypes.c_void_p()
    return None if library.cudaMalloc(ctypes.byref(address), ctypes.c_size_t(size)) else address
