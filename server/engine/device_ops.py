"""Does what `array_ops` does on the device that holds the weights, so that only what is sent is copied from there.

Sessions on a GPU leave attention where it is (`io_binding`). Each method runs a small graph of kernels/, which
export/kernels.py wrote.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import onnxruntime

from artifact.dtypes import Array
from server.engine.array_ops import KERNELS, unit_rows
from server.engine.capture_gate import GATE
from server.engine.device import ERRORS_ONLY, TENSORRT, Device
from server.engine.faults import judge_of, telling_callers


class DeviceArray:
    """An array on a device, or a part of one that nobody has copied yet; copying it gives numpy's."""

    def __init__(
        self, value: onnxruntime.OrtValue, measures: DeviceMeasures, parts: tuple[range, ...] | None = None
    ) -> None:
        """Wrap a value.

        Args:
            value: On the device.
            measures: What reads it.
            parts: Which places of each axis; None for all.
        """
        self.value = value
        self.measures = measures
        self._shape = tuple(value.shape())
        self.parts = parts or tuple(map(range, self._shape))

    @property
    def shape(self) -> tuple[int, ...]:
        """As numpy's."""
        return tuple(map(len, self.parts))

    @property
    def dtype(self) -> np.dtype[Any]:
        """As numpy's; attention is float32."""
        return np.dtype(np.float32)

    @property
    def nbytes(self) -> int:
        """As numpy's, of this part."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def is_whole(self) -> bool:
        """Whether it is all of what it is a part of."""
        return self.shape == self._shape

    def __getitem__(self, slices: tuple[slice, ...]) -> DeviceArray:
        """Cut the first axes, as numpy does; nothing is copied."""
        cut = tuple(part[one] for part, one in zip(self.parts, slices, strict=False))
        return DeviceArray(self.value, self.measures, (*cut, *self.parts[len(cut) :]))

    def copy(self) -> Array:
        """Copy it to the host."""
        return self.measures.to_host(self)


class DeviceMeasures:
    """The functions of array_ops, on one device; may be called from any thread."""

    def __init__(self, device: Device) -> None:
        """Load the graphs."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = ERRORS_ONLY
        # CUDA and the CPU: TensorRT would build an engine for every shape.
        providers = [provider for provider in device.providers if TENSORRT not in provider]
        with GATE.use():
            self._sessions = {
                path.stem: onnxruntime.InferenceSession(path, options, providers=providers)
                for path in sorted(KERNELS.glob("*.onnx"))
            }
        self.place = device.place
        self._judge = judge_of(device)

    def to_host(self, array: DeviceArray) -> Array:
        """Copy an array, or the part that it is, from the device."""
        if not array.is_whole:
            array = self.choose(array, None, None) if len(array.shape) == 4 else self.choose_fused(array, None)
        return self._fetch(array)

    def choose(self, weights: DeviceArray, heads: Sequence[int] | None, queries: Sequence[int] | None) -> DeviceArray:
        """See array_ops.choose; cuts off what is not part of the array, too."""
        if weights.is_whole and heads is None and queries is None:
            return weights
        rows, of_heads, of_queries, keys = weights.parts
        return self._run("choose", weights, rows, _of(of_heads, heads), _of(of_queries, queries), keys)[0]

    def choose_fused(self, values: DeviceArray, firsts: Sequence[int] | None) -> DeviceArray:
        """See array_ops.choose_fused; cuts off what is not part of the array, too."""
        if values.is_whole and firsts is None:
            return values
        rows, of_firsts, seconds = values.parts
        return self._run("choose_fused", values, rows, _of(of_firsts, firsts), seconds)[0]

    def choose_keys(self, values: DeviceArray, keys: Sequence[int]) -> DeviceArray:
        """See array_ops.choose_keys."""
        return self._run("choose_keys", values, keys)[0]

    def weigh_by_values(self, weights: DeviceArray, value_norms: DeviceArray) -> DeviceArray:
        """See array_ops.weigh_by_values."""
        return self._run("weigh_by_values", weights, value_norms)[0]

    def normalize_rows(self, weights: DeviceArray) -> DeviceArray:
        """See array_ops.normalize_rows."""
        return self._run("normalize_rows", weights)[0]

    def fuse_heads(self, values: DeviceArray, reduction: str) -> DeviceArray:
        """See array_ops.fuse_heads."""
        return self._run(f"fuse_heads.{reduction}", values)[0]

    def rollout(self, layers: Sequence[DeviceArray], residual_share: float, rows: Sequence[int] | None) -> DeviceArray:
        """See array_ops.rollout."""
        share = np.asarray([residual_share], dtype=np.float32)
        flow: Any = unit_rows(layers[0].shape, rows)
        for weights in reversed(layers):
            flow = self._run("rollout", flow, weights, share)[0]
        return cast(DeviceArray, flow)

    def contribution_rollout(self, layers: Sequence[DeviceArray], rows: Sequence[int] | None) -> DeviceArray:
        """See array_ops.contribution_rollout."""
        flow: Any = unit_rows(layers[0].shape, rows)
        for contributions in reversed(layers):
            flow = self._run("contribution_rollout", flow, contributions)[0]
        return cast(DeviceArray, flow)

    def entropy(self, weights: DeviceArray) -> DeviceArray:
        """See array_ops.entropy."""
        return self._run("entropy", weights)[0]

    def mean_distance(self, weights: DeviceArray, apart: Array, counted: Array, rows: Sequence[int]) -> DeviceArray:
        """See array_ops.mean_distance."""
        return self._run("mean_distance", weights, apart, counted, rows)[0]

    def as_one_head(self, values: DeviceArray) -> DeviceArray:
        """See array_ops.as_one_head."""
        return self._run("as_one_head", values)[0]

    def received(self, weights: DeviceArray) -> DeviceArray:
        """See array_ops.received."""
        return self._run("received", weights)[0]

    def sum_places(self, weights: DeviceArray, places: Array) -> DeviceArray:
        """See array_ops.sum_places."""
        return self._run("sum_places", weights, places)[0]

    def largest(self, weights: DeviceArray, count: int) -> tuple[DeviceArray, Array]:
        """See array_ops.largest; the places are on the host."""
        values, places = self._run("largest", weights, [min(count, weights.shape[-1])])
        return values, self._fetch(places)

    def to_float16(self, values: DeviceArray) -> DeviceArray:
        """See array_ops.to_float16."""
        return self._run("to_float16", values)[0]

    def to_uint8(self, values: DeviceArray) -> tuple[DeviceArray, float]:
        """See array_ops.to_uint8; the scale is on the host."""
        rounded, scale = self._run("to_uint8", values)
        return rounded, float(self._fetch(scale)[0])

    def _run(self, kernel: str, *inputs: DeviceArray | Array | Sequence[int]) -> list[DeviceArray]:
        """Run a graph; what is on the host is copied to the device, what it gives stays there."""
        session = self._sessions[kernel]
        with telling_callers(self._judge), GATE.use():
            binding = session.io_binding()
            for spec, given in zip(session.get_inputs(), inputs, strict=True):
                if isinstance(given, DeviceArray):
                    binding.bind_ortvalue_input(spec.name, given.value)
                else:
                    array = given if isinstance(given, np.ndarray) else np.asarray(given, dtype=np.int64)
                    binding.bind_cpu_input(spec.name, np.ascontiguousarray(array))
            for spec in session.get_outputs():
                binding.bind_output(spec.name, *self.place)
            session.run_with_iobinding(binding)
            return [DeviceArray(value, self) for value in binding.get_outputs()]

    def _fetch(self, array: DeviceArray) -> Array:
        with telling_callers(self._judge), GATE.use():
            return np.array(array.value.numpy())


@functools.cache
def measures_on(device: Device) -> DeviceMeasures:
    """Return the measures of a device, made once for all models."""
    return DeviceMeasures(device)


Weights = Array | DeviceArray


def _of(part: range, chosen: Sequence[int] | None) -> Sequence[int]:
    """Resolve places within a part to places of the whole."""
    return part if chosen is None else [part[place] for place in chosen]
