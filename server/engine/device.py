"""Which device a session runs on, decided by what sessions report, never by what a build of ONNX Runtime lists."""

import ctypes
import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import onnxruntime

from server.errors import StartError, first_line

_MAX_INSTANCES = 4
ERRORS_ONLY = 3  # as log_severity_level of onnxruntime.SessionOptions
CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
_SMALL_GRAPH = Path(__file__).parent / "kernels" / "choose.onnx"
# Operators on shapes; ONNX Runtime keeps them on the CPU on purpose, where their results are needed.
_SHAPE_OPERATORS = frozenset(
    ("Add", "Cast", "Concat", "ConstantOfShape", "Div", "Gather", "Mul", "Range", "Reshape", "Shape", "Size", "Slice",
     "Squeeze", "Sub", "Unsqueeze")
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Device:
    """Where sessions run.

    Attributes:
        name: "CPU", "CUDA:0" or "TENSORRT:0"; "CPU:0" and so on where the CPU stands for several.
        providers: As onnxruntime.InferenceSession takes them.
        reason: Why this one, for the line at start.
        gpu: Which GPU; None for the CPU.
        bound: Whether sessions keep buffers there, and leave attention there; without it they use the caller's memory.
        cpus: The CPUs that compute there, by number: those of a NUMA node; empty for any.
    """

    name: str
    providers: tuple[Any, ...]
    reason: str
    gpu: int | None = None
    bound: bool = False
    cpus: frozenset[int] = frozenset()

    @property
    def place(self) -> tuple[str, int]:
        """Where its memory is, as onnxruntime.OrtValue takes it."""
        return ("cpu", 0) if self.gpu is None else ("cuda", self.gpu)


@dataclass(frozen=True)
class Instances:
    """How a device's CPUs are shared: so many runs at a time, which have so many threads among them.

    Two runs of one thread each do more than one run of two threads: threads of one run wait for each other after every
    operator (docs/performance.md has the figures). Threads beyond one a run are in one pool, of which each run takes
    those that are free: alone all of them, beside others its part.

    Attributes:
        count: Runs at a time, at least 1.
        threads: Of all together, those that call included; no fewer than runs.
    """

    count: int
    threads: int

    @property
    def pool_threads(self) -> int:
        """What a session that all of them share is to be told: its pool, and whoever calls."""
        return self.threads - self.count + 1

    @property
    def sharing(self) -> int:
        """How many runs share what is in the pool; 1 where it is empty, so that no run takes a thread of another."""
        return self.count if self.threads > self.count else 1


def share_cpus(threads: int, devices: "Sequence[Device]", instances: int = 0) -> Instances:
    """Share threads among devices; of a device, none has more runs at a time than threads.

    Of instances 0 takes one a thread up to four, and on a GPU two, to copy while it computes.
    """
    if devices[0].gpu is not None:
        return Instances(instances or 2, instances or 2)
    threads = max(threads // len(devices), 1)
    return Instances(min(instances or _MAX_INSTANCES, threads), threads)


class AssignedNode(Protocol):
    """A node as ONNX Runtime's graph assignment describes it."""

    name: str
    op_type: str


class AssignedSubgraph(Protocol):
    """Nodes that one execution provider runs."""

    ep_name: str

    def get_nodes(self) -> Iterable[AssignedNode]:
        """Return the nodes."""
        ...


def with_options(device: Device, **options: Any) -> Device:
    """Return a device whose CUDA provider has further options; the device itself where there is no such provider."""
    if device.gpu is None:
        return device
    providers = tuple(
        (one[0], {**one[1], **options}) if isinstance(one, tuple) and one[0] == CUDA else one
        for one in device.providers
    )
    return replace(device, providers=providers)


@functools.cache
def without_tf32(device: Device) -> Device:
    """Return a device whose CUDA provider multiplies float32 in full; one for each device, whoever asks."""
    return with_options(device, use_tf32=0)


def choose_devices(wanted: str) -> tuple[Device, ...]:
    """Turn what choose_device takes, several of these with commas between, or "cuda:all", into devices of one kind.

    Raises:
        StartError: A GPU was asked for and there is none.
    """
    kind, _, index = wanted.partition(":")
    if index != "all":
        return tuple(map(choose_device, wanted.split(",")))
    count, missing = _count_gpus()
    if missing:
        raise _lacking(wanted, missing)
    return tuple(choose_device(f"{kind}:{number}") for number in range(count))


def on_nodes(devices: tuple[Device, ...], nodes: Sequence[frozenset[int]]) -> tuple[Device, ...]:
    """Let each NUMA node be a device of its own where the CPU is the only one, so that no run is on two nodes.

    Args:
        devices: As chosen; GPUs stay, and what is named as one of several CPUs.
        nodes: Their CPUs; none where there is one node.
    """
    if not nodes or [device.name for device in devices] != ["CPU"]:
        return devices
    return tuple(replace(devices[0], name=f"CPU:{number}", cpus=cpus) for number, cpus in enumerate(nodes))


def names_of(devices: Sequence[Device]) -> str:
    """Name devices in one word."""
    return ",".join(device.name for device in devices)


def choose_device(wanted: str) -> Device:
    """Turn "auto", "cpu", "cuda", "tensorrt", or one of the last three with ":N", into a device.

    Raises:
        StartError: A GPU was asked for and there is none.
    """
    kind, _, index = wanted.partition(":")
    if kind == "cpu":
        return Device(wanted.upper(), (CPU,), "asked for")
    _, missing = _count_gpus()
    if not missing:
        number = int(index or 0)
        wanted_providers = (TENSORRT, CUDA) if kind == "tensorrt" else (CUDA,)
        providers = (*((provider, {"device_id": number}) for provider in wanted_providers), CPU)
        missing = _what_sessions_lack(providers)
    if not missing:
        name = f"{'TENSORRT' if kind == 'tensorrt' else 'CUDA'}:{number}"
        return Device(name, providers, "found" if kind == "auto" else "asked for", number, bound=True)
    if kind != "auto":
        raise _lacking(wanted, missing)
    return Device("CPU", (CPU,), missing)


def _lacking(wanted: str, missing: str) -> StartError:
    return StartError(f"--device: {wanted}: {missing}; expected an NVIDIA GPU, or --device cpu")


def _count_gpus() -> tuple[int, str]:
    """Count the GPUs that CUDA can use, and say what is missing where there is none."""
    if CUDA not in onnxruntime.get_available_providers():
        return 0, "this build of ONNX Runtime has no CUDA"
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0, "no NVIDIA driver (libcuda.so.1 not found)"
    count = ctypes.c_int()
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or not count.value:
        return 0, "an NVIDIA driver but no usable GPU"
    return count.value, ""


def _what_sessions_lack(providers: tuple[Any, ...]) -> str:
    """Say what a session with these providers does without, or nothing: a library may be missing beside the driver."""
    onnxruntime.preload_dlls()
    try:
        session = onnxruntime.InferenceSession(_SMALL_GRAPH, providers=list(providers))
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        return first_line(error)
    return _missing(providers, session.get_providers())


def _missing(providers: tuple[Any, ...], session_providers: Iterable[str]) -> str:
    """Say which libraries are not there of the providers before the last, the CPU."""
    for provider, _ in providers[:-1]:
        if provider not in session_providers:
            libraries = "TensorRT" if provider == TENSORRT else "CUDA or cuDNN"
            return f"ONNX Runtime could not load {libraries}; its log says which library"
    return ""


def check_placement(device: Device, session_providers: Iterable[str], subgraphs: Iterable[AssignedSubgraph]) -> None:
    """Refuse a session that silently runs elsewhere than it should.

    Args:
        device: The chosen device.
        session_providers: What the session reports.
        subgraphs: Which nodes each provider got.

    Raises:
        StartError: CUDA was chosen and the session has none, or a node that computes fell to the CPU.
    """
    if device.gpu is None:
        return
    if missing := _missing(device.providers, session_providers):
        raise StartError(f"--device: {device.name}: {missing}")
    fallen = [
        f"{node.name} ({node.op_type})"
        for subgraph in subgraphs
        if subgraph.ep_name == CPU
        for node in subgraph.get_nodes()
        if node.op_type not in _SHAPE_OPERATORS
    ]
    if fallen:
        raise StartError(f"--device: {device.name}: these nodes would run on the CPU: {', '.join(fallen[:5])}")
