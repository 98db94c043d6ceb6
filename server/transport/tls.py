"""TLS: reads the server's certificate and, for mutual TLS, who signs callers' certificates; app binds the port with it.

The files are looked at before each handshake, so that a renewed certificate is taken without a restart.
"""

import logging
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc

from server.errors import StartError

_log = logging.getLogger(__name__)
_Stamp = tuple[tuple[int, int], ...]


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
        self._files = files
        self._stamp = self._look()
        try:
            self._first = self._read()
        except (OSError, ValueError) as error:
            raise StartError(f"--tls-cert, --tls-key, --tls-client-ca: cannot be used: {_explain(error)}") from error

    def credentials(self) -> grpc.ServerCredentials:
        """Make what a port is bound with; callers need a certificate where there is an authority to check it."""
        needed = self._files.client_authority is not None
        return grpc.dynamic_ssl_server_credentials(self._first, self._changed, needed)  # type: ignore[arg-type]

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Read the files again if they have changed; called by gRPC before a handshake. None keeps what there is."""
        stamp = self._look()
        if stamp == self._stamp:
            return None
        self._stamp = stamp
        try:
            read = self._read()
        except (OSError, ValueError) as error:
            _log.error("changed TLS files cannot be used, the last ones stay: %s", _explain(error))
            return None
        _log.info("TLS: the certificate was read again")
        return read

    def _look(self) -> _Stamp:
        """When the files were changed; what is absent for a moment is as good as unchanged until it is there."""
        try:
            return tuple((status.st_mtime_ns, status.st_ino) for status in map(Path.stat, self._files))
        except OSError:
            return getattr(self, "_stamp", ())

    def _read(self) -> grpc.ServerCertificateConfiguration:
        certificate, key, *authority = [path.read_bytes() for path in self._files]
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._files.certificate, self._files.key, password=_no_password)
        for one in authority:
            context.load_verify_locations(cadata=one.decode("ascii", errors="replace"))
        return grpc.ssl_server_certificate_configuration([(key, certificate)], authority[0] if authority else None)


def _no_password() -> bytes:
    raise ssl.SSLError("the key is encrypted; expected one without a password")


def _explain(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return getattr(error, "reason", None) or str(error)
