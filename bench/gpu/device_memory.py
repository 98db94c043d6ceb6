"""Bytes that are used of a GPU's memory, by NVIDIA's library or its program, and how to take what is left of it."""

import shutil
import subprocess
import time
from importlib import import_module
from importlib.util import find_spec

import numpy as np
import onnxruntime

from server.engine.device import Device
from server.errors import first_line

_MOST_SECONDS = 10.0  # to take it
_STEPS = (2**30, 2**27, 2**24)  # bytes of an allocation: as many as there is room for, then smaller ones


def used_bytes(gpu: int | None) -> int | None:
    """Bytes used of a GPU, by all processes; None where nothing tells."""
    if gpu is None:
        return None
    if find_spec("pynvml"):
        try:
            library = import_module("pynvml")
            library.nvmlInit()
            return int(library.nvmlDeviceGetMemoryInfo(library.nvmlDeviceGetHandleByIndex(gpu)).used)
        except Exception as error:  # NVIDIA's errors; its program is asked then
            print(f"pynvml: {first_line(error)}")
    return _by_program(gpu)


def _by_program(gpu: int) -> int | None:
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    command = [program, f"--id={gpu}", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)  # noqa: S603 -- NVIDIA's
    number = done.stdout.strip()
    return int(number) * 2**20 if number.isdecimal() else None


def take_all(device: Device) -> list[onnxruntime.OrtValue]:
    """Take what is left of a GPU's memory; it is given back with the list."""
    taken, ends = list[onnxruntime.OrtValue](), time.monotonic() + _MOST_SECONDS
    for step in _STEPS:
        while time.monotonic() < ends:
            try:
                taken.append(onnxruntime.OrtValue.ortvalue_from_shape_and_type([step], np.uint8, *device.place))
            except Exception as error:  # ONNX Runtime's exceptions have no common base; this is what was wanted
                print(f"{len(taken)} pieces taken: {first_line(error)}")
                break
    return taken
