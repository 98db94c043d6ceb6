"""Measures the server against ONNX Runtime alone, in interleaved rounds: `make bench` (needs `make demo` once)."""

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

TOKENS = 16
BATCHES = (1, 32)
# Callers, and what attention they ask for.
SHOWN = {"none": "no attention", "cls": "CLS row of the last layer", "all": "all attention"}
LIMIT = "ONNX Runtime alone"
COLUMNS = ("what", "rows a second", "of the limit", "p50 ms", "p99 ms", "errors")
LOADS = ((1, "none"), (8, "none"), (32, "none"), (32, "cls"), (32, "all"))

Figures = dict[str, list[dict[str, Any]]]

console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)


def main() -> None:
    """Measure, print a table, write the figures as JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="length of one measurement")
    parser.add_argument("--out", type=Path, default=Path("build/bench.json"))
    parser.add_argument("--page", type=Path, help="write the table as a page of the documentation, too")
    args = parser.parse_args()
    graphs = sorted(args.models.glob("minilm/*/model.onnx"), key=lambda path: int(path.parent.name))
    if not graphs:
        parser.exit(1, f"{args.models}/minilm is not there: make demo exports it\n")
    threads = len(os.sched_getaffinity(0))
    figures: Figures = {}
    with serving(args.models) as address:
        for _ in track(range(args.rounds), description="rounds", console=console):
            for batch in BATCHES:
                for spin, shown in ((1, "spinning"), (0, "not spinning")):
                    options = {"batch": batch, "tokens": TOKENS, "seconds": args.seconds, "threads": threads}
                    per_second = float(run("bench.limit", str(graphs[-1]), options | {"spin": spin}))
                    figures.setdefault(f"{LIMIT}, batch {batch}, {shown}", []).append({"per_second": per_second})
            for callers, attention in LOADS:
                options = {"callers": callers, "tokens": TOKENS, "seconds": args.seconds, "attention": attention}
                name = f"regard, callers {callers}, {SHOWN[attention]}"
                figures.setdefault(name, []).append(json.loads(run("bench.load", address, options)))
    rows = summarize(figures)
    console.print(make_table(rows))
    if args.page:
        args.page.write_text(make_page(rows, args.rounds, args.seconds, threads))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    machine = {"processor": cpu_name(), "cpus": threads, "tokens": TOKENS}
    args.out.write_text(json.dumps({"machine": machine, "figures": figures}, indent=2) + "\n")
    console.print(f"written to {args.out}")


def run(module: str, target: str, options: dict[str, Any]) -> str:
    """Run one measurement in a process of its own; returns what it prints."""
    flags = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    command = [sys.executable, "-m", module, target, *flags]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout  # noqa: S603 -- our own


@contextmanager
def serving(models: Path) -> Iterator[str]:
    """Start the server on free ports; yields its address."""
    command = [sys.executable, "-m", "server", "--models", str(models), "--listen", "127.0.0.1:0"]
    command += ["--metrics", "127.0.0.1:0", "--device", "cpu", "--log-level", "warning"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 -- our own
        try:
            lines = iter(process.stdout or ())
            address = next(line for line in lines if line.startswith("gRPC on ")).split()[2].rstrip(",")
            next(line for line in lines if line.startswith("ready"))
            yield address
        finally:
            process.send_signal(signal.SIGTERM)


def summarize(figures: Figures) -> list[tuple[str, ...]]:
    """Medians over the rounds with their range, and the share of the limit's best median; one row a measurement."""
    medians = {name: statistics.median(one["per_second"] for one in rounds) for name, rounds in figures.items()}
    limit = max(value for name, value in medians.items() if name.startswith(LIMIT))
    rows = []
    for name, rounds in figures.items():
        values = [one["per_second"] for one in rounds]
        row = [name, f"{medians[name]:.0f} ({min(values):.0f} to {max(values):.0f})", f"{medians[name] / limit:.2f}"]
        if "p50_ms" in rounds[0]:
            row += [f"{statistics.median(one[key] for one in rounds):.1f}" for key in ("p50_ms", "p99_ms")]
            row.append(str(sum(one["errors"] for one in rounds)))
        rows.append(tuple(row + [""] * (len(COLUMNS) - len(row))))
    return rows


def make_table(rows: list[tuple[str, ...]]) -> Table:
    """For the terminal."""
    table = Table(title=f"MiniLM, {TOKENS} tokens", title_justify="left")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == COLUMNS[0] else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def make_page(rows: list[tuple[str, ...]], rounds: int, seconds: float, cpus: int) -> str:
    """For the documentation."""
    lines = [
        "# Performance",
        "",
        f"Written by `python -m bench --page docs/performance.md`: MiniLM on {TOKENS} tokens, {rounds} interleaved",
        f"rounds of {seconds:g} s each, {cpus} CPUs ({cpu_name()}), medians with the range. Callers run in a process",
        "of their own on the same CPUs, in a closed loop, through gRPC. The limit is the best median of ONNX Runtime",
        "alone, in a loop without a server and with all CPUs to itself, its threads spinning or not. The machine is",
        "shared: only figures of one run can be compared.",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|" + "---|" * len(COLUMNS),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


def cpu_name() -> str:
    """The processor as Linux names it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
