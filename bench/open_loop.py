"""Latency at a given rate: requests that come at shares of each server's own peak, answered or not."""

import json
import subprocess
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

from bench.peers import Peer, PeerError, install, request_body
from bench.programs import run
from bench.servers import Serving, serving_regard
from bench.targets import ALONE, ATTENTION_SHARE, MIXED_LOAD, OFFERED_SECONDS, OPEN, open_loop_name, rate_name
from bench.workloads import TEXT, make_inputs

_LOADS, _OVERLOAD = (0.5, 0.7, 0.9), 1.5
_PEAK_CALLERS = 128
_MAX_WAIT_SECONDS = 30.0  # for the last answers

Measurement = tuple[str, str, dict[str, Any]]


def measure_alone(graph: Path, cpus: int) -> Iterator[Measurement]:
    """One run of ONNX Runtime alone, to which the latencies are compared."""
    options = {"batch": 1, "size": TEXT.size, "seconds": 1, "threads": cpus, "instances": 1, "spin": 1}
    yield ALONE, "limit", json.loads(run("bench.limit", str(graph), options))


def measure_regard_at_rates(folder: Path, seconds: float, regard: str, transport: str) -> Iterator[Measurement]:
    """At the peers' rates and beyond; then with and without requests for all attention among the others."""
    with serving_regard(folder, "--max-queue-seconds", str(OFFERED_SECONDS), "--transport", transport) as serving:
        peak = yield from _at_rates(regard, serving.address, {}, seconds, (*_LOADS, _OVERLOAD))
        for share in (0.0, ATTENTION_SHARE) if transport == "grpcio" else ():
            options = {"rate": MIXED_LOAD * peak, "seconds": seconds, "attention": share}
            yield OPEN, open_loop_name(share), _ask("regard", serving.address, options) | {"peak": peak}


def measure_peer_at_rates(peer: Peer, root: Path, serving: Serving, seconds: float) -> Iterator[Measurement]:
    """At shares of the peer's own peak."""
    (inputs,) = make_inputs(TEXT.size)
    body = request_body(peer, install(peer, root), inputs)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "body")
        path.write_bytes(body[5:] if peer.protocol == "grpc" else body)  # without gRPC's prefix
        options = {"body": path} | ({"content-type": peer.content_type} if peer.protocol == "http" else {})
        yield from _at_rates(peer.name, serving.target.url, options, seconds, _LOADS)


def _at_rates(
    name: str, target: str, options: dict[str, Any], seconds: float, loads: tuple[float, ...]
) -> Generator[Measurement, None, float]:
    """Find the peak in a closed loop of the same callers, then ask at shares of it; returns the peak.

    Raises:
        PeerError: Nothing was answered, or the callers failed.
    """
    figure = _ask(name, target, options | {"callers": _PEAK_CALLERS, "seconds": seconds})
    peak = float(figure["per_second"])
    if not peak:
        raise PeerError(f"{name}: no answer to {_PEAK_CALLERS} callers, {figure['errors']} errors")
    yield OPEN, f"{name}, peak", figure | {"peak": peak}
    for load in loads:
        figure = _ask(name, target, options | {"rate": load * peak, "seconds": seconds})
        yield OPEN, rate_name(name, load), figure | {"peak": peak}
    return peak


def _ask(name: str, target: str, options: dict[str, Any]) -> dict[str, Any]:
    """Let callers ask; returns what they saw.

    Raises:
        PeerError: They failed, or waited long for their last answers.
    """
    try:
        printed = run("bench.load", target, options, timeout_seconds=options["seconds"] + _MAX_WAIT_SECONDS)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise PeerError(f"{name}: its callers: {error}") from error
    figure: dict[str, Any] = json.loads(printed)
    return figure
