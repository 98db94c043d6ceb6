"""Which device, driver and build of ONNX Runtime there are, and what regard makes of them."""

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import onnxruntime

from bench.gpu.rows import ON_GPU, Row, failed, judged, measured, skipped
from bench.gpu.setting import Setting
from server.engine.device import Device, choose_device
from server.errors import StartError

_QUERY = "name,driver_version,memory.total,memory.used,compute_cap,mig.mode.current"
_PACKAGES = ("onnxruntime-gpu", "onnxruntime", "numpy", "grpcio", "onnx", "torch", "transformers")


def check(setting: Setting) -> Iterator[Row]:
    """Say what is there; the device that was asked for has to be."""
    yield measured("system", f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} CPUs")
    yield measured("packages", ", ".join(filter(None, map(_installed, _PACKAGES))))
    yield nvidia_smi()
    yield measured("ONNX Runtime", f"{onnxruntime.__version__}, {onnxruntime.get_build_info()}")
    yield measured("providers of the build", ", ".join(onnxruntime.get_available_providers()))
    chosen = choose_device("auto")
    yield measured("--device auto takes", f"{chosen.name}: {chosen.reason}")
    try:
        device = setting.choose()
    except StartError as error:
        yield failed(f"--device {setting.device}", str(error), "is there")
        return
    yield judged(f"--device {setting.device}", f"{device.name}, {device.reason}", "is there", ok=True)
    yield measured(ON_GPU, "yes" if device.gpu is not None else "no")
    yield page_locked(device)


def _installed(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return ""


def nvidia_smi() -> Row:
    """Ask NVIDIA's own program."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return skipped("nvidia-smi", "not installed")
    command = [program, f"--query-gpu={_QUERY}", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)  # noqa: S603 -- NVIDIA's
    if done.returncode:
        return skipped("nvidia-smi", (done.stderr or done.stdout).strip().partition("\n")[0])
    return measured("nvidia-smi", f"{done.stdout.strip()} ({_QUERY})")


def page_locked(device: Device) -> Row:
    """Whether ONNX Runtime gives page-locked host memory, without which outputs are copied more slowly."""
    if device.gpu is None:
        return skipped("page-locked buffers", "the CPU has none")
    kind, place = onnxruntime.OrtAllocatorType.ORT_DEVICE_ALLOCATOR, onnxruntime.OrtMemType.CPU_OUTPUT
    memory = onnxruntime.OrtMemoryInfo("CudaPinned", kind, device.gpu, place)
    try:
        onnxruntime.OrtValue.ortvalue_from_shape_and_type((16,), np.float32, memory_info=memory)
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        return measured("page-locked buffers", f"none: {error}")
    return measured("page-locked buffers", "yes")
