"""Memory over a long time: `python -m bench.soak --minutes 10` loads a server with mixed requests and watches it."""

import argparse
import json
import subprocess
import sys
import threading
from pathlib import Path

from bench.__main__ import only
from bench.servers import Serving, serving_regard
from bench.workloads import MIXED

_EVERY_SECONDS = 5.0
_SETTLING = 0.1  # share of the time in which memory may still grow: the first batches of every size


def main() -> None:
    """Print memory at the start, its range after settling, and what the callers saw."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--minutes", type=float, default=10.0)
    args = parser.parse_args()
    seconds = args.minutes * 60
    with only(args.models, MIXED.model) as folder, serving_regard(folder) as serving:
        before = serving.memory_mb[0]
        command = [sys.executable, "-m", "bench.load", serving.address, "--callers", "32", "--seconds", str(seconds)]
        command += ["--size", MIXED.size, "--attention", "0.1"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as load:  # noqa: S603 -- our own
            samples = watch(serving, seconds)
            report = json.loads(load.communicate()[0])
    settled = samples[int(len(samples) * _SETTLING) :]
    growth = max(settled) / settled[0] - 1
    print(f"proportional set size: {before:.0f} MB before, then {min(settled):.0f} to {max(settled):.0f} MB")
    end = settled[-1] / settled[0] - 1
    print(f"grew by {growth:.1%} at most after {_SETTLING * args.minutes:g} minutes, by {end:.1%} in the end")
    print(f"{report['per_second']:.0f} answers a second, {report['errors']} errors, {report['refused']} refused")


def watch(serving: Serving, seconds: float) -> list[float]:
    """Sample the proportional set size, in megabytes."""
    samples, pause = [], threading.Event()
    for _ in range(int(seconds / _EVERY_SECONDS)):
        pause.wait(_EVERY_SECONDS)
        samples.append(serving.memory_mb[0])
    return samples


if __name__ == "__main__":
    main()
