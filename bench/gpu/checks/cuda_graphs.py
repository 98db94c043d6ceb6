"""Whether CUDA graphs would pay, which regard does not offer: runs of one shape, recorded there and replayed."""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnxruntime

from artifact.contract import PLAIN_GRAPH
from artifact.dtypes import Array
from bench.gpu.checks.buffers import milliseconds
from bench.gpu.inputs import apart, make_inputs
from bench.gpu.limits import limit_of
from bench.gpu.rows import Row, at_most, guarded, measured, skipped
from bench.gpu.setting import PLAIN_CPU, Part, Setting, cpus
from server.engine.device import CUDA, Device, with_options
from server.engine.session import load_session
from server.errors import first_line

_SIZES = ((1, 16), (32, 16))  # rows, tokens
Inputs = dict[str, Array]


def check(setting: Setting) -> Iterator[Row]:
    """Try every artifact; what ONNX Runtime refuses is skipped, since nothing in regard relies on it."""
    device = setting.choose()
    if device.gpu is None:
        yield skipped("all of it", "the CPU has none")
        return
    for part in setting.parts():
        if part.contract.precision == "bfloat16":
            yield skipped(part.name, "bfloat16 cannot be computed on the CPU, to compare with")
        else:
            yield from guarded(part.name, try_part(part, device, setting))


def try_part(part: Part, device: Device, setting: Setting) -> Iterator[Row]:
    """Try a batch of each size, where the CPU's answer can be had in the time that is left."""
    reference, seconds_a_row = load_session(part.folder / PLAIN_GRAPH, PLAIN_CPU, cpus(), spin=False), 0.0
    names = [spec.name for spec in part.contract.outputs]
    for rows, length in _SIZES:
        name = f"{part.name}, {rows} rows"
        if setting.seconds_left < rows * seconds_a_row:
            yield skipped(name, "the time is up")
            continue
        first, second = (make_inputs(part.contract, rows, length, seed) for seed in (0, 1))
        began = time.monotonic()
        expected = reference.run(names, second)
        seconds_a_row = (time.monotonic() - began) / rows
        yield from try_one(name, part, device, (first, second), expected)


def try_one(name: str, part: Part, device: Device, inputs: tuple[Inputs, Inputs], expected: list[Any]) -> Iterator[Row]:
    """Record a run, replay it with other inputs, compare with the CPU, and measure."""
    first, second = inputs
    try:
        replay = FixedRun(part, with_options(device, enable_cuda_graph=1), first, expected)
        replay.run(first)
        replay.run(first)
        found = replay.run(second)
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        yield skipped(name, f"ONNX Runtime refuses it: {first_line(error)}")
        return
    distance = max(apart(one, np.asarray(other)) for one, other in zip(found, expected, strict=True))
    yield at_most(f"{name}, replayed", distance, limit_of(part.contract.precision, tf32=True))
    plain = FixedRun(part, device, first, expected)
    times = [milliseconds(lambda one=one: one.run(second)) for one in (replay, plain)]  # type: ignore[misc]
    yield measured(f"{name}, a run", f"{times[0]:.3f} ms replayed, {times[1]:.3f} ms not")


class FixedRun:
    """A session whose inputs and outputs stay where they are on the device."""

    def __init__(self, part: Part, device: Device, inputs: dict[str, Array], outputs: Any) -> None:
        options = onnxruntime.SessionOptions()
        providers = [one for one in device.providers if isinstance(one, str) or one[0] == CUDA]
        self._session = onnxruntime.InferenceSession(part.folder / PLAIN_GRAPH, options, providers=providers)
        self._binding, make = self._session.io_binding(), onnxruntime.OrtValue
        self._inputs = {name: make.ortvalue_from_numpy(array, *device.place) for name, array in inputs.items()}
        self._outputs = [make.ortvalue_from_numpy(np.asarray(array), *device.place) for array in outputs]
        for name, value in self._inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        for spec, value in zip(part.contract.outputs, self._outputs, strict=True):
            self._binding.bind_ortvalue_output(spec.name, value)

    def run(self, inputs: dict[str, Array]) -> list[Array]:
        """Compute one batch of the one shape."""
        for name, array in inputs.items():
            self._inputs[name].update_inplace(array)
        self._binding.synchronize_inputs()
        self._session.run_with_iobinding(self._binding)
        self._binding.synchronize_outputs()
        return [np.array(value.numpy()) for value in self._outputs]
