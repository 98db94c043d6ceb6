"""Tells balancers how busy the server is (ORCA): with the end of every call, and as a stream beside them.

Envoy's client-side weighted round robin reads the first, gRPC's policy weighted_round_robin either.
"""

import asyncio

from server.api.servicer import Servicer
from server.errors import TooBusy, Trailers
from server.telemetry.load import Load, LoadMeter
from server.transport.orca_pb2 import OrcaLoadReport, OrcaLoadReportRequest
from server.transport.orca_pb2_grpc import OpenRcaServiceServicer

_TRAILER = "endpoint-load-metrics-bin"
_SHORTEST, _DEFAULT, _LONGEST = 1.0, 10.0, 60.0  # seconds between two reports of a stream
_RETRY_SECONDS = 1.0
# The report's field rps, which is deprecated, as 0, which it is anyway: two bytes. Envoy (1.39) decodes base64 with its
# padding alone, which gRPC leaves out; where the length is a multiple of three there is none.
_NOTHING = b"\x18\x00"


class LoadReports(OpenRcaServiceServicer):
    """Reports; lives in the event loop."""

    def __init__(self, meter: LoadMeter, max_streams: int) -> None:
        """Report to nobody.

        Args:
            meter: Says how busy the server is.
            max_streams: Beyond which further ones are refused.
        """
        self._meter, self._max_streams = meter, max_streams
        self._load, self._content = Load(), b""
        self._streams = 0

    def trailers(self) -> Trailers:
        """What goes with the end of a call."""
        load = self._meter.read()
        if load is not self._load or not self._content:
            self._load, content = load, _report(load).SerializeToString()
            self._content = content + _NOTHING * (len(content) % 3)
        return ((_TRAILER, self._content),)

    async def StreamCoreMetrics(self, request: OrcaLoadReportRequest, context: Servicer) -> None:  # noqa: N802
        """Report now, and then as often as the caller asks for, until it hangs up.

        Raises:
            TooBusy: Too many are reported to already.
        """
        if self._streams >= self._max_streams:
            message = f"{self._streams} streams of load reports; expected fewer (the server's --max-watches)"
            raise TooBusy(f"{message}; retry later", _RETRY_SECONDS, "health")
        asked = request.report_interval.ToNanoseconds() / 1e9 if request.HasField("report_interval") else _DEFAULT
        seconds = min(max(asked, _SHORTEST), _LONGEST)
        self._streams += 1
        try:
            while True:
                await context.write(_report(self._meter.read()))
                await asyncio.sleep(seconds)
        finally:
            self._streams -= 1


def _report(load: Load) -> OrcaLoadReport:
    return OrcaLoadReport(
        application_utilization=load.utilization,
        rps_fractional=load.answers_per_second,
        eps=load.faults_per_second,
        named_metrics={"queue_seconds": load.queue_seconds},
    )
