"""Channel options for several replicas without a proxy before them: gRPC itself spreads calls and repeats them."""

import json
from typing import Any

from regard import checks
from regard.v1 import regard_pb2

_ATTEMPTS = 4
_REPEATED_BYTES = 16 * 2**20  # of a call that are kept to repeat it; a quarter of a MiB is gRPC's default
_CHANGES = frozenset({"LoadModel", "UnloadModel"})  # of a replica
_SERVICE = regard_pb2.DESCRIPTOR.services_by_name["RegardService"]
_REPEATED = [
    {"service": _SERVICE.full_name, "method": method.name}
    for method in _SERVICE.methods
    if not method.server_streaming and method.name not in _CHANGES
]


def replica_options(*, by_load: bool = False) -> list[tuple[str, Any]]:
    """Return options with which a client spreads its calls over all addresses of its target.

    The target names them, "ipv4:10.0.0.1:8001,10.0.0.2:8001", or a name that has them, "dns:///regard:8001"; with it a
    client finds new addresses when one that it knows is gone. Replicas that do not serve are left out by their health.
    A call whose replica is gone or about to end (UNAVAILABLE) is tried four times in all, within half a second, if it
    has no more than 16 MiB; but not what changes a replica, nor streams.

    Args:
        by_load: Send more where work is sooner done, which servers tell with --load-reports; else each has its turn.

    Returns:
        Names and values, for `Client(target, options=...)` and `AsyncClient`; more may be added.

    Raises:
        InvalidArgument: by_load is no bool.

    Example:
        ```python
        options = replica_options()
        with Client("ipv4:127.0.0.1:8001,127.0.0.1:8002", options=options) as client:
            answer = client.classify(image="cat.jpg")
        ```
    """
    weighted: dict[str, Any] = {"weighted_round_robin": {"blackoutPeriod": "1s"}}
    turns: dict[str, Any] = {"round_robin": {}}
    retries = {
        "maxAttempts": _ATTEMPTS,
        "initialBackoff": "0.05s",
        "maxBackoff": "1s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    service = {
        "loadBalancingConfig": [weighted if checks.flag("by_load", by_load) else turns],
        "healthCheckConfig": {"serviceName": ""},
        "methodConfig": [{"name": _REPEATED, "retryPolicy": retries}],
    }
    return [
        ("grpc.service_config", json.dumps(service)),
        ("grpc.per_rpc_retry_buffer_size", _REPEATED_BYTES),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        ("grpc.keepalive_time_ms", 10_000),  # finds a machine that is gone without a word
        ("grpc.keepalive_timeout_ms", 2_000),
    ]
