"""What the protocol says about models, and how it manages them; statistics, shared memory and the log's level."""

import asyncio
import logging
import os
import shutil
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from server.api.open_inference import open_inference_pb2 as pb
from server.api.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.golden import GOLDEN_MODELS
from tests.server.api.open_inference.messages import make_request, read, tokens_of
from tests.server.asking import samples
from tests.server.conftest import Running, Serve
from tests.server.repository.folders import add_version, damage


async def test_server_and_models_say_that_they_are_ready(stub: GRPCInferenceServiceStub) -> None:
    """An unknown model is not, which is no error."""
    assert (await stub.ServerLive(pb.ServerLiveRequest())).live
    assert (await stub.ServerReady(pb.ServerReadyRequest())).ready
    for name, version, ready in (
        ("tiny-text", "", True),
        ("tiny-text", "1", True),
        ("tiny-text", "2", False),
        ("x", "", False),
    ):
        assert (await stub.ModelReady(pb.ModelReadyRequest(name=name, version=version))).ready == ready
    metadata = await stub.ServerMetadata(pb.ServerMetadataRequest())
    assert metadata.name == "regard"
    assert {"statistics", "system_shared_memory", "model_repository"} <= set(metadata.extensions)


async def test_metadata_and_config_describe_what_requests_take(stub: GRPCInferenceServiceStub) -> None:
    """Shapes with -1 for what may change; the config without the batch axis; attention among the outputs."""
    metadata = await stub.ModelMetadata(pb.ModelMetadataRequest(name="tiny-text"))
    assert (metadata.name, list(metadata.versions), metadata.platform) == ("tiny-text", ["1"], "onnxruntime_onnx")
    assert [(one.name, one.datatype, list(one.shape)) for one in metadata.inputs] == [
        ("input_ids", "INT64", [-1, -1]),
        ("attention_mask", "INT64", [-1, -1]),
    ]
    outputs = {one.name: (one.datatype, list(one.shape)) for one in metadata.outputs}
    assert outputs["embedding"] == ("FP32", [-1, 32])
    assert outputs["attention.1"] == ("FP32", [-1, 4, -1, -1])
    config = (await stub.ModelConfig(pb.ModelConfigRequest(name="tiny-text"))).config
    assert (config.name, config.max_batch_size, config.backend) == ("tiny-text", 32, "onnxruntime")
    assert [(one.name, one.data_type, list(one.dims)) for one in config.input] == [
        ("input_ids", pb.TYPE_INT64, [-1]),
        ("attention_mask", pb.TYPE_INT64, [-1]),
    ]
    assert config.version_policy.latest.num_versions == 1
    assert config.dynamic_batching.priority_levels == 3
    assert not config.model_transaction_policy.decoupled
    assert config.parameters["accepts"].string_value == "text"


async def test_a_model_without_a_contract_is_described_by_its_graph(stub: GRPCInferenceServiceStub) -> None:
    """Batched where the first axis of everything is symbolic."""
    fixed = (await stub.ModelConfig(pb.ModelConfigRequest(name="fixed"))).config
    assert (fixed.max_batch_size, list(fixed.input[0].dims)) == (0, [2, 3])
    free = (await stub.ModelConfig(pb.ModelConfigRequest(name="free"))).config
    assert (free.max_batch_size, list(free.input[0].dims)) == (32, [-1])
    metadata = await stub.ModelMetadata(pb.ModelMetadataRequest(name="every-type"))
    assert {one.datatype for one in metadata.inputs} >= {"BOOL", "INT8", "UINT64", "FP16", "BF16", "FP32", "FP64"}


async def test_rows_of_one_shape_share_a_batch(start: Serve) -> None:
    """Nobody can say what padding would mean to a graph without a contract."""
    async with start(max_queue_delay_ms=200, max_batch_size=4) as running:
        stub = GRPCInferenceServiceStub(running.channel)
        arrays = [np.full((1, width), float(width), np.float32) for width in (3, 5, 3, 3, 5, 3)]
        answers = await asyncio.gather(*(stub.ModelInfer(make_request("free", x=array)) for array in arrays))
        for array, answer in zip(arrays, answers, strict=True):
            np.testing.assert_array_equal(read(answer)["y"], 2 * array)
        statistics = await stub.ModelStatistics(pb.ModelStatisticsRequest(name="free"))
        sizes = {batch.batch_size: batch.compute_infer.count for batch in statistics.model_stats[0].batch_stats}
        assert sum(size * count for size, count in sizes.items()) == 6
        assert max(sizes) > 1


async def test_statistics_agree_with_the_metrics_and_with_what_was_asked(
    stub: GRPCInferenceServiceStub, running: Running
) -> None:
    """Requests, failures, rows and batches."""
    for _ in range(3):
        await stub.ModelInfer(make_request("tiny-text", **tokens_of()))
    two_rows = {name: np.repeat(array, 2, axis=0) for name, array in tokens_of().items()}
    await stub.ModelInfer(make_request("tiny-text", **two_rows))
    with pytest.raises(grpc.aio.AioRpcError):
        await stub.ModelInfer(make_request("tiny-text", input_ids=tokens_of()["input_ids"]))
    response = await stub.ModelStatistics(pb.ModelStatisticsRequest(name="tiny-text", version="1"))
    (found,) = response.model_stats
    assert (found.name, found.version, found.inference_count, found.execution_count) == ("tiny-text", "1", 5, 4)
    stats = found.inference_stats
    assert (stats.success.count, stats.fail.count, stats.queue.count, stats.cache_hit.count) == (4, 1, 4, 0)
    assert stats.success.ns >= stats.compute_infer.ns > 0
    assert {one.batch_size: one.compute_infer.count for one in found.batch_stats} == {1: 3, 2: 1}
    assert found.last_inference > 0
    metrics = await samples(running)
    assert metrics[("regard_stage_seconds_count", "plain", "tiny-text", "queue")] == stats.queue.count
    assert metrics[("regard_batch_rows_sum", "tiny-text")] == found.inference_count
    assert metrics[("regard_batch_rows_count", "tiny-text")] == found.execution_count
    assert metrics[("regard_requests_total", "OK", "ModelInfer", "tiny-text")] == stats.success.count
    assert metrics[("regard_requests_total", "INVALID_ARGUMENT", "ModelInfer", "tiny-text")] == stats.fail.count
    names = {one.name for one in (await stub.ModelStatistics(pb.ModelStatisticsRequest())).model_stats}
    assert names == {"every-type", "fashion", "fixed", "free", "plus", "tiny-text", "words"}


@pytest.fixture
async def copied(start: Serve, tmp_path: Path) -> AsyncIterator[tuple[GRPCInferenceServiceStub, Path]]:
    """A server with a models folder of its own."""
    shutil.copytree(GOLDEN_MODELS, tmp_path / "models")
    async with start(models=tmp_path / "models") as running:
        yield GRPCInferenceServiceStub(running.channel), tmp_path / "models"


async def test_models_are_loaded_and_unloaded_by_request(copied: tuple[GRPCInferenceServiceStub, Path]) -> None:
    """The index says what there is; the newest version answers."""
    stub, folder = copied
    add_version(folder, 2)
    await stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="tiny-text"))
    assert (await stub.ModelInfer(make_request("tiny-text", **tokens_of()))).model_version == "2"
    add_version(folder, 3)
    damage(folder / "tiny-text" / "3" / "weights.bin")
    with pytest.raises(grpc.aio.AioRpcError, match="changed or damaged") as caught:
        await stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="tiny-text"))
    assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    index = await stub.RepositoryIndex(pb.RepositoryIndexRequest())
    states = {one.version: (one.state, one.reason) for one in index.models}
    assert states["2"] == ("READY", "")
    assert states["3"][0] == "UNAVAILABLE"
    assert "changed or damaged" in states["3"][1]
    ready = await stub.RepositoryIndex(pb.RepositoryIndexRequest(ready=True))
    assert [one.version for one in ready.models] == ["2"]
    await stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="tiny-text"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ModelInfer(make_request("tiny-text", **tokens_of()))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    assert not (await stub.ModelReady(pb.ModelReadyRequest(name="tiny-text"))).ready


async def test_what_the_repository_does_not_offer_is_refused(stub: GRPCInferenceServiceStub) -> None:
    """Another repository, and files or settings in a request."""
    with pytest.raises(grpc.aio.AioRpcError, match="repository_name: 'b'; expected empty"):
        await stub.RepositoryIndex(pb.RepositoryIndexRequest(repository_name="b"))
    request = pb.RepositoryModelLoadRequest(model_name="tiny-text")
    request.parameters["config"].string_param = "{}"
    with pytest.raises(grpc.aio.AioRpcError, match=r"parameters: 'config'; expected none: .* config.toml"):
        await stub.RepositoryModelLoad(request)


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


async def test_the_logs_level_changes_while_the_server_runs(stub: GRPCInferenceServiceStub) -> None:
    """A setting that cannot be changed is refused and changes nothing."""
    level = logging.getLogger().level
    try:
        request = pb.LogSettingsRequest()
        request.settings["log_info"].bool_param = False
        request.settings["log_warning"].bool_param = False
        request.settings["log_verbose_level"].uint32_param = 0
        settings = (await stub.LogSettings(request)).settings
        assert [settings[name].bool_param for name in ("log_info", "log_warning", "log_error")] == [False, False, True]
        assert logging.getLogger().level == logging.ERROR
        request.settings["log_verbose_level"].uint32_param = 1
        assert (await stub.LogSettings(request)).settings["log_verbose_level"].uint32_param == 1
        assert logging.getLogger().level == logging.DEBUG
        request.settings["log_file"].string_param = "/etc/passwd"
        with pytest.raises(grpc.aio.AioRpcError, match="log_file"):
            await stub.LogSettings(request)
        assert logging.getLogger().level == logging.DEBUG
    finally:
        logging.getLogger().setLevel(level)
    trace = await stub.TraceSetting(pb.TraceSettingRequest())
    assert list(trace.settings["trace_level"].value) == ["OFF"]
    change = pb.TraceSettingRequest()
    change.settings["trace_level"].value.append("TIMESTAMPS")
    with pytest.raises(grpc.aio.AioRpcError, match="traces are not offered"):
        await stub.TraceSetting(change)
