"""Tells a device that has failed from a run that has: what CUDA says after which nothing more runs there."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from server.errors import DeviceFailed

# "CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; hostname=...", as ONNX Runtime words it.
_CUDA_FAILURE = re.compile(r"\bCUDA failure (\d+)")
# cudaError_t (CUDA Runtime API, "Data types used by CUDA Runtime"): no device, errors of memory and links that could
# not be corrected, a destroyed context, and all that "leaves the process in an inconsistent state and any further CUDA
# work will return the same error". Out of memory (2) and what is wrong with a single call are not among them.
_LOST = frozenset((46, 100, 101, 214, 220, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721, 999))


DEVICE_FAILED = "the device that computed this has failed; retry"


class DeviceLost(Exception):
    """Nothing more can be computed on a device in this process; the message is its own."""


def is_device_lost(error: BaseException) -> bool:
    """Whether what a run raised means that nothing more will run on its device."""
    found = _CUDA_FAILURE.search(str(error))
    return found is not None and int(found[1]) in _LOST


@contextmanager
def telling_callers() -> Iterator[None]:
    """Tell who waits for something on a device that the device has failed, where that is so.

    Raises:
        DeviceFailed: In place of what was raised.
    """
    try:
        yield
    except Exception as error:
        if is_device_lost(error):
            raise DeviceFailed(DEVICE_FAILED) from error
        raise
