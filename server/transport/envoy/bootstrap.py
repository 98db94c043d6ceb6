"""What Envoy is started with: one plaintext port of HTTP/2, bounds, and the filter that calls Python.

https://www.envoyproxy.io/docs/envoy/latest/configuration/best_practices/edge: what it advises for who is not trusted.
"""

import json
from typing import Any

from server.config import Config
from server.memory import available_bytes
from server.transport.limits import ANSWER_SECONDS, HANDSHAKE_SECONDS

_API = "type.googleapis.com/envoy.extensions"
_APPLICATION = "server.inside_envoy:app"
# That are read of a connection at a time, and of answers that wait for one caller. A read is worked off whole before
# Envoy counts what it answered, and whatever all connections' reads make is there at once.
_BUFFER_BYTES = 2**14
_MAX_STREAMS = 256  # of one connection: each takes some 20 KB, here and in Envoy, whether or not its answer is read
_STREAM_WINDOW_BYTES, _CONNECTION_WINDOW_BYTES = 2**20, 2**24  # that callers may send before they are told to go on
_MAX_OPEN_BYTES = 2**16  # of a request to health or reflection that waits for its turn
_HEAP, _RESET_FROM, _LOOK_SECONDS = "envoy.resource_monitors.fixed_heap", (0.85, 0.95), 0.25
_LARGE_POWER_OF_TWO = 17  # streams with fewer bytes than that are never reset for their memory
_RELEASE_BYTES = 2**26  # of what was freed, given back in a second: Envoy's allocator is everybody's, and keeps it
_HEADERS_KB, _MAX_HEADERS = 32, 200
# Further calls of a read wait for the event loop's turns, one in each: who resets them (CVE-2023-44487) or hangs up
# at the first refusal has done so by then, and Python never hears of them. A connection half of whose first hundred
# calls were reset within a second is closed.
_RUNTIME = {"http.max_requests_per_io_cycle": 1, "overload.premature_reset_total_stream_count": 100}
_PATHS = "[!-$&-~]+"  # pyvoy decodes what is percent-encoded, and never answers where that is no UTF-8


def make_bootstrap(config: Config, host: str, port: int, module: str) -> dict[str, Any]:
    """Write Envoy's configuration, envoy.config.bootstrap.v3.Bootstrap.

    Args:
        config: The server's settings.
        host: IP address to listen on.
        port: Likewise, not 0.
        module: The file of pyvoy's dynamic module.
    """
    listener = {
        "name": "grpc",
        "address": {"socket_address": {"address": host, "port_value": port}},
        "per_connection_buffer_limit_bytes": _BUFFER_BYTES,
        "filter_chains": [{"filters": [_connection_manager(config, module)]}],
    }
    return {
        "static_resources": {"listeners": [listener]},
        "overload_manager": _bounds(config),
        "memory_allocator_manager": {"bytes_to_release": _RELEASE_BYTES, "memory_release_interval": _seconds(1)},
        "layered_runtime": {"layers": [{"name": "server", "static_layer": _RUNTIME}]},
    }


def _bounds(config: Config) -> dict[str, Any]:
    """Bound connections; and reset what waits for most memory, where nearly all there is has been taken."""
    connections = {
        "@type": f"{_API}.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
        "max_active_downstream_connections": config.max_connections,
    }
    heap = {
        "@type": f"{_API}.resource_monitors.fixed_heap.v3.FixedHeapConfig",
        "max_heap_size_bytes": available_bytes(),
    }
    largest, most = _RESET_FROM
    reset = {"name": _HEAP, "scaled": {"scaling_threshold": largest, "saturation_threshold": most}}
    return {
        "refresh_interval": _seconds(_LOOK_SECONDS),
        "resource_monitors": [
            {"name": "envoy.resource_monitors.global_downstream_max_connections", "typed_config": connections},
            {"name": _HEAP, "typed_config": heap},
        ],
        "actions": [{"name": "envoy.overload_actions.reset_high_memory_stream", "triggers": [reset]}],
        "buffer_factory_config": {"minimum_account_to_track_power_of_two": _LARGE_POWER_OF_TWO},
    }


def _connection_manager(config: Config, module: str) -> dict[str, Any]:
    return {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": f"{_API}.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "grpc",
            "codec_type": "HTTP2",
            "server_header_transformation": "PASS_THROUGH",
            "generate_request_id": False,
            "use_remote_address": True,  # an address that a caller writes into a header is nobody's
            "skip_xff_append": True,
            "max_request_headers_kb": _HEADERS_KB,
            "common_http_protocol_options": {
                "idle_timeout": _seconds(config.max_idle_seconds),
                "max_headers_count": _MAX_HEADERS,
            },
            "request_headers_timeout": _seconds(HANDSHAKE_SECONDS),
            "stream_idle_timeout": "0s",  # the server looks after calls; a stream may have nothing to say
            "stream_flush_timeout": _seconds(config.max_stall_seconds),
            "http2_protocol_options": {
                "max_concurrent_streams": _MAX_STREAMS,
                "initial_stream_window_size": _STREAM_WINDOW_BYTES,
                "initial_connection_window_size": _CONNECTION_WINDOW_BYTES,
                "connection_keepalive": {
                    "interval": _seconds(config.keepalive_seconds),
                    "timeout": _seconds(ANSWER_SECONDS),
                },
            },
            "route_config": {"virtual_hosts": [_routes(config)]},
            "http_filters": [_readable(), _python(module)],
        },
    }


def _routes(config: Config) -> dict[str, Any]:
    """Bound what waits for Python of a request; above that Envoy answers 413."""
    open_to_all = {"match": {"prefix": "/grpc."}, "non_forwarding_action": {}}
    return {
        "name": "grpc",
        "domains": ["*"],
        "request_body_buffer_limit": config.max_message_bytes + _STREAM_WINDOW_BYTES,
        "routes": [open_to_all | {"request_body_buffer_limit": _MAX_OPEN_BYTES}],
    }


def _readable() -> dict[str, Any]:
    """Turn away who asks for what is no path."""
    path = {"url_path": {"path": {"safe_regex": {"regex": _PATHS}}}}
    policy = {"permissions": [path], "principals": [{"any": True}]}
    return {
        "name": "paths",
        "typed_config": {
            "@type": f"{_API}.filters.http.rbac.v3.RBAC",
            "rules": {"action": "ALLOW", "policies": {"readable": policy}},
        },
    }


def _python(module: str) -> dict[str, Any]:
    settings = json.dumps({"app": _APPLICATION, "interface": "asgi", "root_path": "", "lifespan": True})
    return {
        "name": "python",
        "typed_config": {
            "@type": f"{_API}.filters.http.dynamic_modules.v3.DynamicModuleFilter",
            "dynamic_module_config": {"module": {"local": {"filename": module}}},
            "filter_name": "pyvoy",
            "terminal_filter": True,
            "filter_config": {
                "@type": "type.googleapis.com/google.protobuf.StringValue",
                "value": settings,
            },
        },
    }


def _seconds(seconds: float) -> str:
    return f"{seconds:.3f}s"
