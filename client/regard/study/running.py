"""Runs a study: inputs go out in order and by parts, and what comes back is kept, so that a run may end at any time."""

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from regard.answers import Model
from regard.attention import AttentionRequest
from regard.errors import RegardError
from regard.sources import InputError
from regard.study.asking import StudyOptions, attention_of, described, how_to_ask, numbers_of
from regard.study.folder import PART_INPUTS, Folder
from regard.study.report import write_report
from regard.study.results import EXAMPLES, Study
from regard.study.rows import has_parquet, write_heads, write_tables

Named = tuple[str, Any]
"""What an input is called, and the input."""


@dataclass(frozen=True)
class Run:
    """A study that is made.

    Attributes:
        client: Asks.
        model: What is asked; of two towers the one that reads these inputs.
        kind: "images", "texts" or "pairs".
        options: What is counted.
        path: Of the folder.
        resume: Whether to go on with what is there.
        truncate: Whether a text that is too long is cut.
        examples: How many inputs are kept that excite a head most.
        tables: Whether tables are written, which takes pyarrow.
    """

    client: Any
    model: Model
    kind: str
    options: StudyOptions
    path: Path
    resume: bool = False
    truncate: bool = False
    examples: int = EXAMPLES
    tables: bool | None = None

    def run(self, inputs: Iterator[Named], advance: Callable[[int], object] = lambda count: None) -> Study:
        """Ask for every input that is not there yet, and write what was found.

        Args:
            inputs: They are read when they are asked for; on resuming from the first again.
            advance: Told how many inputs are done.

        Raises:
            InputError: The folder cannot be gone on with, or the inputs are others.
            RegardError: Every further call would fail too; what is there stays, for a run that goes on.
        """
        folder = Folder.begin(self.path, self.asked, resume=self.resume)
        try:
            study = Study.of(folder, self.examples)
            rest = _rest(folder, inputs)
            part = _Part(folder, study, self._writes_tables)
            advance(study.num_inputs + len(part.names))
            options = {"model": self.model.name, "version": self.model.version, "attention": self._request}
            options |= {} if self.kind == "images" else {"truncate": self.truncate}
            try:
                for name, answer in _answers(self.client, self.model, self.kind, rest, options):
                    part.add(name, answer)
                    advance(1)
            finally:
                part.write()
            write_heads(study)
            write_report(study)
        finally:
            folder.close()
        return study

    @property
    def asked(self) -> dict[str, Any]:
        """What study.json holds.

        Raises:
            InvalidArgument: The model has no attention to show, or an option has no such value.
        """
        return described(self.model, self.kind, self._request) | {"truncate": self.truncate}

    @property
    def _request(self) -> AttentionRequest:
        return self.options.request(self.model, self.kind)

    @property
    def _writes_tables(self) -> bool:
        return has_parquet() if self.tables is None else self.tables


def _rest(folder: Folder, inputs: Iterator[Named]) -> Iterator[Named]:
    """Skip inputs that are there.

    Raises:
        InputError: They are others.
    """
    for number, name in enumerate(folder.names()):
        found = next(inputs, None)
        if found is None or found[0] != name:
            got = "nothing" if found is None else repr(found[0][:60])
            raise InputError(f"{folder.path}, input {number}: {name[:60]!r}; got {got}: resuming wants the same inputs")
    return inputs


def _answers(
    client: Any, model: Model, kind: str, inputs: Iterator[Named], options: Mapping[str, Any]
) -> Iterator[tuple[str, Any]]:
    """Yield each input's name and its attention or error, in order."""
    first = next(inputs, None)
    if first is None:
        return
    waiting = deque[str]()

    def values() -> Iterator[Any]:
        for name, value in itertools.chain([first], inputs):
            waiting.append(name)
            yield value

    ask = how_to_ask(client, model, kind)
    for answer in ask(**{kind: values()}, **options):
        yield waiting.popleft(), answer


class _Part:
    """The inputs of a part that is not full yet."""

    def __init__(self, folder: Folder, study: Study, tables: bool) -> None:
        self._folder, self._study, self._tables = folder, study, tables
        self.names, self._errors, values = folder.take_last()
        self._values = [*values]
        self._written = len(self.names)

    def add(self, name: str, answer: Any) -> None:
        """Keep an answer, and write the part when it is full."""
        shape = self._folder.shape
        if isinstance(answer, RegardError):
            self._errors[len(self.names)] = str(answer)
            self._values.append(np.full(shape, np.nan, np.float32))
        else:
            self._values.append(numbers_of(attention_of(answer), shape))
        self.names.append(name)
        if len(self.names) == PART_INPUTS:
            self.write()

    def write(self) -> None:
        """Write what is there."""
        if not self.names:
            return
        values = np.stack(self._values)
        self._folder.add(self.names, self._errors, values)
        if self._tables:
            write_tables(self._folder)
        self._study.add(values[self._written :])
        self.names, self._errors, self._values, self._written = [], {}, [], 0
