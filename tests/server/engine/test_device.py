from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

import server.engine.device
from server.engine.device import (
    CPU,
    CUDA,
    TENSORRT,
    Device,
    Instances,
    check_placement,
    choose_device,
    choose_devices,
    names_of,
    share_cpus,
)
from server.errors import StartError

CUDA_DEVICE = Device("CUDA:0", ((CUDA, {"device_id": 0}), CPU), "asked for", 0)
TENSORRT_DEVICE = Device("TENSORRT:0", ((TENSORRT, {"device_id": 0}), (CUDA, {"device_id": 0}), CPU), "asked for", 0)


@dataclass
class Node:
    """A node of a graph."""

    name: str
    op_type: str


@dataclass
class Subgraph:
    """Nodes that one provider got."""

    ep_name: str
    nodes: list[Node] = field(default_factory=list)

    def get_nodes(self) -> list[Node]:
        return self.nodes


class FakeSession:
    """A session that has the providers it was given, but for those that are lost."""

    def __init__(self, path: Path, *, providers: list[Any], lost: str = "") -> None:
        assert path.exists()
        self._providers = [one if isinstance(one, str) else one[0] for one in providers]
        self._lost = lost

    def get_providers(self) -> list[str]:
        return [one for one in self._providers if one != self._lost]


def without_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without an NVIDIA driver, whatever this one has."""

    def absent(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr("ctypes.CDLL", absent)


def test_cpu_is_always_to_be_had() -> None:
    """And needs no reason."""
    assert choose_device("cpu").providers == (CPU,)


def test_auto_takes_the_cpu_where_there_is_no_gpu_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """onnxruntime-gpu lists CUDA even there; the driver decides."""
    without_driver(monkeypatch)
    chosen = choose_device("auto")
    assert chosen.name == "CPU"
    assert "no CUDA" in chosen.reason or "no NVIDIA driver" in chosen.reason


@pytest.mark.parametrize("wanted", ["cuda", "cuda:1", "tensorrt"])
def test_cuda_refuses_to_start_where_there_is_no_gpu(wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what was asked for and what is missing."""
    without_driver(monkeypatch)
    with pytest.raises(StartError, match=f"--device: {wanted}: .*; expected an NVIDIA GPU"):
        choose_device(wanted)


def test_a_session_that_fell_back_to_the_cpu_stops_the_start() -> None:
    """As when a CUDA library is missing: ONNX Runtime only logs it."""
    with pytest.raises(StartError, match="could not load CUDA"):
        check_placement(CUDA_DEVICE, [CPU], [])


def test_tensorrt_that_fell_back_to_cuda_stops_the_start() -> None:
    """It was asked for, and CUDA is not it."""
    with pytest.raises(StartError, match="could not load TensorRT"):
        check_placement(TENSORRT_DEVICE, [CUDA, CPU], [])


@pytest.mark.parametrize(
    ("wanted", "name", "providers"),
    [
        ("auto", "CUDA:0", [CUDA, CPU]),
        ("cuda:1", "CUDA:1", [CUDA, CPU]),
        ("tensorrt", "TENSORRT:0", [TENSORRT, CUDA, CPU]),
    ],
)
def test_where_there_is_a_gpu_it_is_taken(
    wanted: str, name: str, providers: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The CPU comes last, for the arithmetic on shapes."""
    monkeypatch.setattr(server.engine.device, "_count_gpus", lambda: (2, ""))
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    monkeypatch.setattr(onnxruntime, "InferenceSession", FakeSession)
    chosen = choose_device(wanted)
    assert chosen.name == name
    assert [one if isinstance(one, str) else one[0] for one in chosen.providers] == providers
    assert chosen.gpu == int(name[-1])


def test_the_cpu_stands_for_several_devices_which_share_its_threads() -> None:
    """As many instances in all as one device has."""
    devices = choose_devices("cpu:0,cpu:1")
    assert [(device.name, device.providers) for device in devices] == [("CPU:0", (CPU,)), ("CPU:1", (CPU,))]
    assert names_of(devices) == "CPU:0,CPU:1"
    assert share_cpus(2, devices) == Instances(1, 1)
    assert share_cpus(8, devices) == Instances(4, 4)
    assert share_cpus(8, devices, 2) == Instances(2, 4)
    assert share_cpus(1, devices, 3) == Instances(1, 1)
    assert share_cpus(8, devices[:1], 2) == Instances(2, 8)
    assert share_cpus(8, (CUDA_DEVICE, CUDA_DEVICE)) == Instances(2, 2)


def test_all_gpus_are_taken_where_all_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which CUDA counts; those that are named are taken in the order given."""
    monkeypatch.setattr(server.engine.device, "_count_gpus", lambda: (3, ""))
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    monkeypatch.setattr(onnxruntime, "InferenceSession", FakeSession)
    for wanted, names in (("cuda:all", "CUDA:0,CUDA:1,CUDA:2"), ("tensorrt:2,tensorrt:0", "TENSORRT:2,TENSORRT:0")):
        devices = choose_devices(wanted)
        assert names_of(devices) == names
        assert [device.providers[0][1] for device in devices] == [{"device_id": device.gpu} for device in devices]


def test_all_gpus_of_none_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """By what was asked for."""
    without_driver(monkeypatch)
    with pytest.raises(StartError, match=r"--device: cuda:all: .*; expected an NVIDIA GPU, or --device cpu"):
        choose_devices("cuda:all")


@pytest.mark.parametrize("lost", [CUDA, TENSORRT])
def test_a_gpu_without_its_libraries_is_not_taken(lost: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime falls back and only logs it: whoever asked for the GPU is refused, auto takes the CPU."""
    monkeypatch.setattr(server.engine.device, "_count_gpus", lambda: (2, ""))
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    monkeypatch.setattr(onnxruntime, "InferenceSession", partial(FakeSession, lost=lost))
    wanted = "cuda" if lost == CUDA else "tensorrt"
    with pytest.raises(StartError, match=f"--device: {wanted}: ONNX Runtime could not load .*; expected an NVIDIA GPU"):
        choose_device(wanted)
    if lost == CUDA:
        chosen = choose_device("auto")
        assert (chosen.name, chosen.gpu) == ("CPU", None)
        assert "could not load CUDA" in chosen.reason


def test_a_computing_node_on_the_cpu_stops_the_start_by_name() -> None:
    """A silent fall back of the attention node would be slow."""
    subgraphs = [Subgraph(CUDA, [Node("mm", "MatMul")]), Subgraph(CPU, [Node("tap", "Attention"), Node("s", "Shape")])]
    with pytest.raises(StartError, match=r"would run on the CPU: tap \(Attention\)$"):
        check_placement(CUDA_DEVICE, [CUDA, CPU], subgraphs)


def test_shape_arithmetic_belongs_on_the_cpu() -> None:
    """ONNX Runtime puts it there on purpose."""
    check_placement(CUDA_DEVICE, [CUDA, CPU], [Subgraph(CPU, [Node("s", "Shape"), Node("g", "Gather")])])
