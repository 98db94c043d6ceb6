"""The folder of a study: it grows by a part of inputs at a time, and an interruption harms none that is there.

    study.json          what was asked, of which model
    inputs/000000.json  names and errors of a part's inputs: the part is there once this is
    values.zarr/        float32 [input, layer, head, statistic], a chunk a part, in Zarr's format 3, uncompressed: numpy
                        alone writes and reads it, `zarr.open` and `xarray.open_zarr` read it
    tables/000000.parquet  the same as rows, where pyarrow is installed: input, layer, head, a column a statistic

Every file is written beside its place and put there in one step. One run at a time writes a folder, where the system
locks files.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray

from regard.locking import lock
from regard.sources import InputError

PART_INPUTS = 256
AXES = ("input", "layer", "head", "statistic")
_ZARR = "values.zarr"

Floats = NDArray[np.float32]


@dataclass
class Folder:
    """A folder of a study.

    Attributes:
        path: Of it.
        asked: What study.json holds.
        count: How many inputs are there.
        num_errors: How many of them have an error.
    """

    path: Path
    asked: dict[str, Any] = field(default_factory=dict)
    count: int = 0
    num_errors: int = 0
    _lock: IO[bytes] | None = field(default=None, repr=False)

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Read what is there.

        Raises:
            InputError: It holds no study, or is damaged.
        """
        found = cls(Path(path))
        try:
            found.asked = json.loads((found.path / "study.json").read_text(encoding="utf-8"))
            for number, part in enumerate(sorted((found.path / "inputs").glob("*.json"))):
                if part.name != f"{number:06}.json":
                    raise InputError(f"{part}: expected {number:06}.json, the next part")
                names, errors = found.inputs(number)
                found.count, found.num_errors = found.count + len(names), found.num_errors + len(errors)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise InputError(f"{path}: holds no study; expected a folder that regard study has written") from error
        except (ValueError, TypeError, LookupError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{path}: damaged; expected what this program wrote ({error})") from error
        return found

    @classmethod
    def begin(cls, path: Path | str, asked: Mapping[str, Any], *, resume: bool) -> Self:
        """Make a folder, or go on with one.

        Args:
            path: Of it.
            asked: What study.json holds: a run that goes on must ask the same.
            resume: Whether to go on.

        Raises:
            InputError: There is a study already, and no resume; or one that asked for something else.
            OSError: It cannot be written.
        """
        path, there = Path(path), (Path(path) / "study.json").exists()
        if there and not resume:
            raise InputError(f"{path}: holds a study; expected another folder, or resume (--resume) to go on")
        if path.exists() and not there and (not path.is_dir() or any(path.iterdir())):
            raise InputError(f"{path}: holds something else; expected a new folder, or an empty one")
        try:
            (path / "inputs").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(f"{path}: {error.strerror}; expected a folder that can be written") from error
        found = cls(path, dict(asked))
        if there:
            found = cls.open(path)
            now = json.loads(json.dumps(asked))
            for name in sorted({*now, *found.asked}):
                if (before := found.asked.get(name)) != now.get(name):
                    raise InputError(f"{path}: {name} {now.get(name)!r}; expected {before!r}, as before")
        else:
            put(path / "study.json", json.dumps(asked, indent=1, ensure_ascii=False).encode())
        found._take()
        return found

    def _take(self) -> None:
        self._lock = (self.path / "study.json").open("rb")
        try:
            lock(self._lock, self.path)
        except InputError:
            self._lock.close()
            raise

    def close(self) -> None:
        """Let another run write it; a folder in which nothing stands is left empty."""
        if self._lock is not None:
            self._lock.close()
        if not self.count and not any((self.path / "inputs").iterdir()):
            (self.path / "study.json").unlink(missing_ok=True)
            (self.path / "inputs").rmdir()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Layers, heads of the layer that has most, statistics."""
        layers = self.asked["layers"]
        return len(layers), max(len(layer["heads"]) for layer in layers), len(self.asked["statistics"])

    def add(self, names: Sequence[str], errors: Mapping[int, str], values: Floats) -> None:
        """Write a part.

        Args:
            names: Of its inputs, PART_INPUTS of them but for the last part.
            errors: Of those that have one, by their number in the part.
            values: float32 [inputs, layer, head, statistic]; NaN where there is none.
        """
        self._put(self.count // PART_INPUTS, self.count + len(names), names, errors, values)
        self.count, self.num_errors = self.count + len(names), self.num_errors + len(errors)

    def replace(self, number: int, errors: Mapping[int, str], values: Floats) -> None:
        """Write a part again that is there: other errors and numbers of the same inputs; its table is removed."""
        names, before = self.inputs(number)
        self._put(number, self.count, names, errors, values)
        self.num_errors += len(errors) - len(before)

    def _put(self, number: int, count: int, names: Sequence[str], errors: Mapping[int, str], values: Floats) -> None:
        zarr = self.path / _ZARR
        whole = np.full((PART_INPUTS, *self.shape), np.nan, "<f4")
        whole[: len(names)] = values
        chunk = zarr / "c" / str(number) / "0" / "0" / "0"
        chunk.parent.mkdir(parents=True, exist_ok=True)
        put(chunk, whole.tobytes())
        put(zarr / "zarr.json", json.dumps(self._described(count)).encode())
        (self.path / "tables" / f"{number:06}.parquet").unlink(missing_ok=True)
        inputs = {"names": list(names), "errors": {str(at): error for at, error in errors.items()}}
        put(self._inputs(number), json.dumps(inputs, ensure_ascii=False).encode("utf-8", "surrogatepass"))

    def take_last(self) -> tuple[list[str], dict[int, str], Floats]:
        """Return a last part that is not full, which the next `add` writes again with what follows; else nothing."""
        if not self.count % PART_INPUTS:
            return [], {}, np.empty((0, *self.shape), np.float32)
        number = self.count // PART_INPUTS
        (names, errors), values = self.inputs(number), self.part(number)
        self.count, self.num_errors = self.count - len(names), self.num_errors - len(errors)
        return names, errors, values

    def inputs(self, number: int) -> tuple[list[str], dict[int, str]]:
        """Return the names of a part's inputs, and the errors of those that have one, by their number in the part."""
        found = json.loads(self._inputs(number).read_bytes().decode("utf-8", "surrogatepass"))
        return found["names"], {int(at): error for at, error in found["errors"].items()}

    def names(self) -> Iterator[str]:
        """Yield the names of all inputs, a part at a time."""
        for number in range(self.num_parts):
            yield from self.inputs(number)[0]

    @property
    def num_parts(self) -> int:
        """How many parts there are."""
        return math.ceil(self.count / PART_INPUTS)

    def _inputs(self, number: int) -> Path:
        return self.path / "inputs" / f"{number:06}.json"

    def parts(self) -> Iterator[Floats]:
        """Yield the numbers of each part; see `part`."""
        for number in range(self.num_parts):
            yield self.part(number)

    def part(self, number: int) -> Floats:
        """Return the numbers of a part, [inputs, layer, head, statistic].

        Raises:
            InputError: It is damaged.
        """
        chunk = self.path / _ZARR / "c" / str(number) / "0" / "0" / "0"
        whole, size = np.fromfile(chunk, "<f4"), PART_INPUTS * math.prod(self.shape)
        if whole.size != size:
            raise InputError(f"{chunk}: {whole.nbytes} bytes; expected {4 * size}, as this program wrote")
        return whole.reshape(PART_INPUTS, *self.shape)[: self.count - number * PART_INPUTS]

    def _described(self, inputs: int) -> dict[str, Any]:
        """Say what the array is, as Zarr's specification 3.1 has it."""
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": [inputs, *self.shape],
            "data_type": "float32",
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [PART_INPUTS, *self.shape]}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": "NaN",
            "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
            "dimension_names": list(AXES),
            "attributes": {
                "statistics": self.asked["statistics"],
                "layers": [layer["layer"] for layer in self.asked["layers"]],
            },
        }


def put(path: Path, content: bytes) -> None:
    """Write a file beside its place, and put it there in one step."""
    beside = path.with_name(f".{path.name}.new")
    beside.write_bytes(content)
    os.replace(beside, path)  # noqa: PTH105 -- in one step
