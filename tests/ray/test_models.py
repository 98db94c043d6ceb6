"""Which replica has which model: a bounded number of models, routing by name, and several applications on one GPU."""

import asyncio
import json
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from server.api.open_inference.open_inference_pb2 import ModelInferRequest, ModelInferResponse
from server.api.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.ray.cluster import Cluster, running_cluster
from tests.ray.load import loading
from tests.server.api.open_inference.messages import make_request
from tests.server.api.open_inference.test_reload import publish

NAMES = ("one", "two")
CALLS = 20
ROUNDS = 30  # after which what is told to the proxy has come


@pytest.fixture(scope="module", params=[True, False], ids=["haproxy", "rays-own-proxy"])
def has_haproxy(request: pytest.FixtureRequest) -> bool:
    """Which proxy calls go through."""
    return bool(request.param)


@pytest.fixture(scope="module")
def cluster(has_haproxy: bool) -> Iterator[Cluster]:
    """Start a head, where the proxy is, and a node of one CPU and what Ray takes for one GPU.

    Replicas on several nodes of this machine would share their ports, and take each other's calls.
    """
    how = {name: str(int(has_haproxy)) for name in ("RAY_SERVE_ENABLE_HA_PROXY", "RAY_SERVE_THROUGHPUT_OPTIMIZED")}
    with running_cluster(1, **how) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def folder(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models that add the number of their version: one and two, with version 1; each cluster has its own."""
    del cluster
    folder = tmp_path_factory.mktemp("models")
    for name in NAMES:
        (folder / name).mkdir()
        publish(folder / name, 1)
    return folder


def options_for(folder: Path) -> dict[str, Any]:
    """Two replicas that have one model each at a time, and half a CPU."""
    arguments = {"models": str(folder), "max_loaded_models": 1}
    return {"arguments": arguments, "num_replicas": 2, "ray_actor_options": {"num_cpus": 0.5}}


def request_for(name: str) -> ModelInferRequest:
    """Zeros, to which the model's version is added."""
    return make_request(name, x=np.zeros((1, 2), np.float32))


def targets(cluster: Cluster) -> list[dict[str, Any]]:
    """What Prometheus is told of replicas."""
    with urllib.request.urlopen(f"http://{cluster.http}/regard", timeout=60) as answer:
        assert answer.headers.get_content_type() == "application/json"
        found: list[dict[str, Any]] = json.load(answer)
    return found


def until_targets(cluster: Cluster, count: int) -> list[dict[str, Any]]:
    """Wait until Ray has told its routers of so many replicas."""
    while len(found := targets(cluster)) != count:
        time.sleep(0.2)
    return found


def batches(found: list[dict[str, Any]]) -> dict[tuple[str, str], float]:
    """How many batches each replica has computed of each model."""
    counted = dict[tuple[str, str], float]()
    for one in found:
        (target,) = one["targets"]
        with urllib.request.urlopen(f"http://{target}/metrics", timeout=60) as answer:
            families = {family.name: family for family in text_string_to_metric_families(answer.read().decode())}
        assert [sample.value for sample in families["regard_ready"].samples] == [1.0]
        for sample in families["regard_batch_rows"].samples:
            if sample.name.endswith("_count"):
                counted[one["labels"]["replica"], sample.labels["model"]] = sample.value
    return counted


def ask(channel: grpc.Channel, name: str, **options: Any) -> ModelInferResponse:
    """Ask a model once."""
    answer: ModelInferResponse = GRPCInferenceServiceStub(channel).ModelInfer(request_for(name), **options)
    return answer


def until_known(channel: grpc.Channel, name: str, application: str) -> None:
    """Wait until the proxy has heard of an application, which is after its replicas run."""
    while True:
        try:
            ask(channel, name, metadata=[("application", application)])
        except grpc.RpcError as error:
            assert f"Application '{application}' not found" in str(error)
            time.sleep(0.2)
        else:
            return


def replicas_of(before: dict[tuple[str, str], float], after: dict[tuple[str, str], float]) -> dict[str, set[str]]:
    """Who has computed what in between, by model."""
    return {
        name: {
            replica
            for replica, model in after
            if model == name and after[replica, name] > before.get((replica, name), 0)
        }
        for name in NAMES
    }


def test_calls_go_to_the_replica_that_has_their_model(cluster: Cluster, folder: Path, has_haproxy: bool) -> None:
    """With one model a replica, and Ray's own proxy; HAProxy knows no models, and all are answered all the same.

    All of a stream's requests go where the first does.
    """
    cluster.deploy(**options_for(folder))
    cluster.until(replicas=2)
    found = until_targets(cluster, 2)
    assert {one["labels"]["application"] for one in found} == {"regard"}
    settled = list[bool]()
    with grpc.insecure_channel(cluster.address) as channel:
        for _ in range(ROUNDS):
            before = batches(found)
            for number in range(CALLS):
                assert ask(channel, NAMES[number % 2]).model_name == NAMES[number % 2]
            by_model = replicas_of(before, batches(found))
            settled.append(len(by_model["one"]) == len(by_model["two"]) == 1 and by_model["one"] != by_model["two"])
            if has_haproxy or settled[-3:] == [True] * 3:
                break
        before = batches(found)
        stub: Any = GRPCInferenceServiceStub(channel)
        answers = list(stub.ModelStreamInfer(iter([request_for("two")] * CALLS)))
        assert len(answers) == CALLS
        assert len(replicas_of(before, batches(found))["two"]) == 1
    if not has_haproxy:
        assert settled[-3:] == [True] * 3
        assert replicas_of(before, batches(found))["two"] == by_model["two"]


async def test_what_is_served_changes_on_all_replicas_whatever_they_have_loaded(cluster: Cluster, folder: Path) -> None:
    """A new version is served everywhere from when the change is made; a model that is not named, nowhere."""
    options = options_for(folder)
    await asyncio.to_thread(cluster.deploy, **options, user_config={"revision": 1})
    await asyncio.to_thread(cluster.until, replicas=2)
    async with loading(cluster.address, request_for("one")) as load:
        await load.more(100)
        publish(folder / "one", 2)
        await asyncio.to_thread(cluster.deploy, **options, user_config={"models": ["one"], "revision": 2})
        await load.until(lambda: len(load.answers) > 300 and set(load.answers[-300:]) == {2.0})
        await asyncio.to_thread(cluster.until, replicas=2)
    assert (load.failures, set(load.answers)) == ([], {1.0, 2.0})
    with grpc.insecure_channel(cluster.address) as channel:
        for _ in range(CALLS):
            with pytest.raises(grpc.RpcError) as raised:
                ask(channel, "two")
            assert raised.value.code() is grpc.StatusCode.NOT_FOUND


def test_applications_are_told_apart_by_metadata_and_share_a_gpu(cluster: Cluster, folder: Path) -> None:
    """Half of one each: Ray's arithmetic, on a node where it only counts GPUs. A third has no place."""
    names = ("left", "right")
    apart = {name: {"models": str(folder / model), "device": "cpu"} for name, model in zip(names, NAMES, strict=True)}
    half: dict[str, Any] = {"num_replicas": 1, "ray_actor_options": {"num_cpus": 0.1, "num_gpus": 0.5}}
    cluster.deploy(applications=apart, **half)
    for name in names:
        cluster.until(1, name)
    with grpc.insecure_channel(cluster.address) as channel:
        for name, model in zip(names, NAMES, strict=True):
            until_known(channel, model, name)
            for _ in range(CALLS):
                assert ask(channel, model, metadata=[("application", name)]).model_name == model
            other = NAMES[model == NAMES[0]]
            with pytest.raises(grpc.RpcError) as raised:
                ask(channel, other, metadata=[("application", name)])
            assert (raised.value.code(), f"expected one of {model}" in str(raised.value)) == (
                grpc.StatusCode.NOT_FOUND,
                True,
            )
        for metadata in ([], [("application", "middle")]):
            with pytest.raises(grpc.RpcError) as raised:
                ask(channel, "one", metadata=metadata)
            assert raised.value.code() is grpc.StatusCode.NOT_FOUND
    cluster.deploy(applications=apart | {"middle": apart["left"]}, **half)
    while not cluster.status("middle")["replicas"]:
        time.sleep(0.2)
    assert "RUNNING" not in cluster.status("middle")["replicas"]
    assert cluster.status("left")["replicas"] == {"RUNNING": 1}
