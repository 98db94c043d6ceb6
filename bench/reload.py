"""Versions that change under load: `python -m bench.reload` counts failed requests and compares memory.

Every version is a full copy of the model, loaded, checked and warmed beside the one that answers.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from bench.__main__ import newest_graph
from bench.servers import Serving, serving_regard
from bench.workloads import TEXT
from regard import Client

_CALLERS = 32
_SETTLING_SECONDS = 15


def main() -> None:
    """Print what the callers saw, how long loading took, and memory."""
    parser = argparse.ArgumentParser(prog="python -m bench.reload", description=__doc__)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--changes", type=int, default=10)
    args = parser.parse_args()
    source = newest_graph(args.models, TEXT.model)
    if source is None:
        parser.exit(1, f"{args.models}/{TEXT.model} is not there: make demo exports it\n")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / TEXT.model
        publish(source.parent, folder, 1)
        with serving_regard(Path(name)) as serving:
            seconds = 2 * _SETTLING_SECONDS + 4 * args.changes
            command = [sys.executable, "-m", "bench.load", serving.address, "--callers", str(_CALLERS)]
            with subprocess.Popen([*command, "--seconds", str(seconds)], stdout=subprocess.PIPE, text=True) as load:  # noqa: S603 -- our own
                before = settle(serving)
                loading = [change(serving, source.parent, folder, number + 2) for number in range(args.changes)]
                after = settle(serving)
                report = json.loads(load.communicate()[0])
    print(
        f"{args.changes} changes of version, {statistics.median(loading):.1f} s each to load beside {_CALLERS} callers"
    )
    print(f"{report['per_second']:.0f} answers a second, {report['errors'] + report['refused']} failed requests")
    print(f"proportional set size: {before:.0f} MB before, {after:.0f} MB after ({after / before - 1:+.1%})")


def publish(source: Path, folder: Path, version: int) -> None:
    """Put a copy of an artifact into the models folder as another version, complete at once."""
    hidden = folder / ".new"
    hidden.mkdir(parents=True)
    for path in source.iterdir():
        if path.name == "contract.json":
            contract = json.loads(path.read_text()) | {"version": version, "name": folder.name}
            (hidden / path.name).write_text(json.dumps(contract))
        else:
            (hidden / path.name).write_bytes(path.read_bytes())
    hidden.rename(folder / str(version))


def change(serving: Serving, source: Path, folder: Path, version: int) -> float:
    """Publish and load a version; returns how many seconds the load took."""
    publish(source, folder, version)
    started = time.perf_counter()
    with Client(serving.address) as client:
        assert client.load_model(folder.name).version == str(version)  # noqa: S101
    return time.perf_counter() - started


def settle(serving: Serving) -> float:
    """Wait for the load to reach every batch size; returns the median memory of the second half, in megabytes."""
    pause, samples = threading.Event(), []
    for _ in range(4 * _SETTLING_SECONDS):
        pause.wait(0.25)
        samples.append(serving.memory_mb[0])
    return statistics.median(samples[len(samples) // 2 :])


if __name__ == "__main__":
    main()
