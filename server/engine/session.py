"""One graph of an artifact in ONNX Runtime, and the sessions that run it."""

import ctypes
import functools
import math
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import onnxruntime

from artifact.contract import PARTS_GRAPH, RELEVANCE_GRAPHS, SIMILARITY_GRAPH
from artifact.dtypes import BFLOAT16, Array
from server.engine.capture_gate import GATE
from server.engine.cost import CostModel
from server.engine.cpus import bound_to
from server.engine.device import ERRORS_ONLY, Device, Instances, check_placement
from server.engine.device_ops import Weights, measures_on
from server.engine.io_binding import BoundSession, Runs
from server.errors import StartError, first_line

RECORD_ASSIGNMENT = "session.record_ep_graph_assignment_info"
_SPINNING = "session.intra_op.allow_spinning"
_STOP_SPINNING_AFTER_A_RUN = "session.force_spinning_stop"
_SHRINK_ARENA = "memory.enable_memory_arena_shrinkage"
_SHARED_ARENA = "session.use_env_allocators"
_WARNINGS_AND_WORSE = 2
_STRING_TENSOR = "tensor(string)"
_BFLOAT16_TENSOR, _BFLOAT16_NUMBER = "tensor(bfloat16)", 16  # onnx.TensorProto.BFLOAT16
# Limit 0 is none, strategy 1 is "as much as requested", -1 leaves the rest to ONNX Runtime.
_ARENA = {"max_mem": 0, "arena_extend_strategy": 1, "initial_chunk_size_bytes": -1, "max_dead_bytes_per_chunk": -1}


class Graph:
    """One graph of an artifact: on each device a session for the instances, and one with all threads for a run alone.

    Spinning threads take the cores that the event loop and the callers need, so only the session that runs alone has
    them, and only while it runs.

    Attributes:
        runs: What computes batches instead of the sessions, one a device; none where the sessions do.
        cost: Of a run.
        token: Its own: requests of one graph have the same.
    """

    def __init__(
        self,
        path: Path,
        devices: Sequence[Device],
        instances: Instances,
        keep_on_device: Collection[str] = (),
        *,
        all_threads: bool = False,
        shrinks: bool = False,
    ) -> None:
        """Load the graph.

        Args:
            path: The file.
            devices: Where it runs; one that is named twice has one session.
            instances: How runs of a device share the CPUs.
            keep_on_device: Names of outputs that stay on the device, where it is bound.
            all_threads: Whether to make a session with all threads as well.
            shrinks: Whether each run gives back at once what it took of the arena.

        Raises:
            StartError: It cannot be loaded, or would run on another device.
        """
        self._of_instance = load_sessions(path, devices, instances.pool_threads, spin=False)
        on_cpu = devices[0].gpu is None
        is_bound = self._is_bound = devices[0].bound
        self._all_threads: Sequence[onnxruntime.InferenceSession] = ()
        if all_threads and on_cpu and instances.count > 1:
            self._all_threads = load_sessions(path, devices, instances.threads, spin=True)
        self.runs: Sequence[Runs] = _bind(self._of_instance, devices, keep_on_device) if is_bound else ()
        self._options = _shrinking_options() if shrinks and on_cpu else None
        self.cost = self.all_threads_cost = CostModel()
        self.token = object()
        if is_bound and _has(self._of_instance[0], _STRING_TENSOR):
            raise StartError(f"{path}: has strings, which {devices[0].name} cannot hold; expected --device cpu")
        self._has_bfloat16 = _has(self._of_instance[0], _BFLOAT16_TENSOR)

    def unbound(self) -> "list[UnboundSession]":
        """Make what runs the sessions of the devices without bound buffers."""
        return [UnboundSession(session) for session in self._of_instance]

    @property
    def can_use_all_threads(self) -> bool:
        """Whether there is a session with all threads."""
        return bool(self._all_threads)

    def run(
        self, inputs: Mapping[str, Array], names: Sequence[str], *, all_threads: bool = False, device: int = 0
    ) -> Mapping[str, Weights]:
        """Compute one batch.

        Args:
            inputs: Every input of the contract, by name; all with the same number of rows.
            names: Which outputs to fetch; with none, nothing is run.
            all_threads: Whether all of the device may be used, since nothing else runs there.
            device: Which of those that it was loaded on.

        Returns:
            The fetched arrays by name; those that stay on the device as DeviceArray.
        """
        if not names:
            return {}
        if self.runs:
            return self.runs[device].run(inputs, names)
        session = (self._all_threads if all_threads and self._all_threads else self._of_instance)[device]
        return run_session(session, inputs, names, self._options, has_bfloat16=self._has_bfloat16)

    def shrink_arena(self, inputs: Mapping[str, Array], names: Sequence[str]) -> None:
        """Run once and give back what the arena, shared by all sessions of the process, holds beyond that."""
        if self._has_bfloat16 or self._is_bound:
            return
        self._of_instance[0].run(names, dict(inputs), _shrinking_options())

    @property
    def declared(self) -> dict[str, tuple[str, tuple[int | str | None, ...]]]:
        """What the graph says of its inputs and outputs, by name: the type in ONNX Runtime's words, and the axes."""
        values = (*self._of_instance[0].get_inputs(), *self._of_instance[0].get_outputs())
        return {value.name: (value.type, tuple(value.shape)) for value in values}

    def check_names(self, path: Path, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        """Compare with what the contract says.

        Args:
            path: Where the graph came from, for the message.
            inputs: Names that the contract gives.
            outputs: Likewise.

        Raises:
            StartError: The graph has other inputs or outputs.
        """
        found = set(self.declared)
        expected = {*inputs, *outputs}
        if found != expected:
            raise StartError(
                f"{path}: has the inputs and outputs {sorted(found)}; its contract says {sorted(expected)}"
            )


class UnboundSession:
    """A session on a GPU that takes memory anew for each run, and copies there and back through it."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session
        self._has_bfloat16 = _has(session, _BFLOAT16_TENSOR)

    def run(self, inputs: Mapping[str, Array], names: Sequence[str]) -> Mapping[str, Weights]:
        """See Runs."""
        with GATE.use():
            return run_session(self._session, inputs, names, has_bfloat16=self._has_bfloat16)


def run_session(
    session: onnxruntime.InferenceSession,
    inputs: Mapping[str, Array],
    names: Sequence[str],
    options: onnxruntime.RunOptions | None = None,
    *,
    has_bfloat16: bool,
) -> Mapping[str, Weights]:
    """Compute one batch with arrays in the host's memory."""
    if has_bfloat16:
        return dict(zip(names, _run_with_values(session, names, inputs), strict=True))
    return dict(zip(names, session.run(names, dict(inputs), options), strict=True))


def _has(session: onnxruntime.InferenceSession, kind: str) -> bool:
    """Whether an input or output is of a type."""
    return any(value.type == kind for value in (*session.get_inputs(), *session.get_outputs()))


@functools.cache
def _share_arena() -> None:
    """Give all sessions of the process one arena for activations, which grows by what is asked, not by doubling."""
    memory = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    onnxruntime.create_and_register_allocator(memory, onnxruntime.OrtArenaCfg(_ARENA))


def _shrinking_options() -> onnxruntime.RunOptions:
    """Let a run end with giving back what the arena does not need at the moment."""
    options = onnxruntime.RunOptions()
    options.add_run_config_entry(_SHRINK_ARENA, "cpu:0")
    return options


def make_options() -> onnxruntime.SessionOptions:
    """What all sessions have in common."""
    _share_arena()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = _WARNINGS_AND_WORSE
    options.add_session_config_entry(_SHARED_ARENA, "1")
    return options


def load_sessions(
    path: Path, devices: Sequence[Device], threads: int, *, spin: bool
) -> list[onnxruntime.InferenceSession]:
    """Load a graph once a device; see load_session."""
    on = {device: load_session(path, device, threads, spin=spin) for device in dict.fromkeys(devices)}
    return [on[device] for device in devices]


def load_session(path: Path, device: Device, threads: int, *, spin: bool) -> onnxruntime.InferenceSession:
    """Load a graph; raises StartError where it cannot be, or would run on another device."""
    options = make_options()
    options.intra_op_num_threads = threads
    options.add_session_config_entry(_SPINNING, str(int(spin)))
    options.add_session_config_entry(_STOP_SPINNING_AFTER_A_RUN, "1")
    options.add_session_config_entry(RECORD_ASSIGNMENT, "1")
    if path.name in (*RELEVANCE_GRAPHS.values(), SIMILARITY_GRAPH, PARTS_GRAPH):
        options.log_severity_level = ERRORS_ONLY  # not that an input may be left out, which is meant
    try:
        # The threads of its pool may run where the one may that starts them.
        with bound_to(device.cpus), nullcontext() if device.gpu is None else GATE.use():
            # Without enable_fallback=0 it would make, or at a failed run replace, a session with fewer providers.
            session = onnxruntime.InferenceSession(path, options, providers=list(device.providers), enable_fallback=0)
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        raise StartError(f"{path}: ONNX Runtime cannot load it: {first_line(error)}") from error
    check_placement(device, session.get_providers(), session.get_provider_graph_assignment_info())
    return session


def _bind(
    sessions: Sequence[onnxruntime.InferenceSession], devices: Sequence[Device], keep_on_device: Collection[str]
) -> list[BoundSession]:
    """Give each session buffers on its device."""
    return [
        BoundSession(session, measures_on(device), keep_on_device)
        for session, device in zip(sessions, devices, strict=True)
    ]


def _run_with_values(
    session: onnxruntime.InferenceSession, names: Sequence[str], inputs: Mapping[str, Array]
) -> list[Array]:
    """Run a graph that takes or gives bfloat16, which ONNX Runtime does not exchange with numpy."""
    make = onnxruntime.OrtValue
    feed = {
        name: make.ortvalue_from_numpy_with_onnx_type(np.ascontiguousarray(array).view(np.uint16), _BFLOAT16_NUMBER)
        if array.dtype == BFLOAT16
        else make.ortvalue_from_numpy(np.ascontiguousarray(array))
        for name, array in inputs.items()
    }
    return [_to_numpy(value) for value in session.run_with_ort_values(list(names), feed)]


def _to_numpy(value: onnxruntime.OrtValue) -> Array:
    if value.data_type() != _BFLOAT16_TENSOR:
        return np.asarray(value.numpy())
    shape = value.shape()
    content = (ctypes.c_char * (math.prod(shape) * BFLOAT16.itemsize)).from_address(value.data_ptr())
    return np.frombuffer(bytes(content), dtype=BFLOAT16).reshape(shape)
