"""The log: lines for people, or JSON for machines; one record a request, without its content. __main__ sets it up."""

import json
import logging
import sys
import time
import uuid
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal

from regard.v1.types_pb2 import Timings
from server.telemetry.tracing import current_trace_id

LogFormat = Literal["text", "json"]
REQUEST_ID = "x-request-id"
_requests = logging.getLogger("server.requests")
_MOST_ID = 128


@dataclass
class Record:
    """What is known of a request; filled as it goes on."""

    id: str
    given: bool
    method: str
    model: str
    started_ns: int
    client: str = ""
    timings: Timings | None = None


record: ContextVar[Record | None] = ContextVar("record", default=None)
"""Of the request that is being answered."""


def begin(method: str, model: str, metadata: Mapping[str, str | bytes]) -> Record:
    """Begin a request's record, under the id that its caller gave, or one of its own."""
    given = metadata.get(REQUEST_ID, "")
    good = isinstance(given, str) and 0 < len(given) <= _MOST_ID and given.isprintable()
    started = Record(str(given) if good else uuid.uuid4().hex, good, method, model[:_MOST_ID], time.perf_counter_ns())
    record.set(started)
    return started


def end(ended: Record, code: str, message: str = "") -> None:
    """Log a request: refusals and faults at INFO, answers at DEBUG, since metrics count these."""
    level = logging.DEBUG if code == "OK" else logging.INFO
    if not _requests.isEnabledFor(level):
        return
    fields: dict[str, Any] = {"request_id": ended.id, "method": ended.method, "model": ended.model, "code": code}
    fields |= {"client": ended.client} if ended.client else {}
    fields["total_ms"] = _milliseconds(time.perf_counter_ns() - ended.started_ns)
    if ended.timings:
        fields |= {f"{stage}_ms": _milliseconds(getattr(ended.timings, f"{stage}_ns"))
                   for stage in ("decode", "queue", "compute", "encode")}  # fmt: skip
        fields["batch_rows"] = ended.timings.batch_size
    if trace_id := current_trace_id():
        fields["trace_id"] = trace_id
    text = f"{ended.method} of {ended.model!r}: {code}{f': {message}' if message else ''}"
    _requests.log(level, "%s", text, extra={"fields": fields})


def set_up(level: str, how: LogFormat) -> None:
    """Write the log to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    lines = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(JsonFormatter() if how == "json" else lines)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


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
