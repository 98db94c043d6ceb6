"""Which inputs the arguments of a command name: folders, patterns, lines of files, columns of tables."""

import csv
import glob
import io
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from regard.extras import how_to_install
from regard.lines import each_line
from regard.sources import IMAGE_SUFFIXES, InputError, Source, is_folder, open_file, read_source

TABLE_SUFFIXES = {".csv", ".parquet"}
_PATTERN = frozenset("*?[")
_TABLE = "a table, .csv or .parquet"
_ROWS = 1024  # of a Parquet file that are in memory at a time
csv.field_size_limit(2**31 - 1)  # a text of a column may be long


@dataclass(frozen=True)
class Gathering:
    """How arguments are read.

    Attributes:
        lines: Each is a file of texts, one a line.
        column: Each is a table, of which this column is taken.
        as_text: True where each is a text, False where each is a file, None to tell by what is there.
    """

    lines: bool = False
    column: str | None = None
    as_text: bool | None = None

    def is_bulk(self, arguments: Sequence[str]) -> bool:
        """Tell whether an argument may name many inputs."""
        if self.as_text:
            return False
        return self.column is not None or any(is_folder(one) or _is_pattern(one) or _is_table(one) for one in arguments)

    def read(self, arguments: Iterable[str]) -> Iterator[Source]:
        """Yield every input, read when it is asked for.

        Raises:
            InputError: An argument names none, or something else than it should.
            OSError: A file cannot be read.
        """
        for argument in arguments:
            if self.as_text:
                yield Source(argument, None, argument)
            elif self.column is not None:
                yield from self._column(argument, self.column)
            elif self.lines:
                yield from each_line(argument)
            else:
                yield from self._files(argument)

    def count(self, arguments: Sequence[str]) -> int | None:
        """Return how many inputs there are where that is quickly known, else None."""
        if self.as_text or self.column is not None or self.lines:
            sizes = [1 if self.as_text else _rows(one, self.column) for one in arguments]
        else:
            sizes = [len(_paths(one)) or 1 for one in arguments]
        return None if None in sizes else sum(size or 0 for size in sizes)

    def _files(self, argument: str) -> Iterator[Source]:
        if _is_table(argument):
            raise InputError(f"{argument}: a table; expected --column with the column to take")
        paths = _paths(argument)
        for path in paths:
            is_photo = path.suffix.lower() in IMAGE_SUFFIXES
            yield (
                Source(str(path), None, None, path=path)
                if is_photo
                else read_source(str(path), as_text=False, name=str(path))
            )
        if paths:
            return
        if is_folder(argument):
            raise InputError(f"{argument}: a folder without photos or .txt files; expected some, a file or a text")
        if _is_pattern(argument) and self.as_text is False:
            raise InputError(f"{argument}: no such file")
        yield read_source(argument, as_text=self.as_text, name=argument)

    def _column(self, argument: str, column: str) -> Iterator[Source]:
        if not _is_table(argument):
            raise InputError(f"--column {column}: {argument} is no table; expected .csv or .parquet")
        rows = _csv_column if argument.lower().endswith(".csv") else _parquet_column
        for number, value in enumerate(rows(argument, column), start=1):
            yield self._cell(argument, column, number, value)

    def _cell(self, argument: str, column: str, number: int, value: Any) -> Source:
        if isinstance(value, bytes):
            return Source(f"row {number}", value, None, file=argument, number=number)
        if not isinstance(value, str):
            value = "" if value is None else str(value)
        if self.as_text is False:
            return Source(value, None, None, file=argument, number=number, path=Path(value))
        return Source(value, None, value, file=argument, number=number)


def _is_table(argument: str) -> bool:
    return Path(argument).suffix.lower() in TABLE_SUFFIXES and "\n" not in argument


def _is_pattern(argument: str) -> bool:
    """Tell whether this is a pattern of file names, and not a question: it matches, or is written like a path."""
    if not _PATTERN & set(argument) or any(letter.isspace() for letter in argument) or Path(argument).is_file():
        return False
    return bool("/" in argument or Path(argument).suffix or glob.glob(argument))  # noqa: PTH207 -- as shells do it


def _paths(argument: str) -> list[Path]:
    """Return the files of a folder or a pattern, by name; of a folder its photos, or its texts where it has none."""
    if _is_pattern(argument):
        found = sorted(Path(one) for one in glob.glob(argument, recursive=True))  # noqa: PTH207 -- likewise
        if not (files := [path for path in found if path.is_file()]):
            raise InputError(f"{argument}: no such file")
        return files
    if argument == "-" or not is_folder(argument):
        return []
    files = sorted(Path(argument).iterdir())
    photos = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    return photos or [path for path in files if path.suffix.lower() == ".txt"]


def _csv_column(argument: str, column: str) -> Iterator[str]:
    with io.TextIOWrapper(open_file(argument, f"--column {column}", _TABLE), encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        try:
            _check_column(argument, column, rows.fieldnames or ())
            for row in rows:
                yield row[column] or ""
        except (UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"{argument}: {error}; expected CSV in UTF-8") from error


def _parquet_column(argument: str, column: str) -> Iterator[Any]:
    with open_file(argument, f"--column {column}", _TABLE) as file, parquet().ParquetFile(file) as table:
        _check_column(argument, column, table.schema_arrow.names)
        for batch in table.iter_batches(_ROWS, columns=[column]):
            yield from batch.column(0).to_pylist()


def parquet() -> ModuleType:
    """Return pyarrow.parquet.

    Raises:
        InputError: It is not installed.
    """
    try:
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise InputError(f"Parquet files need pyarrow: {how_to_install('tables')}") from error
    module: ModuleType = pyarrow.parquet
    return module


def _check_column(argument: str, column: str, names: Iterable[str]) -> None:
    if column not in (known := list(names)):
        raise InputError(f"--column {column}: {argument} has no such column; expected one of {', '.join(known)}")


def _rows(argument: str, column: str | None) -> int | None:
    if column is not None and argument.lower().endswith(".parquet"):
        with open_file(argument, f"--column {column}", _TABLE) as file, parquet().ParquetFile(file) as table:
            return int(table.metadata.num_rows)
    if column is not None or not Path(argument).is_file():  # a pipe can be read only once
        return None
    with Path(argument).open("rb") as file:
        blocks = iter(lambda: file.read(2**20), b"")
        return sum(block.count(b"\n") for block in blocks)  # about: the last may lack its end, some be empty


def peek(sources: Iterator[Source]) -> tuple[Source, Iterator[Source]]:
    """Return the first input, and an iterator of all.

    Raises:
        InputError: There is none.
    """
    for first in sources:
        return first, itertools.chain([first], sources)
    raise InputError("no input; expected some")
