"""Who may call what: clients by token or certificate, what each may do, and how much; calls asks it at the door.

Without a file of clients everybody is "anyone" and may do everything that the address allows.
"""

import hashlib
import hmac
import logging
import tomllib
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from server.auth.quota import Quota
from server.errors import PermissionDenied, StartError, Unauthenticated

_log = logging.getLogger(__name__)

Permission = Literal["infer", "attention", "manage"]
ALL: tuple[Permission, ...] = ("infer", "attention", "manage")
_SCHEME = "bearer "
_LEAST_TOKEN = 16
# What changes the server, or lets it open what lies outside the models folder.
_MANAGING = frozenset(
    ("LoadModel", "UnloadModel", "RepositoryModelLoad", "RepositoryModelUnload", "TraceSetting", "LogSettings",
     "SystemSharedMemoryStatus", "SystemSharedMemoryRegister", "SystemSharedMemoryUnregister",
     "CudaSharedMemoryStatus", "CudaSharedMemoryRegister", "CudaSharedMemoryUnregister")
)  # fmt: skip


class _Entry(BaseModel):
    """A client in the file.

    Attributes:
        tokens: Secrets, any of which will do, so that one can be replaced while the other is in use.
        token_sha256: Likewise, but only the SHA-256 of each, in hexadecimal.
        certificate: Common name or alternative name of its certificate, with mutual TLS.
        allow: What it may do.
        requests_per_second: Most requests; None for no limit. A second's worth may come at once.
        compute_seconds_per_second: Most time of the engine; likewise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    tokens: tuple[str, ...] = ()
    token_sha256: tuple[str, ...] = ()
    certificate: str | None = None
    allow: tuple[Permission, ...] = ("infer", "attention")
    requests_per_second: float | None = Field(default=None, gt=0)
    compute_seconds_per_second: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not (self.tokens or self.token_sha256 or self.certificate):
            raise ValueError("expected tokens, token_sha256 or certificate")
        if any(len(token) < _LEAST_TOKEN for token in self.tokens):
            raise ValueError(f"tokens: expected at least {_LEAST_TOKEN} characters each")
        if any(len(digest) != 64 or set(digest) - set("0123456789abcdef") for digest in self.token_sha256):
            raise ValueError("token_sha256: expected 64 hexadecimal digits, in lower case, each")
        return self


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    clients: dict[str, _Entry] = Field(min_length=1)


class Client:
    """Somebody who calls."""

    def __init__(self, name: str, allow: Iterable[Permission] = ALL, quota: Quota | None = None) -> None:
        self.name = name
        self.quota = quota or Quota(name)
        self._allow = frozenset(allow)

    def require(self, permission: Permission, what: str) -> None:
        """Check a permission.

        Raises:
            PermissionDenied: The client has it not.
        """
        if permission not in self._allow:
            raise PermissionDenied(f"{what}: {self.name} may not; expected a client with {permission!r}")


ANYONE = Client("anyone")
current: ContextVar[Client] = ContextVar("client", default=ANYONE)
"""Who has made the call that is being answered."""


class Access:
    """Tells who calls, from metadata or certificate, and whether the method is open."""

    def __init__(self, file: Path | None, *, manage: bool) -> None:
        """Read the file.

        Args:
            file: In TOML: a table clients.NAME each; None lets everybody in.
            manage: Whether management is offered at all.

        Raises:
            StartError: It cannot be used; names the field, never a token.
        """
        self._file = file
        self._manage = manage
        self._stamp = self._look()
        self._clients = dict[str, Client]()
        self._by_digest, self._by_certificate = dict[bytes, Client](), dict[str, Client]()
        if file:
            try:
                self._take(_read(file))
            except ValueError as error:
                raise StartError(f"--clients: {error}") from error

    def identify(self, metadata: Mapping[str, str | bytes], certificate_names: Iterable[str] = ()) -> Client:
        """Find who calls.

        Args:
            metadata: Of the call, keys in lower case.
            certificate_names: Of the caller's certificate, where there is one.

        Raises:
            Unauthenticated: Nobody who is known.
        """
        if self._file is None:
            return ANYONE
        self._reread()
        header = str(metadata.get("authorization", ""))
        if header:
            return self._find_token(header)
        found = next((self._by_certificate[name] for name in certificate_names if name in self._by_certificate), None)
        if found is None:
            raise Unauthenticated("authorization: missing; expected metadata 'authorization: Bearer TOKEN'")
        return found

    def check(self, client: Client, method: str) -> None:
        """Check whether a client may call a method.

        Raises:
            PermissionDenied: It may not, or nobody may.
        """
        if method not in _MANAGING:
            client.require("infer", method)
            return
        if not self._manage:
            raise PermissionDenied(f"{method}: management is off on this address; expected a server with --manage on")
        client.require("manage", method)

    @property
    def knows_certificates(self) -> bool:
        """Whether some client is known by its certificate alone."""
        return bool(self._by_certificate)

    def _find_token(self, header: str) -> Client:
        """Compare with every token that there is, however early one fits: time must not tell how near a guess is."""
        token = header[len(_SCHEME) :].strip() if header.lower().startswith(_SCHEME) else ""
        digest, found = hashlib.sha256(token.encode()).digest(), None
        for known, client in self._by_digest.items():
            if hmac.compare_digest(known, digest):
                found = client
        if found is None or not token:
            raise Unauthenticated("authorization: not the token of a client; expected 'Bearer TOKEN' with one that is")
        return found

    def _look(self) -> tuple[int, int]:
        try:
            status = self._file.stat() if self._file else None
        except OSError:
            return getattr(self, "_stamp", (0, 0))
        return (status.st_mtime_ns, status.st_ino) if status else (0, 0)

    def _reread(self) -> None:
        """Take the file again if it has changed; one that cannot be used leaves the clients as they were."""
        stamp = self._look()
        if stamp == self._stamp or self._file is None:
            return
        self._stamp = stamp
        try:
            self._take(_read(self._file))
        except ValueError as error:
            _log.error("--clients: the changed file cannot be used, the last one stays: %s", error)
            return
        _log.info("--clients: read again, %d clients", len(self._clients))

    def _take(self, file: _File) -> None:
        by_digest, by_certificate, clients = dict[bytes, Client](), dict[str, Client](), dict[str, Client]()
        for name, entry in file.clients.items():
            rates = entry.requests_per_second, entry.compute_seconds_per_second
            known = self._clients.get(name)
            quota = known.quota if known and known.quota.rates == rates else Quota(name, *rates)
            client = clients[name] = Client(name, entry.allow, quota)
            digests = [hashlib.sha256(token.encode()).digest() for token in entry.tokens]
            digests += map(bytes.fromhex, entry.token_sha256)
            if entry.certificate in by_certificate or not by_digest.keys().isdisjoint(digests):
                raise ValueError(f"{self._file}: clients.{name}: expected tokens and a certificate of its own")
            by_digest |= dict.fromkeys(digests, client)
            if entry.certificate:
                by_certificate[entry.certificate] = client
        self._clients, self._by_digest, self._by_certificate = clients, by_digest, by_certificate


def _read(file: Path) -> _File:
    """Read a file of clients; errors are ValueErrors that hold no secret."""
    try:
        return _File.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise ValueError(f"{file}: cannot be read: {error.strerror}") from error
    except tomllib.TOMLDecodeError:
        raise ValueError(f"{file}: not TOML") from None  # whose message might quote a token
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(map(str, first["loc"])) or "content"
        raise ValueError(f"{file}: {field}: {first['msg'].removeprefix('Value error, ')}") from None
