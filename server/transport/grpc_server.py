"""The gRPC server: its options and its port."""

from collections.abc import Iterable, Sequence

import grpc

from server.address import is_loopback, join_address, split_address
from server.api.calls import Calls
from server.api.servicer import Task
from server.auth.clients import Authenticator
from server.config import Config
from server.errors import StartError
from server.transport.auth_interceptor import AuthInterceptor
from server.transport.connections import hang_up, stop_listening
from server.transport.grpc_calls import end_calls
from server.transport.limits import ANSWER_SECONDS, HANDSHAKE_SECONDS
from server.transport.listening import cannot_listen, try_address
from server.transport.refusals import Refusals
from server.transport.tls import Certificates, TlsFiles

_MAX_PENDING = 4000  # calls that gRPC holds until the event loop takes them; it cancels further ones, anybody's
_MAX_STREAMS = 1024  # of one connection; what a balancer in front needs
_PING_INTERVAL_MS = 5_000  # more often is an attack; docs/operations.md has clients ask every ten seconds


def make_authenticator(config: Config) -> Authenticator:
    """Read who may call.

    Raises:
        StartError: The file cannot be used, or names certificates that nobody is asked for.
    """
    addresses = [config.listen, *([config.http] if config.http else [])]
    manage = all(map(is_loopback, addresses)) if config.manage == "auto" else config.manage == "on"
    authenticator = Authenticator(config.clients, manage=manage)
    if authenticator.knows_certificates and not config.tls_client_ca:
        raise StartError("--clients: knows some by their certificates; expected --tls-client-ca with it")
    return authenticator


def read_certificates(config: Config) -> Certificates | None:
    """Read the certificate that the settings name; None where they name none.

    Raises:
        StartError: The files cannot be used, or one is missing.
    """
    if config.tls_cert and config.tls_key:
        return Certificates(TlsFiles(config.tls_cert, config.tls_key, config.tls_client_ca))
    if config.tls_cert or config.tls_key or config.tls_client_ca:
        raise StartError("--tls-cert, --tls-key: one is missing; expected both")
    return None


class GrpcioTransport:
    """grpcio's server in this process; see transport.Transport."""

    counts_arriving = False

    def __init__(self) -> None:
        self._server: grpc.aio.Server | None = None
        self._address = ""

    def end_calls(self, tasks: Sequence[Task]) -> None:
        """End calls; see servicer.EndCalls."""
        end_calls(tasks)

    def open(self, config: Config, authenticator: Authenticator, refusals: Refusals, calls: Calls) -> None:
        """Make a server that is not bound yet."""
        self._config = config
        self._server = grpc.aio.server(
            interceptors=[] if authenticator.is_open else [AuthInterceptor(authenticator, refusals, calls)],
            options=_options(config),
        )

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Add a service, as generated code does."""
        self._opened.add_generic_rpc_handlers(handlers)

    def bind(self) -> str:
        """Bind the port; returns the address with the real one.

        A socket of our own tries the address first: gRPC would log the reason of a failure instead of telling it.

        Raises:
            StartError: The address cannot be had, or the certificate cannot be used.
        """
        listen, certificates = self._config.listen, read_certificates(self._config)
        try:
            try_address(listen)
            if certificates:
                port = self._opened.add_secure_port(listen, certificates.credentials())
            else:
                port = self._opened.add_insecure_port(listen)
        except (OSError, RuntimeError) as error:
            raise cannot_listen(listen, error) from error
        self._address = join_address(listen, port)
        return self._address

    async def start(self) -> None:
        """Answer calls."""
        await self._opened.start()

    async def stop(self, seconds: float) -> None:
        """Hang up on all callers before gRPC closes, which would end calls that come meanwhile as CANCELLED."""
        _, port = split_address(self._address)
        stop_listening(port)
        hang_up(port)
        await self._opened.stop(seconds)

    async def close(self) -> None:
        """End whatever is left."""
        if self._server:
            await self._server.stop(None)

    @property
    def _opened(self) -> grpc.aio.Server:
        assert self._server is not None  # noqa: S101 -- the application opens it first
        return self._server


def _options(config: Config) -> list[tuple[str, int]]:
    answer_ms = round(ANSWER_SECONDS * 1e3)
    return [
        ("grpc.max_receive_message_length", config.max_message_bytes),
        ("grpc.max_send_message_length", config.max_message_bytes),
        ("grpc.max_concurrent_streams", _MAX_STREAMS),
        ("grpc.server.max_pending_requests", _MAX_PENDING),  # from here on by chance, and from the second on always
        ("grpc.server.max_pending_requests_hard_limit", _MAX_PENDING),
        ("grpc.max_allowed_incoming_connections", config.max_connections),
        ("grpc.max_connection_idle_ms", round(config.max_idle_seconds * 1e3)),
        ("grpc.keepalive_time_ms", round(config.keepalive_seconds * 1e3)),
        ("grpc.keepalive_timeout_ms", answer_ms),
        ("grpc.http2.ping_timeout_ms", answer_ms),  # this one ends the connection; a minute unless set
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", _PING_INTERVAL_MS),
        ("grpc.server_handshake_timeout_ms", round(HANDSHAKE_SECONDS * 1e3)),
        ("grpc.so_reuseport", 0),  # two servers on one port would share callers by chance
    ]
