"""Metadata of calls as headers of HTTP/2 carry it: text as it is, bytes of names in -bin as base64."""

import base64
import binascii
from collections.abc import Iterable
from urllib.parse import quote

from server.errors import Trailers

Headers = Iterable[tuple[bytes, bytes]]
_PLAIN = " !\"#$&'()*+,/:;<=>?@[\\]^`{|}"  # which a status message may have as it is, beside letters, digits and _.-~


def metadata_of(headers: Headers) -> dict[str, str | bytes]:
    """Return what a caller says, by names in lower case; of a name that comes twice, the last.

    Values of bytes that are the same name's may be joined by commas.
    """
    metadata = dict[str, str | bytes]()
    for name, value in headers:
        key = name.decode("latin-1")
        if key.endswith("-bin"):
            try:
                metadata[key] = base64.b64decode(value.rpartition(b",")[2] + b"==")
            except binascii.Error:
                metadata[key] = b""
        else:
            metadata[key] = value.decode("latin-1")
    return metadata


def headers_of(metadata: Trailers) -> list[tuple[bytes, bytes]]:
    """Return metadata as headers."""
    return [(name.encode(), _value(name, value)) for name, value in metadata]


def _value(name: str, value: str | bytes) -> bytes:
    content = value.encode() if isinstance(value, str) else value
    return base64.b64encode(content).rstrip(b"=") if name.endswith("-bin") else content


def percent_encoded(message: str) -> bytes:
    """Return a status message as grpc-message has it."""
    return quote(message, safe=_PLAIN, errors="replace").encode()
