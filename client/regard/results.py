"""Files of results that an interruption does not harm: a journal that grows by a line an input, then the file itself.

`FILE.partial` says in its first line what is asked, then has a line of JSON for each input, arrays in base64; a line
with "again" stands for an earlier input. A run that goes on after another drops a last line that is not whole and skips
the inputs that are there; what is asked and their names must be the same. Once all inputs are there, FILE is made of
it, beside its place first, and put there in one step. Where inputs have errors the journal stays, as `FILE.journal`,
and a run may ask for these again. One run at a time writes it, where the system locks files.
"""

import base64
import json
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray

from regard.gathering import parquet
from regard.locking import lock
from regard.records import Record
from regard.sources import InputError, Source

RESULT_SUFFIXES = (".jsonl", ".npz", ".parquet")
_ROWS = 1024  # of a Parquet file that are in memory at a time
_ARRAY = "array"


def is_results(output: Path | None) -> bool:
    """Tell by its suffix whether a file is to hold results."""
    return output is not None and output.suffix.lower() in RESULT_SUFFIXES


@dataclass
class Results:
    """A file of results that is being written.

    Attributes:
        output: The file.
        resume: Whether to go on after what an earlier run has written.
        asked: What is asked of each input, for JSON.
        retry: Whether inputs that have errors are asked for again; then what is there is gone on with, too.
    """

    output: Path
    resume: bool = False
    asked: Mapping[str, Any] = field(default_factory=dict)
    retry: bool = False
    _journal: IO[bytes] | None = field(default=None, repr=False)
    _known: list[str] = field(default_factory=list, repr=False)
    _places: list[int] = field(default_factory=list, repr=False)  # of each input's line, in bytes
    _wrong: set[int] = field(default_factory=set, repr=False)  # which have errors
    _again: deque[int] = field(default_factory=deque, repr=False)  # which are asked for again, and not yet answered
    _retried: int = 0

    @property
    def partial(self) -> Path:
        """The journal's name while inputs are missing."""
        return self.output.with_name(f"{self.output.name}.partial")

    @property
    def journal(self) -> Path:
        """Its name where all are there, and some have errors."""
        return self.output.with_name(f"{self.output.name}.journal")

    @property
    def errors(self) -> int:
        """How many inputs have one."""
        return len(self._wrong)

    @property
    def total(self) -> int:
        """How many inputs are there."""
        return len(self._places)

    def check(self) -> None:
        """Refuse what could not be written, before anything is asked.

        Raises:
            InputError: No such folder, or it is a folder itself, something is not installed, or an earlier run was
                interrupted, and no resume.
        """
        if not self.output.parent.is_dir():
            raise InputError(f"-o {self.output}: {self.output.parent} is no folder")
        if self.output.is_dir():
            raise InputError(f"-o {self.output}: a folder; expected a file's name")
        if self.output.suffix.lower() == ".parquet":
            parquet()
        if self.partial.exists() and not (self.resume or self.retry):
            raise InputError(f"{self.partial}: of an interrupted run; expected --resume to go on, or remove it")

    @property
    def is_done(self) -> bool:
        """Whether an earlier run has written all, and nothing is to be asked for again."""
        whole = (self.resume or self.retry) and self.output.exists() and not self.partial.exists()
        return whole and not (self.retry and self.journal.exists())

    def read(self) -> None:
        """Read the journal that an earlier run has left beside its file for the errors in it, if there is one.

        Raises:
            InputError: It is damaged, or the earlier run asked for something else.
        """
        if self.journal.exists():
            with self.journal.open("rb") as journal:
                self._read(journal)

    def __enter__(self) -> Self:
        """Begin, or go on.

        Raises:
            InputError: Another run writes it, it is damaged, or the earlier run asked for something else.
            OSError: It cannot be written.
        """
        retries = self.retry and self.journal.exists() and not self.partial.exists()
        if retries:
            os.replace(self.journal, self.partial)  # noqa: PTH105 -- see finish
        self._journal = open(self.partial, "r+b" if self.partial.exists() else "x+b")  # noqa: PTH123 -- closed by __exit__
        try:
            lock(self._journal, self.partial)
            self._go_on(self._journal)
        except BaseException:
            self._journal.close()
            if retries:
                os.replace(self.partial, self.journal)  # noqa: PTH105
            raise
        return self

    def _go_on(self, journal: IO[bytes]) -> None:
        """Read what is there, and drop a last line that is not whole."""
        size = self._read(journal)
        self._retried = self.errors if self.retry else 0
        journal.truncate(size)
        journal.seek(size)
        if not size:
            self._write(self.asked)

    def _read(self, journal: IO[bytes]) -> int:
        """Read what is there; returns how many bytes of it are whole lines."""
        size = 0
        for number, line in enumerate(journal):
            if not line.endswith(b"\n"):
                break
            try:
                self._know(json.loads(line), size, is_first=number == 0)
            except (ValueError, TypeError, LookupError) as error:
                if isinstance(error, InputError):
                    raise
                wrong = f"{journal.name}, line {number + 1}: damaged; expected what this program wrote: remove the file"
                raise InputError(wrong) from error
            size += len(line)
        return size

    def _know(self, record: Record, place: int, *, is_first: bool) -> None:
        if not is_first:
            if "again" not in record:
                self._known.append(record["input"])
            self._put(record.get("again", self.total), place, record["error"])
            return
        now = json.loads(json.dumps(self.asked))
        for name in sorted({*record, *now}):
            if (before := record.get(name)) != now.get(name):
                wrong = f"{name}: {now.get(name)!r}; expected {before!r}, as before: --resume wants the same options"
                raise InputError(f"{self.partial}: {wrong}")

    def _put(self, number: int, place: int, error: str | None) -> None:
        """Take note of the line of an input; of another input that has one already, instead of that."""
        self._places[number : number + 1] = [place]
        (self._wrong.discard if error is None else self._wrong.add)(number)

    def __exit__(self, *_: object) -> None:
        """Leave the journal for another run, unless nothing stands in it."""
        if self._journal is not None:
            self._journal.close()
            if not self.total:
                self.partial.unlink(missing_ok=True)

    @property
    def count(self) -> int:
        """How many inputs were there already and stay as they are."""
        return len(self._known) - self._retried

    def skip(self, sources: Iterator[Source]) -> Iterator[Source]:
        """Yield the inputs that are not there yet, before them those that are asked for again.

        Raises:
            InputError: Those that are there are others.
        """
        again = frozenset(self._wrong if self.retry else ())
        for number, name in enumerate(self._known, start=1):
            if (source := next(sources, None)) is None or source.name != name:
                got = "nothing" if source is None else repr(source.title)
                raise InputError(
                    f"{self.partial}, input {number}: {name[:60]!r}; got {got}: --resume wants the same inputs"
                )
            if number - 1 in again:
                self._again.append(number - 1)
                yield source
        yield from sources

    def add(self, record: Record) -> None:
        """Write what came for the next input of those that `skip` yields."""
        assert self._journal is not None  # noqa: S101 -- within a with block
        place, number = self._journal.tell(), self._again[0] if self._again else self.total
        self._write({"again": number, **record} if self._again else record)
        self._put(number, place, record["error"])
        if self._again:
            self._again.popleft()

    def _write(self, record: Mapping[str, Any]) -> None:
        assert self._journal is not None  # noqa: S101 -- within a with block
        line = json.dumps(record, ensure_ascii=False, default=_pack)
        self._journal.write(line.encode("utf-8", "surrogatepass") + b"\n")
        self._journal.flush()  # a disk that is full is an error of this line

    def finish(self) -> None:
        """Make the file of the journal; that stays under another name where inputs have errors."""
        beside = self.output.with_name(f".{self.output.name}.new")
        write = {".jsonl": _write_lines, ".npz": _write_npz, ".parquet": _write_parquet}
        write[self.output.suffix.lower()](self._records, beside)
        os.replace(beside, self.output)  # noqa: PTH105 -- in one step
        if self.errors:
            os.replace(self.partial, self.journal)  # noqa: PTH105
        else:
            self.partial.unlink()
            self.journal.unlink(missing_ok=True)

    def _records(self) -> Iterator[Record]:
        with self.partial.open("rb") as journal:
            for place in self._places:
                journal.seek(place)
                record: Record = json.loads(journal.readline(), object_hook=_unpack)
                record.pop("again", None)
                yield record


def _pack(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{type(value).__name__} is nothing that results hold")
    data = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()
    return {_ARRAY: data, "dtype": value.dtype.str, "shape": list(value.shape)}


def _unpack(found: dict[str, Any]) -> Any:
    if _ARRAY not in found:
        return found
    data = np.frombuffer(base64.b64decode(found[_ARRAY]), found["dtype"])
    return data.reshape(found["shape"])


def _write_lines(records: Any, path: Path) -> None:
    with path.open("w", encoding="utf-8", errors="surrogatepass", newline="\n") as file:
        for record in records():
            file.write(json.dumps(record, ensure_ascii=False, default=np.ndarray.tolist) + "\n")


def _write_npz(records: Any, path: Path) -> None:
    columns = _columns(records())
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **columns)


def _columns(records: Iterator[Record]) -> dict[str, NDArray[Any]]:
    """Put the same of all inputs into one array; where they differ in shape, flat behind each other, with offsets.

    Inputs without one have NaN or 0 there; flat, nothing. Shapes of several axes stand beside flat ones.
    """
    rows = list(records)
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns: dict[str, NDArray[Any]] = {}
    for name in names:
        values = [row.get(name) for row in rows]
        columns |= _column(name, values)
    return columns


def _column(name: str, values: Sequence[Any]) -> dict[str, NDArray[Any]]:
    first = next((value for value in values if value is not None), "")
    if isinstance(first, str):
        return {name: np.array(["" if value is None else value for value in values])}
    if not isinstance(first, np.ndarray | list):
        return {name: np.array([type(first)() if value is None else value for value in values])}
    arrays = [
        None if value is None else np.asarray(value, None if isinstance(first, np.ndarray) else str) for value in values
    ]
    there = [one for one in arrays if one is not None]
    if len({one.shape for one in there}) == 1 and there[0].dtype.kind != "U":
        empty = np.full(there[0].shape, np.nan if there[0].dtype.kind == "f" else 0, there[0].dtype)
        return {name: np.stack([empty if one is None else one for one in arrays])}
    flat = [np.empty(0, there[0].dtype) if one is None else one.reshape(-1) for one in arrays]
    found = {name: np.concatenate(flat), f"{name}.offsets": np.cumsum([0, *map(len, flat)], dtype=np.int64)}
    if there[0].ndim > 1:
        missing = (0,) * there[0].ndim
        found[f"{name}.shapes"] = np.array([missing if one is None else one.shape for one in arrays], np.int64)
    return found


def _write_parquet(records: Any, path: Path) -> None:
    import pyarrow

    firsts: Record = {}
    for record in records():
        for name, value in _flat(record).items():
            if firsts.get(name) is None:
                firsts[name] = value
    schema = pyarrow.schema([(name, _type_of(value)) for name, value in firsts.items()])
    with parquet().ParquetWriter(path, schema) as writer:
        for rows in _batches(records()):
            writer.write_table(pyarrow.Table.from_pylist([_flat(row) for row in rows], schema=schema))


def _flat(record: Record) -> Record:
    """Return what a row of Parquet holds: arrays as lists, with the shape beside those of several axes."""
    row: Record = {}
    for name, value in record.items():
        if isinstance(value, np.ndarray):
            row[name] = value.reshape(-1)
            row |= {f"{name}.shape": np.array(value.shape, np.int32)} if value.ndim > 1 else {}
        else:
            row[name] = value
    return row


def _type_of(value: Any) -> Any:
    import pyarrow

    if isinstance(value, np.ndarray):
        return pyarrow.list_(pyarrow.from_numpy_dtype(value.dtype))
    if isinstance(value, list):
        return pyarrow.list_(pyarrow.string())
    types = {bool: pyarrow.bool_(), int: pyarrow.int64(), float: pyarrow.float64()}
    return types.get(type(value), pyarrow.string())


def _batches(records: Iterator[Record]) -> Iterator[list[Record]]:
    rows = list[Record]()
    for record in records:
        rows.append(record)
        if len(rows) == _ROWS:
            yield rows
            rows = []
    if rows:
        yield rows
