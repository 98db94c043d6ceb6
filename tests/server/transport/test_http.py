"""The port for metrics says nothing of callers who misbehave, and closes at once."""

import socket
import struct
import sys
import urllib.request
from functools import partialmethod
from socketserver import BaseServer

import pytest
from prometheus_client import CollectorRegistry

from server.address import split_address
from server.transport.http import MetricsServer

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


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a port that listens cannot be told to end")
@pytest.mark.timeout(60)
def test_it_closes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not when what accepts looks whether it shall end, which here it does every ten minutes."""
    monkeypatch.setattr(BaseServer, "serve_forever", partialmethod(BaseServer.serve_forever, poll_interval=600))
    MetricsServer("127.0.0.1:0", CollectorRegistry(), lambda: True, lambda: True).close()
