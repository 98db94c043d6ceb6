"""The server hangs up on its callers, and on nobody else."""

import asyncio
import socket

import pytest

from regard.v1 import regard_pb2 as api
from server.address import split_address
from server.transport.connections import hang_up, stop_listening
from tests.server.conftest import Running


async def test_callers_are_hung_up_on_after_what_was_written_to_them(running: Running) -> None:
    """The port still listens, and connections of other ports stay."""
    host, port = split_address(running.started.address)
    reader, writer = await asyncio.open_connection(host, port)
    with socket.create_server((host, 0)) as elsewhere:
        staying = socket.create_connection(elsewhere.getsockname())
        other, _ = elsewhere.accept()
        await reader.readexactly(9)  # the server has greeted it
        hang_up(port)
        async with asyncio.timeout(30):
            await reader.read()
        with staying, other:
            other.sendall(b"x")
            assert staying.recv(1) == b"x"
    writer.close()
    request = api.EmbedRequest(model="tiny-text", text="the cat")
    assert (await running.stub.Embed(request, wait_for_ready=True)).model == "tiny-text"


async def test_no_more_connections_are_taken_and_those_there_are_stay(running: Running) -> None:
    """Another port still listens."""
    host, port = split_address(running.started.address)
    request = api.EmbedRequest(model="tiny-text", text="the cat")
    assert (await running.stub.Embed(request)).model == "tiny-text"
    with socket.create_server((host, 0)) as elsewhere:
        stop_listening(port)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(host, port)
        socket.create_connection(elsewhere.getsockname()).close()
    assert (await running.stub.Embed(request)).model == "tiny-text"


def test_one_caller_is_hung_up_on_and_others_stay() -> None:
    """Known by address and port, on either side of whom others are."""
    with socket.create_server(("127.0.0.1", 0)) as port:
        callers = [socket.create_connection(port.getsockname()) for _ in range(3)]
        taken = [port.accept()[0] for _ in callers]
        hang_up(port.getsockname()[1], {callers[1].getsockname()})
        assert callers[1].recv(1) == b""
        for number in (0, 2):
            taken[number].sendall(b"x")
            assert callers[number].recv(1) == b"x"
        for one in (*callers, *taken):
            one.close()
