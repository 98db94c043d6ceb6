"""Whether the server runs by TensorRT where that is installed; engines take long to build, so one artifact is tried."""

import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import get_args

import onnxruntime

from artifact.contract import PLAIN_GRAPH
from bench.gpu.checks.buffers import milliseconds
from bench.gpu.checks.parity import compare
from bench.gpu.engines import make_graph, make_plain
from bench.gpu.inputs import apart, make_inputs, on_host
from bench.gpu.limits import TF32, limit_of
from bench.gpu.rows import Row, at_most, failed, guarded, measured, skipped
from bench.gpu.setting import PLAIN_CPU, Part, Setting
from server.engine.device import TENSORRT, choose_device
from server.engine.execution import Execution, Precision
from server.engine.session import Graph
from server.errors import StartError

_SIZES = ((1, 5), (8, 64))  # rows, tokens
_LIMITS = {"tf32": TF32, "float16": limit_of("float16", tf32=True), "bfloat16": limit_of("bfloat16", tf32=True)}


def check(setting: Setting) -> Iterator[Row]:
    """Run the smallest artifact in each precision, and all of its graphs with --device tensorrt."""
    if setting.is_stand_in:
        yield skipped("all of it", "the CPU has none")
        return
    if TENSORRT not in onnxruntime.get_available_providers():
        yield skipped("all of it", "not in this build of ONNX Runtime")
        return
    part = next((part for part in setting.parts() if part.contract.precision == "float32"), None)
    if part is None:
        yield skipped("all of it", "no artifact in float32")
        return
    _, _, index = setting.device.partition(":")
    try:
        whole = choose_device(f"tensorrt:{index or 0}")
    except StartError as error:
        yield skipped("all of it", str(error))
        return
    with tempfile.TemporaryDirectory() as cache:
        for precision in (one for one in get_args(Precision) if one in _LIMITS):
            name = f"{part.name}, execution tensorrt, precision {precision}"
            yield from guarded(name, try_precision(name, part, setting, precision, Path(cache)))
    yield from compare(part, {", --device tensorrt": (whole, TF32)}, part, setting)


def try_precision(name: str, part: Part, setting: Setting, precision: Precision, cache: Path) -> Iterator[Row]:
    """Build an engine, read it from the cache, compare what it gives with the CPU, and measure."""
    if setting.seconds_left < 0:
        yield skipped(name, "the time is up")
        return
    device, wanted = setting.choose(), Execution("tensorrt", precision, tensorrt_cache=cache)
    began = time.monotonic()
    make_plain(part, device, wanted)
    built = time.monotonic()
    if not any(file.is_file() for file in cache.rglob("*")):
        yield failed(f"{name}, cache", "no engine was written")
    graph, _ = make_plain(part, device, wanted)
    yield measured(f"{name}, load", f"{built - began:.1f} s, from the cache {time.monotonic() - built:.1f} s")
    yield from against_cpu(name, part, (graph, make_graph(part.folder / PLAIN_GRAPH, device)), _LIMITS[precision])


def against_cpu(name: str, part: Part, graphs: tuple[Graph, Graph], limit: float) -> Iterator[Row]:
    """Compare a graph with the CPU, and measure it beside another."""
    reference, names = make_graph(part.folder / PLAIN_GRAPH, PLAIN_CPU), [spec.name for spec in part.contract.outputs]
    for seed, (rows, length) in enumerate(_SIZES):
        inputs = make_inputs(part.contract, rows, length, seed)
        found, expected = (on_host(one.run(inputs, names)) for one in (graphs[0], reference))
        distance = max(apart(found[one], expected[one]) for one in names)
        yield at_most(f"{name}, {rows} rows", distance, limit)
        times = [milliseconds(partial(one.run, inputs, names), most_seconds=0.5) for one in graphs]
        yield measured(f"{name}, {rows} rows, a run", f"{times[0]:.3f} ms, {times[1]:.3f} ms by CUDA")
