"""Inputs and outputs in shared memory: where they lie, and what is refused before any of it is read."""

import os
import struct
import uuid
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from server.api.open_inference import open_inference_pb2 as pb
from server.api.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from server.api.open_inference.shared_memory import SystemRegion
from tests.golden import GOLDEN_PAIRS
from tests.server.api.open_inference.messages import Request, make_bytes_request, make_request, read
from tests.server.conftest import Serve


@pytest.fixture
def shared() -> Iterator[Path]:
    """A shared memory object of 4096 bytes."""
    path = Path("/dev/shm", f"regard-{uuid.uuid4().hex}")  # noqa: S108 -- shm_open's folder
    path.write_bytes(bytes(4096))
    yield path
    path.unlink()


def read_file(path: Path) -> bytes:
    """All of it."""
    return path.read_bytes()


def write(path: Path, offset: int, content: bytes) -> None:
    """Change a part of a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)


def place(tensor: object, region: str, size: int, offset: int = 0) -> None:
    """Say that a tensor lies in shared memory."""
    parameters = tensor.parameters  # type: ignore[attr-defined]
    parameters["shared_memory_region"].string_param = region
    parameters["shared_memory_byte_size"].int64_param = size
    parameters["shared_memory_offset"].int64_param = offset


async def test_inputs_and_outputs_lie_in_shared_memory(stub: GRPCInferenceServiceStub, shared: Path) -> None:
    """Then they do not travel; the answer says where they are."""
    register = pb.SystemSharedMemoryRegisterRequest(name="r", key=f"/{shared.name}", offset=1024, byte_size=2048)
    await stub.SystemSharedMemoryRegister(register)
    status = await stub.SystemSharedMemoryStatus(pb.SystemSharedMemoryStatusRequest())
    assert (status.regions["r"].key, status.regions["r"].offset, status.regions["r"].byte_size) == (
        register.key,
        1024,
        2048,
    )
    array = np.arange(4, dtype=np.float32)
    write(shared, 1024, array.tobytes())
    request = make_request("free", x=array[None])
    request.ClearField("raw_input_contents")
    place(request.inputs[0], "r", 16)
    place(request.outputs.add(name="y"), "r", 16, 512)
    answer = await stub.ModelInfer(request)
    assert list(answer.raw_output_contents) == [b""]
    assert answer.outputs[0].parameters["shared_memory_offset"].int64_param == 512
    np.testing.assert_array_equal(np.frombuffer(read_file(shared)[1536:1552], np.float32), 2 * array)
    await stub.SystemSharedMemoryUnregister(pb.SystemSharedMemoryUnregisterRequest())
    assert not (await stub.SystemSharedMemoryStatus(pb.SystemSharedMemoryStatusRequest())).regions


async def test_pairs_of_texts_lie_there_too(start: Serve, shared: Path) -> None:
    """Each input in its own place; the answer is that of the same texts in the message."""
    texts = [np.array([text], dtype=object) for text in (b"a dog sat", b"a cat sat")]
    contents = [struct.pack("<I", len(text[0])) + text[0] for text in texts]
    async with start(models=GOLDEN_PAIRS) as running:
        stub = GRPCInferenceServiceStub(running.channel)
        await stub.SystemSharedMemoryRegister(
            pb.SystemSharedMemoryRegisterRequest(name="r", key=f"/{shared.name}", byte_size=4096)
        )
        request = make_bytes_request("tiny-nli", "text", texts[0][0])
        second = make_bytes_request("tiny-nli", "text_pair", texts[1][0])
        request.inputs.extend(second.inputs)
        expected = read(await stub.ModelInfer(request))["logits"]
        request.ClearField("raw_input_contents")
        for number, content in enumerate(contents):
            request.inputs[number].ClearField("contents")
            write(shared, 512 * number, content)
            place(request.inputs[number], "r", len(content), 512 * number)
        np.testing.assert_array_equal(read(await stub.ModelInfer(request))["logits"], expected)


async def test_a_region_is_never_left(stub: GRPCInferenceServiceStub, shared: Path) -> None:
    """Out of bounds, too small for an output, or shortened by its owner: an error of that request."""
    await stub.SystemSharedMemoryRegister(
        pb.SystemSharedMemoryRegisterRequest(name="r", key=shared.name, byte_size=4096)
    )
    request = make_request("free", x=np.ones((1, 4), np.float32))
    request.ClearField("raw_input_contents")
    for size, offset, message in (
        (16, 4090, "bytes up to 4106; expected at most 4096"),
        (12, 0, "12 bytes; expected 16 for 4 elements"),
        (16, -1, "shared_memory_offset: -1; expected not negative"),
    ):
        place(request.inputs[0], "r", size, offset)
        with pytest.raises(grpc.aio.AioRpcError, match=message):
            await stub.ModelInfer(request)
    place(request.inputs[0], "r", 16)
    place(request.outputs.add(name="y"), "r", 8)
    with pytest.raises(grpc.aio.AioRpcError, match=r"outputs\[y\]: 16 bytes; expected a shared_memory_byte_size"):
        await stub.ModelInfer(request)
    os.truncate(shared, 8)
    with pytest.raises(grpc.aio.AioRpcError, match=r"inputs\[x\]: 8 bytes left"):
        await stub.ModelInfer(request)
    await stub.SystemSharedMemoryUnregister(pb.SystemSharedMemoryUnregisterRequest(name="r"))


async def test_regions_that_cannot_be_registered_are_refused(stub: GRPCInferenceServiceStub, shared: Path) -> None:
    """A path out of the folder among them."""
    register = pb.SystemSharedMemoryRegisterRequest
    for request, message in (
        (register(key=shared.name, byte_size=1), "name: empty"),
        (register(name="r", key="/not-there", byte_size=1), "key: '/not-there'; expected an object that can be opened"),
        (register(name="r", key="../../etc/passwd", byte_size=1), "key: '../../etc/passwd'; expected the name of"),
        (register(name="r", key="..", byte_size=1), "key: '..'; expected the name of"),
        (
            register(name="r", key=shared.name, offset=4096, byte_size=1),
            "end at 4097; expected at most 4096, the size of",
        ),
        (register(name="r", key=shared.name, byte_size=0), "byte_size: 0; expected at least 1"),
    ):
        with pytest.raises(grpc.aio.AioRpcError, match=message) as caught:
            await stub.SystemSharedMemoryRegister(request)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.SystemSharedMemoryStatus(pb.SystemSharedMemoryStatusRequest(name="r"))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


async def test_memory_of_a_gpu_is_answered_without_one(stub: GRPCInferenceServiceStub) -> None:
    """Clients ask for status and unregister whatever they use."""
    assert not (await stub.CudaSharedMemoryStatus(pb.CudaSharedMemoryStatusRequest())).regions
    await stub.CudaSharedMemoryUnregister(pb.CudaSharedMemoryUnregisterRequest())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.CudaSharedMemoryRegister(pb.CudaSharedMemoryRegisterRequest(name="r"))
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What was read of regions, in bytes each."""
    sizes = list[int]()
    read = SystemRegion.read

    def recording(region: SystemRegion, offset: int, byte_size: int) -> bytes:
        sizes.append(byte_size)
        return read(region, offset, byte_size)

    monkeypatch.setattr(SystemRegion, "read", recording)
    return sizes


@pytest.mark.parametrize(
    ("model", "names", "message"),
    [
        ("free", ["y"] * 20, "inputs: 'y'; expected x, the inputs of free"),
        ("free", ["x", "y"], "inputs: 'y'; expected x, the inputs of free"),
        ("free", ["x"] * 2, "inputs: 8192 bytes of shared memory; expected at most 4096"),
        ("tiny-text", ["input_ids", "attention_mask"], "inputs: 8192 bytes of shared memory; expected at most 4096"),
        ("tiny-text", ["text", "text"], "inputs: 8192 bytes of shared memory; expected at most 4096"),
    ],
)
async def test_names_and_sizes_are_checked_before_anything_is_read(
    start: Serve, shared: Path, reads: list[int], model: str, names: list[str], message: str
) -> None:
    """One region may stand in many inputs, and a request of a few bytes must not take a thousand times as many."""
    async with start(max_message_bytes=4096) as running:
        stub = GRPCInferenceServiceStub(running.channel)
        await stub.SystemSharedMemoryRegister(
            pb.SystemSharedMemoryRegisterRequest(name="r", key=shared.name, byte_size=4096)
        )
        request = Request(model_name=model)
        for name in names:
            place(request.inputs.add(name=name, datatype="FP32", shape=[1, 1024]), "r", 4096)
        with pytest.raises(grpc.aio.AioRpcError, match=message) as caught:
            await stub.ModelInfer(request)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert reads == []
        del request.inputs[1:]
        request.model_name, request.inputs[0].name = "free", "x"
        request.outputs.add(name="y")
        place(request.outputs[0], "r", 4096)
        await stub.ModelInfer(request)
        assert reads == [4096]
