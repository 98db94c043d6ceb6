"""regard as a Ray Serve application: `serve run regard.ray:app models=DIR allow_insecure=true`; docs/scaling.md.

The wheel carries the server as files that no import sees, so what Ray is given has its names here. The server is put on
the path of a process that uses one of them, a proxy's or a replica's, and not of one that imports this module alone.
"""

import sys
from functools import cache
from importlib import import_module
from typing import Any

from regard.application import find_application


@cache
def _on_ray() -> Any:
    sys.path.insert(0, str(find_application()))
    return import_module("server.on_ray")


def __getattr__(name: str) -> Any:
    """Make Replica, by which Ray's processes unpickle it, when it is first asked for."""
    if name != "Replica":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    made = {
        "__module__": __name__,
        "__qualname__": name,
        "__doc__": "A replica, by a name that any process can import.",
    }
    globals()[name] = type(name, (_on_ray().Replica,), made)
    return globals()[name]


def app(arguments: dict[str, Any]) -> Any:
    """Make the application.

    Args:
        arguments: The server's settings by name, as `regard serve --help` has them: models, clients, max_queue_size.

    Raises:
        StartError: They cannot be used.
    """
    return _on_ray().application(sys.modules[__name__].Replica, arguments)


def add_services(servicer: object, server: Any) -> None:
    """Add regard's services to Ray's gRPC server: a name for grpc_servicer_functions."""
    _on_ray().add_services(servicer, server)


def replicas_for_utilization(context: Any) -> tuple[float, dict[str, Any]]:
    """Say how many replicas are wanted: a name for autoscaling_config's policy; Ray bounds and delays what it says.

    As Kubernetes' HorizontalPodAutoscaler: so many that each is busy for 0.7 of its time. Seconds of work that wait
    count as much as busy ones (server/telemetry/load.py), so that there is no end to what is seen of too much load.

    Ray copies this function, and knows nothing of the module where it calls it.

    Args:
        context: A ray.serve.config.AutoscalingContext.
    """
    found = (context.aggregated_metrics or {}).get("utilization", {})
    if not found:
        return context.target_num_replicas, {}
    return sum(found.values()) / len(found) * context.current_num_replicas / 0.7, {}
