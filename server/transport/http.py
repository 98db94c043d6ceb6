"""/metrics, /healthz and /readyz over HTTP, from a thread of its own."""

import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from server.address import family_of, join_address, split_address
from server.errors import StartError

_MAX_CONNECTIONS = 64  # further ones keep nobody out: probes ask here
_Start = Callable[[str, list[tuple[str, str]]], Any]


class _Server(ThreadingWSGIServer):
    request_queue_size = 64

    def __init__(self, *given: Any) -> None:
        self._open = dict[socket.socket, None]()  # a thread each, who came first first
        self._lock = threading.Lock()
        super().__init__(*given)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread; of too many callers the one that has taken longest is hung up on."""
        with self._lock:
            self._open[request] = None
            if len(self._open) > _MAX_CONNECTIONS:
                oldest = next(iter(self._open))
                del self._open[oldest]
                with suppress(OSError):
                    oldest.shutdown(socket.SHUT_RDWR)
        super().process_request(request, client_address)

    def close_request(self, request: Any) -> None:
        """Count it no more."""
        with self._lock:
            self._open.pop(request, None)
        super().close_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """Do not log who resets a connection, or says nothing on it."""


class _Quiet(WSGIRequestHandler):
    timeout = 10  # seconds for a client to send its request

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the base class's name
        """Do not log scrapes."""


class MetricsServer:
    """A small HTTP server; `alive` and `ready` decide what /healthz and /readyz say."""

    def __init__(
        self, address: str, registry: CollectorRegistry, alive: Callable[[], bool], ready: Callable[[], bool]
    ) -> None:
        """Bind the address and begin to serve.

        Raises:
            StartError: The address cannot be bound.
        """
        application = _route(make_wsgi_app(registry), alive, ready)
        try:
            server_class = type("_Server", (_Server,), {"address_family": family_of(address)})
            self._server: WSGIServer = make_server(
                *split_address(address), application, server_class=server_class, handler_class=_Quiet
            )
        except OSError as error:
            raise StartError(f"--metrics: {address}: cannot listen: {error.strerror or error}") from error
        self.address = join_address(address, self._server.server_port)
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving and free the port."""
        # What accepts looks only twice a second whether it shall end; a port that no longer listens wakes it. Not every
        # system says so of a port that listens.
        with suppress(OSError):
            self._server.socket.shutdown(socket.SHUT_RDWR)
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _route(metrics: Callable[..., Any], alive: Callable[[], bool], ready: Callable[[], bool]) -> Callable[..., Any]:
    def application(environ: dict[str, Any], start: _Start) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/metrics":
            return metrics(environ, start)  # type: ignore[no-any-return]
        known = {
            "/healthz": (alive(), b"alive\n" if alive() else b"the event loop stands still\n"),
            "/readyz": (ready(), b"ready\n" if ready() else b"not ready\n"),
        }
        good, text = known.get(path, (False, b"expected /metrics, /healthz or /readyz\n"))
        status = "200 OK" if good else "503 Service Unavailable" if path in known else "404 Not Found"
        start(status, [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(text)))])
        return [text]

    return application
