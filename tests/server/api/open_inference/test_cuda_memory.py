"""Regions of GPU memory, on a stand-in for the CUDA runtime: what is left to try on a device is libcudart itself."""

import pytest

from server.api.open_inference.cuda_memory import CudaRegion
from server.api.open_inference.shared_memory import Place, SharedMemory, SystemRegion
from server.errors import InvalidInput, NotFound

HANDLE = bytes(range(64))


class FakeRuntime:
    """Host memory that pretends; remembers what was closed."""

    def __init__(self) -> None:
        self.memory = bytearray(1024)
        self.closed: list[int] = []

    def open(self, handle: bytes, device_id: int) -> int:
        assert (handle, device_id) == (HANDLE, 1)
        return 100

    def close(self, address: int, device_id: int) -> None:
        assert device_id == 1
        self.closed.append(address)

    def read(self, address: int, byte_size: int, device_id: int) -> bytes:
        assert device_id == 1
        return bytes(self.memory[address : address + byte_size])

    def write(self, address: int, content: bytes, device_id: int) -> None:
        assert device_id == 1
        self.memory[address : address + len(content)] = content


def test_tensors_are_read_from_a_gpu_and_written_to_it() -> None:
    """Within the region; it is closed when it is unregistered, and no region of another kind is."""
    runtime, memory = FakeRuntime(), SharedMemory(10**6)
    memory.register("r", 16, lambda: CudaRegion.open(HANDLE, 1, 16, runtime))
    memory.write("outputs[y]", Place("r", 4, 4), b"abcd")
    assert bytes(runtime.memory[104:108]) == b"abcd"
    assert memory.read("inputs[x]", Place("r", 4, 4)) == b"abcd"
    with pytest.raises(InvalidInput, match="bytes up to 17; expected at most 16, the size of r"):
        memory.read("inputs[x]", Place("r", 13, 4))
    assert memory.regions(CudaRegion)["r"].device_id == 1
    assert memory.regions(SystemRegion) == {}
    with pytest.raises(NotFound):
        memory.regions(SystemRegion, "r")
    memory.unregister(SystemRegion, "r")
    assert not runtime.closed
    memory.unregister(CudaRegion)
    assert runtime.closed == [100]


@pytest.mark.parametrize(
    ("handle", "device", "message"),
    [(b"short", 1, "raw_handle: 5 bytes; expected 64"), (HANDLE, -1, "device_id: -1; expected not negative")],
)
def test_what_is_no_handle_is_refused(handle: bytes, device: int, message: str) -> None:
    """Before CUDA sees it."""
    with pytest.raises(InvalidInput, match=message):
        SharedMemory(10**6).register("r", 16, lambda: CudaRegion.open(handle, device, 16, FakeRuntime()))
