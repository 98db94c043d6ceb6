"""What a call costs where there is nothing to compute: the trivial graph, beside a server that only echoes."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bench.generator import GRPC_HEADERS, Target, frame, generate
from bench.peers import OPEN_INFERENCE, Peer, PeerError, install, request_body
from bench.programs import environment
from bench.servers import Serving, serving_other, serving_regard
from bench.targets import ECHO, TRANSPORTS, TRIVIAL, TRIVIAL_CALLERS
from bench.trivial_graph import FLOATS, make_arrays, make_request, save_graph

_ANSWER_BYTES = 4 * FLOATS
_WARM_UP_SECONDS = 1.0


def measure_trivial(
    peers: Sequence[Peer], root: Path, failures: dict[str, str], cpus: int, seconds: float
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """One round: the echo, regard within seconds of it, and each peer; those who fail are noted in `failures`."""
    with tempfile.TemporaryDirectory() as folder:
        graph = save_graph(Path(folder))
        body = frame(make_request().SerializeToString())
        with ExitStack() as stack:
            servers = {ECHO: stack.enter_context(serving_echo())}
            for regard, transport in TRANSPORTS.items():
                servers[regard] = stack.enter_context(serving_regard_on(folder, transport))
            for name, serving in servers.items():
                yield TRIVIAL, name, ask(serving, body, seconds)
        for peer in peers:
            try:
                python = install(peer, root)
                with serving_other(peer, root, graph, "floats", cpus) as serving:
                    yield TRIVIAL, peer.name, ask(serving, request_body(peer, python, make_arrays()), seconds)
            except PeerError as error:
                failures[f"{peer.name}, {TRIVIAL}"] = str(error)


def ask(serving: Serving, body: bytes, seconds: float) -> dict[str, Any]:
    """Let 32 callers ask; returns what they saw, and the CPU time that the server used for each call."""
    generate(serving.target, [body], TRIVIAL_CALLERS, _WARM_UP_SECONDS, _ANSWER_BYTES, warm_up_seconds=0)
    before = serving.cpu_seconds
    seen = generate(serving.target, [body], TRIVIAL_CALLERS, seconds, _ANSWER_BYTES, warm_up_seconds=0)
    used = serving.cpu_seconds - before
    figure = {key: getattr(seen, key) for key in ("per_second", "p50_ms", "p99_ms", "errors", "generator_cpus")}
    return figure | {"cpu_us": used / max(1, seen.answered) * 1e6}


@contextmanager
def serving_regard_on(folder: str, transport: str) -> Iterator[Serving]:
    """Start regard, to be asked through the Open Inference Protocol."""
    with serving_regard(Path(folder), "--transport", transport) as serving:
        yield Serving(_open_inference(serving.address), serving.pid, serving.seconds_to_ready, serving.metrics)


@contextmanager
def serving_echo() -> Iterator[Serving]:
    """Start the server that only echoes."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "bench.echo"]
    with subprocess.Popen(  # noqa: S603 -- our own
        command, stdout=subprocess.PIPE, text=True, env=environment(), start_new_session=True
    ) as process:
        try:
            port = int(next(iter(process.stdout or ())))
            yield Serving(_open_inference(f"127.0.0.1:{port}"), process.pid, time.perf_counter() - started)
        finally:
            process.terminate()


def _open_inference(address: str) -> Target:
    return Target(f"http://{address}{OPEN_INFERENCE}", GRPC_HEADERS, is_grpc=True)
