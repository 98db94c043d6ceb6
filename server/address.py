"""HOST:PORT, as flags give it."""

import ipaddress
import socket


def split_address(address: str) -> tuple[str, int]:
    """Part HOST:PORT; an IPv6 host comes in brackets and is returned without.

    Raises:
        ValueError: It is no such address.
    """
    host, _, port = address.rpartition(":")
    if not host or not (port.isascii() and port.isdecimal()) or int(port) > 65535:
        raise ValueError("expected HOST:PORT with a port from 0 to 65535, for example 127.0.0.1:8001 or [::1]:8001")
    return host.removeprefix("[").removesuffix("]"), int(port)


def join_address(address: str, port: int) -> str:
    """The same address with another port."""
    return f"{address.rpartition(':')[0]}:{port}"


def family_of(address: str) -> socket.AddressFamily:
    """IPv4 or IPv6.

    Raises:
        OSError: The host has no address.
    """
    host, port = split_address(address)
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]


def is_loopback(address: str) -> bool:
    """Whether an address can be reached from this machine alone."""
    host = split_address(address)[0]
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
