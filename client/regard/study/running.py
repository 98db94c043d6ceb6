"""Runs a study: inputs go out in order and by parts, and what comes back is kept, so that a run may end at any time."""

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import ExitStack, aclosing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from regard.answers import Model
from regard.attention import AttentionRequest
from regard.errors import RegardError
from regard.sources import InputError
from regard.study.asking import StudyOptions, attention_of, described, how_to_ask, numbers_of
from regard.study.folder import PART_INPUTS, Floats, Folder
from regard.study.report import write_report
from regard.study.results import EXAMPLES, Study
from regard.study.rows import has_parquet, write_heads, write_tables

Named = tuple[str, Any]
"""What an input is called, and the input."""
_Done = TypeVar("_Done")
_Key = TypeVar("_Key")


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
        retry_errors: Whether to ask again, first, for inputs that have errors; goes on with what is there, too.
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
    retry_errors: bool = False

    def run(self, inputs: Iterator[Named], advance: Callable[[int], object] = lambda count: None) -> Study:
        """Ask for every input that is not there yet, and write what was found.

        Args:
            inputs: They are read when they are asked for; on resuming from the first again.
            advance: Told how many inputs are done.

        Raises:
            InputError: The folder cannot be gone on with, or the inputs are others.
            RegardError: Every further call would fail too; what is there stays, for a run that goes on.
        """
        with self._writing() as part:
            again = (
                (number, found[1])
                for number, name, has_error in part.known()
                if (found := part.check_same(number, name, next(inputs, None))) and has_error and self.retry_errors
            )
            for number, answer in _answers(self._ask, again):
                part.correct(number, answer)
            part.begin()
            advance(len(part))
            for name, answer in _answers(self._ask, inputs):
                if part.add(name, answer):
                    part.write()
                advance(1)
        return part.study

    async def run_async(self, inputs: AsyncIterator[Named]) -> Study:
        """As `run`, with a client for asyncio; files are read and written by a thread.

        Where it is cancelled, what is there is written first.
        """
        with ExitStack() as stack:
            part: _Part = await _to_end(stack.enter_context, self._writing())
            try:

                async def again() -> AsyncIterator[tuple[int, Any]]:
                    for number, name, has_error in part.known():
                        _, value = part.check_same(number, name, await anext(inputs, None))
                        if has_error and self.retry_errors:
                            yield number, value

                async with aclosing(_answers_async(self._ask, again())) as corrections:
                    async for number, answer in corrections:
                        await _to_end(part.correct, number, answer)
                await _to_end(part.begin)
                async with aclosing(_answers_async(self._ask, inputs)) as answers:
                    async for name, answer in answers:
                        if part.add(name, answer):
                            await _to_end(part.write)
            except BaseException as error:
                await _to_end(stack.__exit__, type(error), error, error.__traceback__)
                raise
            await _to_end(stack.close)
        return part.study

    @contextmanager
    def _writing(self) -> Iterator["_Part"]:
        """Open the folder for what comes; at the end write what is there, and where nothing failed what was found."""
        folder = Folder.begin(self.path, self.asked, resume=self.resume or self.retry_errors)
        try:
            part = _Part(folder, self.examples, self._writes_tables)
            try:
                yield part
            finally:
                part.write()
            write_heads(part.study)
            write_report(part.study)
        finally:
            folder.close()

    def _ask(self, inputs: Any) -> Any:
        """Return an iterator of answers, asynchronous where the client is."""
        options = {"model": self.model.name, "version": self.model.version, "attention": self._request}
        options |= {} if self.kind == "images" else {"truncate": self.truncate}
        return how_to_ask(self.client, self.model, self.kind)(**{self.kind: inputs}, **options)

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


def _answers(ask: Callable[..., Any], inputs: Iterator[tuple[_Key, Any]]) -> Iterator[tuple[_Key, Any]]:
    """Yield each input's name or number and its attention or error, in order; of none, nothing is asked."""
    first = next(inputs, None)
    if first is None:
        return
    waiting = deque[_Key]()

    def values() -> Iterator[Any]:
        for name, value in itertools.chain([first], inputs):
            waiting.append(name)
            yield value

    for answer in ask(values()):
        yield waiting.popleft(), answer


async def _answers_async(
    ask: Callable[..., Any], inputs: AsyncIterator[tuple[_Key, Any]]
) -> AsyncGenerator[tuple[_Key, Any]]:
    """As `_answers`, for asyncio."""
    first = await anext(inputs, None)
    if first is None:
        return
    waiting = deque[_Key]()

    async def values() -> AsyncIterator[Any]:
        waiting.append(first[0])
        yield first[1]
        async for name, value in inputs:
            waiting.append(name)
            yield value

    async with aclosing(ask(values())) as answers:
        async for answer in answers:
            yield waiting.popleft(), answer


async def _to_end(function: Callable[..., _Done], *arguments: Any) -> _Done:
    """Let a thread do what writes files, and wait for its end even where this task is cancelled."""
    doing = asyncio.ensure_future(asyncio.to_thread(function, *arguments))
    try:
        return await asyncio.shield(doing)
    except asyncio.CancelledError:
        await asyncio.wait([doing])
        raise


class _Part:
    """The inputs of a part that is not full yet."""

    def __init__(self, folder: Folder, examples: int, tables: bool) -> None:
        self._folder, self._examples, self._tables = folder, examples, tables
        self._corrected = dict[int, Any]()
        self.names, self._errors, self._values = list[str](), dict[int, str](), list[Floats]()

    def correct(self, number: int, answer: Any) -> None:
        """Keep a new answer to an input that has an error; it is written with all of its part."""
        if self._corrected and number // PART_INPUTS != next(iter(self._corrected)) // PART_INPUTS:
            self._write_corrected()
        self._corrected[number] = answer

    def begin(self) -> None:
        """Count what is there, and go on with the last part if it is not full."""
        self._write_corrected()
        self.study = Study.of(self._folder, self._examples)
        self.names, self._errors, values = self._folder.take_last()
        self._values = [*values]
        self._written = len(self.names)

    def __len__(self) -> int:
        """How many inputs are there, those of earlier parts included."""
        return self._folder.count + len(self.names)

    def known(self) -> Iterator[tuple[int, str, bool]]:
        """Yield number and name of each input that is there, and whether it has an error; before `begin`."""
        for part in range(self._folder.num_parts):
            names, errors = self._folder.inputs(part)
            for at, name in enumerate(names):
                yield part * PART_INPUTS + at, name, at in errors

    def check_same(self, number: int, name: str, found: Named | None) -> Named:
        """Return what was given again for an input that is there.

        Raises:
            InputError: It is another.
        """
        if found is None or found[0] != name:
            got = "nothing" if found is None else repr(found[0][:60])
            where = f"{self._folder.path}, input {number}"
            raise InputError(f"{where}: {name[:60]!r}; got {got}: resuming wants the same inputs")
        return found

    def add(self, name: str, answer: Any) -> bool:
        """Keep an answer; returns whether the part is full, and to be written."""
        shape = self._folder.shape
        if isinstance(answer, RegardError):
            self._errors[len(self.names)] = str(answer)
            self._values.append(np.full(shape, np.nan, np.float32))
        else:
            self._values.append(numbers_of(attention_of(answer), shape))
        self.names.append(name)
        return len(self.names) == PART_INPUTS

    def write(self) -> None:
        """Write what is there."""
        self._write_corrected()
        if not self.names:
            return
        values = np.stack(self._values)
        self._folder.add(self.names, self._errors, values)
        if self._tables:
            write_tables(self._folder)
        self.study.add(values[self._written :])
        self.names, self._errors, self._values, self._written = [], {}, [], 0

    def _write_corrected(self) -> None:
        if not self._corrected:
            return
        part = next(iter(self._corrected)) // PART_INPUTS
        (_, errors), values = self._folder.inputs(part), self._folder.part(part)
        for number, answer in self._corrected.items():
            at = number % PART_INPUTS
            if isinstance(answer, RegardError):
                errors[at] = str(answer)
            else:
                del errors[at]
                values[at] = numbers_of(attention_of(answer), self._folder.shape)
        self._folder.replace(part, errors, values)
        self._corrected = {}
        if self._tables:
            write_tables(self._folder)
