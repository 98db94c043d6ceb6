"""Runs the explorer: an address to listen on, the page's URL, a browser, until Ctrl-C."""

import ipaddress
import socket
import sys
import webbrowser
from dataclasses import dataclass

import uvicorn

from regard.explorer.app import Settings, make_app
from regard.explorer.photos import PhotoStore
from regard.sources import InputError

_BACKLOG = 128
_STOP_SECONDS = 2


@dataclass(frozen=True)
class Address:
    """Where to listen; port 0 takes a free one."""

    host: str
    port: int


def read_address(value: str, *, allow_remote: bool, flag: str = "--listen") -> Address:
    """Read HOST:PORT, the value of a flag.

    Raises:
        InputError: It is none, or other machines could reach it and nobody has allowed that.
    """
    host, _, port = value.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise InputError(f"{flag} {value}: expected HOST:PORT, for example 127.0.0.1:8080")
    if not allow_remote and not _is_loopback(host):
        raise InputError(
            f"{flag} {value}: whoever reaches the page can use the server and see the photos of others, "
            "since it asks for no password; expected 127.0.0.1, ::1 or localhost, or --allow-remote"
        )
    return Address(host, int(port))


def listen(address: Address) -> socket.socket:
    """Open the socket; from here on the page is answered as soon as the application runs.

    Raises:
        OSError: The address is taken, or none of this machine's.
    """
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise OSError(f"--listen: {address.host!r} is no name of a machine") from error
    except OSError as error:
        raise OSError(f"--listen {address.host}:{address.port}: {error.strerror}") from error
    family, kind, protocol, _, where = found[0]
    opened = socket.socket(family, kind, protocol)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(where)
        opened.listen(_BACKLOG)
    except OSError as error:
        opened.close()
        raise OSError(f"--listen {address.host}:{address.port}: {error.strerror}") from error
    return opened


def url_of(opened: socket.socket, host: str) -> str:
    """Return the page's address as a browser takes it; the one of this machine where it listens on all."""
    return url_of_address(host, opened.getsockname()[1])


def url_of_address(host: str, port: int) -> str:
    """Return the same of a page that runs there."""
    if host in ("0.0.0.0", "::"):  # noqa: S104 -- compared, not listened on
        host = "localhost"
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def make_server(settings: Settings, photos: PhotoStore | None = None) -> uvicorn.Server:
    """Return a server of the application that is quiet and does not wait long for open requests at its end."""
    return uvicorn.Server(
        uvicorn.Config(
            make_app(settings, photos),
            access_log=False,
            log_level="warning",
            server_header=False,
            timeout_graceful_shutdown=_STOP_SECONDS,
            ws="none",
        )
    )


def serve(
    settings: Settings, address: Address, *, open_page: bool, fragment: str = "", photos: PhotoStore | None = None
) -> None:
    """Serve the page until Ctrl-C, which is raised as KeyboardInterrupt.

    Args:
        settings: Of the application.
        address: Where to listen.
        open_page: Open it in a browser.
        fragment: Of the link that is printed and opened, without "#".
        photos: What it has from the start.

    Raises:
        OSError: It cannot listen there.
    """
    with listen(address) as opened:
        url = url_of(opened, address.host) + (f"#{fragment}" if fragment else "")
        sys.stdout.write(f"{url}\n")
        sys.stdout.flush()
        sys.stderr.write(f"regard: exploring {settings.server}; Ctrl-C ends\n")
        if open_page:
            webbrowser.open(url)
        make_server(settings, photos).run(sockets=[opened])
    raise KeyboardInterrupt  # nothing else ends it, and uvicorn does not always raise it again


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
