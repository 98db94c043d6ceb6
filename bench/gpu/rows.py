"""A line of the report: what was looked at, what was found, what was expected."""

import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from server.errors import first_line

ITS_END = "its end"  # the row of a check that did not end as it should
ON_GPU = "runs on a GPU"  # the row that says so
Status = Literal["passed", "failed", "skipped", "measured"]


@dataclass(frozen=True)
class Row:
    """One thing that was looked at.

    Attributes:
        name: What, and of which model.
        measured: What was found; empty where nothing was.
        limit: What was expected; empty where nothing is.
        status: "measured" has no limit and cannot fail.
        why: Of what failed or was skipped.
        check: Which check it is of; the runner says so.
    """

    name: str
    measured: str = ""
    limit: str = ""
    status: Status = "measured"
    why: str = ""
    check: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return asdict(self)


def measured(name: str, found: object) -> Row:
    """A figure without a limit."""
    return Row(name, str(found))


def skipped(name: str, why: str) -> Row:
    """Something that could not be looked at."""
    return Row(name, status="skipped", why=why)


def failed(name: str, why: str, limit: str = "") -> Row:
    """Something that is wrong and has no figure."""
    return Row(name, limit=limit, status="failed", why=why)


def judged(name: str, found: object, limit: str, *, ok: bool, why: str = "") -> Row:
    """A figure beside what was expected; `why` is told where it is not that."""
    return Row(name, str(found), limit, "passed" if ok else "failed", "" if ok else why)


def at_most(name: str, found: float, limit: float) -> Row:
    """A number that may not be larger; NaN is."""
    return judged(name, f"{found:.2g}", f"at most {limit:.2g}", ok=found <= limit, why="beyond the limit")


def guarded(name: str, rows: Iterator[Row]) -> Iterator[Row]:
    """Yield rows; what is raised meanwhile is a row of this name, too."""
    try:
        yield from rows
    except Exception as error:  # whatever it is, the others go on
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(where.filename).name}, line {where.lineno}"
        yield failed(name, f"{type(error).__name__}: {first_line(error)} ({place})")
