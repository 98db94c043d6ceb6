"""What stands beside the transport of gRPC: the gateway for HTTP, where one is wanted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import grpc

from server.api.calls import Calls
from server.api.servicer import EndCalls, Task
from server.auth.clients import Authenticator
from server.config import Config
from server.errors import StartError
from server.inference.workers import Workers
from server.transport.refusals import Refusals
from server.transport.transport import TakesServices

if TYPE_CHECKING:  # its libraries are an extra
    from server.transport.gateway.transport import HttpTransport


class Both:
    """Stands for a server to which services are added, and adds them to each that there is."""

    def __init__(self, *servers: TakesServices | None) -> None:
        self._servers = [server for server in servers if server]

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Add a service, as generated code does."""
        found = list(handlers)
        for server in self._servers:
            server.add_generic_rpc_handlers(found)


def open_http(
    config: Config, authenticator: Authenticator, refusals: Refusals, calls: Calls, workers: Workers
) -> HttpTransport | None:
    """Make the gateway; None where it is off.

    Raises:
        StartError: Its libraries are not installed.
    """
    if config.http is None:
        return None
    try:
        from server.transport.gateway.transport import HttpTransport
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("starlette", "uvicorn", "h11"):
            raise
        raise StartError(f"--http: {error.name} is not installed; expected regard[server,http]") from error
    return HttpTransport(config, authenticator, refusals, calls, workers)


def ending(end_calls: EndCalls, gateways: Sequence[HttpTransport]) -> EndCalls:
    """Make what ends calls whichever way they came.

    Args:
        end_calls: Of the transport of gRPC.
        gateways: None or one, which may be put there later.
    """

    def end(tasks: Sequence[Task]) -> None:
        for gateway in gateways:
            tasks = gateway.end_calls(tasks)
        if tasks:
            end_calls(tasks)

    return end
