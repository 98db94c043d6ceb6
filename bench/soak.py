"""Memory over a long time: `python -m bench.soak --minutes 10` loads a server with mixed requests and watches it.

What is in flight moves memory by a few percent from one second to the next: one request for all attention of 128
tokens has an answer of 5 MB. So medians of whole minutes are compared: those of the last tenth of the time with those
of the second, since the first meets every size of batch for the first time.
"""

import argparse
import json
import statistics
import subprocess
import sys
import threading
from pathlib import Path

from bench.__main__ import SOAK_FIGURES
from bench.servers import Serving, only, serving_regard
from bench.workloads import MIXED

_SAMPLES_A_MINUTE = 60


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
    minutes = [
        statistics.median(samples[start : start + _SAMPLES_A_MINUTE])
        for start in range(0, len(samples) - _SAMPLES_A_MINUTE // 2, _SAMPLES_A_MINUTE)
    ]
    print(f"proportional set size: {before:.0f} MB before, {min(samples):.0f} to {max(samples):.0f} MB under load")
    print("median of each minute:", ", ".join(f"{megabytes:.0f}" for megabytes in minutes), "MB")
    tenth = max(len(minutes) // 10, 1)
    early, late = (statistics.mean(part) for part in (minutes[tenth : 2 * tenth] or minutes, minutes[-tenth:]))
    growth = late / early - 1
    print(f"from the second tenth of the time to the last: {growth:+.1%}")
    print(f"{report['per_second']:.0f} answers a second, {report['errors']} errors, {report['refused']} refused")
    SOAK_FIGURES.parent.mkdir(parents=True, exist_ok=True)
    figures = {"minutes": args.minutes, "growth": growth, "errors": report["errors"] + report["refused"]}
    SOAK_FIGURES.write_text(json.dumps(figures | {"medians_mb": minutes}) + "\n")


def watch(serving: Serving, seconds: float) -> list[float]:
    """Sample the proportional set size, in megabytes."""
    samples, pause, every = [], threading.Event(), 60 / _SAMPLES_A_MINUTE
    for _ in range(int(seconds / every)):
        pause.wait(every)
        samples.append(serving.memory_mb[0])
    return samples


if __name__ == "__main__":
    main()
