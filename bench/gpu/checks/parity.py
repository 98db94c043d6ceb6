"""Whether every graph answers on the device as on the CPU: outputs, attention, hidden states, relevance and others."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from artifact.contract import (
    CONTRIBUTIONS_GRAPH,
    HIDDEN_GRAPH,
    LOWERED_GRAPH,
    PARTS_GRAPH,
    PLAIN_GRAPH,
    SIMILARITY_GRAPH,
    TAPPED_GRAPH,
    Contract,
    RelevanceContract,
)
from artifact.dtypes import Array
from bench.gpu.engines import make_graph
from bench.gpu.forms import refused
from bench.gpu.inputs import apart, make_inputs, on_host
from bench.gpu.limits import limit_of
from bench.gpu.rows import Row, at_most, failed, skipped
from bench.gpu.setting import PLAIN_CPU, Part, Setting
from server.engine.device import Device, with_options
from server.errors import first_line

_SIZES = ((1, 5), (4, 16), (2, 64))  # rows, tokens
Ways = Mapping[str, tuple[Device, float]]  # what is added to a row's name, and where and how near
Run = Callable[[dict[str, Array], Sequence[str]], dict[str, Array] | str]


def check(setting: Setting) -> Iterator[Row]:
    """Compare all artifacts, those in float32 with TF32 off and on."""
    device, parts = setting.choose(), setting.parts()
    for part in parts:
        yield from compare(part, ways_of(part.contract, device), reference_of(part, parts), setting)
    if device.gpu is None:
        yield skipped("TF32 on", "the CPU has none")


def ways_of(contract: Contract, device: Device) -> Ways:
    """How an artifact is run on the device, and how far from the CPU it may be; TF32 concerns float32 alone."""
    limit = limit_of(contract.precision, tf32=False)
    if device.gpu is None or contract.precision != "float32":
        return {"": (device, limit)}
    on, off = (with_options(device, use_tf32=number) for number in (1, 0))
    return {", TF32 off": (off, limit), ", TF32 on": (on, limit_of(contract.precision, tf32=True))}


def reference_of(part: Part, parts: Sequence[Part]) -> Part | None:
    """What an artifact is compared with on the CPU: itself, but in bfloat16, which CPUs have not, that in float32."""
    if part.contract.precision != "bfloat16":
        return part
    twin = part.model.removesuffix("-bf16")
    return next((one for one in parts if one.model == twin and one.contract.precision == "float32"), None)


def compare(part: Part, ways: Ways, reference: Part | None, setting: Setting) -> Iterator[Row]:
    """Run each graph of an artifact on the CPU, and in each way on the device."""
    if reference is None:
        yield skipped(part.name, "bfloat16 cannot be computed on the CPU, and its float32 is not here")
        return
    for graph, names in graphs_of(part.contract):
        name = f"{part.name}/{graph}"
        if setting.seconds_left < 0:
            yield skipped(name, "the time is up")
            continue
        found = furthest([reference.folder / graph, part.folder / graph], part.contract, names, ways)
        for (way, (_, limit)), distance in zip(ways.items(), found, strict=True):
            if isinstance(distance, float):
                yield at_most(f"{name}{way}", distance, limit)
            else:
                yield refused(f"{name}{way}", graph, part.contract, distance)
    for way, (device, limit) in ways.items():
        yield from complete(part, device, limit, way)


def complete(part: Part, device: Device, limit: float, way: str = "") -> Iterator[Row]:
    """Whether what positions did and the rest make up the score on the device: what lacks, over all that was added."""
    for graph, why in explaining(part.contract).items():
        if why.rest is None:
            continue
        name, furthest_off = f"{part.name}/{graph}, adds up to the score{way}", 0.0
        run = _loaded(part.folder / graph, device, part.contract)
        for seed, (rows, length) in enumerate(_SIZES):
            inputs = make_inputs(part.contract, rows, length, seed) | asked(part.contract, graph, rows)
            answer = run(inputs, why.outputs)
            if isinstance(answer, str):
                yield failed(name, answer)
                break
            added = np.column_stack([answer[why.positions], answer[why.rest]]).astype(np.float64)
            lacking = np.abs(added.sum(axis=1) - answer[why.score]) / np.abs(added).sum(axis=1)
            furthest_off = max(furthest_off, float(lacking.max()))
        else:
            yield at_most(name, furthest_off, limit)


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
    for why in contract.explained:
        yield why.file, [*outputs, *why.outputs]
    if similar := contract.similarity:
        yield SIMILARITY_GRAPH, [*outputs, *similar.relevance.outputs]
        yield PARTS_GRAPH, [*outputs, similar.part]


def explaining(contract: Contract) -> dict[str, RelevanceContract]:
    """The graphs of relevance, by file: of scores by each method, and of similarities."""
    found = {why.file: why for why in contract.explained}
    return found | ({SIMILARITY_GRAPH: contract.similarity.relevance} if contract.similarity else {})


def asked(contract: Contract, graph: str, rows: int) -> dict[str, Array]:
    """What a graph is asked beside its inputs: why the first number is what it is, or for the first position's part.

    Without it the largest number is explained, which may be another on the device where two are as large.
    """
    if contract.similarity and graph == PARTS_GRAPH:
        return {contract.similarity.chosen: np.zeros(rows, np.int64)}
    if (why := explaining(contract).get(graph)) is None:
        return {}
    columns = next(spec.axes[-1] for spec in contract.outputs if spec.name == why.output)
    return {why.weights: np.tile(np.eye(1, int(columns), dtype=np.float32), (rows, 1))}


def furthest(paths: Sequence[Path], contract: Contract, names: Sequence[str], ways: Ways) -> list[float | str]:
    """The largest distance of any output in each way, or why there is none; the first path is that of the CPU.

    Of inputs of each size the CPU's answer is computed once, and forgotten before the next.
    """
    reference, runs = _loaded(paths[0], PLAIN_CPU, contract), list[Run]()
    for device, _ in ways.values():
        runs.append(_loaded(paths[1], device, contract))
    found: list[float | str] = [0.0 for _ in runs]
    for seed, (rows, length) in enumerate(_SIZES):
        inputs = make_inputs(contract, rows, length, seed) | asked(contract, paths[0].name, rows)
        expected = reference(inputs, names)
        for place, run in enumerate(runs):
            answer, before = run(inputs, names), found[place]
            if isinstance(before, str):
                continue
            if isinstance(answer, str) or isinstance(expected, str):
                found[place] = answer if isinstance(answer, str) else f"on the CPU: {expected}"
            else:
                found[place] = max(before, *(apart(answer[name], expected[name]) for name in names))
    return found


def _loaded(path: Path, device: Device, contract: Contract) -> Run:
    """Load a graph, and return what runs it; either may give the reason why it cannot."""
    try:
        graph = make_graph(path, device, contract.further_axes)
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        why = first_line(error)
        return lambda inputs, names: why

    def run(inputs: dict[str, Array], names: Sequence[str]) -> dict[str, Array] | str:
        try:
            return on_host(graph.run(inputs, names))
        except Exception as error:  # as above
            return first_line(error)

    return run
