"""Asks the server's own health service, as a container's healthcheck. Exit code 0 means serving.

It takes the server's flags. Without any, those of the process with the id 1 count, which in a container is the server,
and then the environment's. With TLS, whose names and client certificates a check from inside does not know, /readyz is
asked instead.
"""

import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from server.address import split_address
from server.config import Config
from server.errors import StartError

_TIMEOUT_SECONDS = 2
_FIRST_PROCESS = Path("/proc/1/cmdline")
_ANY_HOST = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 -- listened to, not by us


def main() -> int:
    """Check the server that these settings belong to."""
    try:
        config = Config.from_command_line(sys.argv[1:] or flags_of(_FIRST_PROCESS))
    except StartError as error:
        print(f"not serving: {error}", file=sys.stderr)
        return 1
    wrong = _ask_http(config.metrics) if config.tls_cert else _ask_health(config.listen)
    if wrong:
        print(f"not serving: {wrong}", file=sys.stderr)
    return int(bool(wrong))


def flags_of(command_line: Path) -> list[str]:
    """Return the flags that a server was started with; none where that process is no server.

    Args:
        command_line: As Linux tells it: arguments that each end with a zero byte.
    """
    try:
        arguments = command_line.read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return []
    for place, argument in enumerate(arguments):
        if argument == "serve" or (argument == "server" and arguments[place - 1] == "-m"):
            return arguments[place + 1 :]
    return []


def _ask_health(listen: str) -> str:
    """Return what is wrong."""
    with grpc.insecure_channel(_from_inside(listen)) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=_TIMEOUT_SECONDS)
        except grpc.RpcError as error:
            return str(error.code().name)
    serving = answer.status == health_pb2.HealthCheckResponse.SERVING
    return "" if serving else str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))


def _ask_http(metrics: str) -> str:
    try:
        with urllib.request.urlopen(f"http://{_from_inside(metrics)}/readyz", timeout=_TIMEOUT_SECONDS):
            return ""
    except urllib.error.URLError as error:
        return str(error.reason)


def _from_inside(address: str) -> str:
    host, port = split_address(address)
    host = _ANY_HOST.get(host, host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


if __name__ == "__main__":
    sys.exit(main())
