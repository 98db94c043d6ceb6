"""uvicorn's connections, with bounds that it has not: how many, how long headers take, and who does not read."""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Generator, Iterable
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import uvicorn
from h11 import LocalProtocolError
from uvicorn.protocols.http.h11_impl import H11Protocol

from server.address import family_of, join_address, split_address
from server.config import Config
from server.errors import StartError
from server.transport.limits import HANDSHAKE_SECONDS
from server.transport.tls import Certificates

Address = tuple[str, int]
Application = Callable[[Any, Any, Any], Awaitable[None]]
Connect = Callable[[], asyncio.Protocol]
_MAX_HEADER_BYTES = 64 * 2**10
_BACKLOG = 1024
_NO_DESCRIPTOR_SECONDS = 1.0  # until one is looked for again


class Connections:
    """Those that are open or about to be, by the caller's IP address and port."""

    def __init__(self, most: int) -> None:
        """Begin without any; further ones than `most` are closed."""
        self._most = most
        self._coming = dict[Address, socket.socket]()  # whose handshake is not over, who came first first
        self._open = dict[Address, asyncio.Transport]()

    @contextmanager
    def coming(self, address: Address, one: socket.socket) -> Generator[None, None, None]:
        """Count one until its handshake is over; of too many the one that has taken longest is closed."""
        self._coming[address] = one
        if len(self._open) + len(self._coming) > self._most:
            self._end(next(iter(self._coming)))
        try:
            yield
        finally:
            if self._coming.get(address) is one:
                del self._coming[address]

    def add(self, transport: asyncio.Transport) -> bool:
        """Take note of one; whether there is room for it."""
        self._coming.pop(_address_of(transport), None)
        if len(self._open) >= self._most:
            return False
        self._open[_address_of(transport)] = transport
        return True

    def discard(self, transport: asyncio.Transport) -> None:
        """Take note that one is closed."""
        self._open.pop(_address_of(transport), None)

    def abort_coming(self) -> None:
        """Close all whose handshake is not over."""
        for address in list(self._coming):
            self._end(address)

    def _end(self, address: Address) -> None:
        with suppress(OSError):  # its caller was faster
            self._coming.pop(address).shutdown(socket.SHUT_RDWR)

    def abort(self, address: Address) -> None:
        """Close one at once, whatever its caller has not read."""
        if transport := self._open.get(address):
            transport.abort()

    def abort_all(self) -> None:
        """Close all of them."""
        for transport in list(self._open.values()):
            transport.abort()

    def names_of(self, address: Address) -> Iterable[str]:
        """Yield the names on a caller's certificate, which TLS has checked."""
        transport = self._open.get(address)
        certificate: Any = (transport.get_extra_info("peercert") if transport else None) or {}
        for part in certificate.get("subject", ()):
            yield from (value for name, value in part if name == "commonName")
        yield from (value for _, value in certificate.get("subjectAltName", ()))


def _address_of(transport: asyncio.Transport) -> Address:
    found: Address = (transport.get_extra_info("peername") or ("", 0))[:2]
    return found


class _Connection(H11Protocol):
    """One connection; there is one call at a time in it, and between two it waits for headers for so long."""

    def __init__(self, connections: Connections, **given: Any) -> None:
        super().__init__(**given)
        self._all = connections
        self._waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take it, or close it where there are too many."""
        super().connection_made(transport)
        if self._all.add(transport):
            self._wait_for_headers()
        else:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._all.discard(self.transport)
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read what has come; a request that has begun and whose headers are not whole has so long."""
        try:
            super().data_received(data)
        except LocalProtocolError:  # uvicorn refuses what is no HTTP behind an answer, where nothing can be said
            self.transport.abort()
        if self.cycle is None or self.cycle.response_complete:
            if self._waiting is None and not self.transport.is_closing():
                self._wait_for_headers()
        else:
            self._stop_waiting()

    def _wait_for_headers(self) -> None:
        self._waiting = self.loop.call_later(HANDSHAKE_SECONDS, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._waiting:
            self._waiting.cancel()
            self._waiting = None


class _TlsServer:
    """Accepts connections for TLS; the event loop's own server tells of none before its handshake is over."""

    def __init__(self, listening: socket.socket, connect: Connect, context: ssl.SSLContext, all_: Connections) -> None:
        self._listening, self._connect, self._context, self._all = listening.dup(), connect, context, all_
        self._loop, self._handshakes = asyncio.get_running_loop(), set[asyncio.Task[None]]()
        self._accepting = asyncio.create_task(self._accept())

    def close(self) -> None:
        """Listen no more, and wait for no handshake."""
        self._accepting.cancel()
        self._all.abort_coming()

    async def wait_closed(self) -> None:
        """Return when that is done."""
        await asyncio.wait([self._accepting, *self._handshakes])

    async def _accept(self) -> None:
        with self._listening:
            while True:
                try:
                    one, address = await self._loop.sock_accept(self._listening)
                except ConnectionError:  # its caller is gone
                    continue
                except OSError:  # no descriptor is left
                    await asyncio.sleep(_NO_DESCRIPTOR_SECONDS)
                    continue
                handshake = asyncio.create_task(self._shake_hands(one, address[:2]))
                self._handshakes.add(handshake)
                handshake.add_done_callback(self._handshakes.discard)

    async def _shake_hands(self, one: socket.socket, address: Address) -> None:
        if self._accepting.cancelling():  # closed since it came
            one.close()
            return
        with self._all.coming(address, one), suppress(OSError):
            await self._loop.connect_accepted_socket(
                self._connect, one, ssl=self._context, ssl_handshake_timeout=HANDSHAKE_SECONDS
            )


class _Server(uvicorn.Server):
    """uvicorn's, in an event loop that has other work, and whose signals are others'."""

    def __init__(self, config: uvicorn.Config, connections: Connections) -> None:
        super().__init__(config)
        self._all = connections
        self.listening = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave them."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so; as uvicorn's, which counts nobody before a handshake of TLS, and gives it a minute."""
        config, state = self.config, self.server_state
        protocol: Any = config.http_protocol_class

        def connect() -> asyncio.Protocol:
            made: asyncio.Protocol = protocol(config=config, server_state=state, app_state={})
            return made

        self.servers = [await self._listen(one, connect) for one in sockets or ()]
        self.started = True
        self.listening.set()

    async def _listen(self, one: socket.socket, connect: Connect) -> Any:
        if self.config.ssl:
            one.setblocking(False)
            one.listen(self.config.backlog)
            return _TlsServer(one, connect, self.config.ssl, self._all)
        return await asyncio.get_running_loop().create_server(connect, sock=one, backlog=self.config.backlog)


class Listener:
    """Listens for HTTP."""

    def __init__(self, config: Config, application: Application, connections: Connections) -> None:
        """Make a server that is not bound yet."""
        assert config.http is not None  # noqa: S101 -- or there is none
        self._address = config.http
        self._settings = uvicorn.Config(
            application,
            http=partial(_Connection, connections),  # type: ignore[arg-type]
            loop="none",
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="critical",  # what it says of callers; what fails in the application that says itself
            access_log=False,
            proxy_headers=False,  # anybody may write them
            server_header=False,
            h11_max_incomplete_event_size=_MAX_HEADER_BYTES,
            timeout_keep_alive=round(config.max_idle_seconds),
            backlog=_BACKLOG,
        )
        self._connections = connections
        self._socket: socket.socket | None = None
        self._serving: asyncio.Task[None] | None = None
        self._server: _Server | None = None

    def bind(self, certificates: Certificates | None) -> str:
        """Bind the port; returns the address with the real one.

        Raises:
            StartError: The address cannot be had.
        """
        try:
            self._socket = socket.create_server(split_address(self._address), family=family_of(self._address))
        except OSError as error:
            raise StartError(f"--http: {self._address}: cannot listen: {error.strerror or error}") from error
        self._settings.load()
        self._settings.ssl = certificates.context() if certificates else None
        return join_address(self._address, self._socket.getsockname()[1])

    async def start(self) -> None:
        """Answer requests; returns when the port does."""
        assert self._socket is not None  # noqa: S101 -- it is bound first
        self._server = server = _Server(self._settings, self._connections)
        self._serving = asyncio.create_task(server.serve(sockets=[self._socket]))
        listening = asyncio.create_task(server.listening.wait())
        await asyncio.wait([self._serving, listening], return_when=asyncio.FIRST_COMPLETED)
        if self._serving.done():
            self._serving.result()

    async def stop(self, seconds: float, end_calls: Callable[[], None]) -> None:
        """Listen no more; after so many seconds end the calls that are left, and after as many again the connections.

        Args:
            seconds: To wait.
            end_calls: Lets each call tell its caller.
        """
        if self._server and self._serving:
            self._server.should_exit = True
            await asyncio.wait([self._serving], timeout=seconds)
            end_calls()
            await asyncio.wait([self._serving], timeout=seconds)
            self._connections.abort_all()
            self._server.force_exit = True
            await self._serving
            self._server = None
        if self._socket:
            self._socket.close()
