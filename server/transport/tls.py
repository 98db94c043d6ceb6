"""TLS: the server's certificate and, for mutual TLS, who signs callers' certificates.

The files are looked at before each handshake, so that a renewed certificate is taken without a restart.
"""

import ssl
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import grpc

from server.auth.reloading import Reloading
from server.errors import StartError


@dataclass(frozen=True)
class TlsFiles:
    """Files in PEM form: the certificate with its chain, its key, and for mutual TLS the callers' authority."""

    certificate: Path
    key: Path
    client_authority: Path | None = None

    def __iter__(self) -> Iterator[Path]:
        yield from (path for path in (self.certificate, self.key, self.client_authority) if path)


class Certificates:
    """What handshakes are done with; a changed file that cannot be used leaves the last good one in place."""

    def __init__(self, files: TlsFiles) -> None:
        """Read the files.

        Raises:
            StartError: One cannot be read, is no PEM, or certificate and key do not belong together.
        """
        self._needs_clients = files.client_authority is not None
        self._paths = files
        try:
            self._files = Reloading("TLS", tuple(files), lambda: _read(files))
        except ValueError as error:
            raise StartError(f"--tls-cert, --tls-key, --tls-client-ca: cannot be used: {error}") from error

    def context(self) -> ssl.SSLContext:
        """Make what Python's own TLS is done with; each handshake has the newest certificate."""
        context = _context(self._paths)
        newest = [context]

        def choose(handshake: ssl.SSLSocket | ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
            if self._files.refresh():
                with suppress(OSError, ValueError):  # changed again since it was read
                    newest[0] = _context(self._paths)
            handshake.context = newest[0]

        context.sni_callback = choose
        return context

    def credentials(self) -> grpc.ServerCredentials:
        """Make what a port is bound with; callers need a certificate where there is an authority to check it."""
        first = self._files.content
        return grpc.dynamic_ssl_server_credentials(first, self._changed, self._needs_clients)  # type: ignore[arg-type]

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Called by gRPC in a thread of its own before a handshake; None keeps what there is."""
        return self._files.content if self._files.refresh() else None


def _read(files: TlsFiles) -> grpc.ServerCertificateConfiguration:
    """Read the files, and see whether they can be used.

    Raises:
        ValueError: They cannot.
    """
    try:
        certificate, key, *authority = [path.read_bytes() for path in files]
        _context(files)
    except (OSError, ValueError) as error:
        raise ValueError(_explain(error)) from error
    return grpc.ssl_server_certificate_configuration([(key, certificate)], authority[0] if authority else None)


def _context(files: TlsFiles) -> ssl.SSLContext:
    """Make what handshakes are done with; callers need a certificate where there is an authority to check it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key, password=_no_password)
    if files.client_authority:
        context.load_verify_locations(cadata=files.client_authority.read_text("ascii", errors="replace"))
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _no_password() -> bytes:
    raise ssl.SSLError("the key is encrypted; expected one without a password")


def _explain(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return getattr(error, "reason", None) or str(error)
