"""What the server's own handlers do when a call begins, for tests of a transport without a server."""

from typing import Any

import grpc

from server.api.calls import Calls


class Begun(grpc.GenericRpcHandler):
    """Notes that a call has begun."""

    def __init__(self, handler: grpc.GenericRpcHandler, calls: Calls) -> None:
        self._handler, self._calls = handler, calls

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Find the method."""
        found = self._handler.service(handler_call_details)
        if found:
            self._calls.begin(reads=not found.request_streaming)
        return found
