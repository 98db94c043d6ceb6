"""Calls a second of a server on the device, the CPU that it takes, and what attention costs its callers."""

from collections.abc import Iterator

from bench.generator import GeneratorError, frame, generate
from bench.gpu.load import ASKED, ask, calling, can_attend, make_request, served, serving
from bench.gpu.rows import Row, judged, measured, skipped
from bench.gpu.setting import Part, Setting
from bench.servers import Serving

_CALLERS = (1, 8, 32, 128)
_LENGTH = 16
_LEAST_SECONDS, _MOST_SECONDS = 0.5, 4.0
_BUSY_CALLERS = 32


def check(setting: Setting) -> Iterator[Row]:
    """Start a server with all models; load the smallest, where the front is the limit, then each with attention."""
    parts = served(setting.parts())
    if not parts:
        yield skipped("all of it", "no artifact takes tensors of a plain size")
        return
    seconds = min(max(setting.seconds / (len(_CALLERS) + 1 + 3 * len(parts)) * 0.6, _LEAST_SECONDS), _MOST_SECONDS)
    with serving(setting) as one:
        yield measured("start to ready", f"{one.seconds_to_ready:.1f} s with {len(setting.parts())} artifacts")
        for callers in _CALLERS:
            yield from under_load(one, parts[0], "plain", callers, seconds, setting)
        yield by_h2load(one, parts[0], seconds)
        for part in parts:
            for asked in ASKED if can_attend(part.contract) else ["plain"]:
                yield from under_load(one, part, asked, _BUSY_CALLERS, seconds, setting)


def under_load(one: Serving, part: Part, asked: str, callers: int, seconds: float, setting: Setting) -> Iterator[Row]:
    """Load the server; no call may fail."""
    name = f"{part.name}, {callers} callers, {asked}"
    if setting.seconds_left < seconds:
        yield skipped(name, "the time is up")
        return
    seen = ask(one, [make_request(part, 1, _LENGTH, ASKED[asked])], callers, seconds)
    yield judged(name, seen, "no error", ok=not seen.errors, why=f"{seen.errors} errors, {seen.first_error}")


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
