"""Whether every graph answers on the device as on the CPU: outputs, attention, contributions, hidden states."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from artifact.contract import (
    CONTRIBUTIONS_GRAPH,
    HIDDEN_GRAPH,
    LOWERED_GRAPH,
    PLAIN_GRAPH,
    TAPPED_GRAPH,
    Contract,
)
from bench.gpu.engines import make_graph
from bench.gpu.inputs import apart, make_inputs, on_host
from bench.gpu.limits import limit_of
from bench.gpu.rows import Row, at_most, failed, skipped
from bench.gpu.setting import PLAIN_CPU, Part, Setting, with_options
from server.engine.device import Device
from server.errors import first_line

_SIZES = ((1, 5), (4, 16), (2, 64))  # rows, tokens


def check(setting: Setting) -> Iterator[Row]:
    """Compare all artifacts, with TF32 off and on."""
    device, parts = setting.choose(), setting.parts()
    for tf32 in (False, True):
        chosen = with_options(device, use_tf32=int(tf32))
        if tf32 and device.gpu is None:
            yield skipped("TF32 on", "the CPU has none")
            return
        for part in parts:
            if setting.seconds_left < 0:
                yield skipped(f"{part.name}, TF32 {'on' if tf32 else 'off'}", "the time is up")
                continue
            yield from compare(part, chosen, reference_of(part, parts), tf32=tf32)


def reference_of(part: Part, parts: Sequence[Part]) -> Part | None:
    """What an artifact is compared with on the CPU: itself, but in bfloat16, which CPUs have not, that in float32."""
    if part.contract.precision != "bfloat16":
        return part
    twin = part.model.removesuffix("-bf16")
    return next((one for one in parts if one.model == twin and one.contract.precision == "float32"), None)


def compare(part: Part, device: Device, reference: Part | None, *, tf32: bool) -> Iterator[Row]:
    """Run each graph of an artifact on both."""
    with_tf32 = f", TF32 {'on' if tf32 else 'off'}" if device.gpu is not None else ""
    if reference is None:
        yield skipped(f"{part.name}{with_tf32}", "bfloat16 cannot be computed on the CPU, and its float32 is not here")
        return
    limit = limit_of(part.contract.precision, tf32=tf32)
    for graph, names in graphs_of(part.contract):
        paths = [reference.folder / graph, part.folder / graph]
        name = f"{part.name}/{graph}{with_tf32}"
        try:
            yield at_most(name, furthest(paths, part.contract, names, device), limit)
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            yield _cannot_run(name, graph, part.contract, first_line(error))


def _cannot_run(name: str, graph: str, contract: Contract, why: str) -> Row:
    """A fused form that a device refuses is no fault where there is the lowered one."""
    if graph == TAPPED_GRAPH and LOWERED_GRAPH in contract.files:
        return skipped(name, f"the lowered form is run instead: {why}")
    return failed(name, why)


def graphs_of(contract: Contract) -> Iterator[tuple[str, list[str]]]:
    """Yield graphs, each with the names of its outputs."""
    outputs = [spec.name for spec in contract.outputs]
    yield PLAIN_GRAPH, outputs
    if contract.attention:
        for graph in (TAPPED_GRAPH, LOWERED_GRAPH):
            if graph in contract.files:
                yield graph, [*outputs, *contract.tapped_outputs]
    if contract.contributions:
        yield CONTRIBUTIONS_GRAPH, [*outputs, *contract.contributions]
    if contract.hidden_states:
        yield HIDDEN_GRAPH, [*outputs, *(state.output for state in contract.hidden_outputs)]


def furthest(paths: Sequence[Path], contract: Contract, names: Sequence[str], device: Device) -> float:
    """The largest distance of any output, over inputs of several sizes; the first path is that of the CPU."""
    expected, found = (
        make_graph(path, one, contract.further_axes) for path, one in zip(paths, (PLAIN_CPU, device), strict=True)
    )
    distances = list[float]()
    for seed, (rows, length) in enumerate(_SIZES):
        inputs = make_inputs(contract, rows, length, seed)
        here, there = (on_host(graph.run(inputs, names)) for graph in (expected, found))
        distances += [apart(there[name], here[name]) for name in names]
    return max(distances)
