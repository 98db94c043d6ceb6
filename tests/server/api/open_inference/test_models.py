"""What the protocol says about models, and how it manages them; statistics and the log's level."""

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator
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
    assert names == {"every-type", "fashion", "fixed", "free", "plus", "tiny-clip", "tiny-text", "words"}


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
