"""Starts what is measured, regard and its peers, alike: each in a session of its own, asked through a target.

Linux may share the CPUs by session first: a server in that of its callers would have less of them than one beside it.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.generator import GRPC_HEADERS, Target
from bench.peers import Peer, install, process_tree
from bench.peers import serving as serving_peer
from bench.programs import ROOT, environment

_TIMES = slice(11, 15)  # utime, stime, cutime, cstime; see proc(5), whose 14th field is the twelfth after the name
_PREDICT, _EMBED = ("/regard.v1.RegardService/Predict", "/regard.v1.RegardService/Embed")


@dataclass(frozen=True)
class Serving:
    """A server that answers.

    Attributes:
        target: Where the workload's requests go.
        pid: Root of its processes.
        seconds_to_ready: From its start.
        metrics: URL of regard's metrics.
    """

    target: Target
    pid: int
    seconds_to_ready: float
    metrics: str = ""

    @property
    def address(self) -> str:
        """Host and port."""
        return self.target.url.split("/")[2]

    @property
    def embed(self) -> Target:
        """Where regard takes photographs."""
        return Target(f"http://{self.address}{_EMBED}", GRPC_HEADERS, is_grpc=True)

    @property
    def cpu_seconds(self) -> float:
        """CPU time that all its processes have used so far."""
        return cpu_seconds(self.pid)

    @property
    def memory_mb(self) -> tuple[float, float]:
        """Proportional and resident set size of all its processes, in megabytes."""
        totals = [0, 0]
        for pid in process_tree(self.pid):
            try:
                lines = Path("/proc", str(pid), "smaps_rollup").read_text().splitlines()
            except OSError:  # it has just ended
                continue
            sizes = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.endswith("kB")}
            totals = [totals[0] + sizes["Pss"], totals[1] + sizes["Rss"]]
        return totals[0] / 1e3, totals[1] / 1e3


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and all below it, those included that have ended and were waited for."""
    ticks = 0
    for one in process_tree(pid):
        try:
            fields = Path("/proc", str(one), "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        ticks += sum(map(int, fields[_TIMES]))
    return ticks / os.sysconf("SC_CLK_TCK")


def loop_cpu_seconds(pid: int) -> float:
    """CPU seconds of a server's event loop, which is its main thread."""
    # proc(5): the name in brackets may hold blanks; after it utime and stime are fields 14 and 15.
    fields = Path("/proc", str(pid), "task", str(pid), "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def only(models: Path, *names: str) -> Iterator[Path]:
    """A models folder with some models, and nothing else in the server's memory."""
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            (Path(folder) / name).symlink_to((models / name).resolve())
        yield Path(folder)


@contextmanager
def serving_regard(
    models: Path, *flags: str, checkout: Path = ROOT, program: Sequence[str] = ("server",)
) -> Iterator[Serving]:
    """Start regard on free ports, with the code of a checkout.

    Args:
        models: Folder of what it serves.
        flags: More of its flags.
        checkout: Whose code.
        program: The module that is run, and what comes before the server's flags.
    """
    command = [sys.executable, "-m", *program, "--models", str(models.resolve()), "--listen", "127.0.0.1:0"]
    command += ["--metrics", "127.0.0.1:0", "--device", "cpu", "--log-level", "warning", *flags]
    started = time.perf_counter()
    checkout = checkout.resolve()
    with subprocess.Popen(  # noqa: S603 -- our own
        command, stdout=subprocess.PIPE, text=True, cwd=checkout, env=environment(checkout), start_new_session=True
    ) as process:
        try:
            lines = iter(process.stdout or ())
            words = next(line for line in lines if line.startswith("gRPC on ")).split()
            address, metrics = words[2].rstrip(","), words[-1]
            next(line for line in lines if line.startswith("ready"))
            target = Target(f"http://{address}{_PREDICT}", GRPC_HEADERS, is_grpc=True)
            yield Serving(target, process.pid, time.perf_counter() - started, metrics)
        finally:
            process.send_signal(signal.SIGTERM)


@contextmanager
def serving_other(peer: Peer, root: Path, graph: Path, kind: str, cpus: int) -> Iterator[Serving]:
    """Start a peer.

    Raises:
        PeerError: It cannot be installed or started.
    """
    with serving_peer(peer, install(peer, root), graph, kind, cpus) as served:
        target = Target(served.url, served.headers, is_grpc=peer.protocol == "grpc")
        yield Serving(target, served.pid, served.seconds_to_ready)
