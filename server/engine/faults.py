"""Tells a device that has failed from a run that has: what CUDA says after which nothing more runs there."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from server.engine.device import Device
from server.errors import DeviceFailed, first_line

# "CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; hostname=...", as ONNX Runtime words it.
_CUDA_FAILURE = re.compile(r"\bCUDA failure (\d+)")
# cudaError_t (CUDA Runtime API, "Data types used by CUDA Runtime"): no device, errors of memory and links that could
# not be corrected, a destroyed context: the device's own.
_OF_DEVICE = frozenset((100, 214, 220, 226, 709))
# What a kernel did, which may be an input's doing, that "leaves the process in an inconsistent state and any further
# CUDA work will return the same error". Out of memory (2), a busy device (46), an unknown error (999) and what is wrong
# with a single call are in neither.
_OF_KERNEL = frozenset((700, 702, 710, 714, 715, 716, 717, 718, 719, 721))


DEVICE_FAILED = "the device that computed this has failed; retry"


class DeviceLost(Exception):
    """Nothing more can be computed on a device in this process; the message is its own."""

    def __init__(self, why: str, *, may_be_input: bool = False) -> None:
        """Say why, and whether what was computed may have brought it about."""
        super().__init__(why)
        self.may_be_input = may_be_input


Judge = Callable[[Exception], DeviceLost | None]
"""Says of what a run raised whether its device is lost."""


def judge_gpu(error: Exception) -> DeviceLost | None:
    """Judge by CUDA's number."""
    found = _CUDA_FAILURE.search(str(error))
    number = int(found[1]) if found else 0
    if number in _OF_DEVICE | _OF_KERNEL:
        return DeviceLost(first_line(error), may_be_input=number in _OF_KERNEL)
    return None


def judge_cpu(_error: Exception) -> DeviceLost | None:
    """Nothing loses the CPU, whatever a message holds: nodes may be named as CUDA's failures."""
    return None


def judge_of(device: Device) -> Judge:
    """Return what judges the runs of a device, and of all of its kind."""
    return judge_cpu if device.gpu is None else judge_gpu


@contextmanager
def telling_callers(judge: Judge) -> Iterator[None]:
    """Tell who waits for something on a device that the device has failed, where that is so.

    Raises:
        DeviceFailed: In place of what was raised.
    """
    try:
        yield
    except Exception as error:
        if judge(error):
            raise DeviceFailed(DEVICE_FAILED) from error
        raise
