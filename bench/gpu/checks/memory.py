"""Whether memory stays what it is under load: the server's own, and the device's."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import grpc

from bench.gpu.load import Seen, ask, asked_of, calling, make_request, served, serving
from bench.gpu.rows import Row, failed, judged, measured, skipped
from bench.gpu.setting import Part, Setting
from bench.servers import Serving
from regard.v1 import regard_pb2 as api
from server.engine.device_memory import free_bytes

_CALLERS, _LENGTHS, _ROWS = 16, (8, 16, 32, 64), (1, 3)
_LOOKS = 12
_GROWTH, _JUDGED_SECONDS = 0.05, 60  # of what it was after a quarter of the time; shorter loads say little
_SPARE_MB = 16.0
_STAND_IN_SECONDS = 8.0  # which has no memory of its own


@dataclass(frozen=True)
class Look:
    """Megabytes of the server's processes, resident, and free bytes of the device; None where nothing tells."""

    seconds: float
    resident_mb: float
    free_bytes: int | None


def check(setting: Setting) -> Iterator[Row]:
    """Load a server with everything in turn, and look now and then."""
    parts, gpu = served(setting.parts()), setting.choose().gpu
    if not parts:
        yield skipped("all of it", "no artifact takes tensors of a plain size")
        return
    free_before = None if gpu is None else free_bytes(gpu)
    seconds = setting.seconds_left * 0.8
    with serving(setting, parts) as one:
        requests, refusals = answered(one, mixed(parts))
        for name, why in refusals.items():
            yield failed(f"{name}, a call alone", why, "no error")
        if not requests:
            return
        looks, seen = load(one, requests, seconds if gpu is not None else min(seconds, _STAND_IN_SECONDS), gpu)
    errors = [one for one in seen if one.errors]
    why = f"{sum(one.errors for one in errors)} errors, the first: {errors[0].first_error}" if errors else ""
    took = looks[-1].seconds
    yield judged("calls under load", f"{took:.0f} s, {_CALLERS} callers", "no error", ok=not errors, why=why)
    yield grown("resident", [look.resident_mb for look in looks], took)
    free = [look.free_bytes for look in looks if look.free_bytes is not None]
    if free_before is not None and len(free) == len(looks):
        yield grown("of the device", [(free_before - one) / 1e6 for one in free], took)
    else:
        yield skipped("of the device", "the driver does not tell" if gpu is not None else "the CPU")


def load(
    one: Serving, requests: Sequence[api.PredictRequest], seconds: float, gpu: int | None
) -> tuple[list[Look], list[Seen]]:
    """Load a server; returns what was looked at, and what callers saw."""
    began, looks, seen = time.monotonic(), list[Look](), list[Seen]()
    for _ in range(_LOOKS):
        seen.append(ask(one, requests, _CALLERS, seconds / _LOOKS))
        free = None if gpu is None else free_bytes(gpu)
        looks.append(Look(time.monotonic() - began, one.memory_mb[1], free))
    return looks, seen


def answered(
    one: Serving, requests: Mapping[str, api.PredictRequest]
) -> tuple[list[api.PredictRequest], dict[str, str]]:
    """Make each call alone; returns those that are answered, and by name why others are not."""
    found, refusals = list[api.PredictRequest](), dict[str, str]()
    with calling(one) as call:
        for name, request in requests.items():
            try:
                call(request)
            except grpc.RpcError as error:
                refusals[name] = f"{error.code().name}: {error.details()}"
            else:
                found.append(request)
    return found, refusals


def mixed(parts: Sequence[Part]) -> dict[str, api.PredictRequest]:
    """Requests of all models, of several sizes, some with attention."""
    return {
        f"{part.name}, {rows} rows of {length}, {name}": make_request(part, rows, length, asked)
        for length in _LENGTHS
        for rows in _ROWS
        for part in parts
        for name, asked in asked_of(part.contract, length, _CALLERS * rows).items()
    }


def grown(name: str, sizes_mb: Sequence[float], seconds: float) -> Row:
    """Compare the end with what it was after a quarter of the time."""
    first, last = sizes_mb[len(sizes_mb) // 4], sizes_mb[-1]
    shown = f"{first:.0f} MB after a quarter, {last:.0f} MB after {seconds:.0f} s"
    if seconds < _JUDGED_SECONDS:
        return measured(name, f"{shown}; too short to judge")
    limit = first * (1 + _GROWTH) + _SPARE_MB
    return judged(name, shown, f"at most {limit:.0f} MB", ok=last <= limit, why="it grows")
