"""The services on the gRPC port: regard.v1, the Open Inference Protocol, health and reflection."""

from typing import Any, cast

from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from regard.v1 import regard_pb2
from regard.v1.regard_pb2_grpc import RegardServiceServicer, add_RegardServiceServicer_to_server
from server.api.calls import Calls
from server.api.open_inference import open_inference_pb2
from server.api.open_inference.open_inference_pb2_grpc import (
    GRPCInferenceServiceServicer,
    add_GRPCInferenceServiceServicer_to_server,
)
from server.config import Config
from server.transport import orca_pb2
from server.transport.field_count import MessageLimits
from server.transport.health import Health
from server.transport.malformed import MalformedMessageHandler
from server.transport.orca_pb2_grpc import OpenRcaServiceServicer, add_OpenRcaServiceServicer_to_server
from server.transport.refusals import Refusals
from server.transport.transport import TakesServices

_SERVICES = (
    regard_pb2.DESCRIPTOR.services_by_name["RegardService"].full_name,
    open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name,
)
_MAX_OPEN_BYTES = 4096  # of a request to health or reflection, which name services
_MIN_TEXT_BYTES = 2**16  # names and lists in parameters need room where texts have little
_LOAD_REPORTS = orca_pb2.DESCRIPTOR.services_by_name["OpenRcaService"].full_name
_HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name


class Services:
    """Adds services to a server that has not started."""

    def __init__(self, server: TakesServices, calls: Calls, refusals: Refusals, config: Config) -> None:
        """Add health and reflection."""
        text_bytes = max(config.max_text_bytes, _MIN_TEXT_BYTES)
        told = config.max_text_bytes if config.max_text_bytes < text_bytes else 0
        limits = MessageLimits(config.max_message_fields, config.max_message_integers, text_bytes, told)
        self._handler = MalformedMessageHandler(server, calls, refusals, limits)
        self.health = Health(config.max_watches, refusals.metrics)
        self._open_to_all = open_to_all = cast(
            "Any", MalformedMessageHandler(server, calls, refusals, limits, _MAX_OPEN_BYTES)
        )
        health_pb2_grpc.add_HealthServicer_to_server(self.health, open_to_all)
        names = [*_SERVICES, _HEALTH, reflection.SERVICE_NAME, *([_LOAD_REPORTS] if config.load_reports else [])]
        # The library's own way in takes nothing but a server for one on the event loop, and would use its threads.
        add_reflection: Any = reflection_pb2_grpc.add_ServerReflectionServicer_to_server
        add_reflection(reflection.aio.ReflectionServicer(names), open_to_all)

    def add(self, regard: RegardServiceServicer, inference: GRPCInferenceServiceServicer) -> None:
        """Add the two protocols."""
        add_RegardServiceServicer_to_server(regard, self._handler)
        add_GRPCInferenceServiceServicer_to_server(inference, self._handler)

    def add_load_reports(self, reports: OpenRcaServiceServicer) -> None:
        """Add the stream of load reports; as of health, callers' messages are short and read in turn."""
        add_OpenRcaServiceServicer_to_server(reports, self._open_to_all)

    async def set_serving(self) -> None:
        """Let health say that the server and its services answer."""
        for name in ("", *_SERVICES):
            await self.health.set_status(name, serving=True)
