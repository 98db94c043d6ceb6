"""Both protocols over Ray Serve, as on grpcio: answers, streams, errors, deadlines, cancellation and tokens."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

import regard
from regard.v1 import regard_pb2, regard_pb2_grpc
from server.api.open_inference import open_inference_pb2, open_inference_pb2_grpc
from tests.processes import CLOTHING, serving
from tests.ray.cluster import running_cluster

TOKEN = "the-token-of-the-tests"  # noqa: S105 -- for these servers alone
OWN = (("authorization", f"Bearer {TOKEN}"), ("x-request-id", "mine"))
MAX_BYTES = 4 * 2**20
# In a process of its own: its messages have the names of ours.
_TRITON = """
import queue, sys
import numpy as np
import tritonclient.grpc as triton

told, headers = queue.Queue(), {"authorization": f"Bearer {sys.argv[2]}"}
with triton.InferenceServerClient(sys.argv[1]) as client:
    assert client.is_server_ready(headers=headers)
    assert client.get_model_metadata("fashion", headers=headers).platform
    pixels = triton.InferInput("pixel_values", [2, 1, 28, 28], "FP32")
    pixels.set_data_from_numpy(np.zeros((2, 1, 28, 28), np.float32))
    print(client.infer("fashion", [pixels], headers=headers).as_numpy("logits").shape)
    text = triton.InferInput("text", [1], "BYTES")
    text.set_data_from_numpy(np.array([b"gauge"], dtype=np.object_))
    client.start_stream(lambda result, error: told.put((result, error)), headers=headers)
    client.async_stream_infer("g2p", [text], enable_empty_final_response=True, parameters={"num_beams": 1})
    steps = 0
    while True:
        result, error = told.get(timeout=300)
        assert error is None, error
        if result.get_response().parameters["triton_final_response"].bool_param:
            break
        steps += 1
    client.stop_stream()
print(steps)
"""


@dataclass
class Both:
    """The same server on Ray and on grpcio, by addresses."""

    ray: str
    grpcio: str
    has_haproxy: bool


@pytest.fixture(scope="module", params=[True, False], ids=["haproxy", "rays-own-proxy"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    """Start both, with who may call."""
    how = {name: str(int(request.param)) for name in ("RAY_SERVE_ENABLE_HA_PROXY", "RAY_SERVE_THROUGHPUT_OPTIMIZED")}
    clients = tmp_path_factory.mktemp("ray") / "clients.toml"
    clients.write_text(f'[clients.tests]\ntokens = ["{TOKEN}"]\n')
    settings = {"clients": str(clients), "max_message_bytes": MAX_BYTES}
    with running_cluster(1, **how) as cluster:
        cluster.deploy(arguments=settings, num_replicas=1)
        cluster.until(replicas=1)
        with serving("--clients", str(clients), "--max-message-bytes", str(MAX_BYTES), "--manage", "off") as server:
            yield Both(cluster.address, server.address, request.param)


def ended(call: Callable[[], Any]) -> tuple[grpc.StatusCode, str, set[str]]:
    """How a call ends that fails: its code, its message and the names of its trailers, without those of Ray."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error: Any = caught.value
    return error.code(), error.details(), {key for key, _ in error.trailing_metadata()} - {"request_id"}


def refused(channel: grpc.Channel) -> dict[str, Any]:
    """Ask what is refused, in many ways."""
    own, infer = regard_pb2_grpc.RegardServiceStub(channel), open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)
    raw: Any = channel.unary_unary("/regard.v1.RegardService/Embed")
    model_infer = open_inference_pb2.ModelInferRequest
    generate = regard_pb2.GenerateRequest
    return {
        "unknown": ended(lambda: own.Classify(regard_pb2.ClassifyRequest(model="nope"), metadata=OWN)),
        "empty": ended(lambda: own.Classify(regard_pb2.ClassifyRequest(model="fashion"), metadata=OWN)),
        "impossible": ended(lambda: own.Classify(regard_pb2.ClassifyRequest(model="g2p", text="a"), metadata=OWN)),
        "none": ended(lambda: raw(b"\xff\xff\xff", metadata=OWN)),
        "stream": ended(lambda: list(own.Generate(generate(model="nope", text="a"), metadata=OWN))),
        "infer": ended(lambda: infer.ModelInfer(model_infer(model_name="nope"), metadata=OWN)),
        "version": ended(lambda: infer.ModelInfer(model_infer(model_name="fashion", model_version="x"), metadata=OWN)),
        "manage": ended(lambda: own.LoadModel(regard_pb2.LoadModelRequest(model="g2p"), metadata=OWN)),
        "nobody": ended(lambda: own.ListModels(regard_pb2.ListModelsRequest())),
        "wrong": ended(
            lambda: infer.ModelInfer(model_infer(model_name="g2p"), metadata=[("authorization", "Bearer other")])
        ),
    }


def test_what_is_refused_ends_as_on_grpcio(both: Both) -> None:
    """With the same code, message and trailers."""
    found = list[dict[str, Any]]()
    for address in (both.ray, both.grpcio):
        with grpc.insecure_channel(address) as channel:
            found.append(refused(channel))
    if not both.has_haproxy:  # Ray's own proxy sends none of a stream that fails
        found = [one | {"stream": one["stream"][:2]} for one in found]
    assert found[0] == found[1]
    assert len({code for code, *_ in found[0].values()}) >= 5


def test_a_message_that_is_too_large_is_refused(both: Both) -> None:
    """Before it is parsed; gRPC's own words for it differ."""
    with grpc.insecure_channel(both.ray) as channel:
        raw: Any = channel.unary_unary("/regard.v1.RegardService/Embed")
        code, details, _ = ended(lambda: raw(bytes(MAX_BYTES + 1), metadata=OWN))
    assert (code, str(MAX_BYTES) in details) == (grpc.StatusCode.RESOURCE_EXHAUSTED, True)


def test_our_client_gets_what_it_gets_on_grpcio(both: Both) -> None:
    """Classes, attention, and texts as they are written."""
    with regard.Client(both.ray, token=TOKEN) as ray, regard.Client(both.grpcio, token=TOKEN) as own:
        image = (CLOTHING / "coat.png").read_bytes()
        one, other = (client.classify(image=image, attention=regard.AttentionRequest()) for client in (ray, own))
        assert one.labels[0].name == other.labels[0].name == "Coat"
        assert one.attention and other.attention
        assert len(one.attention.layers) == len(other.attention.layers) == 4
        for mine, theirs in zip(one.attention.layers, other.attention.layers, strict=True):
            np.testing.assert_allclose(mine.weights, theirs.weights, atol=1e-5)
        assert len(list(ray.attend(image=image))) == 4
        tokens = list(ray.generate("gauge"))
        assert len(tokens) > 2
        assert [token.text for token in tokens] == [token.text for token in own.generate("gauge")]


def test_an_unmodified_tritonclient_infers_and_streams(both: Both) -> None:
    """Metadata, a tensor in and out, and a stream of both directions, of which each answer comes as it is made."""
    command = [sys.executable, "-c", _TRITON, both.ray, TOKEN]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    shape, steps = done.stdout.splitlines()
    assert shape == "(2, 10)"
    assert int(steps) > 2


def test_a_deadline_is_known_to_the_server(both: Both) -> None:
    """One that has all but passed is refused for it; Ray itself tells a replica nothing of it."""
    with grpc.insecure_channel(both.ray) as channel:
        stub = regard_pb2_grpc.RegardServiceStub(channel)
        request = regard_pb2.ClassifyRequest(model="fashion", image=(CLOTHING / "coat.png").read_bytes())
        code, _, _ = ended(lambda: stub.Classify(request, timeout=0.001, metadata=OWN))
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert stub.Classify(request, timeout=300.0, metadata=OWN).labels


def test_who_hangs_up_frees_what_was_held(both: Both) -> None:
    """A watch of health that its caller leaves, a hundred times: more than one address may have open here."""
    with grpc.insecure_channel(both.ray) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        for _ in range(100):
            watch = stub.Watch(health_pb2.HealthCheckRequest(service="fashion"))
            assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
            watch.cancel()
        assert stub.Check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.SERVING


def test_reflection_lists_the_services(both: Both) -> None:
    """To who is known."""
    with grpc.insecure_channel(both.ray) as channel:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        answer = next(stub.ServerReflectionInfo(iter([asked]), metadata=OWN))
        assert "regard.v1.RegardService" in {one.name for one in answer.list_services_response.service}
        code, _, _ = ended(lambda: next(stub.ServerReflectionInfo(iter([asked]))))
        assert code is grpc.StatusCode.UNAUTHENTICATED
