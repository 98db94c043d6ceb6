import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from regard.v1 import regard_pb2 as api
from server.context import RpcContext
from server.errors import InvalidInput, NotFound, Unimplemented
from server.telemetry.logs import JsonFormatter, RefusalLog, shorten
from tests.processes import ROOT
from tests.server.conftest import Running
from tests.server.fakes import Clock

TEXT = api.EmbedRequest(model="tiny-text", text="a secret of the caller")


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[list[dict[str, Any]]]:
    """What the server logs of requests from DEBUG on, as it would write it."""
    found = list[dict[str, Any]]()

    class Keeping(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(json.loads(JsonFormatter().format(record)))

    logger, handler = logging.getLogger("server.requests"), Keeping()
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield found
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


async def test_a_request_is_one_line_without_its_content(running: Running, lines: list[dict[str, Any]]) -> None:
    """With its caller's id, which goes back to the caller, and how long each stage took."""
    call = running.stub.Embed(TEXT, metadata=(("x-request-id", "mine-17"),))
    await call
    assert dict(await call.trailing_metadata())["x-request-id"] == "mine-17"
    (line,) = lines
    expected = {
        "level": "DEBUG",
        "logger": "server.requests",
        "message": "Embed of 'tiny-text': OK",
        "request_id": "mine-17",
        "method": "Embed",
        "model": "tiny-text",
        "code": "OK",
        "client": "anyone",
    }
    assert line.items() >= expected.items()
    stages = [line[f"{stage}_ms"] for stage in ("decode", "queue", "compute", "encode")]
    assert 0 < sum(stages) <= line["total_ms"]
    assert line["batch_rows"] == 1
    assert line["time"].endswith("Z")
    assert "secret" not in json.dumps(line)


async def test_a_refusal_names_the_id_under_which_it_is_logged(running: Running, lines: list[dict[str, Any]]) -> None:
    """So that whoever asks about it can be answered; ids that are none are replaced."""
    for given in ("", "x" * 200):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await running.stub.Embed(api.EmbedRequest(model="made up"), metadata=(("x-request-id", given),))
        trailers = dict(refused.value.trailing_metadata() or ())
        line = lines.pop()
        assert (line["level"], line["code"], line["request_id"]) == ("INFO", "NOT_FOUND", trailers["x-request-id"])
        assert len(line["request_id"]) == 32
        assert line["message"].startswith("Embed of 'made up': NOT_FOUND: model: 'made up'")


def test_refusals_of_unauthenticated_callers_are_logged_so_many_a_second(caplog: pytest.LogCaptureFixture) -> None:
    """A line says how many there were more, as soon as there is a next one."""
    caplog.set_level("INFO", "server.requests")
    clock, left_out = Clock(), list[int]()
    log = RefusalLog(3, lambda: left_out.append(1), clock)
    for pause_seconds, calls in ((0, 5), (0.9, 2), (0.2, 1), (5, 3), (5, 1)):
        clock.now += pause_seconds
        for _ in range(calls):
            log.log(RpcContext("Embed"), "UNAUTHENTICATED", "nobody")
    refusal = "Embed of '': UNAUTHENTICATED: nobody"
    told = "4 more refusals of unauthenticated callers are not logged one by one"
    assert caplog.messages == [refusal] * 3 + [told] + [refusal] * 5
    assert len(left_out) == 4


def test_an_error_is_within_its_line() -> None:
    """However many lines its traceback has."""
    try:
        raise RuntimeError("it\nbroke")
    except RuntimeError:
        record = logging.LogRecord("server", logging.ERROR, "file", 1, "failed: %s", ("it",), sys.exc_info())
    text = JsonFormatter().format(record)
    assert "\n" not in text
    assert json.loads(text)["error"].startswith("Traceback")


def test_what_ends_the_process_and_what_python_warns_of_are_lines_of_the_log() -> None:
    """A machine reads them all; in a process of its own, since both are settings of the whole interpreter."""
    program = """
import warnings
from server.telemetry.logs import set_up
set_up("info", "json")
warnings.warn("mind this")
raise RuntimeError("it\\nbroke")
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    warned, ended = map(json.loads, done.stderr.splitlines())
    assert ("mind this" in warned["message"], warned["level"]) == (True, "WARNING")
    assert (ended["level"], done.returncode) == ("CRITICAL", 1)
    assert ended["error"].endswith("RuntimeError: it\nbroke")


class ExecuteBatchError(Exception):
    """Named like gRPC's."""


@pytest.mark.parametrize(("error", "level"), [(ExecuteBatchError("hung up"), "INFO"), (RuntimeError("broke"), "ERROR")])
def test_an_answer_that_was_not_sent_is_one_line_and_a_fault_keeps_its_traceback(error: Exception, level: str) -> None:
    """Its caller has hung up, which it may do at will."""
    record = logging.LogRecord("grpc", logging.ERROR, "file", 1, "%s raised", ("x",), (type(error), error, None))
    assert shorten(record)
    assert (record.levelname, bool(record.exc_info)) == (level, level == "ERROR")


def test_metadata_that_is_no_text_writes_nothing() -> None:
    """GRPC logs a traceback for each value, of which a call of few bytes may have hundreds."""
    assert not shorten(logging.LogRecord("grpc", logging.ERROR, "file", 1, "Invalid encoding on %s", (b"\xff",), None))


@pytest.mark.parametrize("forged", ["\n2026-11-28 12:00:00 INFO server: forged", "\r\x1b[2K", "\u2028", "\udcff"])
def test_no_message_for_a_caller_has_more_than_one_line(forged: str) -> None:
    """Names come from callers, and what is wrong with them goes to the log."""
    for error in (InvalidInput(f"inputs[{forged}]", forged, forged), NotFound(forged), Unimplemented(forged)):
        assert str(error).isprintable()
        assert str(error).encode()
    assert len(str(Unimplemented("x" * 10_000))) < 3000


async def test_names_of_inputs_write_no_lines(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    """One record a request, on one line."""
    request = api.PredictRequest(model="tiny-text")
    request.inputs["x\nINFO forged"].shape.append(1)
    caplog.set_level("INFO", "server.requests")
    with pytest.raises(grpc.aio.AioRpcError, match="INFO forged"):
        await running.stub.Predict(request)
    assert "\nINFO forged" not in caplog.text
