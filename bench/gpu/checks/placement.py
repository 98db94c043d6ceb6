"""Where ONNX Runtime puts every node of every graph, and which form of the tapped graph regard runs."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import onnxruntime

from artifact.contract import (
    CONTRIBUTIONS_GRAPH,
    DECODER_GRAPH,
    HIDDEN_GRAPH,
    LOWERED_DECODER_GRAPH,
    LOWERED_GRAPH,
    PLAIN_GRAPH,
    TAPPED_GRAPH,
    Contract,
)
from bench.gpu.engines import make_engine, make_graph
from bench.gpu.forms import refused
from bench.gpu.inputs import make_inputs
from bench.gpu.rows import Row, failed, judged, measured, skipped
from bench.gpu.setting import Part, Setting
from server.engine.array_ops import KERNELS
from server.engine.device import AssignedSubgraph, Device, check_placement
from server.engine.session import RECORD_ASSIGNMENT, make_options
from server.errors import StartError, first_line

_LIMIT = "every node on the device, but arithmetic on shapes"
_ALL = (
    PLAIN_GRAPH,
    TAPPED_GRAPH,
    LOWERED_GRAPH,
    CONTRIBUTIONS_GRAPH,
    HIDDEN_GRAPH,
    DECODER_GRAPH,
    LOWERED_DECODER_GRAPH,
)


def check(setting: Setting) -> Iterator[Row]:
    """Look at every graph, first those that reduce attention; then load each artifact as the server does."""
    device = setting.choose()
    for path in sorted(KERNELS.glob("*.onnx")):
        yield placed(f"kernels/{path.name}", path, device)
    for why in setting.unreadable():
        yield failed("a contract", why, "can be read")
    for part in setting.parts():
        if setting.seconds_left < 0:
            yield skipped(part.name, "the time is up")
            continue
        for graph in graphs_of(part.contract):
            row = placed(f"{part.name}/{graph}", part.folder / graph, device)
            instead = refused(row.name, graph, part.contract, row.why)
            yield instead if (row.status, instead.status) == ("failed", "skipped") else row
        yield from loaded(part, device)


def graphs_of(contract: Contract) -> list[str]:
    """Names of the graphs that an artifact has, those of relevance last."""
    return [name for name in (*_ALL, *contract.explaining_files) if name in contract.files]


def placed(name: str, path: Path, device: Device) -> Row:
    """Load a graph without regard's own refusal, and judge where its nodes are."""
    options = make_options()
    options.add_session_config_entry(RECORD_ASSIGNMENT, "1")
    try:
        session = onnxruntime.InferenceSession(path, options, providers=list(device.providers))
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        return failed(name, f"cannot be loaded: {first_line(error)}", _LIMIT)
    return judge(name, device, session.get_providers(), session.get_provider_graph_assignment_info())


def judge(name: str, device: Device, providers: Iterable[str], subgraphs: Iterable[AssignedSubgraph]) -> Row:
    """Count nodes by provider, and say which are where they should not be."""
    subgraphs = list(subgraphs)
    nodes = [(one.ep_name, node) for one in subgraphs for node in one.get_nodes()]
    counts = Counter(provider for provider, _ in nodes)
    shown = ", ".join(f"{count} {provider.removesuffix('ExecutionProvider')}" for provider, count in counts.items())
    known = {one if isinstance(one, str) else one[0] for one in device.providers}
    strays = [f"{node.name} ({node.op_type}) on {provider}" for provider, node in nodes if provider not in known]
    on_cpu = Counter(node.op_type for provider, node in nodes if provider.startswith("CPU") and device.gpu is not None)
    shown += f"; on the CPU: {', '.join(f'{count} {kind}' for kind, count in on_cpu.items())}" if on_cpu else ""
    try:
        check_placement(device, providers, subgraphs)
    except StartError as error:
        return judged(name, shown, _LIMIT, ok=False, why=str(error))
    why = ", ".join(strays[:5]) or "ONNX Runtime tells of no node"
    return judged(name, shown, _LIMIT, ok=bool(nodes) and not strays, why=why)


def loaded(part: Part, device: Device) -> Iterator[Row]:
    """Load and warm up an artifact as the server does; say which forms of its graphs can be run."""
    name = f"{part.name}, loaded as the server does"
    try:
        engine = make_engine(part, device)
        engine.warm_up()
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        yield failed(name, first_line(error), "is ready")
    else:
        yield judged(name, "ready", "is ready", ok=True)
    if part.contract.attention:
        yield form(part, device)


def form(part: Part, device: Device) -> Row:
    """Say whether the tapped graph's fused nodes give their weights on the device, or the lowered form is run."""
    names = [*(spec.name for spec in part.contract.outputs), *part.contract.tapped_outputs]
    found = []
    for graph in (name for name in (TAPPED_GRAPH, LOWERED_GRAPH) if name in part.contract.files):
        try:
            tapped = make_graph(part.folder / graph, device, part.contract.further_axes)
            tapped.run(make_inputs(part.contract, 2, 8), names)
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            found.append((graph, first_line(error)))
        else:
            found.append((graph, "runs"))
    name = f"{part.name}, form of the attention"
    shown = "; ".join(f"{graph}: {what}" for graph, what in found)
    if any(what == "runs" for _, what in found):
        return measured(name, shown)
    return failed(name, shown, "one of them runs")
