"""What the scheduler's rules do under load: `python -m bench.batching` shows it in simulated time, without a model.

Figures are for comparing rules with each other: a machine adds caches, the kernel's scheduler and its neighbours.
"""

import argparse
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from artifact.contract import CONTRACT_FILE, Contract, read_contract
from bench.simulation.machine import Machine
from bench.simulation.service import REQUESTS, Figures, Simulation

SHORT = (16,)
MIXED = tuple(np.linspace(4, 128, 8).astype(int).tolist())
_CONTRACT = Path("tests/golden/models/tiny-text/1") / CONTRACT_FILE  # any of a model that takes texts
_CALLERS = (1, 8, 16, 32, 128)
_LOADS, _OVERLOAD, _OFFERED_SECONDS = (0.5, 0.7, 0.9), 1.5, 0.5


def main() -> None:
    """Print what callers see under every load."""
    parser = argparse.ArgumentParser(prog="python -m bench.batching", description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="runs of which the median is told")
    parser.add_argument("--requests", type=int, default=REQUESTS, help="of each")
    parser.add_argument("--noise", type=float, default=Machine.noise, help="see Machine")
    parser.add_argument("--slow", type=float, default=Machine.slow, help="likewise")
    parser.add_argument("--hindered", type=float, default=Machine.hindered, help="likewise")
    parser.add_argument("--caller-seconds", type=float, default=Machine.caller_seconds, help="likewise")
    parser.add_argument("--one-thread", action="store_true", help="without runs of all threads")
    args = parser.parse_args()
    machine = Machine(
        noise=args.noise,
        slow=args.slow,
        hindered=args.hindered,
        caller_seconds=args.caller_seconds,
        all_threads=not args.one_thread,
    )
    contract = read_contract(_CONTRACT)
    print("| load | answers a second | p50 ms | p99 ms | rows of a batch | rows on all threads | refused |")
    print("|---|---|---|---|---|---|---|")
    for lengths in (SHORT, MIXED):
        for load, figures in measure(machine, lengths, contract, args.seeds, args.requests):
            numbers = f"{figures.per_second:.0f} | {figures.p50_ms:.0f} | {figures.p99_ms:.0f} | {figures.rows:.1f}"
            print(f"| {load} | {numbers} | {figures.all_threads:.0%} | {figures.refused:.0%} |")


def measure(
    machine: Machine, lengths: Sequence[int], contract: Contract, seeds: int, requests: int
) -> Iterator[tuple[str, Figures]]:
    """Yield what a load is called, and medians over the seeds; the open loads are shares of the last closed one."""
    shown, peak = f"{lengths[0]} tokens" if len(lengths) == 1 else "4 to 128 tokens", 0.0
    for callers in _CALLERS:
        figures = _median(
            [Simulation(machine, lengths, contract, seed).closed_loop(callers, requests) for seed in range(seeds)]
        )
        peak = figures.per_second
        yield f"{shown}, {callers} callers", figures
    for load in (*_LOADS, _OVERLOAD):
        offered_seconds = math.inf if load < 1 else _OFFERED_SECONDS
        simulations = [Simulation(machine, lengths, contract, seed, offered_seconds) for seed in range(seeds)]
        yield f"{shown}, {load:.0%}", _median([one.open_loop(load * peak, requests) for one in simulations])


def _median(several: Sequence[Figures]) -> Figures:
    return Figures(*(float(np.median(values)) for values in zip(*several, strict=True)))


if __name__ == "__main__":
    main()
