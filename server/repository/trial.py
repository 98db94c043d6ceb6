"""Loads a version in a process of its own first: whatever a graph does to that one, the server goes on.

`python -m server.repository.trial FOLDER DEVICE THREADS INSTANCES [WAY MAX_ROWS [CACHE]]` loads it as the server will
and runs it once; it ends with 0, or with 1 and the reason on its standard output.
"""

import asyncio
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from server.engine.device import Device, choose_device, share_cpus
from server.engine.execution import DEFAULT_EXECUTION, Execution, Way
from server.errors import StartError
from server.repository.limits import Usage
from server.repository.loading import load_model
from server.repository.settings import read_settings
from server.subprocesses import environment

_MAX_SECONDS = 600.0


@dataclass(frozen=True)
class Trial:
    """Tries versions as a server with these settings would run them.

    Attributes:
        device: Says on which of the server's devices: one that is in service, and is enough to see what a graph does.
        threads: Of the engine.
        instances: Batches at a time; 0 for the default.
        execution: What the server's flags say of runs without attention.
    """

    device: Callable[[], Device]
    threads: int
    instances: int
    execution: Execution = DEFAULT_EXECUTION

    async def __call__(self, folder: Path) -> None:
        """Load and run a version in a child process, which is killed where this is cancelled.

        Raises:
            StartError: It cannot be loaded, takes too long, or ends the process that loads it.
        """
        wanted, cache = self.execution, self.execution.tensorrt_cache
        how = (self.threads, self.instances, wanted.way, wanted.max_rows, *([cache] if cache else []))
        settings = (self.device().name.lower(), *map(str, how))
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", __name__, str(folder), *settings),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=environment(),
        )
        try:
            async with asyncio.timeout(_MAX_SECONDS):
                printed, _ = await child.communicate()
        except TimeoutError as error:
            raise StartError(f"{folder}: has not been loaded within {_MAX_SECONDS:g} s") from error
        finally:
            if child.returncode is None:
                child.kill()
        if child.returncode:
            raise StartError(printed.decode(errors="replace").strip() or _explain(folder, child.returncode))


def _explain(folder: Path, code: int) -> str:
    how = f"by {signal.Signals(-code).name}" if code < 0 else f"with code {code}"
    return f"{folder}: ends the process that loads it, {how}; it was tried in one of its own, and is not served"


def main(arguments: Sequence[str]) -> int:
    """Load a version and run it once; returns the exit code."""
    folder, device, threads, instances, *flags = arguments
    try:
        chosen = [choose_device(device)]
        execution = _read_execution(*flags) if flags else DEFAULT_EXECUTION
        usage = Usage(read_settings(Path(folder).parent))
        load_model(Path(folder), chosen, share_cpus(int(threads), chosen, int(instances)), usage, execution)
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        print(error)
        return 1
    return 0


def _read_execution(way: str, max_rows: str, cache: str = "") -> Execution:
    return Execution(cast(Way, way), max_rows=int(max_rows), tensorrt_cache=Path(cache) if cache else None)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
