"""The report as a page and as JSON."""

import re
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from bench.gpu.rows import ON_GPU, Row, Status
from bench.programs import ROOT

_OF_THE_MACHINE = re.compile(
    rf"hostname=\S+|{re.escape(str(ROOT))}/?|{re.escape(tempfile.gettempdir())}/(tmp\w+/)?(models/)?"
)
_TITLE, _FOUND = "# On a GPU", "## What was found"
_ORDER: tuple[Status, ...] = ("failed", "passed", "measured", "skipped")


def summary(rows: Sequence[Row]) -> str:
    """One line: how many of each."""
    counts = {status: sum(row.status == status for row in rows) for status in _ORDER}
    return ", ".join(f"{count} {status}" for status, count in counts.items())


def on_gpu(rows: Iterable[Row]) -> bool:
    """Whether the checks found the device to be a GPU."""
    return any((row.name, row.measured) == (ON_GPU, "yes") for row in rows)


def make_page(rows: Sequence[Row], device: str, seconds: float, before: str = "") -> str:
    """Write what was found, what failed first.

    Args:
        rows: Of all checks.
        device: That was asked for.
        seconds: How long it took.
        before: A page whose section of what was found is replaced; without one the page is that section.
    """
    found = "\n".join(_section(rows, device, seconds)).rstrip() + "\n"
    if _FOUND not in before:
        return f"{_TITLE}\n\n{found}"
    above, below = before.split(_FOUND, 1)
    _, heading, further = below.partition("\n## ")
    return f"{above}{found}{heading}{further}"


def _section(rows: Sequence[Row], device: str, seconds: float) -> Iterator[str]:
    yield from (_FOUND, "")
    yield f"Written by `python -m bench.gpu --device {device}` on {time.strftime('%Y-%m-%d')}, in {seconds:.0f} s."
    if not on_gpu(rows):
        yield "The CPU was in the device's place: this says nothing of a GPU but that the check itself works."
    yield from ("", f"{summary(rows)}.", "")
    if failures := [row for row in rows if row.status == "failed"]:
        yield from ("### Failed", "", *_table(failures, with_check=True), "")
    for check, own in groupby(rows, key=lambda row: row.check):
        yield from (f"### {check[:1].upper()}{check[1:]}", "", *_table(list(own)), "")


def _table(rows: Sequence[Row], *, with_check: bool = False) -> list[str]:
    lines = ["| what | measured | limit | status | why |", "|---|---|---|---|---|"]
    for row in rows:
        name = f"{row.check}: {row.name}" if with_check else row.name
        status = f"**{row.status}**" if row.status == "failed" else row.status
        lines.append(f"| {' | '.join(map(_cell, (name, row.measured, row.limit, status, row.why)))} |")
    return lines


def _cell(text: str) -> str:
    """Keep a text within its cell, without what is of this machine alone: its name, the checkout's place."""
    text = _OF_THE_MACHINE.sub("", text)
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())


def line(row: Row) -> str:
    """Return a row for the terminal."""
    told = "; ".join(filter(None, (row.measured, f"expected {row.limit}" if row.limit else "", row.why)))
    return f"{row.status:8} {row.check}: {row.name}: {told}"
