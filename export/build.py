"""Builds an artifact: graph, tap, verification, contract, publication."""

import copy
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import ModelProto, TensorProto

from artifact.contract import (
    BATCH_AXIS,
    CONTRIBUTIONS_GRAPH,
    HIDDEN_GRAPH,
    LOWERED_GRAPH,
    NAME_PATTERN,
    PLAIN_GRAPH,
    TAPPED_GRAPH,
    TOKEN_RELEVANCE_GRAPH,
    WEIGHTS_FILE,
    Contract,
    HiddenStateContract,
    Precision,
    RelevanceGraph,
)
from artifact.verification import Accuracy, Check
from export.accuracy import ask_graph, ask_network, measure_accuracy, misses
from export.compare import LIMITS
from export.contracts import TOKENIZER_FILE, Written, make_contract
from export.errors import AccuracyError, PublishError
from export.fold import fold_constants
from export.graph import externalize
from export.half_storage import store_halves
from export.hidden_states import NO_STATES, States, describe_projected, describe_states, put_on, trace
from export.onnx_file import DEFAULT_LONGEST
from export.probe import Axes, declare_axes, find_axes, find_limits, find_longest, run_graph
from export.publish import next_version, publish, same_as_newest, staging_folder, write_contract
from export.quantize import Quantizer
from export.reach import Reach
from export.references import Reference, reference_of, reference_of_graph
from export.room import check_room
from export.served import GRAPHS, check_loads
from export.similarity import write_similarity
from export.sources import Source
from export.tapping.contributions import tap_contributions
from export.tapping.packed import part_packed_attention
from export.tapping.tap import FUSED_RULES, RULES, Tap, tap, tap_lowered
from export.traits import Feed, Traits
from export.verify import verify
from export.verify_steps import verify_steps
from export.write_relevance import Base, Explained, write_relevance
from export.write_steps import STEP_GRAPHS, write_steps
from export.write_token_relevance import verify_token_relevance, write_token_relevance

DEFAULT_RELEVANCE: tuple[RelevanceGraph, ...] = ("libra",)
_DTYPES: dict[Precision, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


@dataclass(frozen=True)
class Built:
    """What was published.

    Attributes:
        folder: Where the artifact lies.
        contract: Its own.
        unchanged: Whether it was there already.
        left_out: What it has not, though it was asked for, and why, a line each.
    """

    folder: Path
    contract: Contract
    unchanged: bool
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Precise:
    """What the graphs compute in, and how that is found.

    Attributes:
        precision: Of the graphs.
        samples: Real inputs: every other one calibrates, the rest measure accuracy. float32 needs none.
    """

    precision: Precision = "float32"
    samples: Sequence[Feed] = ()


def build(
    source: Source,
    out: Path,
    report: Callable[[str], None] = lambda step: None,
    precise: Precise | None = None,
    relevance: Sequence[RelevanceGraph] = DEFAULT_RELEVANCE,
) -> Built:
    """Export a network and publish it as the next version.

    Args:
        source: What to export.
        out: The models folder.
        report: Called with a line as each step begins.
        precise: Another precision than float32.
        relevance: Which relevance graphs to write, where the network allows them.

    Raises:
        PublishError: The name cannot be a folder's, or the version exists.
        TapError: The graph has no attention that can be tapped.
        VerificationError: The graphs differ from the network; nothing was published.
        AccuracyError: A lower precision costs more than is allowed; nothing was published.
    """
    if not re.fullmatch(NAME_PATTERN, source.name):
        raise PublishError(f"name: {source.name!r}; expected letters, digits, dots, dashes and underscores")
    precise = precise or Precise()
    if source.graph is not None:
        precise = _precision_of_graph(source.graph, precise)
    with staging_folder(out, source.name) as staging:
        if source.tokenizer_file:
            shutil.copyfile(source.tokenizer_file, staging / TOKENIZER_FILE)
        if source.writing:
            _check_precision(precise)
            if source.writing.tokenizer is not None:
                (staging / TOKENIZER_FILE).write_text(source.writing.tokenizer)
            (staging / source.writing.generation.tokenizer_file).write_text(source.writing.target_tokenizer)
        of_tokens = Explained()
        report("tracing the network" if source.network else "reading the graph")
        for graph, states in _graphs(source, precise):
            written = _write_graphs(graph, states, source, staging, precise, report)
            accuracy = _measure(source, written, staging, precise, report)
            if not misses(accuracy):
                break
        else:
            raise AccuracyError(f"{precise.precision} costs too much:\n  " + "\n  ".join(misses(accuracy)))
        if source.writing:
            report("tracing a step of the decoder")
            weights = write_steps(source.writing, written.plain, staging)
            if "libra" in relevance:
                report("explaining")
                write_token_relevance(source.writing, source.traits, weights, staging, of_tokens, report)
            graphs = (*GRAPHS, *STEP_GRAPHS, TOKEN_RELEVANCE_GRAPH)
            store_halves(staging, [name for name in graphs if (staging / name).exists()])
        if source.graph is not None:
            source = replace(source, traits=_limit(source.traits, staging))
        report("verifying against the network" if source.network else "verifying")
        checks: tuple[Check, ...] = ()
        if precise.precision in LIMITS:  # ONNX Runtime cannot run the others on the CPU
            reference = _reference(source, written)
            checks = verify(reference, staging, source.traits, written, precise.precision)
        explained = _explain(source, written, staging, precise, relevance, report)
        written = replace(written, relevance=explained.contracts, similarity=explained.similarity)
        checks += explained.checks
        if source.writing:
            report("verifying a step of the decoder")
            checks += verify_steps(source.writing, source.traits, staging)
            verify_token_relevance(source.writing, source.traits, staging, of_tokens, report)
            checks += of_tokens.checks
        report("publishing")
        contract = make_contract(source, written, staging, next_version(out, source.name))
        found = {"verification": checks, "precision": precise.precision, "accuracy": accuracy}
        contract = contract.model_copy(update=found)
        write_contract(staging, contract)
        if precise.precision in LIMITS:
            check_loads(staging, contract)
        same = same_as_newest(out, contract)
        left_out = (*explained.left_out, *of_tokens.left_out)
        if same is not None:
            folder = out / source.name / str(same)
            return Built(folder, contract.model_copy(update={"version": same}), True, left_out)
        return Built(publish(staging, out, contract), contract, False, left_out)


def _check_precision(precise: Precise) -> None:
    if precise.precision != "float32":
        raise PublishError(f"--precision: {precise.precision}; expected fp32 of what writes token by token")


def _reference(source: Source, written: Written) -> Reference:
    if source.network is not None:
        return reference_of(source.network, with_states=bool(written.states))
    assert source.graph is not None  # noqa: S101 -- a source is a network or a graph
    return reference_of_graph(source.graph)


def _limit(traits: Traits, folder: Path) -> Traits:
    """Hold a graph to the sizes that it runs on, where only a guess says how large they may be."""
    if traits.longest > DEFAULT_LONGEST:
        return traits
    run = run_graph(folder / PLAIN_GRAPH)
    if traits.is_text:
        return replace(traits, longest=find_longest(run, traits))
    return replace(traits, other_axes=find_limits(run, traits))


def _precision_of_graph(graph: ModelProto, asked: Precise) -> Precise:
    """Read off a graph's weights what it computes in."""
    if asked.precision != "float32":
        raise PublishError(f"--precision: {asked.precision}; a graph is exported as it is, expected fp32")
    types = {tensor.data_type for tensor in graph.graph.initializer if len(tensor.dims) > 1}
    if TensorProto.BFLOAT16 in types:
        raise PublishError("the graph computes in bfloat16, which cannot be verified on the CPU; expected float32")
    return Precise("float16") if TensorProto.FLOAT16 in types else asked


def _graphs(source: Source, precise: Precise) -> Iterator[tuple[ModelProto, States]]:
    """Yield graphs to try, the fastest first: in int8, ever more of the most sensitive products stay in float32.

    With each come its hidden states; of a graph that is the source itself nothing tells them.
    """
    if source.graph is not None:
        # Without kernels for them on the CPU, ONNX Runtime would write other operators in place of half-precision ones.
        graph = fold_constants(source.graph) if precise.precision == "float32" else copy.deepcopy(source.graph)
        part_packed_attention(graph)
        yield graph, NO_STATES
        return
    assert source.network is not None  # noqa: S101 -- a source is a network or a graph
    if precise.precision != "int8":
        yield trace(source.network, source.traits, _DTYPES[precise.precision])
        return
    graph, states = trace(source.network, source.traits)
    quantizer = Quantizer(graph, precise.samples[::2])
    left_out = 0
    while left_out <= quantizer.products // 2:
        yield quantizer.quantize(left_out), states
        left_out = left_out * 2 or 1


def _write_graphs(
    graph: ModelProto,
    states: States,
    source: Source,
    folder: Path,
    precise: Precise,
    report: Callable[[str], None],
) -> Written:
    plain = externalize(graph, folder / WEIGHTS_FILE)
    report("tapping attention")
    fused = any(node.op_type == "Attention" for node in plain.graph.node)
    rules = FUSED_RULES if source.network and fused else RULES
    windows = source.traits.windows
    tapped, taps = tap(plain, folder, rules, windows)
    for one, name in ((plain, PLAIN_GRAPH), (tapped, TAPPED_GRAPH)):
        onnx.save_model(one, folder / name)
    runs_here = precise.precision in LIMITS
    if runs_here:
        check_room(folder / TAPPED_GRAPH, source.traits)
    run = run_graph(folder / TAPPED_GRAPH) if runs_here else _attend_in_torch(source, taps)
    found = find_axes(run, source.traits)
    axes, kinds = found.axes, found.kinds
    declare_axes(tapped, axes)
    onnx.save_model(tapped, folder / TAPPED_GRAPH)
    (folder / LOWERED_GRAPH).unlink(missing_ok=True)
    if (lowered := tap_lowered(tapped, folder)) is not None:
        onnx.save_model(lowered, folder / LOWERED_GRAPH)
    kinds |= {one.output: "self" for one, window in zip(taps, windows, strict=False) if window}
    apart = {layer for layer, window in enumerate(windows) if window}
    able = [one.layer for one in taps if kinds[one.output] != "cross" and one.layer not in apart]
    layers = able if precise.precision == "float32" else []
    contributing, contributions = tap_contributions(plain, folder, rules, layers)
    if contributions:
        axes |= {name: (BATCH_AXIS, *axes[f"attention.{layer}"][2:]) for layer, name in contributions.items()}
        declare_axes(contributing, axes)
        # So that it runs wherever the lowered form does.
        contributing = tap_lowered(contributing, folder) or contributing
        onnx.save_model(contributing, folder / CONTRIBUTIONS_GRAPH)
    hidden, further = _write_hidden(plain, states, source, folder, runs_here=runs_here)
    projected = describe_projected(states.names, further) if hidden else None
    return Written(plain, taps, {**further, **axes}, kinds, found.derived, contributions, hidden, projected)


def _explain(
    source: Source,
    written: Written,
    folder: Path,
    precise: Precise,
    wanted: Sequence[RelevanceGraph],
    report: Callable[[str], None],
) -> Explained:
    """Write the graphs that explain scores and similarities, of what is computed in float32 and does not write."""
    if precise.precision != "float32" or source.writing or not wanted:
        return Explained()
    report("explaining")
    tapped = folder / (LOWERED_GRAPH if (folder / LOWERED_GRAPH).exists() else TAPPED_GRAPH)
    lowered = onnx.load_model(tapped, load_external_data=False)
    reach = Reach(source.traits, written.axes, written.derived)
    base = Base(source, written.plain, lowered, written.taps, reach, folder)
    found = write_relevance(base, wanted, report)
    if "libra" in wanted:
        write_similarity(base, found, report)
    return found


def _write_hidden(
    plain: ModelProto, states: States, source: Source, folder: Path, *, runs_here: bool
) -> tuple[tuple[HiddenStateContract, ...], Mapping[str, Axes]]:
    """Write the hidden graph, if there is one; returns its states, and the axes of all its outputs by name."""
    if not states.values:
        return (), {}
    graph, path = put_on(plain, states), folder / HIDDEN_GRAPH
    onnx.save_model(graph, path)
    axes = find_axes(run_graph(path) if runs_here else _run_in_torch(source), source.traits).axes
    described = describe_states(states.names, axes)
    if not described:
        path.unlink()
        return (), {}
    declare_axes(graph, axes)
    onnx.save_model(graph, path)
    return described, axes


def _run_in_torch(source: Source) -> Callable[[Feed], dict[str, Any]]:
    """Stand in, when axes are looked for, for a hidden graph that cannot run here."""
    assert source.network is not None  # noqa: S101 -- only networks are exported in such precisions
    ask = reference_of(source.network, with_states=True)
    return lambda feed: dict(ask(feed)[0])


def _attend_in_torch(source: Source, taps: Sequence[Tap]) -> Callable[[Feed], dict[str, Any]]:
    """Stand in likewise for a tapped graph."""
    assert source.network is not None  # noqa: S101 -- only networks are exported in such precisions
    ask = reference_of(source.network)

    def run(feed: Feed) -> dict[str, Any]:
        outputs, attentions = ask(feed)
        named = {one.output: weights for one, weights in zip(taps, attentions, strict=True)}
        norms = {one.value_norms: weights[:, :, 0] for one, weights in zip(taps, attentions, strict=True)}
        return {**outputs, **named, **{name: array for name, array in norms.items() if name}}

    return run


def _measure(
    source: Source, written: Written, folder: Path, precise: Precise, report: Callable[[str], None]
) -> tuple[Accuracy, ...]:
    """Measure on the samples that did not calibrate; what ONNX Runtime cannot run on the CPU is run in torch."""
    if precise.precision == "float32" or source.network is None:
        return ()
    report("measuring accuracy")
    outputs = [value.name for value in written.plain.graph.output]
    if precise.precision in LIMITS:
        candidate = ask_graph(folder, outputs, [one.output for one in written.taps])
    else:
        candidate = ask_network(copy.deepcopy(source.network).to(_DTYPES[precise.precision]))
    return measure_accuracy(ask_network(source.network), candidate, precise.samples[1::2])
