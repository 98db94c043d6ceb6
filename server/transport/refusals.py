"""How calls end that no method has seen: told, counted and logged like those that came further."""

import time
from typing import Any

import grpc

from server.api.servicer import Servicer
from server.auth.clients import NOBODY, Client
from server.context import RpcContext
from server.errors import ServerError, TooBusy
from server.telemetry.logs import RefusalLog, log_rpc
from server.telemetry.metrics import Metrics


class Refusals:
    """Ends RPCs; lives in the event loop."""

    def __init__(self, metrics: Metrics, max_lines: int) -> None:
        """Count from nothing; `max_lines` bounds what is logged in a second."""
        self.metrics = metrics
        self._log = RefusalLog(max_lines, metrics.log_lines_left_out.inc, time.monotonic)

    def handler(self, method: str, error: ServerError, caller: Client = NOBODY) -> Any:
        """Make a handler that ends every call of a method, and reads no message: for gRPC it is a stream of them."""
        refused = error.with_traceback(None)  # whose frames hold the call

        async def refuse(requests: object, servicer: Servicer) -> None:
            await self.end(method, refused, servicer, caller)

        return grpc.stream_stream_rpc_method_handler(refuse)

    async def end(self, method: str, error: ServerError, servicer: Servicer, caller: Client = NOBODY) -> None:
        """End an RPC.

        Args:
            method: Its name.
            error: Why.
            servicer: gRPC's side of it.
            caller: Who calls; nobody who is known, unless said.
        """
        if isinstance(error, TooBusy):
            self.metrics.refused.labels(error.reason).inc()
        context = RpcContext.begin(method, "", dict(servicer.invocation_metadata() or ()))
        self.metrics.received.labels(method).inc()
        self.metrics.observe_end(method, "", error.code.name, caller.name, None)
        if caller is NOBODY:
            self._log.log(context, error.code.name, str(error))
        else:
            context.caller = caller
            log_rpc(context, error.code.name, str(error))
        await servicer.abort(error.code, str(error), (*error.trailers, *context.trailers))
