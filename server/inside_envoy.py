"""The server inside Envoy, which calls `app` for its life and for each call; see transport/envoy/launcher.py."""

import asyncio
import logging
import os
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

from server.__main__ import explain
from server.app import serve
from server.config import Config
from server.errors import EngineFault, StartError
from server.process import announce
from server.telemetry.logs import set_up
from server.transport.envoy.call import Receive, Send
from server.transport.envoy.launcher import Start
from server.transport.envoy.transport import EnvoyTransport

_log = logging.getLogger(__name__)

_ORPHANED = 1  # that nobody hears


class Inside:
    """The application that Envoy is given."""

    def __init__(self) -> None:
        self._transport: EnvoyTransport | None = None

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer a call, or live."""
        if scope["type"] == "lifespan":
            await receive()
            await self._live(Start.from_environment(), send)
        elif self._transport:
            await self._transport.application(scope, receive, send)

    async def _live(self, start: Start, send: Send) -> None:
        """Serve until the launcher says so, and end the process; at once where the launcher has died."""
        sys.executable = start.executable
        config = Config.from_command_line(start.arguments, start.program).model_copy(update={"listen": start.address})
        set_up(config.log_level, config.log_format)
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        loop.set_exception_handler(_tell)
        loop.add_reader(start.pipe, lambda: stop.set() if os.read(start.pipe, 1) else os._exit(_ORPHANED))
        self._transport = EnvoyTransport(start.address, partial(send, {"type": "lifespan.startup.complete"}))
        code = 0
        try:
            await serve(config, stop, partial(announce, config.log_format), self._transport)
        except (StartError, EngineFault) as error:
            code = explain(error, config.log_format)
        except Exception:
            _log.exception("the server has ended")
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # Envoy's own end would wait for what it holds


def _tell(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what failed in the event loop, but that pyvoy tells those who do not wait any more."""
    if not isinstance(context.get("exception"), asyncio.InvalidStateError):
        loop.default_exception_handler(context)


app = Inside()
