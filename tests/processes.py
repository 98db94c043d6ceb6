"""The server as users start it: a process of its own, waited for by what it prints."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CLOTHING, PHOTOS = ROOT / "examples" / "clothing", ROOT / "examples" / "photos"
_STOP_SECONDS = 60
_SERVER = (sys.executable, "-m", "server")
TRANSPORTS = (
    "grpcio",
    pytest.param("envoy", marks=pytest.mark.skipif(find_spec("pyvoy") is None, reason="pyvoy is not installed")),
)

StartProcess = Callable[..., AbstractContextManager["ServerProcess"]]


@dataclass
class ServerProcess:
    """A server that is ready."""

    process: "subprocess.Popen[str]"
    address: str
    printed: list[str]

    @property
    def serving_pid(self) -> int:
        """The process that answers: the one that was started, or Envoy, which that one started."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return next((int(one) for one in children.read_text().split() if _is_envoy(one)), self.process.pid)

    @property
    def metrics_address(self) -> str:
        """Where its metrics are."""
        return next(line for line in self.printed if "metrics on" in line).rpartition("http://")[2].partition("/")[0]

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(_STOP_SECONDS)


def has_ended(pid: int) -> bool:
    """Whether a process is gone, or a zombie that nobody has asked about yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def _is_envoy(pid: str) -> bool:
    try:
        return b"envoy" in Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"\0")[0]
    except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
        return False


def environment() -> dict[str, str]:
    """The tests' environment without settings of the server but one."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("REGARD_")}
    return own | {"REGARD_TRIAL_LOAD": "false"}  # a second for each model; tests of it turn it on


def run_server(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Start a server that is expected to refuse."""
    command = [*_SERVER, "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60, check=False)


@contextmanager
def serving(*arguments: str, program: Sequence[str] = _SERVER, cwd: Path = ROOT) -> Iterator[ServerProcess]:
    """Start a server process; it is killed if the test leaves it running."""
    command = [*program, "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", *arguments]
    with subprocess.Popen(command, cwd=cwd, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            printed = []
            for line in process.stdout:
                printed.append(line.rstrip())
                if line.startswith("ready"):
                    break
            assert printed, "the server ended without a word"
            address = next(line for line in printed if line.startswith("gRPC on ")).split()[2].rstrip(",")
            yield ServerProcess(process, address, printed)
        finally:
            process.kill()
