from collections.abc import AsyncGenerator
from typing import Any

import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest

from regard.v1.regard_pb2 import EmbedRequest
from server.api.calls import Calls
from server.api.open_inference.open_inference_pb2 import ModelInferRequest, ModelMetadataRequest
from server.config import Config
from server.ledger import Ledger
from server.telemetry.metrics import Metrics
from server.transport.ray.methods import MODEL, PROCESS, THIS_PROCESS, add_services, methods
from server.transport.refusals import Refusals
from server.transport.services import Services
from tests.server.transport.ray.calling import ray_context


def test_no_two_services_have_a_method_of_the_same_name_by_which_ray_would_find_the_wrong_one() -> None:
    """It dispatches on the last part of a path."""
    names = [method.name for method in methods()]
    assert len(names) == len(set(names))
    assert {"Classify", "ModelInfer", "Check", "ServerReflectionInfo"} <= set(names)


def test_every_service_on_the_grpc_port_is_on_rays_too() -> None:
    """Health and reflection as well."""
    server = Server()
    add_services(server, tell_model=False)
    own = Server()
    Services(own, *_parts())
    assert server.paths >= own.paths


@pytest.mark.parametrize("seconds", [1.5, None, 1e9, -1.0])
async def test_the_deadline_is_told_to_what_ray_puts_in_a_methods_place(seconds: float | None) -> None:
    """In milliseconds, as gRPC has it; nothing where there is none."""
    told = list[Any]()

    async def run(request: bytes, context: Any) -> bytes:
        told.extend([request, dict(context.invocation_metadata()), context.peer()])
        return b"answer"

    server = Server()
    add_services(server, tell_model=False)
    handler = server.handlers["/inference.GRPCInferenceService/ModelInfer"]
    assert handler.request_deserializer is None
    replaced = handler._replace(response_serializer=None, unary_unary=run)
    assert await replaced.unary_unary(b"request", ray_context(remaining=seconds)) == b"answer"
    expected = {1.5: "1500m", None: None, 1e9: "99999999m", -1.0: "0m"}[seconds]
    metadata = {"x": "y", PROCESS: THIS_PROCESS} | ({"grpc-timeout": expected} if expected else {})
    assert told == [b"request", metadata, "ipv4:192.0.2.1:5"]


async def test_no_caller_says_which_process_took_its_call() -> None:
    """Of a name that comes twice, the last counts."""
    told = dict[str, Any]()

    async def run(request: bytes, context: Any) -> bytes:
        told.update(context.invocation_metadata())
        return b""

    server = Server()
    add_services(server, tell_model=False)
    handler = server.handlers["/inference.GRPCInferenceService/ModelInfer"]._replace(unary_unary=run)
    await handler.unary_unary(b"", ray_context({PROCESS: "invented"}))
    assert told[PROCESS] == THIS_PROCESS


async def test_the_deadline_is_told_to_streams_which_end_when_they_are_closed() -> None:
    """And nothing of them is left open."""
    ended = list[bool]()

    async def run(request: bytes, context: Any) -> Any:
        try:
            yield dict(context.invocation_metadata())["grpc-timeout"].encode()
            yield b"more"
        finally:
            ended.append(True)

    server = Server()
    add_services(server, tell_model=False)
    handler = server.handlers["/regard.v1.RegardService/Generate"]
    answers = handler._replace(unary_stream=run).unary_stream(b"request", ray_context(remaining=2.0))
    assert await anext(answers) == b"2000m"
    await answers.aclose()
    assert ended == [True]


@pytest.mark.parametrize(
    ("path", "request_", "model"),
    [
        ("/inference.GRPCInferenceService/ModelInfer", ModelInferRequest(model_name="minilm", id="1"), "minilm"),
        ("/inference.GRPCInferenceService/ModelMetadata", ModelMetadataRequest(name="minilm"), "minilm"),
        ("/regard.v1.RegardService/Embed", EmbedRequest(model="minilm", text="x"), "minilm"),
        ("/regard.v1.RegardService/Embed", EmbedRequest(text="x"), ""),
        ("/regard.v1.RegardService/Embed", EmbedRequest(model="m" * 101), ""),
        ("/grpc.health.v1.Health/Check", HealthCheckRequest(service="minilm"), ""),
        ("/inference.GRPCInferenceService/SystemSharedMemoryStatus", ModelMetadataRequest(name="region"), ""),
    ],
)
async def test_rays_own_proxy_is_told_which_model_a_request_names(path: str, request_: Any, model: str) -> None:
    """As it is in the message, which nothing else of Ray reads; the caller's own word counts where there is none."""
    told = dict[str, Any]()

    async def run(request: bytes, context: Any) -> bytes:
        told.update(context.invocation_metadata())
        return request

    server = Server()
    add_services(server, tell_model=True)
    handler = server.handlers[path]._replace(unary_unary=run)
    content = request_.SerializeToString()
    assert await handler.unary_unary(content, ray_context({MODEL: "the caller's"})) == content
    assert told[MODEL] == (model or "the caller's")


@pytest.mark.parametrize("messages", [[b"\x0a\x03one", b"\x0a\x03two"], [b"\x0a\xff"], []])
async def test_of_a_stream_the_first_message_names_the_model_and_none_is_lost(messages: list[bytes]) -> None:
    """Nor is one that is none, which the replica refuses, nor a stream without any."""
    told = dict[str, Any]()

    async def requests() -> AsyncGenerator[bytes]:
        for one in messages:
            yield one

    async def run(request: Any, context: Any) -> AsyncGenerator[bytes]:
        told.update(context.invocation_metadata())
        if messages:
            async for one in request:
                yield one

    server = Server()
    add_services(server, tell_model=True)
    handler = server.handlers["/inference.GRPCInferenceService/ModelStreamInfer"]._replace(stream_stream=run)
    assert [one async for one in handler.stream_stream(requests(), ray_context({}))] == messages
    assert told.get(MODEL) == ("one" if len(messages) == 2 else None)


async def test_no_message_is_read_for_haproxy_which_has_chosen_by_then() -> None:
    """It would cost every call."""
    told = dict[str, Any]()

    async def run(request: bytes, context: Any) -> bytes:
        told.update(context.invocation_metadata())
        return b""

    server = Server()
    add_services(server, tell_model=False)
    handler = server.handlers["/regard.v1.RegardService/Embed"]._replace(unary_unary=run)
    await handler.unary_unary(EmbedRequest(model="minilm").SerializeToString(), ray_context({}))
    assert MODEL not in told


class Server:
    """What generated code adds services to."""

    def __init__(self) -> None:
        self.handlers = dict[str, Any]()
        self.paths = set[str]()

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        for generic in handlers:
            methods = getattr(generic, "_method_handlers", None)
            if methods is None:
                methods = generic._handler._method_handlers
            self.handlers |= methods
            self.paths |= set(methods)

    def add_registered_method_handlers(self, service: str, handlers: Any) -> None:
        del service, handlers


def _parts() -> tuple[Calls, Refusals, Config]:
    metrics = Metrics()
    return Calls(Ledger(1e9), metrics, 10_000, 60.0, lambda tasks: None), Refusals(metrics, 10), Config.from_values({})
