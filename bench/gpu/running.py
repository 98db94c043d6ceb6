"""Runs checks, each in a process of its own with a share of the time, and collects rows whatever becomes of it."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.gpu.rows import ITS_END, Row, failed, skipped
from bench.programs import environment

_MARK = "REGARD_GPU_CHECK"  # in the environment of a check, and of all that it starts
_GRACE = 0.5  # of its share, before a check that does not end is ended
_GRACE_SECONDS = 15.0
_END_SECONDS = 5.0  # for what is killed to end: a driver frees a GPU's memory first
_SHOWN_LINES = 4  # of what a check said before it died


@dataclass(frozen=True)
class Check:
    """A check.

    Attributes:
        name: For the report.
        function: MODULE:NAME of what takes a Setting and yields rows.
        share: Of the time, beside the others'.
        needs_seconds: With fewer left it is skipped.
        most_seconds: More is of no use to it.
    """

    name: str
    function: str
    share: float = 1.0
    needs_seconds: float = 2.0
    most_seconds: float = float("inf")


def run_checks(checks: Sequence[Check], device: str, models: Path, seconds: float) -> Iterator[Row]:
    """Run checks one after the other, and yield their rows; nothing runs beyond so many seconds."""
    ends = time.monotonic() + seconds
    for place, check in enumerate(checks):
        left = ends - time.monotonic()
        share = min(left * check.share / sum(one.share for one in checks[place:]), check.most_seconds)
        if share < check.needs_seconds:
            yield skipped_check(check, share)
            continue
        most = min(share * (1 + _GRACE) + _GRACE_SECONDS, left)
        told = min(share, left - min(_GRACE_SECONDS, left / 3))  # so that what it has begun can end
        for row in _run(check, device, models, told, most):
            yield replace(row, check=check.name)


def skipped_check(check: Check, share: float) -> Row:
    """The row of a check for which no time is left."""
    why = f"{max(share, 0):.0f} s left for it, and it needs {check.needs_seconds:.0f}"
    return replace(skipped("all of it", why), check=check.name)


def _run(check: Check, device: str, models: Path, share: float, most: float) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as name:
        written, said = Path(name, "rows"), Path(name, "said")
        command = [sys.executable, "-m", "bench.gpu.child", check.function, device, str(models), str(share)]
        with said.open("w") as output:
            code = _wait([*command, str(written)], output, most)
        for row in read_rows(written):
            yield replace(row, why=row.why + _last(said)) if row.name == ITS_END else row
        if code is None:
            yield failed(ITS_END, f"it had not ended after {most:.0f} s, its share was {share:.0f}{_last(said)}")
        elif code < 0:
            yield failed(ITS_END, f"its process ended by {signal.Signals(-code).name}{_last(said)}")
        elif code:
            yield failed(ITS_END, f"its process ended with code {code}{_last(said)}")


def _wait(command: Sequence[str], output: object, seconds: float) -> int | None:
    """Return the exit code; None where it had to be ended, with what it started."""
    mark = f"{_MARK}={uuid.uuid4().hex}"
    env = environment() | dict([mark.split("=")])
    with subprocess.Popen(  # noqa: S603 -- our own
        command,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=env,
        start_new_session=True,  # type: ignore[call-overload]
    ) as process:
        try:
            return int(process.wait(seconds))
        except subprocess.TimeoutExpired:
            return None
        finally:
            _end_all(process.pid, mark)


def _end_all(pid: int, mark: str) -> None:
    """End a check and all that it left: its process group, and those with its mark, in whatever session they are."""
    ends = time.monotonic() + _END_SECONDS
    while (left := list(_marked(mark.encode()))) and time.monotonic() < ends:
        for process in left:
            _kill(process, ends)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _kill(process: int, ends: float) -> None:
    """Kill the one of a descriptor, close that, and return when the one has ended: its memory goes some time before."""
    try:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(process, signal.SIGKILL)
        waiting = select.poll()
        waiting.register(process, select.POLLIN)
        waiting.poll(max(ends - time.monotonic(), 0) * 1000)
    finally:
        os.close(process)


def _marked(mark: bytes) -> Iterator[int]:
    """Open a descriptor of each process with the mark; one that is ending has none any more."""
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # it has just ended, or is somebody else's
            if mark in path.read_bytes().split(b"\0"):
                yield os.pidfd_open(int(path.parent.name))


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the rows that a check wrote; a line that it did not finish is left out."""
    if not path.exists():
        return
    for line in path.read_text().splitlines():
        try:
            yield Row(**json.loads(line))
        except (ValueError, TypeError):
            return


def _last(said: Path) -> str:
    lines = [line for line in said.read_text(errors="replace").splitlines() if line.strip()]
    return f"; it said: {' | '.join(lines[-_SHOWN_LINES:])}" if lines else ""
