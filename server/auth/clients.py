"""Who may call what: clients by token or certificate, what each may do, and how much.

Without a file of clients everybody is "anyone" and may do everything that the address allows.
"""

import hashlib
import hmac
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from artifact.errors import explain
from server.auth.quota import Quota
from server.auth.reloading import Reloading
from server.errors import PermissionDenied, StartError, Unauthenticated

Permission = Literal["infer", "attention", "manage"]
ALL: tuple[Permission, ...] = ("infer", "attention", "manage")
_SCHEME = "bearer "
_MIN_TOKEN_CHARACTERS = 16
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
        weight: Its share of the engine while others wait, too: with 2 it gets twice what a client with 1 gets.
        sample: Whether numbers of its inputs' attention may go into metrics, where a model's inputs are sampled.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tokens: tuple[str, ...] = ()
    token_sha256: tuple[str, ...] = ()
    certificate: str | None = None
    allow: tuple[Permission, ...] = ("infer", "attention")
    requests_per_second: float | None = Field(default=None, gt=0)
    compute_seconds_per_second: float | None = Field(default=None, gt=0)
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    sample: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not (self.tokens or self.token_sha256 or self.certificate):
            raise ValueError("expected tokens, token_sha256 or certificate")
        if any(len(token) < _MIN_TOKEN_CHARACTERS for token in self.tokens):
            raise ValueError(f"tokens: expected at least {_MIN_TOKEN_CHARACTERS} characters each")
        if any(len(digest) != 64 or set(digest) - set("0123456789abcdef") for digest in self.token_sha256):
            raise ValueError("token_sha256: expected 64 hexadecimal digits, in lower case, each")
        return self


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    clients: dict[str, _Entry] = Field(min_length=1)


class Client:
    """Somebody who calls."""

    def __init__(
        self,
        name: str,
        allow: Iterable[Permission] = ALL,
        quota: Quota | None = None,
        weight: float = 1.0,
        *,
        sample: bool = True,
    ) -> None:
        self.name = name
        self.weight = weight  # of its share of the engine
        self.may_be_sampled = sample  # as metrics of attention
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
NOBODY = Client("", allow=())


def certificate_names(auth_context: Mapping[str, Iterable[bytes]] | None) -> list[str]:
    """Names on a caller's certificate, as gRPC tells of it; TLS has checked that its authority is known."""
    kinds = ("x509_common_name", "x509_subject_alternative_name")
    return [name.decode(errors="replace") for kind in kinds for name in (auth_context or {}).get(kind, ())]


class _NotTheirOwn(ValueError):
    """Two clients show the same token or certificate."""


@dataclass(frozen=True)
class _Known:
    """The clients of a file: by name, and by what they show of themselves."""

    clients: dict[str, Client]
    by_digest: dict[bytes, Client]
    by_certificate: dict[str, Client]


class Authenticator:
    """Tells who calls, from metadata or certificate, and whether the method is open to them."""

    def __init__(self, file: Path | None, *, manage: bool) -> None:
        """Read the file.

        Args:
            file: In TOML: a table clients.NAME each; None lets everybody in.
            manage: Whether management is offered at all.

        Raises:
            StartError: It cannot be used; names the field, never a token.
        """
        self._manage = manage
        self._known = _Known({}, {}, {})
        self._file: Reloading[_Known] | None = None
        if file:
            try:
                self._file = Reloading("--clients", [file], lambda: _read(file, self._known.clients))
            except ValueError as error:
                raise StartError(f"--clients: {error}") from error
            self._known = self._file.content

    @property
    def is_open(self) -> bool:
        """Whether everybody is let in."""
        return self._file is None

    def refresh(self) -> None:
        """Take the file again if it has changed; one that cannot be used leaves the clients as they were."""
        if self._file and self._file.refresh():
            self._known = self._file.content

    def identify(self, metadata: Mapping[str, str | bytes], certificate_names: Iterable[str] = ()) -> Client:
        """Find who calls.

        Args:
            metadata: Of the call, keys in lower case.
            certificate_names: Of the caller's certificate, where there is one.

        Raises:
            Unauthenticated: Nobody who is known.
        """
        if self.is_open:
            return ANYONE
        header = str(metadata.get("authorization", ""))
        if header:
            return self._find_token(header)
        certificates = self._known.by_certificate
        found = next((certificates[name] for name in certificate_names if name in certificates), None)
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
        return bool(self._known.by_certificate)

    def _find_token(self, header: str) -> Client:
        """Compare with every token that there is, however early one fits: time must not tell how near a guess is."""
        token = header[len(_SCHEME) :].strip() if header.lower().startswith(_SCHEME) else ""
        digest, found = hashlib.sha256(token.encode()).digest(), None
        for known, client in self._known.by_digest.items():
            if hmac.compare_digest(known, digest):
                found = client
        if found is None or not token:
            raise Unauthenticated("authorization: not the token of a client; expected 'Bearer TOKEN' with one that is")
        return found


def _read(file: Path, before: Mapping[str, Client]) -> _Known:
    """Read a file of clients.

    Args:
        file: In TOML.
        before: The clients until now, by name.

    Raises:
        ValueError: It cannot be used; holds no secret.
    """
    try:
        return _index(_File.model_validate(tomllib.loads(file.read_text(encoding="utf-8"))), before)
    except OSError as error:
        raise ValueError(f"{file}: cannot be read: {error.strerror}") from error
    except tomllib.TOMLDecodeError:
        raise ValueError(f"{file}: not TOML") from None  # whose message might quote a token
    except ValidationError as error:
        raise ValueError(f"{file}: {explain(error, show_value=False)}") from None
    except _NotTheirOwn as error:
        raise ValueError(f"{file}: {error}") from None


def _index(file: _File, before: Mapping[str, Client]) -> _Known:
    """Make the clients of a file; whoever's rates are unchanged keeps what is left of them.

    Raises:
        _NotTheirOwn: Two clients show the same.
    """
    known = _Known({}, {}, {})
    for name, entry in file.clients.items():
        client = _client(name, entry, before.get(name))
        digests = [hashlib.sha256(token.encode()).digest() for token in entry.tokens]
        digests += map(bytes.fromhex, entry.token_sha256)
        if entry.certificate in known.by_certificate or not known.by_digest.keys().isdisjoint(digests):
            raise _NotTheirOwn(f"clients.{name}: expected tokens and a certificate of its own")
        known.clients[name] = client
        known.by_digest.update(dict.fromkeys(digests, client))
        if entry.certificate:
            known.by_certificate[entry.certificate] = client
    return known


def _client(name: str, entry: _Entry, before: Client | None) -> Client:
    rates = entry.requests_per_second, entry.compute_seconds_per_second
    quota = before.quota if before and before.quota.rates == rates else Quota(name, *rates)
    return Client(name, entry.allow, quota, entry.weight, sample=entry.sample)
