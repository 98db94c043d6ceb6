"""Whether memory stays what it is under load: the server's own, and the device's."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench.gpu.device_memory import used_bytes
from bench.gpu.load import ASKED, ask, can_attend, make_request, served, serving
from bench.gpu.rows import Row, judged, measured, skipped
from bench.gpu.setting import Part, Setting
from regard.v1 import regard_pb2 as api

_CALLERS, _LENGTHS, _ROWS = 16, (8, 16, 32, 64), (1, 3)
_LOOKS = 12
_GROWTH, _JUDGED_SECONDS = 0.05, 60  # of what it was after a quarter of the time; shorter loads say little
_SPARE_MB = 16.0


@dataclass(frozen=True)
class Look:
    """Megabytes of the server's processes, resident, and of the device; None where nothing tells."""

    seconds: float
    resident_mb: float
    device_mb: float | None


def check(setting: Setting) -> Iterator[Row]:
    """Load a server with everything in turn, and look now and then."""
    parts, gpu = served(setting.parts()), setting.choose().gpu
    if not parts:
        yield skipped("all of it", "no artifact takes tensors of a plain size")
        return
    with serving(setting) as one:
        seconds, began, looks, errors = setting.seconds_left * 0.8 / _LOOKS, time.monotonic(), list[Look](), 0
        for _ in range(_LOOKS):
            seen = ask(one, mixed(parts), _CALLERS, seconds)
            errors += seen.errors
            device_bytes = used_bytes(gpu)
            device_mb = None if device_bytes is None else device_bytes / 1e6
            looks.append(Look(time.monotonic() - began, one.memory_mb[1], device_mb))
    yield judged("calls under load", f"{looks[-1].seconds:.0f} s, {_CALLERS} callers", "no error", ok=not errors,
                 why=f"{errors} errors, {seen.first_error}")  # fmt: skip
    resident = [look.resident_mb for look in looks]
    yield grown("resident", resident, looks[-1].seconds)
    if device := [look.device_mb for look in looks if look.device_mb is not None]:
        yield grown("of the device", device, looks[-1].seconds)
    else:
        yield skipped("of the device", "neither nvidia-ml-py nor nvidia-smi tells" if gpu is not None else "the CPU")


def mixed(parts: Sequence[Part]) -> list[api.PredictRequest]:
    """Requests of all models, of several sizes, some with attention."""
    return [
        make_request(part, rows, length, ASKED[asked])
        for length in _LENGTHS
        for rows in _ROWS
        for part in parts
        for asked in (ASKED if can_attend(part.contract) else ["plain"])
    ]


def grown(name: str, sizes_mb: Sequence[float], seconds: float) -> Row:
    """Compare the end with what it was after a quarter of the time."""
    first, last = sizes_mb[len(sizes_mb) // 4], sizes_mb[-1]
    shown = f"{first:.0f} MB after a quarter, {last:.0f} MB after {seconds:.0f} s"
    if seconds < _JUDGED_SECONDS:
        return measured(name, f"{shown}; too short to judge")
    limit = first * (1 + _GROWTH) + _SPARE_MB
    return judged(name, shown, f"at most {limit:.0f} MB", ok=last <= limit, why="it grows")
