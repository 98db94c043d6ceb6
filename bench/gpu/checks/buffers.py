"""Whether a run through kept buffers gives what one without gives, on the same session, and how much sooner."""

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from artifact.contract import PLAIN_GRAPH
from artifact.dtypes import Array
from bench.gpu.inputs import apart, make_inputs, on_host
from bench.gpu.limits import SAME
from bench.gpu.rows import Row, at_most, guarded, measured, skipped
from bench.gpu.setting import Part, Setting
from server.engine.device import Device
from server.engine.device_ops import measures_on
from server.engine.io_binding import BoundSession
from server.engine.session import load_session

_SIZES = ((1, 8), (8, 16), (32, 16))
_ROUNDS = 3  # of each size, with other inputs each time: the second takes the buffers of the first
_RUNS = 20


def check(setting: Setting) -> Iterator[Row]:
    """Look at every artifact's plain graph."""
    device = setting.choose()
    for part in setting.parts():
        if part.contract.precision == "bfloat16" and device.gpu is None:
            yield skipped(part.name, "bfloat16 cannot be computed on the CPU")
        elif setting.seconds_left < 0:
            yield skipped(part.name, "the time is up")
        else:
            yield from guarded(part.name, compare(part, device, setting))


def compare(part: Part, device: Device, setting: Setting) -> Iterator[Row]:
    """Run both ways in turn."""
    session = load_session(part.folder / PLAIN_GRAPH, device, 1, spin=False)
    bound, names = BoundSession(session, measures_on(device)), [spec.name for spec in part.contract.outputs]

    def plain(inputs: dict[str, Array]) -> dict[str, Array]:
        return dict(zip(names, map(np.asarray, session.run(names, inputs)), strict=True))

    distances = list[float]()
    for number in range(_ROUNDS):
        for rows, length in _SIZES:
            inputs = make_inputs(part.contract, rows, length, number)
            found, expected = on_host(bound.run(inputs, names)), plain(inputs)
            distances += [apart(found[name], expected[name]) for name in names]
    yield at_most(f"{part.name}, bound against not", max(distances), SAME)
    for rows, length in _SIZES:
        if setting.seconds_left < 0:
            yield skipped(f"{part.name}, {rows} rows, speed", "the time is up")
            continue
        inputs = make_inputs(part.contract, rows, length)
        with_buffers, without = milliseconds(partial(bound.run, inputs, names)), milliseconds(partial(plain, inputs))
        yield measured(f"{part.name}, {rows} rows", f"bound {with_buffers:.2f} ms, not bound {without:.2f} ms")


def milliseconds(run: Callable[[], object], runs: int = _RUNS, most_seconds: float = 2.0) -> float:
    """The median of some runs, after one that does not count."""
    run()
    took, ends = list[float](), time.perf_counter() + most_seconds
    while len(took) < runs and (not took or time.perf_counter() < ends):
        began = time.perf_counter()
        run()
        took.append((time.perf_counter() - began) * 1e3)
    return statistics.median(took)
