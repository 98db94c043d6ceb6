"""What callers say of how urgent a request is, whichever protocol it comes by."""

import time

from server.context import LAST_PRIORITY, RpcContext
from server.errors import InvalidInput


def take_hints(context: RpcContext, field: str, priority: int, timeout_seconds: float) -> None:
    """Take a request's own priority and timeout beside gRPC's deadline; the earlier of both counts.

    Args:
        context: Of the request.
        field: What the protocol calls the priority, for messages.
        priority: 1 to LAST_PRIORITY; 0 for the default.
        timeout_seconds: From now; 0 for none.

    Raises:
        InvalidInput: There is no such priority.
    """
    if not 0 <= priority <= LAST_PRIORITY:
        raise InvalidInput(field, priority, f"1 (first) to {LAST_PRIORITY} (last), or 0 for the default")
    context.priority = priority or context.priority
    if timeout_seconds:
        asked = time.monotonic() + timeout_seconds
        context.deadline = asked if context.deadline is None else min(context.deadline, asked)
