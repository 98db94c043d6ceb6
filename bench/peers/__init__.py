"""Other Python model servers, each in a virtual environment of its own, serving the graphs that regard serves."""

import http.client
import os
import signal
import socket
import subprocess
import tempfile
import time
import venv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import grpc
import numpy as np
from numpy.typing import NDArray

FOLDER = Path(__file__).parent
READY_SECONDS = 120.0
STOP_SECONDS = 15.0
ONNX_RUNTIME = "onnxruntime==1.31.*"
NUMPY = "numpy==2.4.6"
GRPC = "application/grpc"


@dataclass(frozen=True)
class Peer:
    """A server to compare with.

    Attributes:
        name: For tables, and of its virtual environment.
        batches: Whether it joins requests to batches, and so pads.
        way: How ONNX Runtime runs in it, see common.Settings: whichever was best for 32 callers.
        packages: Pinned requirements of its virtual environment.
        protocol: What it speaks.
        script: Serves, makes bodies and asks; runs in that environment.
        path: Where requests go.
        content_type: Of a request.
    """

    name: str
    batches: bool
    way: str
    packages: tuple[str, ...]
    protocol: Literal["grpc", "http"]
    script: Path
    path: str
    content_type: str

    @property
    def headers(self) -> tuple[str, ...]:
        """What a request carries."""
        trailers = ("te: trailers",) if self.protocol == "grpc" else ()
        return (f"content-type: {self.content_type}", *trailers)


@dataclass(frozen=True)
class Served:
    """A peer that runs and has answered.

    Attributes:
        url: Where to post bodies.
        headers: What a request carries, each "name: value".
        pid: Root of the tree of its processes.
        seconds_to_ready: From its start to its first answer.
    """

    url: str
    headers: tuple[str, ...]
    pid: int
    seconds_to_ready: float


class PeerError(Exception):
    """A peer that cannot be installed, started or asked; ends with the last lines of what it said."""


def _peer(
    name: str,
    path: str,
    *packages: str,
    batches: bool = True,
    way: str = "spinning",
    content_type: str = "application/octet-stream",
    numpy: str = NUMPY,
) -> Peer:
    protocol: Literal["grpc", "http"] = "grpc" if content_type == GRPC else "http"
    packages = (*packages, ONNX_RUNTIME, numpy)
    return Peer(name, batches, way, packages, protocol, FOLDER / f"serve_{name}.py", path, content_type)


PREDICT = "/regard.v1.RegardService/Predict"
OPEN_INFERENCE = "/inference.GRPCInferenceService/ModelInfer"

# The newest versions that install beside each other. Exceptions: PyTriton wants numpy below 2; BentoML 1.4.40 wants a
# certifi newer than there is; MLServer's workers do not start with a newer uvloop. Not here: torchserve, which needs
# Java and model archives and is no longer maintained.
PEERS: tuple[Peer, ...] = (
    _peer(
        "handwritten", PREDICT, "grpcio==1.85.1", "protobuf==6.33.6", batches=False, way="parallel", content_type=GRPC
    ),
    _peer("mosec", "/inference", "mosec==0.9.8"),
    _peer("triton", OPEN_INFERENCE, "nvidia-pytriton==0.7.0", content_type=GRPC, numpy="numpy==1.26.4"),
    _peer("litserve", "/predict", "litserve==0.2.19", way="waiting"),
    _peer("bentoml", "/embed", "bentoml==1.4.39", way="waiting", content_type="application/json"),
    _peer("mlserver", OPEN_INFERENCE, "mlserver==1.7.1", "uvloop==0.21.0", way="parallel", content_type=GRPC),
    _peer("ray", "/", "ray[serve]==2.60.0", way="parallel"),
)


def install(peer: Peer, root: Path) -> Path:
    """Make a peer's virtual environment in root/NAME unless it is complete.

    Returns:
        Its python.

    Raises:
        PeerError: It cannot be installed.
    """
    folder = root / peer.name
    python = folder / "bin" / "python"
    marker = folder / "complete.txt"
    wanted = "\n".join(peer.packages) + "\n"
    if marker.exists() and marker.read_text() == wanted:
        return python
    venv.create(folder, clear=True, with_pip=True)
    _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *peer.packages], peer, "pip")
    marker.write_text(wanted)
    return python


@contextmanager
def serving(peer: Peer, python: Path, graph: Path, kind: str, threads: int) -> Iterator[Served]:
    """Start a peer on a free port and wait until it has answered a request; stop all its processes at the end.

    Args:
        peer: Which.
        python: As install returned it.
        graph: A model.onnx.
        kind: "text", "image" or "floats", the trivial graph.
        threads: How many CPUs it may compute on.

    Yields:
        Where it serves.

    Raises:
        PeerError: It ended, or gave no answer within READY_SECONDS.
    """
    body = request_body(peer, python, _example(kind))
    port = _free_port()
    command = [str(python), str(peer.script), "serve", "--graph", str(graph.resolve()), "--kind", kind]
    command += ["--threads", str(threads), "--port", str(port), "--way", peer.way]
    url = f"http://127.0.0.1:{port}{peer.path}"
    with tempfile.TemporaryFile("w+") as log:
        started = time.perf_counter()
        process = subprocess.Popen(  # noqa: S603 -- our own
            command, stdout=log, stderr=log, env=_environment(peer, python), start_new_session=True
        )
        try:
            while not _answers(peer, url, body):
                if process.poll() is not None or time.perf_counter() - started > READY_SECONDS:
                    log.seek(0)
                    raise PeerError(f"{peer.name} did not start: {_last_lines(log.read())}")
                time.sleep(0.05)
            yield Served(url, peer.headers, process.pid, time.perf_counter() - started)
        finally:
            _stop(process)


def request_body(peer: Peer, python: Path, arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The body of one request as it is posted, with gRPC's prefix where the peer speaks that.

    Args:
        peer: Which.
        python: As install returned it.
        arrays: The graph's inputs by name, one row each.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "arrays.npz"), Path(folder, "body.bin")
        np.savez(source, **dict(arrays))  # type: ignore[arg-type]
        _run([str(python), str(peer.script), "body", str(source), str(target)], peer, "its request")
        body = target.read_bytes()
    return b"\0" + len(body).to_bytes(4, "big") + body if peer.protocol == "grpc" else body


def check_answer(peer: Peer, python: Path, served: Served, arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    """Ask once, through a client in the peer's own environment; returns the embedding, float32 [embedding_dim]."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "arrays.npz"), Path(folder, "answer.npy")
        np.savez(source, **dict(arrays))  # type: ignore[arg-type]
        _run([str(python), str(peer.script), "ask", served.url, str(source), str(target)], peer, "its answer")
        return np.asarray(np.load(target), np.float32)


def process_tree(pid: int) -> list[int]:
    """A process and all below it."""
    return [pid, *(child for child, _ in _descendants(pid))]


def _example(kind: str) -> dict[str, NDArray[Any]]:
    if kind == "image":
        return {"pixel_values": np.zeros((1, 3, 224, 224), np.float32)}
    if kind == "floats":
        return {"x": np.zeros((1, 16), np.float32)}
    return {"input_ids": np.full((1, 16), 1000), "attention_mask": np.ones((1, 16), np.int64)}


def _run(command: list[str], peer: Peer, what: str) -> None:
    done = subprocess.run(  # noqa: S603 -- our own
        command, capture_output=True, text=True, env=_environment(peer, Path(command[0]))
    )
    if done.returncode:
        raise PeerError(f"{peer.name}: {what}: {_last_lines(done.stderr or done.stdout)}")


def _environment(peer: Peer, python: Path) -> dict[str, str]:
    """Its own commands first, the stubs of regard.v1, no telemetry."""
    paths = os.pathsep.join([str(python.absolute().parent), os.environ.get("PATH", os.defpath)])
    stubs = {"PYTHONPATH": str(FOLDER.parents[1] / "client")} if peer.name == "handwritten" else {}
    quiet = {"BENTOML_DO_NOT_TRACK": "True", "RAY_USAGE_STATS_ENABLED": "0", "PYTRITON_NO_TELEMETRY": "1"}
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {**kept, **quiet, **stubs, "PATH": paths, "PYTHONUNBUFFERED": "1"}


def _answers(peer: Peer, url: str, body: bytes) -> bool:
    """Whether a real request succeeds."""
    target = urlsplit(url)
    if peer.protocol == "grpc":
        with grpc.insecure_channel(target.netloc) as channel, suppress(grpc.RpcError):
            channel.unary_unary(target.path)(body[5:], timeout=5)  # type: ignore[arg-type]
            return True
        return False
    connection = http.client.HTTPConnection(target.netloc, timeout=5)
    headers = dict(line.split(": ", 1) for line in peer.headers)
    try:
        connection.request("POST", target.path, body, headers)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _stop(process: subprocess.Popen[Any]) -> None:
    """End a process and everything it started, politely first."""
    tree = _descendants(process.pid)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for pid, started in tree:  # those that left the group
        if _start_of(pid) == started:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    process.wait()


def _descendants(pid: int) -> list[tuple[int, str]]:
    """All processes below one, each with when it started, lest its number be given to another."""
    children: list[int] = []
    for path in Path("/proc", str(pid), "task").glob("*/children"):
        with suppress(OSError):
            children += map(int, path.read_text().split())
    return [one for child in children for one in [(child, _start_of(child)), *_descendants(child)]]


def _start_of(pid: int) -> str:
    try:
        return Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def _last_lines(text: str, count: int = 4) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return "\n".join(lines[-count:]) or "it said nothing"
