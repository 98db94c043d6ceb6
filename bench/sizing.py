"""How many replicas a load needs: `python -m bench.sizing` measures, simulates, and shows how far both agree.

Measured are one replica on all cores, and two on half of them each: what runs and the front take under some loads
(bench/service_curve.py), and what callers see under others. The simulation is the server's own scheduler in simulated
time (bench/simulation) and foretells the others. Two numbers are fitted, for each round: how slow the machine was, by
the peak, and what an answer takes beyond runs and front, by the median at a tenth of the peak.

Machines that are shared change their speed within seconds. So for each load that is foretold it is read off its runs,
not off what callers saw, how slow the machine was then; and means over the rounds are told.
"""

import argparse
import json
import math
import os
import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from artifact.contract import CONTRACT_FILE, Contract, read_contract
from bench.capacity import Capacity, gpus, with_callers_elsewhere
from bench.report import cpu_name
from bench.servers import only
from bench.service_curve import CHECKED, Measured, fit, measure, simulate
from bench.simulation.machine import Machine
from bench.simulation.service import Figures

_PERCENTILES = ("p50_ms", "p95_ms", "p99_ms")
_TOLERANCE = 0.2  # of what was measured
_MARKS = ("<!-- bench.sizing begins -->", "<!-- bench.sizing ends -->")


@dataclass(frozen=True)
class Comparison:
    """One load: means over the rounds; latencies by the names of percentiles, in milliseconds.

    Attributes:
        slow: How many times slower than by the service curve the machine was then.
    """

    load: float
    per_second: float
    slow: float
    measured: dict[str, float]
    simulated: dict[str, float]

    @property
    def error(self) -> float:
        """The largest difference, as a share of what was measured."""
        return max(abs(self.simulated[name] / self.measured[name] - 1) for name in _PERCENTILES)


@dataclass(frozen=True)
class Checked:
    """What was measured of equal replicas, and what was foretold."""

    name: str
    machines: list[Machine]
    comparisons: list[Comparison]


def main() -> None:
    """Measure, simulate, compare, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m bench.sizing", description=__doc__)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--model", default="minilm", help="takes texts")
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument(
        "--seconds", type=float, default=4.0, help="of each load; those that are foretold twice as long"
    )
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--gpus", type=int, default=1000, help="of which the page tells what they would serve")
    parser.add_argument("--gpu-rows", type=float, default=20_000, help="a second, of one; assumed, not measured")
    parser.add_argument("--front-calls", type=float, default=5415, help="a second, of one server; docs/performance.md")
    parser.add_argument("--gpu-share", type=float, default=0.7, help="of its peak that a replica is used to")
    parser.add_argument("--out", type=Path, default=Path("build/sizing.json"))
    parser.add_argument("--page", type=Path, help="rewritten between its marks")
    args = parser.parse_args()
    artifact = max((path for path in (args.models / args.model).iterdir() if path.name.isdecimal()), key=_version)
    contract = read_contract(artifact / CONTRACT_FILE)
    with only(args.models, args.model) as folder:
        checked = [
            check(name, measure(folder, cores, args.rounds, args.seconds, args.tokens), args.tokens, contract)
            for name, cores in configurations(sorted(os.sched_getaffinity(0))).items()
        ]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps([asdict(one) for one in checked], indent=2) + "\n")
    lines = [
        *tell(checked, args.tokens, contract),
        *Capacity(with_callers_elsewhere(checked[0].machines), args.tokens, contract).tell(),
        "",
        f"{args.gpus:,} GPUs, were each to compute {args.gpu_rows:,.0f} rows a second (assumed), used to"
        f" {args.gpu_share:.0%}; a front takes {args.front_calls:,.0f} calls a second:",
        "",
        *gpus(args.gpus, args.gpu_rows, args.front_calls, args.gpu_share),
    ]
    print("\n".join(lines))
    if args.page:
        before, rest = args.page.read_text().split(_MARKS[0])
        args.page.write_text("\n".join([f"{before}{_MARKS[0]}", *lines, f"{_MARKS[1]}{rest.split(_MARKS[1])[1]}"]))


def _version(path: Path) -> int:
    return int(path.name)


def configurations(cores: list[int]) -> dict[str, list[list[int]]]:
    """What is measured: the cores of each replica."""
    half = len(cores) // 2
    found = {f"one replica, {len(cores)} cores": [cores]}
    if half:
        found[f"two replicas, {half} of the cores each"] = [cores[:half], cores[half : 2 * half]]
    return found


def check(name: str, measured: Measured, length: int, contract: Contract) -> Checked:
    """Simulate what was measured, load by load."""
    fitted, comparisons = fit(measured, length, contract), []
    for load in CHECKED:
        windows = [next(one for one in windows if one.load == load) for windows in measured.rounds]
        machines = [found[load] for found in fitted]
        pairs = zip(machines, windows, strict=True)
        figures = [simulate(machine, one, len(measured.cores), length, contract) for machine, one in pairs]
        seen = {name: statistics.mean(one.seen[name] for one in windows) for name in _PERCENTILES}
        per_second = statistics.mean(one.per_second for one in windows)
        slow = statistics.mean(machine.slow for machine in machines)
        comparisons.append(Comparison(load, per_second, slow, seen, _means(figures)))
    return Checked(name, [found[math.inf] for found in fitted], comparisons)


def _means(figures: list[Figures]) -> dict[str, float]:
    return {name: statistics.mean(getattr(one, name) for one in figures) for name in _PERCENTILES}


def tell(checked: list[Checked], length: int, contract: Contract) -> Iterator[str]:
    """Yield what was measured and simulated, in Markdown."""
    yield f"{contract.name}, {length} tokens, {cpu_name()}."
    yield ""
    columns = ("ms of a run", "of a row", "all threads: of a run", "of a row", "front, ms", "callers, ms", "way, ms")
    yield f"| what was fitted | {' | '.join(columns)} | slow |"
    yield f"|---{'|---' * len(columns)}|---|"
    for one in checked:
        yield f"| {one.name} | {_describe(one.machines, length)} |"
    yield ""
    shown = " | ".join(f"p{share} ms, measured | simulated" for share in (50, 95, 99))
    yield f"| load, of the peak | a second | slow | {shown} | within {_TOLERANCE:.0%} |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for one in checked:
        for row in one.comparisons:
            pairs = " | ".join(f"{row.measured[name]:.1f} | {row.simulated[name]:.1f}" for name in _PERCENTILES)
            met = "yes" if row.error <= _TOLERANCE else f"**no**, {row.error:.0%}"
            yield f"| {one.name}, {row.load:.0%} | {row.per_second:.0f} | {row.slow:.2f} | {pairs} | {met} |"
    yield ""


def _describe(machines: list[Machine], length: int) -> str:
    first = machines[0]
    costs = [first.cost, first.all_threads_cost]
    seconds = [part for cost in costs for part in (cost.run_seconds, cost.rows_seconds(1, length))]
    if not first.all_threads:
        seconds[2:] = []
    cells = [f"{one * 1e3:.2f}" for one in seconds] + [""] * (4 - len(seconds))
    cells += [f"{first.loop_seconds * 1e3:.2f}", f"{first.caller_seconds * 1e3:.2f}"]
    cells.append(", ".join(f"{machine.way_seconds * 1e3:.1f}" for machine in machines))
    cells.append(", ".join(f"{machine.slow:.2f}" for machine in machines))
    return " | ".join(cells)


if __name__ == "__main__":
    main()
