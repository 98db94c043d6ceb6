"""The gRPC server: its options, its port, and whom it may listen to."""

import socket

import grpc

from server.address import family_of, is_loopback, join_address, split_address
from server.api.calls import Calls
from server.auth.clients import Authenticator
from server.config import Config
from server.errors import StartError
from server.transport.auth_interceptor import AuthInterceptor
from server.transport.refusals import Refusals
from server.transport.tls import Certificates, TlsFiles

_MAX_STREAMS = 1024  # of one connection; what a balancer in front needs
_MAX_PENDING = 4000  # calls that gRPC holds until the event loop takes them; it cancels further ones, anybody's
_ANSWER_MS = 20_000  # for a client that is asked whether it is there
_PING_INTERVAL_MS = 5_000  # more often is an attack; docs/operations.md has clients ask every ten seconds
_HANDSHAKE_MS = 20_000  # for a greeting, and TLS; gRPC itself gives two minutes


def check_exposure(config: Config) -> None:
    """Refuse to be reached from other machines without TLS and authentication, unless the operator allows it.

    Raises:
        StartError: Says what is missing.
    """
    if is_loopback(config.listen) or config.allow_insecure:
        return
    missing = [] if config.tls_cert else ["--tls-cert and --tls-key"]
    if not config.clients and not config.tls_client_ca:
        missing.append("--clients or --tls-client-ca")
    if missing:
        raise StartError(
            f"--listen: {config.listen}: can be reached from other machines; expected {' and '.join(missing)}, "
            "or --allow-insecure"
        )


def make_authenticator(config: Config) -> Authenticator:
    """Read who may call.

    Raises:
        StartError: The file cannot be used, or names certificates that nobody is asked for.
    """
    manage = is_loopback(config.listen) if config.manage == "auto" else config.manage == "on"
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


def make_server(config: Config, authenticator: Authenticator, refusals: Refusals, calls: Calls) -> grpc.aio.Server:
    """Make a server that is not bound yet."""
    return grpc.aio.server(
        interceptors=[] if authenticator.is_open else [AuthInterceptor(authenticator, refusals, calls)],
        options=[
            ("grpc.max_receive_message_length", config.max_message_bytes),
            ("grpc.max_send_message_length", config.max_message_bytes),
            ("grpc.max_concurrent_streams", _MAX_STREAMS),
            ("grpc.server.max_pending_requests", _MAX_PENDING),  # from here on by chance, and from the second on always
            ("grpc.server.max_pending_requests_hard_limit", _MAX_PENDING),
            ("grpc.max_allowed_incoming_connections", config.max_connections),
            ("grpc.max_connection_idle_ms", round(config.max_idle_seconds * 1e3)),
            ("grpc.keepalive_time_ms", round(config.keepalive_seconds * 1e3)),
            ("grpc.keepalive_timeout_ms", _ANSWER_MS),
            ("grpc.http2.ping_timeout_ms", _ANSWER_MS),  # this one ends the connection; a minute unless set
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", _PING_INTERVAL_MS),
            ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MS),
            ("grpc.so_reuseport", 0),  # two servers on one port would share callers by chance
        ],
    )


def bind(server: grpc.aio.Server, listen: str, certificates: Certificates | None) -> str:
    """Bind the port; returns the address with the real port.

    A socket of our own tries the address first: gRPC would log the reason of a failure instead of telling it.

    Raises:
        StartError: The address cannot be had.
    """
    try:
        socket.create_server(split_address(listen), family=family_of(listen)).close()
        if certificates:
            return join_address(listen, server.add_secure_port(listen, certificates.credentials()))
        return join_address(listen, server.add_insecure_port(listen))
    except (OSError, RuntimeError) as error:
        raise StartError(f"--listen: {listen}: cannot listen: {getattr(error, 'strerror', None) or error}") from error
