"""Runs a session with buffers on its device that are made once and used again.

Inputs are copied to device buffers and outputs to host buffers (page-locked where ONNX Runtime gives such memory),
instead of memory that is allocated and copied through anew at every run. Attention stays on the device, for what is
asked of it to be made there (server/engine/device_ops.py). On the CPU a session reads the caller's memory in place, so
there it would bring nothing; the same code runs there under test.
"""

import logging
import threading
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import onnxruntime

from artifact.dtypes import Array
from server.engine.capture_gate import GATE
from server.engine.device_ops import DeviceArray, DeviceMeasures, Weights
from server.errors import first_line

_log = logging.getLogger(__name__)

Key = tuple[Any, ...]

_SHAPES_KEPT = 16  # of each instance: buffers for the shapes used last


@dataclass(eq=False)
class _Buffers:
    """What one shape of batch needs; the outputs' shapes are known after its first run."""

    inputs: dict[str, onnxruntime.OrtValue]
    outputs: dict[str, onnxruntime.OrtValue] = field(default_factory=dict)


class Runs(Protocol):
    """Computes batches of a graph on one device; may be called from any thread."""

    def run(self, inputs: Mapping[str, Array], names: Sequence[str]) -> Mapping[str, Weights]:
        """Compute one batch; arguments and result are Graph.run's."""
        ...


class BoundSession:
    """A session whose inputs and outputs are bound to buffers; each thread that runs it has buffers of its own."""

    def __init__(
        self, session: onnxruntime.InferenceSession, measures: DeviceMeasures, keep_on_device: Collection[str] = ()
    ) -> None:
        """Wrap a session.

        Args:
            session: On the device of the measures.
            measures: What computes with what stays there.
            keep_on_device: Names of the outputs that stay.
        """
        self._session = session
        self._measures = measures
        self._device = measures.place
        self._keep_on_device = frozenset(keep_on_device)
        named = {axis for value in session.get_inputs() for axis in value.shape if isinstance(axis, str)}
        # Of the others a run's data decides how large they are: each run makes its own.
        self._fixed = frozenset(
            value.name for value in session.get_outputs() if all(_is_known(axis, named) for axis in value.shape)
        )
        self._own = threading.local()
        self._page_locked = _page_locked(*self._device)

    def run(self, inputs: Mapping[str, Array], names: Sequence[str]) -> dict[str, Weights]:
        """Compute one batch; arguments and result are Graph.run's. The arrays are the caller's own."""
        with GATE.use():
            return self._run(inputs, names)

    def _run(self, inputs: Mapping[str, Array], names: Sequence[str]) -> dict[str, Weights]:
        buffers = self._buffers_for(inputs, names)
        binding = self._session.io_binding()
        for name, array in inputs.items():
            buffers.inputs[name].update_inplace(np.ascontiguousarray(array))
            binding.bind_ortvalue_input(name, buffers.inputs[name])
        for name in names:
            if name in buffers.outputs:
                binding.bind_ortvalue_output(name, buffers.outputs[name])
            elif name in self._keep_on_device:
                binding.bind_output(name, *self._device)
            else:
                binding.bind_output(name)
        self._session.run_with_iobinding(binding)
        values = dict(zip(names, binding.get_outputs(), strict=True))
        kept = {name: DeviceArray(values[name], self._measures) for name in names if name in self._keep_on_device}
        fetched = {name: np.array(value.numpy()) for name, value in values.items() if name not in kept}
        if not buffers.outputs:
            buffers.outputs = {name: self._host_buffer(x) for name, x in fetched.items() if name in self._fixed}
        return {**fetched, **kept}

    def _buffers_for(self, inputs: Mapping[str, Array], names: Sequence[str]) -> _Buffers:
        kept: OrderedDict[Key, _Buffers] = self._own.__dict__.setdefault("kept", OrderedDict())
        key = (tuple(names), *((name, array.shape, array.dtype.str) for name, array in inputs.items()))
        if key not in kept:
            device = {name: onnxruntime.OrtValue.ortvalue_from_numpy(x, *self._device) for name, x in inputs.items()}
            kept[key] = _Buffers(device)
            if len(kept) > _SHAPES_KEPT:
                kept.popitem(last=False)
        kept.move_to_end(key)
        return kept[key]

    def _host_buffer(self, array: Array) -> onnxruntime.OrtValue:
        """Make a buffer that an output is copied to, page-locked where there is such memory.

        ONNX Runtime 1.31 has an allocator for it only where CUDA is registered as a plugin, and else raises.
        """
        make = onnxruntime.OrtValue.ortvalue_from_shape_and_type
        if self._page_locked is not None:
            try:
                return make(array.shape, array.dtype.type, memory_info=self._page_locked)
            except Exception as error:  # ONNX Runtime's exceptions have no common base
                _log.info("outputs are copied to ordinary memory, which takes longer: %s", first_line(error))
                self._page_locked = None
        return make(array.shape, array.dtype.type)


def _page_locked(kind: str, number: int) -> onnxruntime.OrtMemoryInfo | None:
    """Say where page-locked memory would be; None for what is no GPU."""
    if kind != "cuda":
        return None
    allocator, place = onnxruntime.OrtAllocatorType.ORT_DEVICE_ALLOCATOR, onnxruntime.OrtMemType.CPU_OUTPUT
    return onnxruntime.OrtMemoryInfo("CudaPinned", allocator, number, place)


def _is_known(axis: int | str | None, named: Collection[str]) -> bool:
    """Whether the inputs' shapes tell an axis."""
    return isinstance(axis, int) or axis in named
