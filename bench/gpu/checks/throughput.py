"""What regard's engine does beside ONNX Runtime alone, whose inputs lie on the device already, by rows of a batch."""

import time
from collections.abc import Iterator
from functools import partial

import numpy as np
import onnxruntime

from artifact.contract import PLAIN_GRAPH
from artifact.dtypes import Array
from bench.gpu.checks.buffers import milliseconds
from bench.gpu.engines import make_engine, make_graph
from bench.gpu.inputs import make_inputs
from bench.gpu.rows import Row, failed, measured, skipped
from bench.gpu.setting import Part, Setting, cpus
from server.engine.device import Device
from server.engine.session import load_session
from server.errors import first_line

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_LENGTH = 64  # tokens of a text
_GROWTH, _RUNS = 2, 3  # the next batch is twice as large, and is run so often at least
_ATTENTION_ROWS = 8  # after which what attention costs is measured


def check(setting: Setting) -> Iterator[Row]:
    """Measure every artifact at every batch until the time is up: small batches of all before large ones."""
    device = setting.choose()
    parts = [part for part in setting.parts() if part.contract.precision != "bfloat16" or device.gpu is not None]
    pairs = list[Pair]()
    for part in parts:
        try:
            pairs.append(Pair(part, device))
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            yield failed(part.name, first_line(error))
    for batch in BATCHES:
        for pair in pairs:
            name = f"{pair.part.name}, {batch} rows"
            if setting.seconds_left < pair.expected_seconds:
                yield skipped(name, "the time is up")
                continue
            try:
                yield measured(name, pair.measure(batch, setting.seconds_left))
            except Exception as error:  # ONNX Runtime's exceptions have no common base
                yield failed(name, first_line(error))
        if batch == _ATTENTION_ROWS:
            yield from attention_cost(parts, device, setting)


def attention_cost(parts: list[Part], device: Device, setting: Setting) -> Iterator[Row]:
    """Compare runs of the plain graph with those of the tapped one, whose weights stay on the device."""
    for part in parts:
        name = f"{part.name}, {_ATTENTION_ROWS} rows with attention"
        if not part.contract.attention or setting.seconds_left < 0:
            yield skipped(name, "the time is up" if part.contract.attention else "it has none")
            continue
        try:
            engine = make_engine(part, device)
            assert engine.tapped is not None  # noqa: S101 -- it has attention
            inputs = make_inputs(part.contract, _ATTENTION_ROWS, _LENGTH)
            names = [spec.name for spec in part.contract.outputs]
            plain = milliseconds(partial(engine.plain.run, inputs, names), most_seconds=0.5)
            weights = [*names, *(layer.output for layer in part.contract.attention)]
            tapped = milliseconds(partial(engine.tapped.run, inputs, weights), most_seconds=0.5)
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            yield failed(name, first_line(error))
        else:
            yield measured(name, f"{tapped:.2f} ms, plain {plain:.2f} ms, {tapped / plain:.2f} times as long")


class Pair:
    """An artifact's plain graph, raw and as regard runs it."""

    def __init__(self, part: Part, device: Device) -> None:
        self.part, self._device, self.expected_seconds = part, device, 0.0
        self._raw = load_session(part.folder / PLAIN_GRAPH, device, 1, spin=False)
        self._graph = make_graph(part.folder / PLAIN_GRAPH, device)
        self._names = [spec.name for spec in part.contract.outputs]

    def measure(self, rows: int, seconds_left: float) -> str:
        """Run both, and tell rows a second, milliseconds of a run, and CPUs that regard's took."""
        inputs = make_inputs(self.part.contract, rows, _LENGTH)
        most = max(min(seconds_left / 10, 1.0), 0.1)
        binding, first_began = self._bind(inputs), time.perf_counter()
        self._graph.run(inputs, self._names)  # of convolutions CUDA tries every algorithm at a new shape
        first_ms = (time.perf_counter() - first_began) * 1e3
        raw = milliseconds(lambda: self._raw.run_with_iobinding(binding), most_seconds=most)
        began, cpu_began = time.perf_counter(), time.process_time()
        ours = milliseconds(lambda: self._graph.run(inputs, self._names), most_seconds=most)
        used = (time.process_time() - cpu_began) / (time.perf_counter() - began)
        self.expected_seconds = _GROWTH * _RUNS * (raw + ours) / 1e3
        rates = [rows / each * 1e3 for each in (raw, ours)]
        return (
            f"raw {rates[0]:.0f} rows/s, {raw:.2f} ms; regard's engine {rates[1]:.0f} rows/s, {ours:.2f} ms, "
            f"{rates[1] / rates[0]:.2f} of raw, {used:.2f} of {cpus()} CPUs, "
            f"first run of the shape {first_ms:.1f} ms"
        )

    def _bind(self, inputs: dict[str, Array]) -> onnxruntime.IOBinding:
        binding = self._raw.io_binding()
        for name, array in inputs.items():
            value = onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), *self._device.place)
            binding.bind_ortvalue_input(name, value)
        for name in self._names:
            binding.bind_output(name, *self._device.place)
        return binding
