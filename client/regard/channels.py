"""What a client connects with: address, limits, credentials, token and timeout, checked before a channel is made."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from regard import checks
from regard.application import DEFAULT_TIMEOUT_SECONDS as DEFAULT_TIMEOUT_SECONDS
from regard.identity import Metadata, metadata_of

DEFAULT_MAX_MESSAGE_BYTES = 256 * 2**20
"""Room for all of ViT-L/16's attention over one image (about 60 MB) four times over."""
ChannelOptions = Sequence[tuple[str, Any]]
"""Further gRPC channel options: names and values."""


@dataclass(frozen=True)
class Connection:
    """What either client connects with, checked.

    Attributes:
        address: As gRPC takes it.
        options: Of the channel.
        credentials: None for a channel that is not encrypted.
        metadata: What goes with each call.
        timeout: Seconds that a call may take, unless the call says otherwise.
    """

    address: str
    options: list[tuple[str, Any]]
    credentials: grpc.ChannelCredentials | None
    metadata: Metadata
    timeout: float | None

    def seconds(self, timeout: float | None) -> float | None:
        """Return how long one call may take.

        Raises:
            InvalidCall: The timeout is no number of seconds.
        """
        return self.timeout if timeout is None else checks.seconds("timeout", timeout)


def connection(
    address: str,
    timeout: float,
    max_message_bytes: int,
    credentials: grpc.ChannelCredentials | None,
    token: str | None,
    options: ChannelOptions,
) -> Connection:
    """Check a client's arguments.

    Raises:
        InvalidCall: One of them is of another type than it says, or cannot be used.
    """
    if not checks.text("address", address):
        raise checks.invalid("address", address, "HOST:PORT")
    if credentials is not None and not isinstance(credentials, grpc.ChannelCredentials):
        raise checks.invalid("credentials", credentials, "grpc.ChannelCredentials, or None")
    all_options = _channel_options(max_message_bytes, options)
    return Connection(address, all_options, credentials, metadata_of(token), checks.seconds("timeout", timeout))


def _channel_options(max_message_bytes: int, options: ChannelOptions) -> list[tuple[str, Any]]:
    """Return the options of a channel; the caller's own come last and win."""
    max_bytes = checks.integer("max_message_bytes", max_message_bytes, -1, checks.MAX_INT32)
    limits = [
        ("grpc.max_receive_message_length", max_bytes),
        ("grpc.max_send_message_length", max_bytes),
    ]
    try:
        return [*limits, *((checks.text("options", name), value) for name, value in options)]
    except (TypeError, ValueError) as error:
        raise checks.invalid("options", options, "pairs of a name and a value") from error
