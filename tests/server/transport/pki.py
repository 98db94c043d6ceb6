"""A certificate authority, and a server's certificate of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import trustme


@dataclass(frozen=True)
class Pki:
    """An authority, and the files of a server's certificate."""

    authority: trustme.CA
    folder: Path

    @property
    def settings(self) -> dict[str, Any]:
        """The server's."""
        return {"tls_cert": self.folder / "cert.pem", "tls_key": self.folder / "key.pem"}

    def issue(self) -> None:
        """Write a certificate and its key, as a renewal does."""
        issued = self.authority.issue_cert("localhost", "127.0.0.1")
        (self.folder / "cert.pem").write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
        (self.folder / "key.pem").write_bytes(issued.private_key_pem.bytes())

    def credentials(self, certificate: trustme.LeafCert | None = None) -> grpc.ChannelCredentials:
        """A caller's."""
        chain = b"".join(part.bytes() for part in certificate.cert_chain_pems) if certificate else None
        key = certificate.private_key_pem.bytes() if certificate else None
        return grpc.ssl_channel_credentials(self.authority.cert_pem.bytes(), key, chain)
