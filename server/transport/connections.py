"""Hangs up on callers when the server ends: what they still send then ends as UNAVAILABLE.

gRPC itself would end calls that come while it closes as CANCELLED, which callers do not retry, and which they have not
asked for.
"""

import contextlib
import os
import socket
from collections.abc import Container, Iterator
from pathlib import Path

Address = tuple[str, int]
_DESCRIPTORS = Path("/dev/fd")  # of this process, on Linux and macOS
_INTERNET = (socket.AF_INET, socket.AF_INET6)


def hang_up(port: int, callers: Container[Address] | None = None) -> None:
    """Close the connections to a port of this process for both sides, after what was written to them.

    Where the system does not list them, they stay.

    Args:
        port: Ours.
        callers: IP addresses and ports of those who are hung up on; None for all.
    """
    _shut_down(port, listening=False, callers=callers)


def stop_listening(port: int) -> None:
    """Take no more connections to a port of this process: whoever is hung up on comes back at once.

    Where the system does not list what listens, it goes on.
    """
    _shut_down(port, listening=True)


def _shut_down(port: int, *, listening: bool, callers: Container[Address] | None = None) -> None:
    for one in _sockets():
        with one, contextlib.suppress(OSError):  # its caller was faster
            listens = bool(one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
            if one.family not in _INTERNET or one.getsockname()[1] != port or listens != listening:
                continue
            if callers is None or one.getpeername()[:2] in callers:
                one.shutdown(socket.SHUT_RDWR)


def _sockets() -> Iterator[socket.socket]:
    """Yield this process's sockets, by numbers of their own: the original's may be another's any moment."""
    for path in _DESCRIPTORS.iterdir() if _DESCRIPTORS.is_dir() else ():
        try:
            number = os.dup(int(path.name))
        except OSError:
            continue
        try:
            found = socket.socket(fileno=number)
        except OSError:  # no socket
            os.close(number)
            continue
        yield found
