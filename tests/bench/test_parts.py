"""The bench's command line, and what each server is asked at shares of its peak."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import open_loop
from bench.__main__ import main, models_of
from bench.generator import Target
from bench.peers import PEERS, PeerError
from bench.servers import Serving
from bench.workloads import IMAGES, MIXED, TEXT


class FakeLoad:
    """Stands in for the programs: keeps what they are asked, and answers with one rate."""

    def __init__(self, per_second: float) -> None:
        self.per_second = per_second
        self.asked: list[tuple[str, str, dict[str, Any]]] = []
        self.bodies = set[bytes]()

    def run(self, module: str, target: str, options: dict[str, Any], *, timeout_seconds: float) -> str:
        assert timeout_seconds > options["seconds"]
        self.asked.append((module, target, options))
        if "body" in options:
            self.bodies.add(options["body"].read_bytes())
        return json.dumps({"per_second": self.per_second, "errors": 3})


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> FakeLoad:
    """Two hundred a second."""
    fake = FakeLoad(200.0)
    monkeypatch.setattr(open_loop, "run", fake.run)
    return fake


def test_models_are_those_of_the_parts() -> None:
    """In the order of measuring; the trivial graph needs none, and the open loop no workload."""
    assert models_of(["trivial"]) == {}
    assert models_of(["open", "trivial"]) == {TEXT.model: []}
    assert models_of(["images", "mixed", "open"]) == {TEXT.model: [MIXED], IMAGES.model: [IMAGES]}


def test_rates_are_shares_of_the_servers_own_peak(load: FakeLoad) -> None:
    """Those of regard include one beyond its peak; each figure has the peak beside it."""
    found = list(open_loop._at_rates("regard", "127.0.0.1:1", {"size": "16"}, 2.0, (0.5, 1.5)))
    assert [who for _, who, _ in found] == ["regard, peak", "regard, 50%", "regard, 150%"]
    assert [figure["peak"] for _, _, figure in found] == [200.0] * 3
    assert [options.get("rate") for _, _, options in load.asked] == [None, 100.0, 300.0]
    assert load.asked[0][2] == {"size": "16", "callers": 128, "seconds": 2.0}


@pytest.mark.parametrize("name", ["mosec", "triton"])
def test_a_peer_is_sent_its_own_body_at_three_rates(name: str, load: FakeLoad, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over gRPC without the prefix that h2load needs, over HTTP with its content type."""
    peer = next(one for one in PEERS if one.name == name)
    monkeypatch.setattr(open_loop, "install", lambda *_: Path("python"))
    monkeypatch.setattr(open_loop, "request_body", lambda *_: b"\0\0\0\0\4body")
    serving = Serving(Target("http://127.0.0.1:1/", (), is_grpc=peer.protocol == "grpc"), 0, 0.0)
    found = list(open_loop.measure_peer_at_rates(peer, Path(), serving, 1.0))
    assert [who for _, who, _ in found] == [f"{name}, {load}" for load in ("peak", "50%", "70%", "90%")]
    options = load.asked[0][2]
    assert options.get("content-type") == {"mosec": "application/octet-stream", "triton": None}[name]
    assert load.bodies == {{"mosec": b"\0\0\0\0\4body", "triton": b"body"}[name]}


def test_a_peer_that_answers_nothing_is_named(load: FakeLoad) -> None:
    """Before anything is a share of nothing."""
    load.per_second = 0.0
    with pytest.raises(PeerError, match="ray: no answer to 128 callers, 3 errors"):
        list(open_loop._at_rates("ray", "http://127.0.0.1:1/", {}, 1.0, (0.5,)))


def test_callers_that_fail_are_the_peers_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is noted, rather than ending a run of ten minutes."""

    def fail(*_: Any, **__: Any) -> str:
        raise subprocess.TimeoutExpired("bench.load", 31)

    monkeypatch.setattr(open_loop, "run", fail)
    with pytest.raises(PeerError, match=r"ray: its callers: .*timed out after 31 seconds"):
        list(open_loop._at_rates("ray", "http://127.0.0.1:1/", {}, 1.0, (0.5,)))


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--only", "trivial,opn"], "'opn'; expected some of trivial, text, open, cancelled, mixed, images"),
        (["--peers", "mosec,trtion"], "--peers: 'trtion'; expected some of handwritten, mosec, triton"),
        (["--only", "open", "--page", "x.md"], "--page writes a page of all parts; with --only expected --sections"),
    ],
)
def test_what_cannot_be_measured_is_told(
    flags: list[str], told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is."""
    monkeypatch.setattr(sys, "argv", ["bench", *flags])
    with pytest.raises(SystemExit):
        main()
    assert told in " ".join(capsys.readouterr().err.split())
