"""What Envoy is started with: one plaintext port of HTTP/2, bounds, and the filter that calls Python.

https://www.envoyproxy.io/docs/envoy/latest/configuration/best_practices/edge: what it advises for who is not trusted.
"""

import json
from typing import Any

from server.config import Config
from server.transport.limits import ANSWER_SECONDS, HANDSHAKE_SECONDS, MAX_STREAMS

_API = "type.googleapis.com/envoy.extensions"
_APPLICATION = "server.inside_envoy:app"
_BUFFER_BYTES = 2**18  # of answers that wait for one caller, and of requests that wait for Python
_STREAM_WINDOW_BYTES, _CONNECTION_WINDOW_BYTES = 2**20, 2**24  # that callers may send before they are told to go on
_HEADERS_KB, _MAX_HEADERS = 32, 200
_WATCHES = ("/grpc.health.v1.Health/Watch", "/inference.GRPCInferenceService/ModelStreamInfer", "/grpc.reflection.")


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
    connections = {
        "@type": f"{_API}.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
        "max_active_downstream_connections": config.max_connections,
    }
    name = "envoy.resource_monitors.global_downstream_max_connections"
    return {
        "static_resources": {"listeners": [listener]},
        "overload_manager": {"resource_monitors": [{"name": name, "typed_config": connections}]},
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
            "stream_idle_timeout": "0s",  # see the routes
            "http2_protocol_options": {
                "max_concurrent_streams": MAX_STREAMS,
                "initial_stream_window_size": _STREAM_WINDOW_BYTES,
                "initial_connection_window_size": _CONNECTION_WINDOW_BYTES,
                "connection_keepalive": {
                    "interval": _seconds(config.keepalive_seconds),
                    "timeout": _seconds(ANSWER_SECONDS),
                },
            },
            "route_config": {"virtual_hosts": [_routes(config)]},
            "http_filters": [_python(module)],
        },
    }


def _routes(config: Config) -> dict[str, Any]:
    """Cut off callers who neither send nor read for long; those of streams may have nothing to say."""
    return {
        "name": "grpc",
        "domains": ["*"],
        "request_body_buffer_limit": config.max_message_bytes + _STREAM_WINDOW_BYTES,
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
