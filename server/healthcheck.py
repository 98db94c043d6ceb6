"""Asks the server's own health service; the container's healthcheck runs it. Exit code 0 means serving.

With TLS, whose names and client certificates a check from inside does not know, /readyz is asked instead.
"""

import os
import sys
import urllib.error
import urllib.request
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_TIMEOUT_SECONDS = 2


def main() -> int:
    """Check the server whose settings the environment holds."""
    wrong = _ask_http() if os.environ.get("REGARD_TLS_CERT") else _ask_health()
    if wrong:
        print(f"not serving: {wrong}", file=sys.stderr)
    return int(bool(wrong))


def _ask_health() -> str:
    """Return what is wrong."""
    with grpc.insecure_channel(f"127.0.0.1:{_port('REGARD_LISTEN', '8001')}") as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=_TIMEOUT_SECONDS)
        except grpc.RpcError as error:
            return str(error.code().name)
    serving = answer.status == health_pb2.HealthCheckResponse.SERVING
    return "" if serving else str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))


def _ask_http() -> str:
    url = f"http://127.0.0.1:{_port('REGARD_METRICS', '9090')}/readyz"
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS):
            return ""
    except urllib.error.URLError as error:
        return str(error.reason)


def _port(variable: str, default: str) -> str:
    return os.environ.get(variable, default).rpartition(":")[2]


if __name__ == "__main__":
    sys.exit(main())
