"""Whether a GPU has room for a model, with a driver of the test's own: no GPU is asked."""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from artifact.contract import CONTRACT_FILE, PLAIN_GRAPH, TAPPED_GRAPH, read_contract
from server.engine import device_memory
from server.engine.device import CPU, CUDA, Device, Instances, choose_devices
from server.engine.device_memory import check_room, free_bytes
from server.engine.engine import Engine
from server.engine.external_data import ExternalData
from server.errors import StartError
from tests.golden import GOLDEN_MODELS

ARTIFACT = GOLDEN_MODELS / "tiny-text" / "1"
GPUS = tuple(Device(f"CUDA:{gpu}", ((CUDA, {"device_id": gpu}), CPU), "asked for", gpu, bound=True) for gpu in (0, 1))
GRAPHS = (PLAIN_GRAPH, TAPPED_GRAPH)


def wanted_bytes() -> int:
    """What both graphs take, each with all the weights that it refers to."""
    pieces = [piece for name in GRAPHS for _, pieces in ExternalData(ARTIFACT / name).tensors() for piece in pieces]
    return sum((ARTIFACT / name).stat().st_size for name in GRAPHS) + sum(piece.length for piece in pieces)


@pytest.fixture
def have(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Say what the GPUs have free, in their order."""

    def having(*free: int | None) -> None:
        monkeypatch.setattr(device_memory, "free_bytes", lambda gpu: free[gpu])

    return having


def test_a_model_is_refused_where_one_device_has_no_room_for_it(have: Callable[..., None]) -> None:
    """By the device, what is wanted and what is there."""
    wanted = wanted_bytes()
    have(wanted, wanted)
    check_room(ARTIFACT, GRAPHS, GPUS)
    have(wanted, wanted - 1)
    with pytest.raises(StartError, match=rf"tiny-text/1: .* {wanted} bytes of a device, and CUDA:1 has {wanted - 1} "):
        check_room(ARTIFACT, GRAPHS, GPUS)


def test_what_nobody_knows_refuses_nothing(have: Callable[..., None], tmp_path: Path) -> None:
    """No driver that says, no GPU, or a graph that cannot be read, of which the session says more."""
    have(None, None)
    check_room(ARTIFACT, GRAPHS, GPUS)
    have(0, 0)
    (tmp_path / PLAIN_GRAPH).write_bytes(b"no graph")
    check_room(tmp_path, GRAPHS, GPUS)


class Unread(ExternalData):
    """Stands for what reads graphs, and must not."""

    def __init__(self, path: Path) -> None:
        raise AssertionError(path)


def test_without_a_gpu_no_graph_is_read(have: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be for nothing."""
    have(0, 0)
    monkeypatch.setattr(device_memory, "ExternalData", Unread)
    check_room(ARTIFACT, GRAPHS, choose_devices("cpu:0,cpu:1"))


def test_a_large_graph_has_its_weights_inside(
    have: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its size tells what they take, without reading it."""
    monkeypatch.setattr(device_memory, "ExternalData", Unread)
    size = device_memory._MAX_GRAPH_BYTES + 1
    with (tmp_path / PLAIN_GRAPH).open("wb") as file:
        file.truncate(size)
    have(size, size - 1)
    with pytest.raises(StartError, match=rf"{size} bytes of a device, and CUDA:1 has {size - 1} "):
        check_room(tmp_path, (PLAIN_GRAPH,), GPUS)


def test_an_engine_asks_before_it_loads_anything(have: Callable[..., None]) -> None:
    """Otherwise ONNX Runtime's own error would be the first."""
    have(10**9, 0)
    with pytest.raises(StartError, match="CUDA:1 has 0 bytes free"):
        Engine(ARTIFACT, read_contract(ARTIFACT / CONTRACT_FILE), GPUS, Instances(1, 1))


@dataclass
class Driver:
    """Stands for libcuda; calls fail that are named."""

    failing: tuple[str, ...] = ()
    called: list[str] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> int:
            self.called.append(name)
            if name == "cuMemGetInfo_v2":
                arguments[0]._obj.value = 12_345_678_901
            return int(name in self.failing)

        return call


def test_the_driver_is_asked_in_the_context_that_onnx_runtime_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is left as it was, whatever fails."""
    driver = Driver()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: driver)
    assert free_bytes(1) == 12_345_678_901
    made = ["cuInit", "cuDeviceGet", "cuDevicePrimaryCtxRetain", "cuCtxPushCurrent_v2", "cuMemGetInfo_v2"]
    assert driver.called == [*made, "cuCtxPopCurrent_v2", "cuDevicePrimaryCtxRelease_v2"]
    for place, name in enumerate(made):
        driver = Driver((name,))
        assert free_bytes(1) is None
        assert ("cuDevicePrimaryCtxRelease_v2" in driver.called) == (place > 2)


def test_without_a_driver_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on the CPU."""

    def absent(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", absent)
    assert free_bytes(0) is None
