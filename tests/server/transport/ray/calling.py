"""A context as Ray Serve hands it to a replica, and calls of a transport without Ray."""

import asyncio
import math
from collections.abc import Callable
from typing import Any

import grpc

from server.api.calls import Calls
from server.auth.clients import Authenticator
from server.config import Config
from server.ledger import Ledger
from server.telemetry.metrics import Metrics
from server.transport.ray.methods import PROCESS, THIS_PROCESS
from server.transport.ray.transport import RayTransport
from server.transport.refusals import Refusals
from tests.server.transport.begun import Begun

PATH = "/test.Service/Run"


class Context:
    """See ray.serve.grpc_util.RayServegRPCContext."""

    def __init__(self, metadata: dict[str, str | bytes], remaining: float | None) -> None:
        self._metadata, self._remaining = metadata, remaining
        self.status: Any = None
        self.message, self.trailers = "", list[tuple[str, str | bytes]]()

    def invocation_metadata(self) -> list[tuple[str, str | bytes]]:
        return list(self._metadata.items())

    def time_remaining(self) -> float | None:
        return self._remaining

    def peer(self) -> str:
        return "ipv4:192.0.2.1:5"

    def code(self) -> Any:
        return self.status

    def set_code(self, code: grpc.StatusCode) -> None:
        self.status = code

    def set_details(self, details: str) -> None:
        self.message = details

    def set_trailing_metadata(self, metadata: list[tuple[str, str | bytes]]) -> None:
        self.trailers = metadata


def ray_context(metadata: dict[str, str | bytes] | None = None, remaining: float | None = None) -> Context:
    """Make a context, of a call that this process took unless the metadata say otherwise."""
    return Context({"x": "y", PROCESS: THIS_PROCESS} if metadata is None else metadata, remaining)


class Around:
    """A transport with one service, whose only method does as a test says."""

    def __init__(self, kind: str, method: Callable[..., Any], **limits: Any) -> None:
        self.metrics, self.ledger = Metrics(), Ledger(math.inf)
        refusals = Refusals(self.metrics, 10)
        self.transport = RayTransport()
        self.calls = Calls(self.ledger, self.metrics, 10_000, 60.0, self.transport.end_calls)
        config = Config.from_values({"max_message_bytes": 2**20} | limits)
        self.transport.open(config, Authenticator(config.clients, manage=False), refusals, self.calls)
        handler = getattr(grpc, f"{kind}_rpc_method_handler")(method)
        generic = grpc.method_handlers_generic_handler("test.Service", {"Run": handler})
        self.transport.add_generic_rpc_handlers([Begun(generic, self.calls)])

    def ask(self, content: bytes, context: Context) -> "asyncio.Task[bytes]":
        """Begin a call with one answer, in a task of its own."""
        return asyncio.ensure_future(self.transport.answer(PATH, content, context))
