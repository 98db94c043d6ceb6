"""Connections that nobody uses, or whose client has gone without a word, are closed; honest clients do not notice."""

import asyncio
import contextlib
from pathlib import Path

import grpc
import pytest
import trustme

from regard.v1.regard_pb2_grpc import RegardServiceStub
from server.address import split_address
from server.transport import grpc_server
from tests.server.conftest import Serve
from tests.server.transport.pki import Pki
from tests.server.transport.test_attacks import GOAWAY, PING, SETTINGS, TEXT, connected, frame, read_frame

ENDED = (asyncio.IncompleteReadError, ConnectionError)


async def test_a_connection_without_a_call_is_closed_and_others_are_not(start: Serve) -> None:
    """With GOAWAY, so that its client knows that nothing is lost."""
    async with start(max_idle_seconds=0.5) as running, connected(running) as (reader, _):
        kinds = [(await asyncio.wait_for(read_frame(reader), 30))[0]]
        with pytest.raises(ENDED):
            while True:
                kinds.append((await asyncio.wait_for(read_frame(reader), 30))[0])
        assert kinds[0] == SETTINGS
        assert GOAWAY in kinds
        assert (await running.stub.Embed(TEXT)).model == "tiny-text"


async def test_a_client_that_was_idle_opens_its_connection_again(start: Serve) -> None:
    """Each time, without an error."""
    async with start(max_idle_seconds=0.2) as running:
        for _ in range(5):
            assert (await running.stub.Embed(TEXT)).model == "tiny-text"
            while (state := running.channel.get_state()) is not grpc.ChannelConnectivity.IDLE:
                await asyncio.wait_for(running.channel.wait_for_state_change(state), 30)


async def test_a_client_that_does_not_answer_is_gone(start: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of a connection that the network has lost would stay for hours."""
    monkeypatch.setattr(grpc_server, "ANSWER_SECONDS", 0.3)
    async with start(keepalive_seconds=0.3) as running, connected(running) as (reader, _):
        kinds = list[int]()
        with pytest.raises(ENDED):
            while True:
                kinds.append((await asyncio.wait_for(read_frame(reader), 30))[0])
        assert PING in kinds


@pytest.mark.parametrize("has_tls", [False, True])
async def test_a_connection_without_a_greeting_is_closed(
    start: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_tls: bool
) -> None:
    """Or a handshake: it would hold one of the places that there are."""
    monkeypatch.setattr(grpc_server, "HANDSHAKE_SECONDS", 0.3)
    pki = Pki(trustme.CA(), tmp_path)
    pki.issue()
    async with start(**(pki.settings if has_tls else {})) as running:
        reader, writer = await asyncio.open_connection(*split_address(running.started.address))
        await asyncio.wait_for(reader.read(), 30)
        assert reader.at_eof()
        writer.close()


async def test_handshakes_of_tls_that_do_not_come_count_as_connections(
    start: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the moment when they are taken: further ones are closed, and others find room when one is gone."""
    monkeypatch.setattr(grpc_server, "HANDSHAKE_SECONDS", 600)
    pki = Pki(trustme.CA(), tmp_path)
    pki.issue()
    async with start(max_connections=3, **pki.settings) as running:
        host, port = split_address(running.started.address)
        silent = [await asyncio.open_connection(host, port) for _ in range(10)]
        ended = [asyncio.create_task(reader.read()) for reader, _ in silent]
        for task in ended[3:]:
            with contextlib.suppress(ConnectionError):
                assert await asyncio.wait_for(task, 60) == b""
        assert not any(task.done() for task in ended[:3])
        silent[0][1].close()
        async with grpc.aio.secure_channel(f"localhost:{port}", pki.credentials()) as channel:
            answer = await RegardServiceStub(channel).Embed(TEXT, timeout=60, wait_for_ready=True)
            assert answer.model == "tiny-text"
        for _, writer in silent:
            writer.close()
        await asyncio.gather(*ended, return_exceptions=True)


@pytest.mark.parametrize(("interval_ms", "is_refused"), [(0, False), (60_000, True)])
async def test_a_client_may_ask_as_often_as_the_documentation_says(
    start: Serve, monkeypatch: pytest.MonkeyPatch, interval_ms: int, is_refused: bool
) -> None:
    """Every ten seconds; gRPC's own bound of five minutes would end its calls as too_many_pings."""
    assert grpc_server._PING_INTERVAL_MS < 10_000
    monkeypatch.setattr(grpc_server, "_PING_INTERVAL_MS", interval_ms)
    async with start() as running, connected(running) as (reader, writer):
        kinds = list[int]()
        try:
            while kinds.count(PING) < 10 and GOAWAY not in kinds:
                writer.write(frame(PING, bytes(8)))
                kinds.append((await asyncio.wait_for(read_frame(reader), 30))[0])
        except ENDED:
            kinds.append(GOAWAY)
        assert (GOAWAY in kinds) == is_refused
