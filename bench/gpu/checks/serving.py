"""Calls a second of a server on the device, the CPU that it takes, and what attention costs its callers."""

from collections.abc import Iterator

from bench.generator import GeneratorError, frame, generate
from bench.gpu.load import ask, asked_of, calling, make_request, served, serving
from bench.gpu.rows import Row, guarded, judged, measured, skipped
from bench.gpu.setting import Part, Setting
from bench.servers import Serving
from regard.v1 import types_pb2 as pb

_CALLERS = (1, 8, 32, 128)
_LENGTH = 16
_LEAST_SECONDS, _MOST_SECONDS = 0.5, 4.0
_BUSY_CALLERS = 32


def check(setting: Setting) -> Iterator[Row]:
    """Give each artifact a server of its own; all numbers of callers to the smallest, where the front is the limit."""
    parts = served(setting.parts())
    if not parts:
        yield skipped("all of it", "no artifact takes tensors of a plain size")
    seconds = min(max(setting.seconds / (len(_CALLERS) + 1 + 3 * len(parts)) * 0.4, _LEAST_SECONDS), _MOST_SECONDS)
    for part in parts:
        if setting.seconds_left < seconds:
            yield skipped(part.name, "the time is up")
            continue
        yield from guarded(part.name, served_alone(part, setting, seconds, is_first=part is parts[0]))


def served_alone(part: Part, setting: Setting, seconds: float, *, is_first: bool) -> Iterator[Row]:
    """Start a server with an artifact, and load it."""
    with serving(setting, [part]) as one:
        yield measured(f"{part.name}, start to ready", f"{one.seconds_to_ready:.1f} s")
        for callers in _CALLERS if is_first else ():
            yield under_load(one, part, callers, seconds, setting)
        if is_first:
            yield by_h2load(one, part, seconds)
        for how in asked_of(part.contract, _LENGTH, _BUSY_CALLERS).items():
            yield under_load(one, part, _BUSY_CALLERS, seconds, setting, how)


def under_load(
    one: Serving,
    part: Part,
    callers: int,
    seconds: float,
    setting: Setting,
    how: tuple[str, pb.AttentionRequest | None] = ("plain", None),
) -> Row:
    """Load the server; no call may fail."""
    name = f"{part.name}, {callers} callers, {how[0]}"
    if setting.seconds_left < seconds:
        return skipped(name, "the time is up")
    seen = ask(one, [make_request(part, 1, _LENGTH, how[1])], callers, seconds)
    return judged(name, seen, "no error", ok=not seen.errors, why=f"{seen.errors} errors, {seen.first_error}")


def by_h2load(one: Serving, part: Part, seconds: float) -> Row:
    """Load it by a program that takes little of the CPUs itself, where that is installed."""
    name, request = f"{part.name}, {_BUSY_CALLERS} callers of h2load, plain", make_request(part, 1, _LENGTH)
    with calling(one) as call:
        answer_bytes = call(request).ByteSize() // 2
    try:
        found = generate(one.target, [frame(request.SerializeToString())], _BUSY_CALLERS, seconds, answer_bytes)
    except GeneratorError as error:
        return skipped(name, str(error))
    return measured(name, f"{found.per_second:.0f} calls/s, p50 {found.p50_ms:.2f} ms, {found.errors} errors")
