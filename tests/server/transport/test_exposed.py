"""Servers that other machines can reach: TLS, tokens, permissions, quotas, and what an attacker can make large."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from regard.v1 import regard_pb2 as api
from regard.v1 import types_pb2 as pb
from regard.v1.regard_pb2_grpc import RegardServiceStub
from server.api.open_inference import open_inference_pb2 as oip
from server.api.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from server.errors import StartError
from tests.server.api.open_inference.messages import make_bytes_request
from tests.server.asgi import BOTH
from tests.server.asking import samples
from tests.server.conftest import Running, Serve
from tests.server.transport.pki import Pki

TOKEN, OPERATOR = "the-token-of-an-app", "the-token-of-the-operator"
CLIENTS = f"""
[clients.app]
tokens = ["{TOKEN}"]
allow = ["infer"]
requests_per_second = 1000

[clients.operator]
tokens = ["{OPERATOR}"]
allow = ["infer", "attention", "manage"]
"""
SENSOR = """
[clients.sensor]
certificate = "sensor.example"
requests_per_second = 0.001
"""
TEXT = api.EmbedRequest(model="tiny-text", text="the cat")
SEEN = api.EmbedRequest(model="tiny-text", text="the cat", attention=pb.AttentionRequest())


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    """One that the server's files come from."""
    pki = Pki(trustme.CA(), tmp_path)
    pki.issue()
    (tmp_path / "ca.pem").write_bytes(pki.authority.cert_pem.bytes())
    return pki


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    """Write a file of clients."""

    def writing(content: str) -> Path:
        (tmp_path / "clients.toml").write_text(content)
        return tmp_path / "clients.toml"

    return writing


@pytest.fixture
def clients(write: Callable[[str], Path]) -> Path:
    """An app that may ask, and an operator who may do everything."""
    return write(CLIENTS)


def bearer(token: str) -> list[tuple[str, str]]:
    """A call's metadata."""
    return [("authorization", f"Bearer {token}")]


def dial(running: Running, credentials: grpc.ChannelCredentials) -> grpc.aio.Channel:
    """Connect anew, with a handshake of its own."""
    return grpc.aio.secure_channel(running.started.address, credentials, [("grpc.use_local_subchannel_pool", 1)])


def reflect(channel: grpc.aio.Channel, who: list[tuple[str, str]]) -> Any:
    """Ask for the server's services."""
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(cast(Any, channel))
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    return stub.ServerReflectionInfo(iter([asked]), metadata=who).read()


async def code_of(call: Any) -> grpc.StatusCode:
    """How a call ends."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def test_tls_is_spoken_and_nothing_else(start: Serve, pki: Pki) -> None:
    """A caller without TLS, or who trusts another authority, gets no answer."""
    async with start(**pki.settings) as running:
        async with dial(running, pki.credentials()) as channel:
            assert (await RegardServiceStub(channel).Embed(TEXT)).model == "tiny-text"
        assert await code_of(running.stub.Embed(TEXT)) is grpc.StatusCode.UNAVAILABLE
        async with dial(running, Pki(trustme.CA(), pki.folder).credentials()) as channel:
            assert await code_of(RegardServiceStub(channel).Embed(TEXT)) is grpc.StatusCode.UNAVAILABLE


async def test_a_renewed_certificate_is_taken_without_a_restart(
    start: Serve, pki: Pki, caplog: pytest.LogCaptureFixture
) -> None:
    """Even of another authority; files that do not belong together leave the last pair in place."""
    async with start(**pki.settings) as running:
        renewed = Pki(trustme.CA(), pki.folder)
        renewed.issue()
        async with dial(running, renewed.credentials()) as channel:
            assert (await RegardServiceStub(channel).Embed(TEXT)).model == "tiny-text"
        (pki.folder / "key.pem").write_bytes(trustme.CA().issue_cert("localhost").private_key_pem.bytes())
        async with dial(running, renewed.credentials()) as channel:
            assert (await RegardServiceStub(channel).Embed(TEXT)).model == "tiny-text"
        assert "changed TLS files cannot be used, the last ones stay: KEY_VALUES_MISMATCH" in caplog.text


async def test_with_mutual_tls_callers_need_a_certificate(start: Serve, pki: Pki, write: Callable[[str], Path]) -> None:
    """Which can also say who they are: the sensor has one request in a thousand seconds."""
    settings = pki.settings | {"tls_client_ca": pki.folder / "ca.pem", "clients": write(CLIENTS + SENSOR)}
    async with start(**settings) as running:
        async with dial(running, pki.credentials()) as channel:
            assert await code_of(RegardServiceStub(channel).Embed(TEXT)) is grpc.StatusCode.UNAVAILABLE
        async with dial(running, pki.credentials(pki.authority.issue_cert("sensor.example"))) as channel:
            stub = RegardServiceStub(channel)
            assert (await stub.Embed(SEEN)).attention.layers
            with pytest.raises(grpc.aio.AioRpcError, match=r"sensor has used its quota of 0.001 requests") as refused:
                await stub.Embed(TEXT)
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            trailers = dict(refused.value.trailing_metadata() or ())
            assert 900_000 < int(trailers["grpc-retry-pushback-ms"]) <= 1_000_000
        async with dial(running, pki.credentials(pki.authority.issue_cert("other.example"))) as channel:
            stub = RegardServiceStub(channel)
            standard = GRPCInferenceServiceStub(channel)
            calls: list[Callable[[Any], Any]] = [
                lambda who: stub.Embed(TEXT, metadata=who),
                lambda who: standard.ServerLive(oip.ServerLiveRequest(), metadata=who),
                lambda who: standard.ModelReady(oip.ModelReadyRequest(name="tiny-text"), metadata=who),
                lambda who: reflect(channel, who),
            ]
            assert {await code_of(call([])) for call in calls} == {grpc.StatusCode.UNAUTHENTICATED}
            assert {await code_of(call(bearer(TOKEN))) for call in calls} == {grpc.StatusCode.OK}


async def test_each_client_may_do_what_the_file_says(start: Serve, clients: Path) -> None:
    """On both protocols; health is for everyone, reflection for those who are known."""
    async with start(clients=clients) as running:
        standard = GRPCInferenceServiceStub(running.channel)
        health: Any = health_pb2_grpc.HealthStub(running.channel)
        assert (await health.Check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.SERVING
        infer = oip.ModelInferRequest(model_name="tiny-text")
        text = infer.inputs.add(name="text", datatype="BYTES", shape=[1])
        text.contents.bytes_contents.append(b"the cat")
        looking = oip.ModelInferRequest()
        looking.CopyFrom(infer)
        looking.outputs.add(name="attention.0")
        load, standard_load = (
            api.LoadModelRequest(model="fashion"),
            oip.RepositoryModelLoadRequest(model_name="fashion"),
        )
        calls: dict[str, Callable[[Any], Any]] = {
            "embed": lambda who: running.stub.Embed(TEXT, metadata=who),
            "list": lambda who: running.stub.ListModels(api.ListModelsRequest(), metadata=who),
            "live": lambda who: standard.ServerLive(oip.ServerLiveRequest(), metadata=who),
            "infer": lambda who: standard.ModelInfer(infer, metadata=who),
            "attention": lambda who: running.stub.Embed(SEEN, metadata=who),
            "attention outputs": lambda who: standard.ModelInfer(looking, metadata=who),
            "load": lambda who: running.stub.LoadModel(load, metadata=who),
            "standard load": lambda who: standard.RepositoryModelLoad(standard_load, metadata=who),
            "memory": lambda who: standard.SystemSharedMemoryStatus(
                oip.SystemSharedMemoryStatusRequest(), metadata=who
            ),
            "logs": lambda who: standard.LogSettings(oip.LogSettingsRequest(), metadata=who),
        }
        found = {
            who: [name for name, call in calls.items() if await code_of(call(bearer(token))) is grpc.StatusCode.OK]
            for who, token in {"app": TOKEN, "operator": OPERATOR, "nobody": "the-token-of-nobody"}.items()
        }
        assert found == {"app": ["embed", "list", "live", "infer"], "operator": list(calls), "nobody": []}
        assert await code_of(calls["load"](bearer(TOKEN))) is grpc.StatusCode.PERMISSION_DENIED
        assert await code_of(calls["live"]([])) is grpc.StatusCode.UNAUTHENTICATED
        for who, expected in (([], "UNAUTHENTICATED"), (bearer(TOKEN), "OK")):
            assert await code_of(reflect(running.channel, who)) is grpc.StatusCode[expected]


async def test_who_is_turned_away_is_counted_and_logged(
    start: Serve, clients: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Under the id that the caller gave; methods that an unauthenticated caller invents are no labels."""
    caplog.set_level("INFO")
    async with start(clients=clients) as running:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await running.stub.Embed(TEXT, metadata=[("x-request-id", "lost"), *bearer("a-wrong-token-of-an-app")])
        invented: Any = running.channel.unary_unary("/regard.v1.RegardService/Invented")
        assert await code_of(invented(b"")) is grpc.StatusCode.UNAUTHENTICATED
        found = await samples(running)
    assert dict(refused.value.trailing_metadata() or ())["x-request-id"] == "lost"
    assert [found[("regard_requests_total", "UNAUTHENTICATED", method, "")] for method in ("Embed", "")] == [1, 1]
    assert ("regard_request_seconds_count", "Embed") not in found  # how long a refusal takes hides how long others do
    assert found[("regard_requests_received_total", "Embed")] == 1
    (line,) = [one for one in caplog.records if getattr(one, "fields", {}).get("request_id") == "lost"]
    assert "Embed of '': UNAUTHENTICATED: authorization: not the token of a client" in line.getMessage()
    assert "a-wrong-token" not in caplog.text
    assert "Invented" not in caplog.text


async def test_refusals_are_counted_though_few_are_logged(
    start: Serve, clients: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever has no token cannot fill a disk, neither with calls nor with what is no message."""
    caplog.set_level("INFO", "server.requests")
    async with start(clients=clients, max_refusal_lines=0) as running:
        malformed: Any = running.channel.unary_unary("/grpc.health.v1.Health/Check")
        codes = await asyncio.gather(
            *(code_of(running.stub.Embed(TEXT)) for _ in range(10)), *(code_of(malformed(b"\xff")) for _ in range(10))
        )
        found = await samples(running)
    assert [code.name for code in codes] == ["UNAUTHENTICATED"] * 10 + ["INVALID_ARGUMENT"] * 10
    assert found[("regard_requests_total", "UNAUTHENTICATED", "Embed", "")] == 10
    assert found[("regard_requests_total", "INVALID_ARGUMENT", "Check", "")] == 10
    assert found[("regard_log_lines_left_out_total",)] == 20
    assert not [line for line in caplog.messages if line.startswith(("Embed", "Check"))]


async def test_an_unauthenticated_callers_message_is_not_read(start: Serve, clients: Path) -> None:
    """However large it is, it is refused for its token, before its size could be."""
    async with start(clients=clients, max_message_bytes=1024) as running:
        large = api.ClassifyRequest(model="fashion", image=bytes(2**20))
        assert await code_of(running.stub.Classify(large)) is grpc.StatusCode.UNAUTHENTICATED
        known = running.stub.Classify(large, metadata=bearer(TOKEN))
        assert await code_of(known) is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_the_message_of_a_certificate_that_is_no_clients_is_not_read(
    start: Serve, pki: Pki, write: Callable[[str], Path]
) -> None:
    """Of methods of every kind; a client's is."""
    settings = pki.settings | {"tls_client_ca": pki.folder / "ca.pem", "clients": write(CLIENTS + SENSOR)}
    large = bytes(2**20)
    calls: list[Callable[[grpc.aio.Channel], Any]] = [
        lambda channel: RegardServiceStub(channel).Classify(api.ClassifyRequest(image=large)),
        lambda channel: RegardServiceStub(channel).Attend(api.AttendRequest(image=large)).read(),
        lambda channel: (
            GRPCInferenceServiceStub(channel)
            .ModelStreamInfer(iter([oip.ModelInferRequest(raw_input_contents=[large])]))
            .read()
        ),
    ]
    async with start(**settings, max_message_bytes=1024) as running:
        for name, expected in (("other.example", "UNAUTHENTICATED"), ("sensor.example", "RESOURCE_EXHAUSTED")):
            async with dial(running, pki.credentials(pki.authority.issue_cert(name))) as channel:
                assert {await code_of(call(channel)) for call in calls} == {grpc.StatusCode[expected]}


async def test_clients_known_by_certificate_call_methods_of_every_kind(
    start: Serve, pki: Pki, write: Callable[[str], Path]
) -> None:
    """One request and one answer, one and many, many and many; a call without a request is refused."""
    settings = pki.settings | {"tls_client_ca": pki.folder / "ca.pem"}
    own = '[clients.sensor]\ncertificate = "sensor.example"\n'
    async with (
        start(**settings, clients=write(own)) as running,
        dial(running, pki.credentials(pki.authority.issue_cert("sensor.example"))) as channel,
    ):
        stub, standard = RegardServiceStub(channel), GRPCInferenceServiceStub(channel)
        assert (await stub.Embed(TEXT)).model == "tiny-text"
        asked = api.AttendRequest(model="tiny-text", text="the cat")
        assert len([layer async for layer in stub.Attend(asked)]) > 1
        with pytest.raises(grpc.aio.AioRpcError, match="expected one of them"):
            await stub.Embed(api.EmbedRequest(model="tiny-text"))
        request = make_bytes_request("tiny-text", "text", b"the cat")
        answers = [answer async for answer in standard.ModelStreamInfer(iter([request, request]))]
        assert [answer.error_message for answer in answers] == ["", ""]
        empty: Any = channel.stream_unary("/regard.v1.RegardService/Embed")
        assert await code_of(empty(iter([]))) is grpc.StatusCode.INVALID_ARGUMENT


@BOTH
async def test_streams_carry_the_client_too(start: Serve, clients: Path) -> None:
    """Each request of a stream is its client's."""
    async with start(clients=clients) as running:
        request = oip.ModelInferRequest(model_name="tiny-text", id="1")
        request.inputs.add(name="text", datatype="BYTES", shape=[1]).contents.bytes_contents.append(b"the cat")
        request.outputs.add(name="attention.0")
        standard = GRPCInferenceServiceStub(running.channel)
        answers = [
            answer
            for token in (TOKEN, OPERATOR)
            async for answer in standard.ModelStreamInfer(iter([request]), metadata=bearer(token))
        ]
        assert answers[0].error_message == "attention: app may not; expected a client with 'attention'"
        assert answers[1].infer_response.outputs[0].name == "attention.0"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "expected --tls-cert and --tls-key and --clients or --tls-client-ca, or --allow-insecure"),
        ({"tls": True}, "expected --clients or --tls-client-ca, or --allow-insecure"),
        ({"clients": True}, "expected --tls-cert and --tls-key, or --allow-insecure"),
    ],
)
async def test_a_server_is_not_exposed_by_accident(
    settings: dict[str, bool], message: str, start: Serve, pki: Pki, clients: Path
) -> None:
    """Beyond loopback it wants TLS and to know who calls, or to be told."""
    given = (pki.settings if settings.get("tls") else {}) | ({"clients": clients} if settings.get("clients") else {})
    with pytest.raises(StartError, match=f"--listen: 0.0.0.0:0: can be reached from other machines; {message}"):
        async with start(listen="0.0.0.0:0", **given):
            pass


async def test_exposed_on_purpose_it_offers_no_management(start: Serve) -> None:
    """Management is off where other machines can call, unless it is switched on."""
    load = api.LoadModelRequest(model="fashion")
    for manage, expected in (("auto", "PERMISSION_DENIED"), ("on", "OK")):
        async with start(listen="0.0.0.0:0", allow_insecure=True, manage=manage) as running:
            assert await code_of(running.stub.LoadModel(load)) is grpc.StatusCode[expected]
            assert await code_of(running.stub.Embed(TEXT)) is grpc.StatusCode.OK


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tls_key": None}, "--tls-cert, --tls-key: one is missing; expected both"),
        ({"tls_cert": Path("absent.pem")}, "cannot be used: .*/absent.pem: No such file"),
        ({"tls_key": Path("cert.pem")}, "--tls-cert, --tls-key, --tls-client-ca: cannot be used"),
        ({"tls_client_ca": Path("empty.pem")}, "--tls-client-ca: cannot be used"),
        ({"tls_client_ca": Path("key.pem")}, "--tls-client-ca: cannot be used"),
    ],
)
async def test_tls_files_that_cannot_be_used_stop_the_start(
    change: dict[str, Any], message: str, start: Serve, pki: Pki
) -> None:
    """In one line."""
    (pki.folder / "empty.pem").touch()
    change = {name: pki.folder / path if path else None for name, path in change.items()}
    with pytest.raises(StartError, match=message):
        async with start(**(pki.settings | change)):
            pass


async def test_clients_known_by_certificates_need_somebody_to_check_them(
    start: Serve, write: Callable[[str], Path]
) -> None:
    """Otherwise none would ever be known."""
    with pytest.raises(StartError, match="--clients: knows some by their certificates; expected --tls-client-ca"):
        async with start(clients=write(SENSOR)):
            pass


@BOTH
async def test_one_client_at_its_quota_leaves_the_others_alone(start: Serve, write: Callable[[str], Path]) -> None:
    """The greedy one asks for all at once and gets one; the other is answered all the while."""
    clients = write(CLIENTS.replace("requests_per_second = 1000", "compute_seconds_per_second = 0.000001"))
    async with start(clients=clients) as running:
        greedy = [code_of(running.stub.Embed(TEXT, metadata=bearer(TOKEN))) for _ in range(20)]
        modest = [code_of(running.stub.Embed(TEXT, metadata=bearer(OPERATOR))) for _ in range(20)]
        codes = await asyncio.gather(*greedy, *modest)
    assert sorted(code.name for code in codes[:20]) == ["OK"] + ["RESOURCE_EXHAUSTED"] * 19
    assert set(codes[20:]) == {grpc.StatusCode.OK}
