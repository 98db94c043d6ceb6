"""Verdicts of the checks that ask a server, which is made up here."""

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from bench.gpu import device_memory, load
from bench.gpu.checks import memory, out_of_memory, serving, throughput
from bench.gpu.load import Seen, asked_of, make_request
from bench.gpu.rows import Row
from bench.gpu.setting import Part, Setting
from bench.servers import Serving
from regard.v1 import regard_pb2 as api
from tests.golden import GOLDEN_MODELS

STAND_IN = Setting("cpu", GOLDEN_MODELS, 600)
(PART,) = STAND_IN.parts()
GOOD = Seen(100.0, 1.0, 2.0, 0, "", 0.5, 0.5)
BAD = replace(GOOD, errors=3, first_error="INTERNAL: it broke")


class Refusal(grpc.RpcError):
    """What a call raises."""

    def __init__(self, code: grpc.StatusCode) -> None:
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return "no memory"


def raises(code: grpc.StatusCode) -> Callable[[Any], Any]:
    """A call that is refused."""

    def call(request: Any) -> Any:
        raise Refusal(code)

    return call


def server() -> Any:
    """A server of which only the memory is looked at."""
    return SimpleNamespace(seconds_to_ready=1.0, memory_mb=(0.0, 100.0))


def pretend(module: Any, monkeypatch: pytest.MonkeyPatch, one: Any, sees: Callable[[int], Seen]) -> list[list[Part]]:
    """Put a server in a check's hands; returns what it was started with."""
    started, asked = list[list[Part]](), list[int]()

    @contextmanager
    def start(setting: Setting, parts: Sequence[Part], *flags: str) -> Iterator[Serving]:
        started.append(list(parts))
        yield one

    def ask(one: Serving, requests: Any, callers: int, seconds: float) -> Seen:
        asked.append(callers)
        return sees(len(asked))

    monkeypatch.setattr(module, "serving", start)
    monkeypatch.setattr(module, "ask", ask)
    return started


def test_a_call_that_fails_under_load_fails_its_row_and_each_artifact_has_its_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The third of all loads has errors."""
    started = pretend(serving, monkeypatch, server(), lambda number: BAD if number == 3 else GOOD)
    monkeypatch.setattr(serving, "by_h2load", lambda one, part, seconds: Row("h2load"))
    rows = list(serving.check(STAND_IN))
    assert started == [[PART]]
    assert [row.why for row in rows if row.status == "failed"] == ["3 errors, INTERNAL: it broke"]
    assert [row.status for row in rows].count("passed") == 6


def test_an_artifact_that_is_not_served_fails_and_the_next_one_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what was raised."""
    started = pretend(serving, monkeypatch, server(), lambda number: GOOD)
    start = serving.serving  # type: ignore[attr-defined]

    @contextmanager
    def broken_first(setting: Setting, parts: Sequence[Part], *flags: str) -> Iterator[Serving]:
        if not started:
            started.append([])
            raise RuntimeError("it does not start")
        with start(setting, parts) as one:
            yield one

    monkeypatch.setattr(serving, "serving", broken_first)
    monkeypatch.setattr(serving, "by_h2load", lambda one, part, seconds: Row("h2load"))
    monkeypatch.setattr(Setting, "parts", lambda setting: [PART, replace(PART, name="other/1")])
    rows = list(serving.check(STAND_IN))
    assert [row.name for row in rows if row.status == "failed"] == [PART.name]
    assert any(row.name.startswith("other/1, 32 callers") for row in rows)


def test_attention_above_the_servers_bound_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of the last layer where it is below, or a row of it."""
    names = [layer.row_bytes({}, 8) for layer in PART.contract.attention]
    assert len(names) > 1
    for room, expected in ((sum(names), "all attention"), (names[-1], "attention of the last layer"), (1, None)):
        bounds = SimpleNamespace(max_answer_bytes=load._OUTPUT_BYTES + room, held_bytes=2**40)
        monkeypatch.setattr(load.Config, "from_command_line", lambda arguments, bounds=bounds: bounds)  # type: ignore[attr-defined]
        asked = list(asked_of(PART.contract, 8, 32))
        assert asked == ["plain", "a row of the last layer", *filter(None, [expected])]


def test_a_first_call_that_fails_is_an_error_of_the_load() -> None:
    """Nobody listens there."""
    one: Any = SimpleNamespace(address="127.0.0.1:1", cpu_seconds=0.0)
    seen = load.ask(one, [make_request(PART, 1, 8)], 2, 5.0)
    assert seen.errors == 1
    assert seen.first_error.startswith("UNAVAILABLE")


@pytest.mark.parametrize(
    ("sizes", "seconds", "status"),
    [
        ([50, 100, 100, 121], 60, "passed"),
        ([50, 100, 100, 122], 60, "failed"),
        ([50, 100, 100, 900], 59, "measured"),
    ],
)
def test_memory_may_grow_by_a_little_after_a_quarter_of_a_minute_or_more(
    sizes: list[float], seconds: float, status: str
) -> None:
    """5 % and 16 MB."""
    assert memory.grown("it", sizes, seconds).status == status


def test_the_first_error_under_load_is_kept_and_a_call_that_fails_alone_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of twelve loads the second has errors."""
    pretend(memory, monkeypatch, server(), lambda number: BAD if number == 2 else GOOD)
    refused = list[api.PredictRequest]()

    def call(request: api.PredictRequest) -> None:
        if not refused:
            refused.append(request)
            raise Refusal(grpc.StatusCode.INTERNAL)

    @contextmanager
    def calling(one: Serving) -> Iterator[Any]:
        yield call

    monkeypatch.setattr(memory, "calling", calling)
    rows = list(memory.check(STAND_IN))
    failed = [row.why for row in rows if row.status == "failed"]
    assert failed == ["INTERNAL: no memory", "3 errors, the first: INTERNAL: it broke"]


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (grpc.StatusCode.INTERNAL, "passed"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "skipped"),
        (grpc.StatusCode.UNAVAILABLE, "failed"),
    ],
)
def test_the_engine_has_to_say_that_it_has_no_memory(code: grpc.StatusCode, status: str) -> None:
    """A refusal at admission says nothing of it."""
    row = out_of_memory.refused("it", raises(code), api.PredictRequest())
    assert row.status == status
    assert f"{code.name}: no memory" in row.measured + row.why


def test_what_was_answered_before_is_answered_after() -> None:
    """With the same bytes."""
    before, other = api.PredictResponse(), api.PredictResponse()
    before.outputs["it"].data, other.outputs["it"].data = b"1", b"2"
    request = api.PredictRequest()
    assert out_of_memory.again("it", lambda _: before, request, before).status == "passed"
    assert out_of_memory.again("it", lambda _: other, request, before).status == "failed"
    assert out_of_memory.again("it", raises(grpc.StatusCode.INTERNAL), request, before).status == "failed"
    assert out_of_memory.refused("it", lambda _: before, request).status == "measured"


def test_the_large_request_is_below_the_bound_of_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a row takes."""
    assert out_of_memory.rows_of(PART) == 2048
    monkeypatch.setattr(out_of_memory, "_MAX_BYTES", 100_000)
    rows = out_of_memory.rows_of(PART)
    assert 1 < rows < 2048
    assert make_request(PART, rows, 512).ByteSize() <= 100_000


class Cuda:
    """A GPU's memory, of so many bytes."""

    def __init__(self, free: int) -> None:
        self.free, self.pieces = free, dict[int, int]()

    def cudaSetDevice(self, gpu: int) -> int:  # noqa: N802 -- CUDA's name
        return 0

    def cudaMalloc(self, address: Any, size: ctypes.c_size_t) -> int:  # noqa: N802 -- CUDA's name
        if size.value > self.free:
            return 2
        self.free -= size.value
        address._obj.value = len(self.pieces) + 1
        self.pieces[address._obj.value] = size.value
        return 0

    def cudaFree(self, address: ctypes.c_void_p) -> int:  # noqa: N802 -- CUDA's name
        assert address.value
        self.free += self.pieces.pop(address.value)
        return 0


def test_memory_that_is_taken_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the driver, all but less than the smallest piece."""
    cuda = Cuda(3 * 2**30 + 2**27 + 5)
    monkeypatch.setattr(device_memory, "load_cuda", lambda: cuda)
    with device_memory.all_taken(0) as taken:
        assert taken == 3 * 2**30 + 2**27
        assert cuda.free == 5
    assert cuda.free == 3 * 2**30 + 2**27 + 5
    assert cuda.pieces == {}


def test_an_artifact_that_does_not_load_is_a_row_and_the_others_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """As is a run that raises."""

    class Made:
        expected_seconds = 0.0

        def __init__(self, part: Part, device: Any) -> None:
            if part.name == "broken/1":
                raise RuntimeError("it does not load")
            self.part = part

        def measure(self, rows: int, seconds_left: float) -> str:
            if rows == 2:
                raise RuntimeError("it does not run")
            return "fast"

    monkeypatch.setattr(throughput, "Pair", Made)
    monkeypatch.setattr(throughput, "attention_cost", lambda parts, device, setting: iter(()))
    monkeypatch.setattr(Setting, "parts", lambda setting: [replace(PART, name="broken/1"), PART])
    rows = list(throughput.check(STAND_IN))
    assert [(row.name, row.why) for row in rows if row.status == "failed"] == [
        ("broken/1", "it does not load"),
        (f"{PART.name}, 2 rows", "it does not run"),
    ]
    assert [row.measured for row in rows].count("fast") == len(throughput.BATCHES) - 1
