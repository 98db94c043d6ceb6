"""A healthy server that refuses every call of both protocols with a code, and counts those that arrive."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from regard.v1 import regard_pb2
from server.api.open_inference import open_inference_pb2

SERVICES = [service for file in (regard_pb2.DESCRIPTOR, open_inference_pb2.DESCRIPTOR)
            for service in file.services_by_name.values()]  # fmt: skip
METHODS = [f"/{service.full_name}/{method.name}" for service in SERVICES for method in service.methods]


class Refusing(grpc.GenericRpcHandler):
    """What it does with calls.

    Attributes:
        arrived: How many, by method.
    """

    def __init__(self, code: grpc.StatusCode) -> None:
        self.code, self.arrived = code, Counter[str]()

    def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any] | None":
        if details.method not in METHODS:
            return None
        self.arrived[details.method] += 1
        return grpc.stream_stream_rpc_method_handler(self.refuse)

    def refuse(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        next(requests)  # when all of it is there
        context.abort(self.code, "no")
        yield b""


class _Healthy(health_pb2_grpc.HealthServicer):
    def Check(self, request: Any, context: Any) -> Any:  # noqa: N802
        return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)

    def Watch(self, request: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        yield self.Check(request, context)


@contextmanager
def refusing(code: grpc.StatusCode) -> Iterator[tuple[Refusing, str]]:
    """Start one; yields what it counts, and its address."""
    handler = Refusing(code)
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", -1)])
    health_pb2_grpc.add_HealthServicer_to_server(_Healthy(), server)
    server.add_generic_rpc_handlers([handler])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield handler, f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def ask_for_all(address: str, *options: tuple[str, Any]) -> set[grpc.StatusCode]:
    """Call each method; returns the codes that come back."""
    codes = set[grpc.StatusCode]()
    with grpc.insecure_channel(address, options=options) as channel:
        for method in METHODS:
            call = channel.unary_unary(method, request_serializer=bytes, response_deserializer=bytes)
            try:
                call(b"", timeout=60)
            except grpc.RpcError as error:
                codes.add(error.code())
    return codes
