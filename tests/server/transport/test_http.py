"""The port for metrics says nothing of callers who misbehave, and closes at once."""

import socket
import struct
import sys
import urllib.request
from contextlib import ExitStack
from functools import partialmethod
from socketserver import BaseServer

import pytest
from prometheus_client import CollectorRegistry

from server.address import split_address
from server.transport import http
from server.transport.http import _MAX_CONNECTIONS, MetricsServer

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing resets


def test_a_connection_that_is_reset_writes_no_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    """Its thread fails as it reads or answers; others are answered."""
    server = MetricsServer("127.0.0.1:0", CollectorRegistry(), lambda: True, lambda: True)
    place = split_address(server.address)
    for content in (b"", b"GET /metr", b"GET /metrics HTTP/1.1\r\n\r\n") * 10:
        with socket.create_connection(place) as connection:
            connection.sendall(content)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    with urllib.request.urlopen(f"http://{server.address}/healthz", timeout=10) as page:
        assert page.read() == b"alive\n"
    server.close()
    assert "Traceback" not in capfd.readouterr().err


def test_who_never_ends_a_request_keeps_no_others_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of too many connections the oldest are closed."""
    monkeypatch.setattr(http._Quiet, "timeout", 600)
    server = MetricsServer("127.0.0.1:0", CollectorRegistry(), lambda: True, lambda: True)
    with ExitStack() as silent:
        place = split_address(server.address)
        opened = [silent.enter_context(socket.create_connection(place, timeout=60)) for _ in range(150)]
        for one in opened[: 150 - _MAX_CONNECTIONS]:
            assert one.recv(1) == b""
        with urllib.request.urlopen(f"http://{server.address}/healthz", timeout=60) as page:
            assert page.read() == b"alive\n"
    server.close()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a port that listens cannot be told to end")
@pytest.mark.timeout(60)
def test_it_closes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not when what accepts looks whether it shall end, which here it does every ten minutes."""
    monkeypatch.setattr(BaseServer, "serve_forever", partialmethod(BaseServer.serve_forever, poll_interval=600))
    MetricsServer("127.0.0.1:0", CollectorRegistry(), lambda: True, lambda: True).close()
