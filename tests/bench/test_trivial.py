"""The trivial graph: what is served, what is sent for it, and the rows that come out."""

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import pytest

from bench import trivial
from bench.__main__ import main
from bench.generator import Measured, Target
from bench.peers import OPEN_INFERENCE, common
from bench.servers import Serving
from bench.targets import ECHO, TRANSPORTS, TRIVIAL
from bench.trivial import serving_echo, serving_regard_on
from bench.trivial_graph import make_arrays, make_request, save_graph
from server.api.open_inference import open_inference_pb2 as pb

TARGET = Target("http://127.0.0.1:1/", (), is_grpc=True)


def answer_of(serving: Serving) -> pb.ModelInferResponse:
    """What a server says to the request."""
    with grpc.insecure_channel(serving.address) as channel:
        call = channel.unary_unary(
            OPEN_INFERENCE, pb.ModelInferRequest.SerializeToString, pb.ModelInferResponse.FromString
        )
        answer: pb.ModelInferResponse = call(make_request(), timeout=30)
    return answer


@pytest.mark.parametrize("transport", TRANSPORTS.values())
def test_the_echo_answers_what_regard_does(tmp_path: Path, transport: str) -> None:
    """The same fields, of the same size; but for the numbers, which it does not compute."""
    save_graph(tmp_path)
    with serving_echo() as echo, serving_regard_on(str(tmp_path), transport) as regard:
        echoed, computed = answer_of(echo), answer_of(regard)
    doubles = np.frombuffer(computed.raw_output_contents[0], np.float32)
    np.testing.assert_array_equal(doubles, 2 * make_arrays()["x"][0])
    echoed.raw_output_contents[0] = computed.raw_output_contents[0]
    assert echoed == computed


def test_peers_scripts_read_and_run_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they do with texts and images, many at a time."""
    rows = [common.read_row(common.write_row(make_arrays()), "floats")] * 3
    monkeypatch.setenv("PEER_GRAPH", str(save_graph(tmp_path)))
    monkeypatch.setenv("PEER_KIND", "floats")
    np.testing.assert_array_equal(
        common.Embedder(common.Settings())(rows), 2 * np.repeat(make_arrays()["x"], 3, axis=0)
    )


@dataclass
class FakeServing:
    """Uses a CPU for as long as it is asked, and twice that while it warms up."""

    cpu_seconds: float = 7.0
    calls: int = 0
    target: Target = TARGET

    def generate(self, _: Target, bodies: list[bytes], callers: int, seconds: float, *__: int, **___: int) -> Measured:
        assert (bodies, callers) == ([b"body"], 32)
        self.calls += 1
        self.cpu_seconds += seconds * (2 if self.calls == 1 else 1)
        return Measured(500.0, 1.0, 1.5, 2.0, 3, 0.1, answered=1000)


def test_cpu_a_call_is_of_the_calls_that_were_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two seconds for a thousand; neither the warm-up counts nor what came before."""
    serving = FakeServing()
    monkeypatch.setattr(trivial, "generate", serving.generate)
    figure = trivial.ask(serving, b"body", 2.0)  # type: ignore[arg-type]
    assert figure["cpu_us"] == pytest.approx(2000)
    assert (figure["per_second"], figure["errors"], figure["generator_cpus"]) == (500.0, 3, 0.1)


@pytest.mark.skipif(shutil.which("h2load") is None, reason="the load is made by h2load (nghttp2-client)")
def test_all_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the command itself, without peers: calls, and CPU time for each, round by round."""
    flags = ["--only", "trivial", "--rounds", "2", "--seconds", "0.2", "--peers", "", "--models", str(tmp_path)]
    files = [tmp_path / "out.json", tmp_path / "sections.md"]
    monkeypatch.setattr(sys, "argv", ["bench", *flags, "--out", str(files[0]), "--sections", str(files[1])])
    main()
    figures = json.loads(files[0].read_text())["figures"]
    assert figures.keys() == {TRIVIAL}
    assert figures[TRIVIAL].keys() == {ECHO, *TRANSPORTS}
    for rounds in figures[TRIVIAL].values():
        assert len(rounds) == 2
        for one in rounds:
            assert one["errors"] == 0
            assert one["per_second"] > 0
            assert 0 < one["cpu_us"] < 1e6
    assert files[1].read_text().count("\n| regard |") == 1
