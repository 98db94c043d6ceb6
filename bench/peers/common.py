"""What the peers' scripts share: command line, rows, batches, ONNX Runtime; runs in each peer's own environment."""

import argparse
import os
import socket
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# One request's input: int64 [2, seq_len], the ids over the mask, float32 [3, height, width], or float32 [16].
Row = NDArray[Any]

MAX_BATCH = {"text": 32, "image": 8, "floats": 32}
MAX_DELAY_MS = 2
_SETTINGS = ("graph", "kind", "threads", "port", "way")


class Settings:
    """What a server was started with; its worker processes read it from the environment.

    Attributes:
        graph: The model.onnx.
        kind: "text", "image" or "floats".
        threads: CPUs to compute on.
        port: Of 127.0.0.1, to serve on.
        way: How ONNX Runtime runs: "spinning" or "waiting", one run at a time on all CPUs, whose idle threads spin or
            not, or "parallel", one run on each CPU.
    """

    def __init__(self) -> None:
        self.graph = os.environ.get("PEER_GRAPH", "")
        self.kind = os.environ.get("PEER_KIND", "text")
        self.threads = int(os.environ.get("PEER_THREADS", "1"))
        self.port = int(os.environ.get("PEER_PORT", "0"))
        self.way = os.environ.get("PEER_WAY", "spinning")
        self.max_batch = MAX_BATCH[self.kind]

    @property
    def runs(self) -> int:
        """Runs at a time."""
        return self.threads if self.way == "parallel" else 1


class Embedder:
    """The graph in one session of ONNX Runtime on the CPU."""

    def __init__(self, settings: Settings) -> None:
        import onnxruntime  # `body` and `ask` do without

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = settings.threads // settings.runs
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(settings.way == "spinning")))
        self._session = onnxruntime.InferenceSession(settings.graph, options, providers=["CPUExecutionProvider"])

    def __call__(self, rows: list[Row]) -> NDArray[np.float32]:
        """Embeddings, float32 [batch, embedding_dim], of rows padded to the longest."""
        if rows[0].dtype == np.float32:
            inputs = {self._session.get_inputs()[0].name: np.stack(rows)}
        else:
            padded = np.zeros((2, len(rows), max(row.shape[1] for row in rows)), np.int64)
            for index, row in enumerate(rows):
                padded[:, index, : row.shape[1]] = row
            inputs = {"input_ids": padded[0], "attention_mask": padded[1]}
        return self.run(inputs)

    def run(self, inputs: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Embeddings of the graph's own inputs."""
        return np.asarray(self._session.run(["embedding"], inputs)[0])


def write_row(arrays: dict[str, NDArray[Any]]) -> bytes:
    """One row as bare bytes, the binary body of peers whose protocol leaves it to the user."""
    if "input_ids" in arrays:
        return np.concatenate([arrays["input_ids"], arrays["attention_mask"]]).tobytes()
    (array,) = arrays.values()
    return array.tobytes()


def read_row(body: bytes, kind: str) -> Row:
    """What write_row wrote; images are square."""
    if kind == "text":
        return np.frombuffer(body, np.int64).reshape(2, -1)
    if kind == "floats":
        return np.frombuffer(body, np.float32)
    edge = round((len(body) / 4 / 3) ** 0.5)
    return np.frombuffer(body, np.float32).reshape(3, edge, edge)


def post(url: str, body: bytes, content_type: str = "application/octet-stream") -> bytes:
    """The answer to one request over HTTP."""
    headers = {"content-type": content_type}
    request = urllib.request.Request(url, body, headers)  # noqa: S310 -- our own server
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
        return bytes(answer.read())


def read_embedding(answer: bytes) -> NDArray[np.float32]:
    """An answer of bare bytes."""
    return np.frombuffer(answer, np.float32)


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 for what a peer insists to serve beside."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def main(
    serve: Callable[[Settings], None],
    body: Callable[[dict[str, NDArray[Any]]], bytes] = write_row,
    ask: Callable[[str, bytes], bytes] = post,
    read: Callable[[bytes], NDArray[np.float32]] = read_embedding,
) -> None:
    """Run a script's command line: serve, write a request's body, or ask once."""
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("serve")
    for name in _SETTINGS:
        one.add_argument(f"--{name}", required=True)
    one = commands.add_parser("body")
    one.add_argument("arrays")
    one.add_argument("out", type=Path)
    one = commands.add_parser("ask")
    one.add_argument("url")
    one.add_argument("arrays")
    one.add_argument("out", type=Path)
    args = parser.parse_args()
    if args.command == "serve":
        os.environ |= {f"PEER_{name.upper()}": getattr(args, name) for name in _SETTINGS}
        os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
        serve(Settings())
        return
    request = body(dict(np.load(args.arrays)))
    if args.command == "body":
        args.out.write_bytes(request)
    else:
        np.save(args.out, read(ask(args.url, request)).reshape(-1))
