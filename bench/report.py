"""Turns figures into tables, a page and pictures."""

import platform
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.answers import ANSWERS, COLUMNS, ROWS
from bench.peers import PEERS
from bench.targets import (
    ALONE,
    CANCELLED,
    ECHO,
    OPEN,
    SERVERS,
    SOAK,
    TRANSPORTS,
    TRIVIAL,
    TRIVIAL_CALLERS,
    Figures,
    judge,
    limit_name,
    load_name,
    median_ratio,
)
from bench.workloads import IMAGES, MIXED, TEXT

_SPECIAL = (SERVERS, OPEN, ALONE, TRIVIAL, CANCELLED, SOAK)
_OPEN_TITLE = "open loop: MiniLM, 16 tokens, each server at shares of its own peak"
_TRIVIAL_TITLE = f"trivial graph: 16 floats in and out, {TRIVIAL_CALLERS} callers"
# What a reader has to know of a table.
NOTES = {
    _TRIVIAL_TITLE: (
        "`python -m bench --only trivial`. The graph adds its input to itself. regard serves a bare ONNX file and",
        "is asked through the Open Inference Protocol, on grpcio and on Envoy (`--transport envoy`), the peers through",
        "their own. The echo is a grpc.aio server on",
        "regard's event loop (uvloop) that reads the same request and writes an answer of the same size. CPU a call is",
        "the user and system time of the server's process and its children, by the operating system's accounting, over",
        "the calls answered; callers are not in it. Ratios to the echo are medians of the rounds' own. Callers are",
        "h2load, whose own CPUs are the last column.",
    ),
    _OPEN_TITLE: (
        "`python -m bench --only open`. A peak is what 128 callers reach in a closed loop; the rates are shares of the",
        "peak of the same server in the same round, and requests come as a Poisson process, the same for every round.",
        "Latencies count from when a request was due, so that a stall is not hidden. regard has `--max-queue-seconds",
        "0.5` and refuses beyond that. Callers are a Python process, for the peak too: its own CPUs, and how late it",
        "sent, are the last columns; HTTP costs it less than gRPC.",
    ),
}
Rows = list[tuple[str, ...]]
_THROUGHPUT = ("what", "rows a second", "of the limit", "p50 ms", "p99 ms", "errors", "generator's CPUs")
_TARGETS = ("target", "measured", "met")
_MEMORY = ("what", "ready s", "proportional MB", "resident MB")
_OPEN = ("load", "answered/s", "of the peak", "p50 ms", "p99 ms", "refused", "refusals' p50 ms", "errors")
_GENERATOR = ("callers' CPUs", "late p99 ms")
_TRIVIAL = ("server", "calls a second", "of the echo", "CPU a call, us", "of the echo's", "p50 ms", "p99 ms", "errors")


def print_tables(figures: Figures, failures: dict[str, str], console: Console) -> None:
    """For the terminal."""
    for title, columns, rows in _tables(figures):
        table = Table(title=title, title_justify="left")
        for column in columns:
            table.add_column(column, justify="left" if column == columns[0] else "right", no_wrap=True)
        for row in rows:
            table.add_row(*row)
        console.print(table)
    for name, reason in failures.items():
        console.print(f"{name}: not measured: {reason}", markup=False)


def make_page(figures: Figures, failures: dict[str, str], run_of: dict[str, Any]) -> str:
    """For the documentation."""
    lines = [
        "# Performance",
        "",
        f"Written by `python -m bench --page docs/performance.md`: {run_of['rounds']} interleaved rounds,",
        f"{run_of['seconds']:g} s a measurement, {run_of['cpus']} CPUs ({cpu_name()}); medians, and the range over the",
        "rounds. [profile.md](profile.md) says where the time goes that is missing. The limit is the best median of",
        "ONNX Runtime alone, in a loop without a server and with all CPUs to itself. Servers and callers share the",
        "CPUs. Callers are h2load in a closed loop, but in the open loop, where they are a Python process that takes",
        "the CPUs stated. Every server has the same ONNX file and its natural protocol; batching is on wherever there",
        "is one, ONNX Runtime's threads are what was best for 32 callers (`bench/peers`). The machine is shared: only",
        "figures of one run can be compared. `--only trivial,open` measures parts alone, and `--sections FILE` writes",
        "their tables as sections of this page.",
        "",
        "![throughput side by side](performance.png)",
    ]
    targets, *others = _tables(figures)
    lines += [*_section(*targets), *targets_of_answers()]
    for table in others:
        lines += _section(*table)
    for name, reason in failures.items():
        lines += ["", _unmeasured(name, reason)]
    return "\n".join(lines) + "\n"


def make_sections(figures: Figures, failures: dict[str, str], run_of: dict[str, Any]) -> str:
    """Of a page like that, those of what was measured."""
    told = f"{run_of['rounds']} interleaved rounds, {run_of['seconds']:g} s a measurement, {run_of['cpus']} CPUs"
    lines = [f"{told} ({cpu_name()}); medians, and the range over the rounds."]
    for table in _tables(figures):
        lines += _section(*table)
    lines += [line for name, reason in failures.items() for line in ("", _unmeasured(name, reason))]
    return "\n".join(lines) + "\n"


def _unmeasured(name: str, reason: str) -> str:
    return f"{name} was not measured: {' '.join(reason.split())}"


def targets_of_answers() -> list[str]:
    """The section of what other commands measured."""
    told = "Each was measured by its own command, on two CPUs, the speeds in rounds by turns within one run."
    return [*_section(ANSWERS, COLUMNS, list(ROWS)), "", told]


def _section(title: str, columns: tuple[str, ...], rows: Rows) -> list[str]:
    lines = ["", f"## {title[0].upper()}{title[1:]}", ""]
    lines += [*NOTES[title], ""] if title in NOTES else []
    lines += ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows)]


def save_pictures(figures: Figures, folder: Path) -> None:
    """Draw throughput as shares of the limit, one panel a workload."""
    import matplotlib as mpl  # only here: the tables do without

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    panels = [(work, callers) for work, callers in ((TEXT, 32), (MIXED, 32), (IMAGES, 8)) if work.title in figures]
    drawn, axes = plt.subplots(1, len(panels), figsize=(4.2 * len(panels), 3.6), squeeze=False, layout="constrained")
    for axis, (work, callers) in zip(axes[0], panels, strict=True):
        shares = _shares(figures[work.title], callers)
        names = sorted(shares, key=lambda name: shares[name])
        colours = ["#1f77b4" if name in TRANSPORTS else "#b0b7bf" for name in names]
        bars = axis.barh(names, [shares[name] for name in names], color=colours)
        axis.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
        axis.axvline(1, color="black", linewidth=0.8, linestyle=":")
        axis.set_xlim(0, 1.15)
        axis.set_title(f"{work.title}\n{callers} callers", fontsize=10)
        axis.set_xlabel("share of ONNX Runtime alone")
        axis.spines[["top", "right"]].set_visible(False)
    drawn.savefig(folder / "performance.png", dpi=120)
    plt.close(drawn)


def _shares(figures: dict[str, list[dict[str, Any]]], callers: int) -> dict[str, float]:
    """Throughput of every server under one load, as shares of the limit."""
    limit = _limit(figures)
    found = {}
    for name, rounds in figures.items():
        server, _, load = name.partition(", ")
        if load in (load_name(callers), load_name(callers, "plain")):
            found[server] = _median(rounds, "per_second") / limit
    return found


def _tables(figures: Figures) -> Iterator[tuple[str, tuple[str, ...], Rows]]:
    yield "targets", _TARGETS, list(_target_rows(figures))
    for title, own in figures.items():
        if title == TRIVIAL:
            yield _TRIVIAL_TITLE, (*_TRIVIAL, _GENERATOR[0]), list(_trivial_rows(own))
        if title not in _SPECIAL:
            yield title, _THROUGHPUT, list(_throughput_rows(own))
    if OPEN in figures:
        yield _OPEN_TITLE, (*_OPEN, *_GENERATOR), list(_open_rows(figures[OPEN]))
    if SERVERS in figures:
        yield "servers after the load", _MEMORY, list(_server_rows(figures[SERVERS]))


def _target_rows(figures: Figures) -> Iterator[tuple[str, ...]]:
    words = {True: "yes", False: "**no**", None: ""}
    for verdict in judge(figures, [peer.name for peer in PEERS if peer.batches]):
        yield verdict.target, verdict.measured, words[verdict.met]


def _throughput_rows(figures: dict[str, list[dict[str, Any]]]) -> Iterator[tuple[str, ...]]:
    limit = _limit(figures)
    for name, rounds in figures.items():
        row = [name, _ranged(rounds, "per_second", 0), f"{_median(rounds, 'per_second') / limit:.2f}"]
        if "p50_ms" in rounds[0]:
            row += [f"{_median(rounds, key):.1f}" for key in ("p50_ms", "p99_ms")]
            row += [str(sum(one["errors"] for one in rounds)), f"{_median(rounds, 'generator_cpus'):.2f}"]
        yield tuple(row + [""] * (len(_THROUGHPUT) - len(row)))


def _trivial_rows(figures: dict[str, list[dict[str, Any]]]) -> Iterator[tuple[str, ...]]:
    echo = figures[ECHO]
    for name, rounds in figures.items():
        yield (
            name,
            _ranged(rounds, "per_second", 0),
            f"{median_ratio(rounds, echo):.2f}",
            _ranged(rounds, "cpu_us", 0),
            f"{median_ratio(rounds, echo, 'cpu_us'):.2f}",
            f"{_median(rounds, 'p50_ms'):.1f}",
            f"{_median(rounds, 'p99_ms'):.1f}",
            str(sum(one["errors"] for one in rounds)),
            f"{_median(rounds, 'generator_cpus'):.2f}",
        )


def _open_rows(figures: dict[str, list[dict[str, Any]]]) -> Iterator[tuple[str, ...]]:
    for name, rounds in figures.items():
        yield (
            name,
            _ranged(rounds, "per_second", 0),
            f"{statistics.median(one['per_second'] / one['peak'] for one in rounds):.2f}",
            _ranged(rounds, "p50_ms", 1),
            _ranged(rounds, "p99_ms", 1),
            str(sum(one["refused"] for one in rounds)),
            _shown(rounds, "refused_p50_ms", 1),
            str(sum(one["errors"] for one in rounds)),
            f"{_median(rounds, 'generator_cpus'):.2f}",
            _shown(rounds, "late_p99_ms", 1),
        )


def _server_rows(figures: dict[str, list[dict[str, Any]]]) -> Iterator[tuple[str, ...]]:
    for name, rounds in figures.items():
        yield (
            name,
            *(_ranged(rounds, key, digits) for key, digits in (("ready_seconds", 1), ("pss_mb", 0), ("rss_mb", 0))),
        )


def _limit(figures: dict[str, list[dict[str, Any]]]) -> float:
    return _median(figures[limit_name(figures)], "per_second")


def _median(rounds: list[dict[str, Any]], key: str) -> float:
    return float(statistics.median(one[key] for one in rounds))


def _shown(rounds: list[dict[str, Any]], key: str, digits: int) -> str:
    """Median of what there is."""
    values = [one[key] for one in rounds if one[key] is not None]
    return f"{statistics.median(values):.{digits}f}" if values else ""


def _ranged(rounds: list[dict[str, Any]], key: str, digits: int) -> str:
    values = [one[key] for one in rounds if one[key] is not None]
    if not values:
        return ""
    return f"{_shown(rounds, key, digits)} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def cpu_name() -> str:
    """The processor as Linux names it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
