"""Runs a graph at fixed shapes, each captured once as a CUDA graph and replayed since with what fits into it.

A replay starts all kernels of a run by one call, which pays where to start them takes longer than to run them. It needs
memory that stays where it is: each shape has inputs and outputs of its own on the device, and a batch is padded to the
next shape. Its further positions are masked as in any batch, its further rows repeat the first, and both are cut off
again. A batch that is larger than every shape runs as it would without.

ONNX Runtime keeps captured graphs by thread, and runs of such a session may not overlap: one thread captures them all
and replays them (onnxruntime.ai, CUDA execution provider, "Using CUDA Graphs"). On the CPU nothing is captured; the
same code runs there under test.
"""

import itertools
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import onnxruntime

from artifact.contract import BATCH_AXIS, SEQUENCE_AXIS, Contract, TensorContract
from artifact.dtypes import Array, dtype_of
from server.engine.capture_gate import GATE
from server.engine.device_ops import Weights
from server.engine.io_binding import Runs

_GRAPH_ID = "gpu_graph_id"  # of the run's options; ONNX Runtime captures one graph for each
Shape = tuple[int, int]  # rows, positions; the latter 0 where they are fixed


def reasons_against(contract: Contract) -> str:
    """Why batches cannot be padded to a shape; empty where they can."""
    if not contract.batched:
        return "its first axes are not all the batch, so rows cannot be added"
    inputs, values = contract.inputs, (*contract.inputs, *contract.outputs)
    for spec in values:
        if others := {axis for axis in spec.axes if isinstance(axis, str)} - {BATCH_AXIS, SEQUENCE_AXIS}:
            return f"{spec.name} has the axis {min(others)}, whose size no shape of a batch tells"
        if spec.dtype in ("string", "bfloat16"):
            return f"{spec.name} is of {spec.dtype}, which cannot be bound to a device"
    if varies(contract) and not any(spec.mask and SEQUENCE_AXIS in spec.axes for spec in inputs):
        return "none of its inputs is a mask, so positions cannot be added"
    return ""


def varies(contract: Contract) -> bool:
    """Whether batches differ in their number of positions."""
    return any(SEQUENCE_AXIS in spec.axes for spec in contract.inputs)


@dataclass(frozen=True, eq=False)
class _Captured:
    """A graph of one shape, and the memory that it reads and writes."""

    inputs: dict[str, onnxruntime.OrtValue]
    outputs: dict[str, onnxruntime.OrtValue]
    binding: onnxruntime.IOBinding
    options: onnxruntime.RunOptions


class CapturedRuns:
    """Captured graphs of a session that runs nothing else; may be called from any thread."""

    def __init__(
        self, session: onnxruntime.InferenceSession, place: tuple[str, int], contract: Contract, otherwise: Runs
    ) -> None:
        """Wrap a session; nothing is captured yet.

        Args:
            session: Its CUDA provider has enable_cuda_graph.
            place: Of its device, as onnxruntime.OrtValue takes it.
            contract: Of the artifact; see reasons_against.
            otherwise: Runs what fits into no shape.
        """
        self._session, self._place, self._contract, self._otherwise = session, place, contract, otherwise
        self._varies = varies(contract)
        self._captured: dict[Shape, _Captured] = {}
        self._rows: Sequence[int] = ()
        self._lengths: Sequence[int] = ()
        self._ids = itertools.count(1)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="cuda-graphs")

    @property
    def shapes(self) -> list[Shape]:
        """Those that are captured, the smallest first."""
        return sorted(self._captured)

    def capture(self, shape: Shape, inputs: Mapping[str, Array]) -> None:
        """Capture a run; raises what ONNX Runtime raises.

        Args:
            shape: Of the run.
            inputs: Every input, of that shape.
        """
        self._thread.submit(self._capture, shape, inputs).result()

    def keep(self, shapes: Iterable[Shape]) -> None:
        """Replay these only of those that are captured; what was padded to another runs as it would without."""
        self._captured = {shape: self._captured[shape] for shape in shapes}

    def run(self, inputs: Mapping[str, Array], names: Sequence[str]) -> Mapping[str, Weights]:
        """Compute one batch; arguments and result are Graph.run's. The arrays are the caller's own."""
        shape = self._shape_for(inputs)
        if shape not in self._captured:
            return self._otherwise.run(inputs, names)
        return self._thread.submit(self._replay, shape, inputs, names).result()

    def _shape_for(self, inputs: Mapping[str, Array]) -> Shape | None:
        sizes = self._contract.axis_sizes(inputs)
        place = bisect_left(self._rows, sizes[BATCH_AXIS])
        other = bisect_left(self._lengths, sizes[SEQUENCE_AXIS] if self._varies else 0)
        is_there = place < len(self._rows) and other < len(self._lengths)
        return (self._rows[place], self._lengths[other]) if is_there else None

    def _capture(self, shape: Shape, inputs: Mapping[str, Array]) -> None:
        make = onnxruntime.OrtValue
        options = onnxruntime.RunOptions()
        options.add_run_config_entry(_GRAPH_ID, str(next(self._ids)))
        with GATE.capture():
            given = {name: make.ortvalue_from_numpy(array, *self._place) for name, array in inputs.items()}
            made = {
                spec.name: make.ortvalue_from_shape_and_type(_sizes(spec, shape), dtype_of(spec.dtype), *self._place)
                for spec in self._contract.outputs
            }
            binding = self._session.io_binding()
            for name, value in given.items():
                binding.bind_ortvalue_input(name, value)
            for name, value in made.items():
                binding.bind_ortvalue_output(name, value)
            self._session.run_with_iobinding(binding, options)
        self._captured[shape] = _Captured(given, made, binding, options)
        self._rows, self._lengths = (sorted({sizes[axis] for sizes in self._captured}) for axis in (0, 1))

    def _replay(self, shape: Shape, inputs: Mapping[str, Array], names: Sequence[str]) -> dict[str, Weights]:
        captured, sizes = self._captured[shape], self._contract.axis_sizes(inputs)
        real = (sizes[BATCH_AXIS], sizes.get(SEQUENCE_AXIS, 0))
        with GATE.use():
            for spec in self._contract.inputs:
                captured.inputs[spec.name].update_inplace(_pad(spec, inputs[spec.name], shape))
            self._session.run_with_iobinding(captured.binding, captured.options)
            return {
                spec.name: np.array(captured.outputs[spec.name].numpy()[tuple(map(slice, _sizes(spec, real)))])
                for spec in self._contract.outputs
                if spec.name in names
            }


def _sizes(spec: TensorContract, shape: Shape) -> tuple[int, ...]:
    """The sizes of a tensor in a run of a shape."""
    known = dict(zip((BATCH_AXIS, SEQUENCE_AXIS), shape, strict=True))
    return tuple(axis if isinstance(axis, int) else known[axis] for axis in spec.axes)


def _pad(spec: TensorContract, array: Array, shape: Shape) -> Array:
    """Fill an input up to a shape."""
    sizes = _sizes(spec, shape)
    if array.shape == sizes:
        return np.ascontiguousarray(array)
    padded = np.full(sizes, spec.pad_value, dtype=array.dtype)
    padded[tuple(map(slice, array.shape))] = array
    padded[len(array) :] = padded[:1]
    return padded
