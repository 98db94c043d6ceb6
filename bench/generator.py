"""The load of the side-by-side comparison: callers in a closed loop, made by h2load, whatever the server speaks.

h2load (of nghttp2) is written in C++ and costs a thirtieth of what callers in Python cost, which would otherwise take
the cores from the server that is measured.
"""

import resource
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

GRPC_HEADERS = ("content-type: application/grpc", "te: trailers")
_WARM_UP_SECONDS = 1
_OK = 200


class GeneratorError(Exception):
    """h2load is not there, or failed."""


@dataclass(frozen=True)
class Target:
    """Where requests go: URL, what each carries, and whether it is gRPC or plain HTTP/1.1."""

    url: str
    headers: tuple[str, ...]
    is_grpc: bool


@dataclass(frozen=True)
class Measured:
    """What callers saw; latencies in milliseconds, the generator's own cost in CPUs."""

    per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    errors: int
    generator_cpus: float
    answered: int


def frame(message: bytes) -> bytes:
    """Put gRPC's prefix before a message: not compressed, and its length."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def generate(
    target: Target,
    bodies: Sequence[bytes],
    callers: int,
    seconds: float,
    answer_bytes: int,
    warm_up_seconds: int = _WARM_UP_SECONDS,
) -> Measured:
    """Let callers ask for some seconds, after one that does not count.

    Args:
        target: Whom.
        bodies: What; callers are shared among them.
        callers: How many wait for an answer at a time.
        seconds: How long.
        answer_bytes: What an answer has at least: gRPC's errors come as HTTP's success without content.
        warm_up_seconds: How long they ask before that, which does not count.

    Raises:
        GeneratorError: There is no h2load, or it failed.
    """
    if shutil.which("h2load") is None:
        raise GeneratorError("h2load is not installed: apt-get install nghttp2-client, brew install nghttp2")
    shares = [len(range(index, callers, len(bodies))) for index in range(len(bodies))]
    used_before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        running = [
            _start(target, body, share, (seconds, warm_up_seconds), folder / str(index))
            for index, (body, share) in enumerate(zip(bodies, shares, strict=True))
            if share
        ]
        printed = [process.communicate()[0] for process, _ in running]
        if any(process.returncode for process, _ in running):
            raise GeneratorError(f"h2load failed: {printed[0][-300:]}")
        lines = [line.split("\t") for _, log in running for line in log.read_text().splitlines()]
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_seconds = used.ru_utime + used.ru_stime - used_before.ru_utime - used_before.ru_stime
    good = np.array([int(micros) for _, status, micros in lines if int(status) == _OK]) / 1e3
    empty = sum(_missing(text, answer_bytes) for text in printed)
    p50, p95, p99 = np.percentile(good, [50, 95, 99]) if len(good) else (float("nan"),) * 3
    return Measured(
        per_second=(len(good) - empty) / seconds,
        p50_ms=float(p50),
        p95_ms=float(p95),
        p99_ms=float(p99),
        errors=len(lines) - len(good) + empty,
        generator_cpus=cpu_seconds / (seconds + warm_up_seconds),
        answered=len(good) - empty,
    )


def _start(
    target: Target, body: bytes, callers: int, times: tuple[float, int], path: Path
) -> tuple["subprocess.Popen[str]", Path]:
    content, log = path.with_suffix(".body"), path.with_suffix(".log")
    content.write_bytes(body)
    headers = [part for header in target.headers for part in ("-H", header)]
    command = [
        "h2load",
        "-c",
        str(callers),
        "-m",
        "1",
        "-D",
        f"{round(times[0] * 1000)}ms",
        f"--warm-up-time={times[1]}",
    ]
    command += [*headers, "-d", str(content), f"--log-file={log}", *([] if target.is_grpc else ["--h1"]), target.url]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True), log  # noqa: S603


def _missing(printed: str, answer_bytes: int) -> int:
    """Count the answers without content, by how much content came in altogether."""
    words = printed.split()
    done = int(words[words.index("done,") - 1])
    traffic = next(line for line in printed.splitlines() if line.startswith("traffic:"))
    content_bytes = int(traffic.rpartition("(")[2].partition(")")[0])
    return max(0, done - content_bytes // answer_bytes)
