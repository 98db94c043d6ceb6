"""Whether the server's CUDA graphs answer as the CPU does, and how much sooner than bound buffers; what auto takes."""

import time
from collections.abc import Iterator
from functools import partial

from artifact.contract import PLAIN_GRAPH
from bench.gpu.checks.buffers import milliseconds
from bench.gpu.engines import make_graph, make_plain
from bench.gpu.inputs import apart, make_inputs, on_host
from bench.gpu.limits import limit_of
from bench.gpu.rows import Row, at_most, failed, guarded, measured, skipped
from bench.gpu.setting import PLAIN_CPU, Part, Setting
from server.engine.device import Device
from server.engine.execution import DIFFERS, Execution
from server.errors import StartError

_WANTED = Execution("cuda_graphs", graph_rows=(1, 32), graph_tokens=(16,))
_SIZES = ((1, 16), (32, 16), (1, 5), (9, 11))  # rows and tokens, the last two padded to the shapes of the first


def check(setting: Setting) -> Iterator[Row]:
    """Try every artifact; what ONNX Runtime refuses to capture is skipped, since the server then runs it without."""
    device = setting.choose()
    for part in setting.parts():
        if part.contract.precision == "bfloat16":
            yield skipped(part.name, "bfloat16 cannot be computed on the CPU, to compare with")
        elif setting.seconds_left < 0:
            yield skipped(part.name, "the time is up")
        else:
            yield from guarded(part.name, try_part(part, device, setting))


def try_part(part: Part, device: Device, setting: Setting) -> Iterator[Row]:
    """Capture, compare with the CPU and measure; then let auto choose."""
    try:
        captured, _ = make_plain(part, device, _WANTED)
    except StartError as error:
        yield (failed if DIFFERS in str(error) else skipped)(part.name, str(error))
        return
    reference, plain = (make_graph(part.folder / PLAIN_GRAPH, one) for one in (PLAIN_CPU, device))
    names, seconds_a_row = [spec.name for spec in part.contract.outputs], 0.0
    for seed, (rows, length) in enumerate(_SIZES):
        name = f"{part.name}, {rows} rows of {length}"
        if setting.seconds_left < rows * seconds_a_row:
            yield skipped(name, "the time is up")
            continue
        inputs, began = make_inputs(part.contract, rows, length, seed), time.monotonic()
        expected = on_host(reference.run(inputs, names))
        seconds_a_row = (time.monotonic() - began) / rows
        found = on_host(captured.run(inputs, names))
        distance = max(apart(found[name], expected[name]) for name in names)
        yield at_most(f"{name}, replayed", distance, limit_of(part.contract.precision, tf32=True))
        times = [milliseconds(partial(one.run, inputs, names), most_seconds=0.5) for one in (captured, plain)]
        yield measured(f"{name}, a run", f"{times[0]:.3f} ms replayed, {times[1]:.3f} ms through bound buffers")
    if setting.seconds_left < 0:
        yield skipped(f"{part.name}, execution auto", "the time is up")
    else:
        yield measured(f"{part.name}, execution auto", make_plain(part, device, Execution())[1])
