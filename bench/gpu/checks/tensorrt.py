"""Whether --device tensorrt works where TensorRT is installed; engines take long to build, so one artifact is tried."""

from collections.abc import Iterator

import onnxruntime

from bench.gpu.checks.parity import compare
from bench.gpu.limits import TF32
from bench.gpu.rows import Row, skipped
from bench.gpu.setting import Setting
from server.engine.device import TENSORRT, choose_device
from server.errors import StartError


def check(setting: Setting) -> Iterator[Row]:
    """Compare the smallest artifact with the CPU."""
    if setting.is_stand_in:
        yield skipped("all of it", "the CPU has none")
        return
    if TENSORRT not in onnxruntime.get_available_providers():
        yield skipped("all of it", "not in this build of ONNX Runtime")
        return
    _, _, index = setting.device.partition(":")
    try:
        device = choose_device(f"tensorrt:{index or 0}")
    except StartError as error:
        yield skipped("all of it", str(error))
        return
    part = next((part for part in setting.parts() if part.contract.precision == "float32"), None)
    if part is None:
        yield skipped("all of it", "no artifact in float32")
        return
    yield from compare(part, {"": (device, TF32)}, part, setting)
