"""Turns callers away before their message is read, while the server holds too much for others."""

from typing import Any

import grpc

from server.api.calls import Calls
from server.api.handler import Servicer
from server.errors import TooBusy
from server.transport.refusals import Refusals


def turn_away(calls: Calls, refusals: Refusals, name: str) -> Any:
    """Return a handler that refuses a method; None where there is room."""
    try:
        calls.ledger.check()
    except TooBusy as raised:
        error = raised.with_traceback(None)
    else:
        return None

    async def refuse(requests: object, servicer: Servicer) -> None:
        refusals.metrics.refused.labels(error.reason).inc()
        await refusals.end(name, error, servicer)

    # For gRPC every method is a stream of messages; of this one none is read.
    return grpc.stream_stream_rpc_method_handler(refuse)
