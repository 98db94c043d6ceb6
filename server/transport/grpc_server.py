"""The server's door: options of gRPC, port and TLS, and who is let in before a message is read; app uses it."""

import ipaddress
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from server.api.handler import Context, certificate_names
from server.auth.clients import Access
from server.config import Config
from server.errors import ServerError, StartError
from server.telemetry.logs import REQUEST_ID, begin, end
from server.telemetry.metrics import Metrics
from server.transport.tls import Certificates, TlsFiles

_OPEN_SERVICES = ("/grpc.health.v1.Health/",)
_REFLECTION = "/grpc.reflection."
_MANY_STREAMS = 1024  # of one connection; what a balancer in front needs


def is_loopback(listen: str) -> bool:
    """Whether an address, HOST:PORT, can be reached from this machine alone."""
    host = listen.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_exposure(config: Config) -> None:
    """Refuse to listen to strangers without TLS and a way to know them, unless told so.

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


def make_access(config: Config) -> Access:
    """Read who may call.

    Raises:
        StartError: The file cannot be used, or names certificates that nobody is asked for.
    """
    manage = is_loopback(config.listen) if config.manage == "auto" else config.manage == "on"
    access = Access(config.clients, manage=manage)
    if access.knows_certificates and not config.tls_client_ca:
        raise StartError("--clients: knows some by their certificates; expected --tls-client-ca with it")
    return access


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


def make_server(config: Config, access: Access, metrics: Metrics) -> grpc.aio.Server:
    """Make a server that is not bound yet."""
    return grpc.aio.server(
        interceptors=[_Gate(access, metrics)],
        options=[
            ("grpc.max_receive_message_length", config.max_message_bytes),
            ("grpc.max_send_message_length", config.max_message_bytes),
            ("grpc.max_concurrent_streams", _MANY_STREAMS),
            ("grpc.max_allowed_incoming_connections", config.max_connections),
            ("grpc.so_reuseport", 0),  # two servers on one port would share callers by chance
        ],
    )


def bind(server: grpc.aio.Server, listen: str, certificates: Certificates | None) -> str:
    """Bind the port; returns the address with the real port.

    A socket of our own tries the address first: gRPC would log the reason of a failure instead of telling it.

    Raises:
        StartError: The address cannot be had.
    """
    host, _, port = listen.rpartition(":")
    try:
        family = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0][0]
        socket.create_server((host.strip("[]"), int(port)), family=family).close()
        if certificates:
            return f"{host}:{server.add_secure_port(listen, certificates.credentials())}"
        return f"{host}:{server.add_insecure_port(listen)}"
    except (OSError, RuntimeError) as error:
        raise StartError(f"--listen: {listen}: cannot listen: {getattr(error, 'strerror', None) or error}") from error


class _Gate(grpc.aio.ServerInterceptor):
    """Turns strangers away before their message is read, all services but health's alike."""

    def __init__(self, access: Access, metrics: Metrics) -> None:
        self._access = access
        self._metrics = metrics

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Return the method's handler, or one that refuses."""
        metadata = dict(handler_call_details.invocation_metadata or ())
        method, handler = handler_call_details.method, await continuation(handler_call_details)
        if method.startswith(_OPEN_SERVICES):
            return handler
        name = method.rpartition("/")[2] if handler else ""  # what a stranger invents is no label
        if self._access.knows_certificates and "authorization" not in metadata and not method.startswith(_REFLECTION):
            # A certificate is only seen once the call has begun.
            return self._look_later(handler, name)
        try:
            self._access.identify(metadata)
        except ServerError as raised:
            error = raised.with_traceback(None)
        else:
            return handler

        async def refuse(requests: object, context: Context) -> None:
            await self._refuse(error, name, context)

        # For gRPC every method is a stream of messages; of this one none is read.
        return grpc.stream_stream_rpc_method_handler(refuse)

    def _look_later(self, handler: Any, name: str) -> Any:
        """Let a method look at the certificate itself; streams do so at every request (see calls)."""
        if handler is None or not handler.unary_unary:
            return handler

        async def run(request: Any, context: Context) -> Any:
            try:
                self._access.identify({}, certificate_names(context))
            except ServerError as raised:
                error = raised.with_traceback(None)
            else:
                return await handler.unary_unary(request, context)
            return await self._refuse(error, name, context)

        return grpc.unary_unary_rpc_method_handler(run, handler.request_deserializer, handler.response_serializer)

    async def _refuse(self, error: ServerError, name: str, context: Context) -> None:
        """End a call; count it and log it like those that came further."""
        own = begin(name, "", dict(context.invocation_metadata() or ()))
        self._metrics.received.labels(name).inc()
        self._metrics.observe_end(name, "", error.code.name, "", 0.0)
        end(own, error.code.name, str(error))
        await context.abort(error.code, str(error), (*error.trailers, (REQUEST_ID, own.id)))
