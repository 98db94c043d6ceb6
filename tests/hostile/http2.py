"""Calls of gRPC written frame by frame (RFC 9113): callers who never read, or never end, as no library does."""

import errno
import gzip
import socket
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
from hpack import Decoder

from server.address import split_address

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, CONTINUATION = 0, 1, 3, 4, 9
END_STREAM, END_HEADERS, PADDED, PRIORITY = 1, 4, 8, 32
MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE = 3, 4
_NAMES = {str(code.value[0]).encode(): code.name for code in grpc.StatusCode}


def frame(kind: int, content: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    """Write a frame."""
    return len(content).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + content


def greeting(window: int = 65_535) -> bytes:
    """Open a connection; the window is how many bytes of each answer may come before they are read."""
    return PREFACE + frame(SETTINGS, struct.pack(">HI", INITIAL_WINDOW_SIZE, window))


def fields(path: str, **more: str) -> bytes:
    """Write the header of a call, without compression (RFC 7541, 6.2.2)."""
    given = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "localhost"}
    given |= {"content-type": "application/grpc", "te": "trailers"} | {
        name.replace("_", "-"): value for name, value in more.items()
    }
    return b"".join(b"\0" + _string(name) + _string(value) for name, value in given.items())


def call(path: str, message: bytes, stream: int = 1, *, gzipped: bool = False, **more: str) -> bytes:
    """Write a whole call with one message; at most 64 KiB of it may come before the server says more may."""
    if gzipped:
        message, more = gzip.compress(message), more | {"grpc_encoding": "gzip"}
    body = bytes([gzipped]) + len(message).to_bytes(4, "big") + message
    parts = [body[start : start + 16_384] for start in range(0, len(body), 16_384)]
    head = frame(HEADERS, fields(path, **more), flags=END_HEADERS, stream=stream)
    data = b"".join(frame(DATA, part, stream=stream) for part in parts)
    return head + data + frame(DATA, flags=END_STREAM, stream=stream)


@contextmanager
def connected(address: str) -> Iterator[socket.socket]:
    """Yield a connection on which nothing is said, from an address that the honest caller does not have.

    Raises:
        ConnectionError: There is none, or no port is left for another: of thousands a second each stays for a minute.
    """
    own = ("127.0.0.9", 0) if sys.platform == "linux" else None
    try:
        connection = socket.create_connection(split_address(address), timeout=10, source_address=own)
    except OSError as error:
        if error.errno in (errno.EADDRINUSE, errno.EADDRNOTAVAIL):
            raise ConnectionError from error
        raise
    with connection:
        yield connection


def read_code(connection: socket.socket, seconds: float) -> str:
    """Read until the first call's code; "no answer", or "closed", where none comes, and HTTP's where that is no 200."""
    ends, received, decoder = time.monotonic() + seconds, bytearray(), Decoder()
    while True:
        while (frame := _take_frame(received)) is not None:
            kind, flags, content = frame
            if kind == HEADERS:
                headers = dict(decoder.decode(_without_padding(flags, content), raw=True))
                if code := headers.get(b"grpc-status"):
                    return _NAMES[code]
                if (status := headers.get(b":status", b"200")) != b"200":
                    return f"HTTP {status.decode()}"
            elif kind == RESET:
                return "closed"
        connection.settimeout(max(ends - time.monotonic(), 0.001))
        try:
            part = connection.recv(65_536)
        except TimeoutError:
            return "no answer"
        except ConnectionError:
            return "closed"
        if not part:
            return "closed"
        received += part


def _take_frame(received: bytearray) -> tuple[int, int, bytes] | None:
    """Take the kind, flags and content of the first frame; None where it is not whole."""
    end = 9 + int.from_bytes(received[:3], "big")
    if len(received) < max(end, 9):
        return None
    kind, flags, content = received[3], received[4], bytes(received[9:end])
    del received[:end]
    return kind, flags, content


def _without_padding(flags: int, content: bytes) -> bytes:
    """Return the fields of a frame of headers (RFC 9113, 6.2)."""
    begin, end = 0, len(content)
    if flags & PADDED:
        begin, end = 1, end - content[0]
    return content[begin + 5 if flags & PRIORITY else begin : end]


def _string(text: str) -> bytes:
    content = text.encode()
    return _length(len(content)) + content


def _length(number: int) -> bytes:
    """Write an integer with a prefix of 7 bits (RFC 7541, 5.1)."""
    if number < 127:
        return bytes([number])
    number, rest = number - 127, bytearray([127])
    while number >= 128:
        rest.append(number % 128 + 128)
        number //= 128
    return bytes(rest) + bytes([number])
