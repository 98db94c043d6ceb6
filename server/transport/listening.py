"""Where calls may be listened for, whatever carries them."""

import socket

from server.address import family_of, is_loopback, split_address
from server.config import Config
from server.errors import StartError


def check_exposure(config: Config) -> None:
    """Refuse to be reached from other machines without TLS and authentication, unless the operator allows it.

    Raises:
        StartError: Says what is missing.
    """
    flags = {"--listen": config.listen, "--http": config.http}
    exposed = next((flag for flag, address in flags.items() if address and not is_loopback(address)), None)
    if exposed is None or config.allow_insecure:
        return
    reached = f"{exposed}: {flags[exposed]}: can be reached from other machines"
    if exposed == "--listen" and config.transport == "envoy":
        raise StartError(f"{reached}, and --transport envoy has no TLS here; expected --allow-insecure")
    missing = [] if config.tls_cert else ["--tls-cert and --tls-key"]
    if not config.clients and not config.tls_client_ca:
        missing.append("--clients or --tls-client-ca")
    if missing:
        raise StartError(f"{reached}; expected {' and '.join(missing)}, or --allow-insecure")


def cannot_listen(listen: str, error: OSError | RuntimeError) -> StartError:
    """Say that an address cannot be had, and why."""
    return StartError(f"--listen: {listen}: cannot listen: {getattr(error, 'strerror', None) or error}")


def try_address(listen: str) -> None:
    """See whether a socket can be bound to an address.

    Raises:
        OSError: It cannot.
    """
    socket.create_server(split_address(listen), family=family_of(listen)).close()
