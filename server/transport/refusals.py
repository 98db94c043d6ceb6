"""How calls end that no method has seen: told, counted and logged like those that came further."""

from server.api.handler import Servicer
from server.context import RpcContext
from server.errors import ServerError
from server.telemetry.logs import log_rpc
from server.telemetry.metrics import Metrics


class Refusals:
    """Ends RPCs; lives in the event loop."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics

    async def end(self, method: str, error: ServerError, servicer: Servicer) -> None:
        """End an RPC of nobody who is known.

        Args:
            method: Its name.
            error: Why.
            servicer: gRPC's side of it.
        """
        context = RpcContext.begin(method, "", dict(servicer.invocation_metadata() or ()))
        self.metrics.received.labels(method).inc()
        self.metrics.observe_end(method, "", error.code.name, "", 0.0)
        log_rpc(context, error.code.name, str(error))
        await servicer.abort(error.code, str(error), (*error.trailers, *context.trailers))
