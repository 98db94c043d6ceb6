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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

# Callers, and what attention they ask for.
SHOWN = {"none": "no attention", "cls": "CLS row of the last layer", "all": "all attention"}
LIMIT = "ONNX Runtime alone"
COLUMNS = ("what", "rows a second", "of the limit", "p50 ms", "p99 ms", "errors")


@dataclass(frozen=True)
class Workload:
    """What is asked.

    Attributes:
        model: Which network.
        title: For the table.
        size: As bench.load takes it.
        batches: Rows of a run of ONNX Runtime alone.
        loads: Callers, and what attention they ask for.
    """

    model: str
    title: str
    size: str
    batches: tuple[int, ...]
    loads: tuple[tuple[int, str], ...]


WORKLOADS = (
    Workload(
        model="minilm",
        title="MiniLM, 16 tokens",
        size="16",
        batches=(1, 8, 32),
        loads=((1, "none"), (8, "none"), (32, "none"), (128, "none"), (32, "cls"), (32, "all")),
    ),
    Workload("minilm", "MiniLM, 4 to 128 tokens, mixed", "4-128", (1,), ((32, "none"),)),
    Workload("vit-s14", "ViT-S/14, 224 pixels, as tensors", "224px", (1, 4), ((8, "none"),)),
)

Figures = dict[str, list[dict[str, Any]]]

CPUS = len(os.sched_getaffinity(0))
console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)


def main() -> None:
    """Measure, print a table, write the figures as JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="length of one measurement")
    parser.add_argument("--out", type=Path, default=Path("build/bench.json"))
    parser.add_argument("--page", type=Path, help="write the table as a page of the documentation, too")
    args = parser.parse_args()
    if missing := [work.model for work in WORKLOADS if not newest_graph(args.models, work.model)]:
        parser.exit(1, f"{args.models}/{missing[0]} is not there: make demo exports it\n")
    figures: dict[str, Figures] = {work.title: {} for work in WORKLOADS}
    with serving(args.models) as address:
        for _ in track(range(args.rounds), description="rounds", console=console):
            for work in WORKLOADS:
                for name, figure in measure(work, args.models, address, args.seconds):
                    figures[work.title].setdefault(name, []).append(figure)
    tables = {title: summarize(one) for title, one in figures.items()}
    for title, rows in tables.items():
        console.print(make_table(title, rows))
    if args.page:
        args.page.write_text(make_page(tables, args.rounds, args.seconds))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    machine = {"processor": cpu_name(), "cpus": CPUS}
    args.out.write_text(json.dumps({"machine": machine, "figures": figures}, indent=2) + "\n")
    console.print(f"written to {args.out}")


def newest_graph(models: Path, name: str) -> Path | None:
    """The plain graph of the newest version of a model."""
    graphs = sorted(models.glob(f"{name}/*/model.onnx"), key=lambda path: int(path.parent.name))
    return graphs[-1] if graphs else None


def measure(work: Workload, models: Path, address: str, seconds: float) -> Iterator[tuple[str, dict[str, Any]]]:
    """One round: ONNX Runtime alone in every way, then the server under every load."""
    graph = str(newest_graph(models, work.model))
    ways = (
        (CPUS, 1, 1, "one run at a time, spinning"),
        (CPUS, 1, 0, "one run at a time, not spinning"),
        (1, CPUS, 0, "one run a CPU"),
    )
    for batch in work.batches:
        for threads, lanes, spin, shown in ways:
            options = {"batch": batch, "size": work.size, "seconds": seconds}
            options |= {"threads": threads, "lanes": lanes, "spin": spin}
            per_second = float(run("bench.limit", graph, options))
            yield f"{LIMIT}, batch {batch}, {shown}", {"per_second": per_second}
    for callers, attention in work.loads:
        options = {"model": work.model, "callers": callers, "size": work.size, "seconds": seconds}
        report = json.loads(run("bench.load", address, options | {"attention": attention}))
        yield f"regard, callers {callers}, {SHOWN[attention]}", report


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


def make_table(title: str, rows: list[tuple[str, ...]]) -> Table:
    """For the terminal."""
    table = Table(title=title, title_justify="left")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == COLUMNS[0] else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def make_page(tables: dict[str, list[tuple[str, ...]]], rounds: int, seconds: float) -> str:
    """For the documentation."""
    lines = [
        "# Performance",
        "",
        f"Written by `python -m bench --page docs/performance.md`: {rounds} interleaved rounds of {seconds:g} s each,",
        f"{CPUS} CPUs ({cpu_name()}), medians with the range. Callers run in a process of their own on the same CPUs,",
        "in a closed loop, through gRPC, written in Python. The limit is the best median of ONNX Runtime alone, in a",
        "loop without a server and with all CPUs to itself. The machine is shared: only figures of one run can be",
        "compared.",
    ]
    for title, rows in tables.items():
        lines += ["", f"## {title}", "", "| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
        lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def cpu_name() -> str:
    """The processor as Linux names it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
