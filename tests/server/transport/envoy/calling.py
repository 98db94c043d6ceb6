"""An application of gRPC without a server, and callers of it that do as a test says."""

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc

from server.api.calls import Calls
from server.ledger import Ledger
from server.telemetry.metrics import Metrics
from server.transport.auth_interceptor import AuthInterceptor
from server.transport.envoy.application import GrpcApplication
from server.transport.envoy.messages import prefixed
from server.transport.refusals import Refusals
from tests.server.transport.begun import Begun


@dataclass
class Caller:
    """One call of a caller, over a stream as pyvoy gives it.

    Attributes:
        path: The method.
        chunks: What it sends; behind the last comes an empty one each time.
        headers: Its metadata.
        is_gone: Whether it has hung up, or has read all.
        room: Set while the transport takes more of the answer.
        sent: What it was sent.
    """

    path: str = "/test.Service/Unary"
    chunks: list[bytes] = field(default_factory=lambda: [prefixed(b"question")])
    headers: dict[str, str] = field(default_factory=dict)
    ends: bool = True
    is_gone: bool = False
    room: asyncio.Event = field(default_factory=asyncio.Event)
    sent: list[dict[str, Any]] = field(default_factory=list)
    received: int = 0
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.room.set()

    def scope(self) -> dict[str, Any]:
        """What ASGI says of it."""
        headers = {"content-type": "application/grpc", "te": "trailers"} | self.headers
        named = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        return {"type": "http", "path": self.path, "client": ("127.0.0.1", 1234), "headers": named}

    async def receive(self) -> dict[str, Any]:
        """Give the next chunk."""
        await asyncio.sleep(0)
        if self.is_gone:
            return {"type": "http.disconnect"}
        self.received += 1
        self.changed.set()
        content = self.chunks.pop(0) if self.chunks else b""
        if not content and not self.ends:
            self.arrived.set()
            await asyncio.get_running_loop().create_future()  # nothing comes any more
        return {"type": "http.request", "body": content, "more_body": bool(self.chunks) or not self.ends}

    async def send(self, event: dict[str, Any]) -> None:
        """Take what is sent.

        Raises:
            OSError: The caller is gone.
        """
        if event["type"] == "http.response.body" and event["more_body"]:
            await self.room.wait()
        if self.is_gone:
            raise OSError
        self.sent.append(event)
        self.changed.set()

    async def until(self, happens: Callable[[], bool]) -> None:
        """Wait until something is so, which may be when something was received or sent."""
        async with asyncio.timeout(30):
            while not happens():
                self.changed.clear()
                await self.changed.wait()

    async def ended(self) -> str:
        """Wait for the code with which the call ends."""
        await self.until(lambda: self.status[0] != "none")
        return self.status[0]

    @property
    def body(self) -> bytes:
        """What came of the answer."""
        return b"".join(event.get("body", b"") for event in self.sent)

    @property
    def status(self) -> tuple[str, str]:
        """The code and the message, wherever they stand."""
        found = dict(header for event in self.sent for header in event.get("headers", ()))
        code = int(found.get(b"grpc-status", b"-1"))
        name = next((one.name for one in grpc.StatusCode if one.value[0] == code), "none")
        return name, found.get(b"grpc-message", b"").decode()


class Application:
    """A service whose methods do as a test says."""

    def __init__(self, interceptor: Callable[[Refusals, Calls], AuthInterceptor] | None = None, **limits: Any) -> None:
        self.metrics = Metrics()
        self.ledger = Ledger(limits.get("max_held_bytes", math.inf))
        refusals = Refusals(self.metrics, 10)
        stall = limits.get("max_stall_seconds", 60.0)
        self.calls = Calls(self.ledger, self.metrics, 0, stall, lambda tasks: self.grpc.end_calls(tasks))
        made = interceptor(refusals, self.calls) if interceptor else None
        self.grpc = GrpcApplication(made, self.calls, refusals, 10_000)

    def add(self, **methods: Any) -> None:
        """Add methods by their names and kinds: unary_unary_Name."""
        handlers = {}
        for name, method in methods.items():
            kind, _, short = name.rpartition("_")
            handlers[short] = getattr(grpc, f"{kind}_rpc_method_handler")(method)
        generic = grpc.method_handlers_generic_handler("test.Service", handlers)
        self.grpc.add_generic_rpc_handlers([Begun(generic, self.calls)])

    def ask(self, caller: Caller) -> "asyncio.Task[None]":
        """Begin a call, in a task of its own."""
        return asyncio.ensure_future(self.grpc(caller.scope(), caller.receive, caller.send))
