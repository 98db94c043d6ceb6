"""What carries calls: grpcio in this process, or Envoy around it; server.api.servicer says what methods are given."""

from collections.abc import Iterable, Sequence
from typing import Protocol

import grpc

from server.api.calls import Calls
from server.api.servicer import Task
from server.auth.clients import Authenticator
from server.config import Config
from server.transport.refusals import Refusals


class TakesServices(Protocol):
    """Stands for a grpc.aio.Server to which services are added."""

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Add a service, as generated code does."""


class Transport(TakesServices, Protocol):
    """Carries calls; it is opened, bound and started, in this order, and lives in the event loop.

    Attributes:
        counts_arriving: Whether it counts a message's bytes as they come.
    """

    counts_arriving: bool

    def end_calls(self, tasks: Sequence[Task]) -> None:
        """End calls; see servicer.EndCalls."""

    def open(self, config: Config, authenticator: Authenticator, refusals: Refusals, calls: Calls) -> None:
        """Take services from now on; is called once."""

    def bind(self) -> str:
        """Bind the port; returns the address with the real one.

        Raises:
            StartError: The address cannot be had, or the certificate cannot be used.
        """

    async def start(self) -> None:
        """Answer calls; returns when the port does."""

    async def stop(self, seconds: float) -> None:
        """Hang up on all callers, and end calls that last longer; what they then send ends as UNAVAILABLE.

        Args:
            seconds: That calls still have.
        """

    async def close(self) -> None:
        """End whatever is left, at once; may come at any time, and after `stop`."""
