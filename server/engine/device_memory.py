"""Refuses weights that the free memory of a GPU cannot hold, before any of them is read."""

import ctypes
from collections.abc import Iterable, Sequence
from pathlib import Path

from google.protobuf.message import DecodeError

from server.engine.device import Device
from server.engine.external_data import ExternalData
from server.errors import StartError

_MAX_GRAPH_BYTES = 2**26  # of a graph whose weights lie outside its file; a larger one has them inside


def check_room(folder: Path, graphs: Iterable[str], devices: Sequence[Device]) -> None:
    """Compare what the weights of an artifact's graphs take with what each GPU has free.

    Each graph has a session of its own with its weights; what runs take besides is not known beforehand.

    Raises:
        StartError: Names the device, the bytes that are wanted, and those that are there.
    """
    gpus = {device.gpu: device for device in devices if device.gpu is not None}
    wanted_bytes = sum(_weights_bytes(folder / graph) for graph in graphs) if gpus else 0
    for gpu, device in gpus.items():
        there_bytes = free_bytes(gpu)
        if there_bytes is not None and there_bytes < wanted_bytes:
            raise StartError(
                f"{folder}: its weights take {wanted_bytes} bytes of a device, and {device.name} has {there_bytes} "
                "bytes free; expected fewer models, or fewer devices in --device"
            )


def free_bytes(gpu: int) -> int | None:
    """Ask the driver how much memory a GPU has free, counted as CUDA counts them; None where it does not say."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    device, context, popped = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    if driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), gpu):
        return None
    if driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device):
        return None
    try:
        if driver.cuCtxPushCurrent_v2(context):
            return None
        failed = driver.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
        driver.cuCtxPopCurrent_v2(ctypes.byref(popped))
        return None if failed else free.value
    finally:
        driver.cuDevicePrimaryCtxRelease_v2(device)


def _weights_bytes(graph: Path) -> int:
    """Bytes of a graph and of the weights that it refers to; 0 where that cannot be told, and loading may say why."""
    try:
        graph_bytes = graph.stat().st_size
        if graph_bytes > _MAX_GRAPH_BYTES:
            return graph_bytes
        return graph_bytes + sum(piece.length for _, pieces in ExternalData(graph).tensors() for piece in pieces)
    except (OSError, DecodeError, KeyError, ValueError):
        return 0
