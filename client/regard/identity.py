"""Who a client is and whom it trusts: TLS files and tokens."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import grpc

from regard.errors import InvalidCall

Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Identity:
    """What a client connects with.

    Attributes:
        credentials: For TLS; None for a connection that is not encrypted.
        token: What the server knows the client by; None where it asks for none.
    """

    credentials: grpc.ChannelCredentials | None = None
    token: str | None = None


def read_identity(
    authority: Path | None = None,
    certificate: Path | None = None,
    key: Path | None = None,
    token_file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    *,
    tls: bool = False,
) -> Identity:
    """Read what a client connects with.

    Args:
        authority: Who signs the server's certificate, PEM; without it those that the system trusts.
        certificate: The client's own with its chain, PEM, for mutual TLS.
        key: Its key.
        token_file: Holds the token, and nothing else.
        environment: Where REGARD_TOKEN may be, in place of a file.
        tls: Whether to use TLS where none of the files is given.

    Raises:
        OSError: A file cannot be read.
        ValueError: One of certificate and key is missing, or a token has a line break within.
    """
    if (certificate is None) != (key is None):
        raise ValueError("--cert, --key: one is missing; expected both or neither")
    token = (environment or {}).get("REGARD_TOKEN")
    if token_file:
        token = _read("--token-file", token_file).decode(errors="replace").strip()
    if token and not token.isprintable():
        raise ValueError("the token holds what is no character; expected one line")
    credentials = None
    if tls or authority or certificate:
        files = {"--ca": authority, "--key": key, "--cert": certificate}
        read = [_read(flag, path) if path else None for flag, path in files.items()]
        credentials = grpc.ssl_channel_credentials(*read)
    return Identity(credentials, token or None)


def _read(flag: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise OSError(f"{flag} {path}: {error.strerror}; expected a file that can be read") from error


def metadata_of(token: str | None) -> Metadata:
    """Return what goes with each call.

    Raises:
        InvalidCall: gRPC could not send this token; its value is not repeated in the message.
    """
    if token is not None and not (isinstance(token, str) and token.isascii() and token.isprintable()):
        raise InvalidCall.of("token: (not shown); expected a str of printable ASCII characters")
    return (("authorization", f"Bearer {token}"),) if token else ()
