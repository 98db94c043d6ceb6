"""A progress bar on stderr, where that is a terminal: how many inputs are done, how fast, how long it will take."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


class _Rate(ProgressColumn):
    """Inputs a second, lately."""

    def render(self, task: Task) -> Text:
        """Write it with three digits."""
        return Text("" if task.speed is None else f"{task.speed:.3g}/s")


@contextmanager
def progress(total: int | None, done: int) -> Iterator[Callable[[], None]]:
    """Show a bar for the length of a with block.

    Args:
        total: Inputs in all; None where that is not known.
        done: How many of them an earlier run has answered.

    Yields:
        What to call for each input that is answered.
    """
    columns = (TextColumn("regard:"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn(compact=True))
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as bar:
        task = bar.add_task("", total=total, completed=done)
        yield lambda: bar.advance(task)
