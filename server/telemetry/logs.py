"""The log: lines for people, or JSON for machines; one record a request, without its content."""

import json
import logging
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Literal

from server.context import STAGES, RpcContext
from server.telemetry.tracing import trace_id_of

LogFormat = Literal["text", "json"]
_log = logging.getLogger(__name__)
_requests = logging.getLogger("server.requests")
_GRPC, _NOT_SENT, _NO_TEXT = "grpc._cython.cygrpc", "ExecuteBatchError", "Invalid encoding on"


def log_rpc(context: RpcContext, code: str, message: str = "") -> None:
    """Log a request that has ended: refusals and faults at INFO, answers at DEBUG, since metrics count these."""
    level = logging.DEBUG if code == "OK" else logging.INFO
    if not _requests.isEnabledFor(level):
        return
    text = f"{context.method} of {context.model!r}: {code}{f': {message}' if message else ''}"
    _requests.log(level, "%s", text, extra={"fields": _fields(context, code)})


class RefusalLog:
    """Lines about unauthenticated callers, who could fill a disk with them: so many a second, the rest is counted."""

    def __init__(self, max_lines: int, count_left_out: Callable[[], None], clock: Callable[[], float]) -> None:
        """Begin with a full second's worth.

        Args:
            max_lines: Of a second.
            count_left_out: Called for each line that is not written.
            clock: Seconds.
        """
        self._max_lines, self._count_left_out, self._clock = max_lines, count_left_out, clock
        self._began, self._lines = clock(), 0

    def log(self, context: RpcContext, code: str, message: str) -> None:
        """Log a request that was refused, if there is room; the first line of a later second tells what was not."""
        now = self._clock()
        if now - self._began >= 1:
            if (left_out := self._lines - self._max_lines) > 0:
                _requests.info("%d more refusals of unauthenticated callers are not logged one by one", left_out)
            self._began, self._lines = now, 0
        self._lines += 1
        if self._lines <= self._max_lines:
            log_rpc(context, code, message)
        else:
            self._count_left_out()


def _fields(context: RpcContext, code: str) -> dict[str, Any]:
    fields: dict[str, Any] = {"request_id": context.request_id, "method": context.method, "model": context.model}
    fields["code"] = code
    fields |= {"client": context.caller.name} if context.caller.name else {}
    fields["total_ms"] = _milliseconds(time.perf_counter_ns() - context.started_ns)
    if timings := context.timings:
        fields |= {f"{stage}_ms": _milliseconds(getattr(timings, f"{stage}_ns")) for stage in STAGES}
        fields["batch_rows"] = timings.batch_size
    if trace_id := trace_id_of(context.span):
        fields["trace_id"] = trace_id
    return fields


def set_up(level: str, how: LogFormat) -> None:
    """Write the log to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    lines = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(JsonFormatter() if how == "json" else lines)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger(_GRPC).addFilter(shorten)
    logging.captureWarnings(how == "json")
    sys.excepthook = _log_uncaught if how == "json" else sys.__excepthook__


def _log_uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    _log.critical("the server ends by an error of its own", exc_info=(kind, error, traceback))


def shorten(record: logging.LogRecord) -> bool:
    """Leave out what gRPC logs, with a traceback, of each value in a call's metadata that is no UTF-8.

    Make one line of an answer that could not be sent, as a rule since its caller had hung up.
    """
    if str(record.msg).startswith(_NO_TEXT):
        return False
    if record.exc_info and type(record.exc_info[1]).__name__ == _NOT_SENT:
        record.exc_info, record.levelno, record.levelname = None, logging.INFO, logging.getLevelName(logging.INFO)
    return True


class JsonFormatter(logging.Formatter):
    """One object a line: time (RFC 3339, UTC), level, logger, message, what a request's record holds, error."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def format(self, record: logging.LogRecord) -> str:
        """Write a line."""
        line: dict[str, Any] = {"time": self.formatTime(record), "level": record.levelname, "logger": record.name}
        line |= {"message": record.getMessage(), **getattr(record, "fields", {})}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def _milliseconds(duration_ns: int) -> float:
    return round(duration_ns / 1e6, 3)
