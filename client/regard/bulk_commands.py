"""What `regard embed`, `classify` and `attend` do with many inputs: ask in order, print or write the answers."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from regard.client import Client
from regard.console import choose, tell_cut, tell_written
from regard.errors import RegardError
from regard.gathering import Gathering, peek
from regard.progress import progress
from regard.records import record_of
from regard.results import Results, is_results
from regard.sources import InputError, Source, Task
from regard.terminal import clean

READ_OPTIONS = {
    "lines": typer.Option("--lines", help="Take each line of a file, or of stdin, for a text."),
    "column": typer.Option(metavar="NAME", help="Take this column of tables, .csv or .parquet."),
    "as_text": typer.Option("--text/--file", help="Arguments (or a column) are texts, or files (default: by a look)."),
}
BULK_OPTIONS = READ_OPTIONS | {
    "resume": typer.Option("--resume", help="Of -o: go on after what an interrupted run has written."),
    "retry_errors": typer.Option("--retry-errors", help="Of -o: ask again for inputs that have errors, then go on."),
}


@dataclass(frozen=True)
class ReadOptions:
    """How arguments are read.

    Raises:
        BadParameter: Lines and a column are wanted.
    """

    lines: bool = False
    column: str | None = None
    as_text: bool | None = None

    def __post_init__(self) -> None:
        if self.lines and self.column is not None:
            raise typer.BadParameter("expected no --lines with it", param_hint="--column")

    @property
    def gathering(self) -> Gathering:
        """How arguments are read."""
        return Gathering(self.lines, self.column, self.as_text)


@dataclass(frozen=True)
class BulkOptions(ReadOptions):
    """What is said of many inputs."""

    resume: bool = False
    retry_errors: bool = False

    def wants(self, arguments: Sequence[str], output: Path | None) -> bool:
        """Tell whether inputs may be many, or answers go to a file of results.

        Raises:
            BadParameter: There is nothing to go on with.
        """
        for flag, is_set in (("--resume", self.resume), ("--retry-errors", self.retry_errors)):
            if is_set and not is_results(output):
                raise typer.BadParameter("expected -o with a .jsonl, .npz or .parquet", param_hint=flag)
        return is_results(output) or self.gathering.is_bulk(arguments)


@dataclass(frozen=True)
class Work:
    """Many inputs, and how they are asked for.

    Attributes:
        client: Asks.
        task: What is asked.
        arguments: Of the command line.
        options: How they are read.
        output: The file of results; None to show each answer.
        asked: What is asked of each, for JSON: a run that goes on must ask the same.
    """

    client: Client
    task: Task
    arguments: Sequence[str]
    options: BulkOptions
    output: Path | None
    asked: Mapping[str, Any]

    def run(
        self,
        model: str,
        ask: Callable[[str, Source, dict[str, Any]], Iterator[Any]],
        show: Callable[[Source, Any], None],
    ) -> None:
        """Answer every input; one that has an error ends the command with 1, after the others.

        Args:
            model: Its name; empty for the first that takes the first input.
            ask: Makes an iterator of answers, of the model's name, the first input and the inputs by their kind.
            show: Prints an answer.

        Raises:
            InputError: An argument cannot be used.
            Exit: An input has an error.
        """
        if self.output is None:
            count = errors = 0
            for source, answer in self._answers(model, ask, lambda sources: sources):
                count += 1
                if isinstance(answer, RegardError):
                    typer.echo(f"regard: {clean(source.place)}: {answer}", err=True)
                    errors += 1
                else:
                    show(source, answer)
            _tell_errors(errors, count, "named above")
            return
        self._write(self.output, model, ask)

    def _write(self, output: Path, model: str, ask: Callable[[str, Source, dict[str, Any]], Iterator[Any]]) -> None:
        asked = {"task": self.task, "model": model, **self.asked}
        results = Results(output, self.options.resume, asked, self.options.retry_errors)
        results.check()
        if results.is_done:
            results.read()
            typer.echo(f"regard: {output} is whole already", err=True)
            _tell_errors(results.errors, results.total, _RETRY)
            return
        done = 0
        try:
            with results, progress(self.options.gathering.count(self.arguments), results.count) as advance:
                done = results.count
                for source, answer in self._answers(model, ask, results.skip):
                    results.add(record_of(source, answer))
                    done += 1
                    advance()
        except BaseException:
            if done:
                typer.echo(f"regard: {done} inputs are in {results.partial}; --resume goes on after them", err=True)
            raise
        results.finish()
        tell_written(output)
        _tell_errors(results.errors, results.total, _RETRY)

    def _answers(
        self,
        model: str,
        ask: Callable[[str, Source, dict[str, Any]], Iterator[Any]],
        rest: Callable[[Iterator[Source]], Iterator[Source]],
    ) -> Iterator[tuple[Source, Any]]:
        first, sources = peek(self.options.gathering.read(self.arguments))
        name, waiting = model or choose(self.client, first, self.task).name, deque[Source]()

        def values() -> Iterator[Any]:
            for source in rest(sources):
                if source.modality != first.modality:
                    raise InputError(f"{source.place}: {_KINDS[source.modality]} beside {_KINDS[first.modality]}")
                waiting.append(source)
                yield source.value

        for answer in ask(name, first, {f"{first.modality}s": values()}):
            source = waiting.popleft()
            if not isinstance(answer, RegardError) and answer.truncated:
                tell_cut(source, name)
            yield source, answer


_RETRY = 'see the column "error"; --retry-errors asks for them again'
_KINDS = {"text": "a text", "image": "a photo"}


def _tell_errors(errors: int, count: int, where: str) -> None:
    if errors:
        typer.echo(f"regard: {errors} of {count} inputs have errors: {where}", err=True)
        raise typer.Exit(1)
