"""What is known of an RPC while it is answered: handed down with the request, and never looked up elsewhere."""

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network
from typing import Any
from urllib.parse import unquote

from server.auth.clients import ANYONE, NOBODY, Client
from server.ledger import Account

DEFAULT_PRIORITY, LAST_PRIORITY = 2, 3
REQUEST_ID = "x-request-id"
_MAX_ID_CHARACTERS = 128

STAGES = ("decode", "queue", "compute", "encode")  # of Timings
Metadata = Mapping[str, str | bytes]


def _is_plain(text: str) -> bool:
    """Whether a text may stand in metadata."""
    return text.isascii() and text.isprintable()


def address_of(peer: str) -> str:
    """Return whose fair share an unknown caller has: of IPv6 its network's, since one host has all of 2^64 addresses.

    Args:
        peer: As gRPC names it: ipv4:ADDRESS:PORT, ipv6:[ADDRESS]:PORT or unix:PATH.
    """
    address = peer.rpartition(":")[0] or peer
    return _network_of(address) if address.startswith("ipv6:") else address


@lru_cache(maxsize=1024)
def _network_of(address: str) -> str:
    host = unquote(address).removeprefix("ipv6:").strip("[]").partition("%")[0]
    try:
        found = IPv6Address(host)
    except ValueError:
        return address
    return f"ipv4:{found.ipv4_mapped}" if found.ipv4_mapped else f"ipv6:{IPv6Network((found, 64), strict=False)}"


def share_of(caller: Client, address: str = "") -> tuple[str, str]:
    """Whose fair share something is; see RpcContext.share."""
    return caller.name, address if caller is ANYONE else ""


@dataclass(slots=True)
class Timings:
    """How long the stages of a request took, in nanoseconds, and how many rows shared its batch."""

    decode_ns: int = 0
    queue_ns: int = 0
    compute_ns: int = 0
    encode_ns: int = 0
    batch_size: int = 0

    def add(self, earlier: "Timings") -> None:
        """Add what an earlier part of the same call took, one behind the other; of batches, the larger is told."""
        for stage in STAGES:
            name = f"{stage}_ns"
            setattr(self, name, getattr(self, name) + getattr(earlier, name))
        self.batch_size = max(self.batch_size, earlier.batch_size)


@dataclass(slots=True, eq=False)
class RpcContext:
    """One RPC, or one request of a stream.

    Attributes:
        method: The RPC's name.
        model: As the caller named it.
        caller: Who calls.
        address: Where from: an IPv4 address, an IPv6 network, or a socket's path.
        request_id: The caller's, or one of our own.
        id_is_callers: Whether it is the caller's.
        deadline: When the answer is no longer wanted, on time.monotonic(), in seconds; None for no such time.
        priority: 1 is served first.
        span: Of the trace; None where nothing is traced.
        started_ns: On time.perf_counter_ns().
        timings: Once it has been computed.
        decoding_seconds: What its images have taken so far, of a CPU; charged already.
        account: What is held for it.
        received_bytes: Size of its message, which costs as much to ask of protobuf as to write it again.
    """

    method: str = ""
    model: str = ""
    caller: Client = ANYONE
    address: str = ""
    request_id: str = ""
    id_is_callers: bool = False
    deadline: float | None = None
    priority: int = DEFAULT_PRIORITY
    span: Any = None
    started_ns: int = field(default_factory=time.perf_counter_ns)
    timings: Timings | None = None
    decoding_seconds: float = 0.0
    account: Account = field(default_factory=Account)
    received_bytes: int = 0

    @classmethod
    def begin(
        cls,
        method: str,
        model: str,
        metadata: Metadata,
        remaining_seconds: float | None = None,
        peer: str = "",
        account: Account | None = None,
    ) -> "RpcContext":
        """Begin an RPC of nobody who is known yet.

        Args:
            method: Its name.
            model: As the caller named it.
            metadata: Of the call, keys in lower case.
            remaining_seconds: Until gRPC's deadline; None where there is none.
            peer: As gRPC names it; see address_of.
            account: What is held for it; None for one of its own.
        """
        given = metadata.get(REQUEST_ID, "")
        good = isinstance(given, str) and 0 < len(given) <= _MAX_ID_CHARACTERS and _is_plain(given)
        return cls(
            method,
            model[:_MAX_ID_CHARACTERS],
            NOBODY,
            address_of(peer),
            request_id=str(given) if good else f"{random.getrandbits(128):032x}",
            id_is_callers=good,
            deadline=None if remaining_seconds is None else time.monotonic() + remaining_seconds,
            account=account or Account(),
        )

    @property
    def share(self) -> tuple[str, str]:
        """Whose fair share it has, of the engine and of memory: its client's; where nobody is known, its address's."""
        caller = self.caller
        return caller.name, self.address if caller is ANYONE else ""

    @property
    def trailers(self) -> tuple[tuple[str, str], ...]:
        """The request's id, for an answer's trailing metadata."""
        return ((REQUEST_ID, self.request_id),)
