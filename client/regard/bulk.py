"""Many inputs, cut into calls and answered in order, without any network: both clients drive this.

A `Cutter` makes parts of what an iterator gives. `answer_part` says step by step what is done for a part: it yields
seconds to wait or inputs to ask for, and is sent the answers or thrown the error of the call.
"""

import os
import re
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import grpc

from regard import checks
from regard.answers import Model
from regard.errors import DeadlineExceeded, FailedPrecondition, InvalidArgument, InvalidCall, RegardError
from regard.inputs import read_file, read_pair
from regard.pace import MOST_BYTES, Gate, Pace, Patience, Silence, is_of_all

Kind = Literal["images", "texts", "pairs"]
_PLACE = re.compile(r"^(images|texts|pairs)\[(\d+)\]")


@dataclass(frozen=True)
class One:
    """One input.

    Attributes:
        index: Its place among all, from 0.
        value: What is sent: bytes of an image, a text or a pair; or why it cannot be.
    """

    index: int
    value: Any


Part = Sequence[One]
Steps = Generator[float | Part, Any, list[Any]]
"""Yields seconds to wait or inputs to ask for; returns an answer or an error for each input of a part."""


class Cutter:
    """Makes parts of inputs that come one by one.

    Args:
        kind: What they are.
        pace: How many a part has.
    """

    def __init__(self, kind: Kind, pace: Pace) -> None:
        self._kind, self._pace = kind, pace
        self._part, self._bytes, self._count = list[One](), 0, 0

    def add(self, value: Any) -> Iterator[Part]:
        """Take an input; yields the parts that are full, one or two of them, if any is."""
        try:
            value, size = _read(f"{self._kind}[{self._count}]", self._kind, value)
        except InvalidCall as error:
            value, size = error, 0
        if self._part and self._bytes + size > MOST_BYTES:
            yield from self.rest()
        self._part.append(One(self._count, value))
        self._bytes += size
        self._count += 1
        if len(self._part) >= self._pace.inputs:
            yield from self.rest()

    def rest(self) -> Iterator[Part]:
        """Yield what is left, if anything is."""
        part, self._part, self._bytes = self._part, [], 0
        if part:
            yield part


@dataclass
class Bulk:
    """What the parts of one iterator share.

    Attributes:
        pace: How many inputs a call has.
        single: Whether a call takes one input alone: its errors are then those of the input.
        gate: Closed while the server is full.
        silence: In which calls run out of time.
    """

    pace: Pace
    single: bool = False
    gate: Gate = field(default_factory=Gate)
    silence: Silence = field(default_factory=lambda: Silence(None))

    def answer_part(self, part: Part) -> Steps:
        """Answer a part, step by step.

        Raises:
            RegardError: It is the error of every input.
        """
        good = [one for one in part if not isinstance(one.value, RegardError)]
        found: dict[int, Any] = {one.index: one.value for one in part if isinstance(one.value, RegardError)}
        if good:
            found |= yield from self._answer(good)
        answers = [found[one.index] for one in part]
        if not self.single and part[0].index == 0:
            _raise_common(answers)
        return answers

    def _answer(self, part: Part) -> Generator[float | Part, Any, dict[int, Any]]:
        patience = Patience()
        while True:
            while seconds := self.gate.seconds:
                yield seconds
            began = time.monotonic()
            self.silence.asked()
            try:
                answers = yield part
            except RegardError as error:
                self._listen(error)
                wait = patience.wait_seconds(error)
                if wait is None and is_of_all(error):
                    raise
                if wait is not None:
                    self.gate.close(wait)
                is_busy = patience.refused > 1
                if len(part) > 1 and (wait is None or is_busy):
                    return (yield from self._halves(part, is_busy=is_busy))
                if wait is None:
                    return {part[0].index: _named(error, part)}
            else:
                self.silence.answered()
                self.pace.answered(len(part), time.monotonic() - began)
                return {one.index: _named(answer, part) for one, answer in zip(part, answers, strict=True)}

    def _listen(self, error: RegardError) -> None:
        """Take a call that failed for an answer, unless it ran out of time.

        Raises:
            DeadlineExceeded: All calls did, for too long.
        """
        if not isinstance(error, DeadlineExceeded):
            self.silence.answered()
        elif self.silence.is_over:
            wrong = (
                f"no call was answered for {self.silence.most_seconds:g} s, several times its timeout: the server hangs"
            )
            raise DeadlineExceeded(error.code, wrong) from error

    def _halves(self, part: Part, *, is_busy: bool) -> Generator[float | Part, Any, dict[int, Any]]:
        """Find the input at fault, or learn that calls were too large."""
        middle = len(part) // 2
        found = yield from self._answer(part[:middle])
        found |= yield from self._answer(part[middle:])
        if is_busy:
            self.pace.busy(len(part))
        elif not any(map(_is_of_call, found.values())):
            self.pace.too_large(len(part))
        return found


def read_kind(**inputs: Any) -> tuple[Kind, Any]:
    """Return the inputs that are given, and of what kind they are.

    Raises:
        InvalidCall: None are, or several.
    """
    given = [(name, value) for name, value in inputs.items() if value is not None]
    if len(given) != 1:
        got = " and ".join(name for name, _ in given) or "none"
        raise InvalidCall.of(f"{', '.join(inputs)}: give exactly one of them; got {got}")
    ((name, value),) = given
    return name, value  # type: ignore[return-value]  # the callers name their own


def iterate(kind: Kind, inputs: Any) -> Iterator[Any]:
    """Return an iterator of inputs.

    Raises:
        InvalidCall: They are no iterable, or a single input.
    """
    if isinstance(inputs, str | bytes | os.PathLike):
        raise checks.invalid(kind, inputs, "an iterable of them")
    try:
        return iter(inputs)
    except TypeError as error:
        raise checks.invalid(kind, inputs, "an iterable of them") from error


def most_inputs(model: Model, kind: Kind) -> int:
    """Return how many inputs a call of a model takes.

    Raises:
        FailedPrecondition: The server takes one alone.
    """
    if most := max(model.max_inputs, model.of("image" if kind == "images" else "text").max_inputs):
        return most
    wrong = f"model: {model.name!r} takes a single input a call; expected a server that is newer"
    raise FailedPrecondition(grpc.StatusCode.FAILED_PRECONDITION, wrong)


def _read(field: str, kind: Kind, value: Any) -> tuple[Any, int]:
    """Return what is sent of an input, and about how many bytes that is."""
    if kind == "texts":
        text = checks.text(field, value)
        return text, len(text) if text.isascii() else len(text.encode())
    if kind == "pairs":
        pair = read_pair(field, value)
        return pair, sum(len(text.encode()) for text in pair)
    content = read_file(field, value)
    return content, len(content)


def _is_of_call(answer: Any) -> bool:
    return isinstance(answer, RegardError) and isinstance(answer.__cause__, grpc.RpcError)


def _raise_common(answers: Sequence[Any]) -> None:
    """Raise what refuses each input of the first part for what the call says of all: it will of the others too.

    Raises:
        InvalidArgument: There is such an error.
    """
    if len(answers) > 1 and all(isinstance(one, InvalidArgument) and _is_of_call(one) for one in answers):
        raise answers[0]


def _named(answer: Any, part: Part) -> Any:
    """Let an error name the place among all inputs, not that in the call."""
    if isinstance(answer, RegardError):
        message = _PLACE.sub(lambda found: f"{found[1]}[{part[int(found[2])].index}]", answer.message)
        answer.message, answer.args = message, (answer.code, message)
    return answer
