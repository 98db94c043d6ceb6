"""The report as a page and as JSON."""

import time
from collections.abc import Sequence
from itertools import groupby

from bench.gpu.rows import Row, Status

_ORDER: tuple[Status, ...] = ("failed", "passed", "measured", "skipped")


def summary(rows: Sequence[Row]) -> str:
    """One line: how many of each."""
    counts = {status: sum(row.status == status for row in rows) for status in _ORDER}
    return ", ".join(f"{count} {status}" for status, count in counts.items())


def make_page(rows: Sequence[Row], device: str, seconds: float) -> str:
    """Write what was found, what failed first."""
    stand_in = device == "cpu"
    lines = ["# On a GPU" if not stand_in else "# The stand-in: no GPU", ""]
    lines += [f"Written by `python -m bench.gpu --device {device}` on {time.strftime('%Y-%m-%d')}, in {seconds:.0f} s."]
    if stand_in:
        lines += ["The CPU was in the device's place: this says nothing of a GPU but that the check itself works."]
    lines += ["", f"{summary(rows)}.", ""]
    if failures := [row for row in rows if row.status == "failed"]:
        lines += ["## Failed", "", *_table(failures, with_check=True), ""]
    for check, own in groupby(rows, key=lambda row: row.check):
        lines += [f"## {check[:1].upper()}{check[1:]}", "", *_table(list(own)), ""]
    return "\n".join(lines).rstrip() + "\n"


def _table(rows: Sequence[Row], *, with_check: bool = False) -> list[str]:
    lines = ["| what | measured | limit | status | why |", "|---|---|---|---|---|"]
    for row in rows:
        name = f"{row.check}: {row.name}" if with_check else row.name
        status = f"**{row.status}**" if row.status == "failed" else row.status
        lines.append(f"| {' | '.join(map(_cell, (name, row.measured, row.limit, status, row.why)))} |")
    return lines


def _cell(text: str) -> str:
    """Keep a text within its cell."""
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())


def line(row: Row) -> str:
    """Return a row for the terminal."""
    told = "; ".join(filter(None, (row.measured, f"expected {row.limit}" if row.limit else "", row.why)))
    return f"{row.status:8} {row.check}: {row.name}: {told}"
