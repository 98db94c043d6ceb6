"""The graphs of one artifact in ONNX Runtime: plain, tapped, contributions, hidden; warmed up and measured."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from artifact.contract import (
    BARE_ONNX,
    CONTRIBUTIONS_GRAPH,
    DECODER_GRAPH,
    HIDDEN_GRAPH,
    LOWERED_DECODER_GRAPH,
    LOWERED_GRAPH,
    PARTS_GRAPH,
    PLAIN_GRAPH,
    SIMILARITY_GRAPH,
    TAPPED_GRAPH,
    TOKEN_RELEVANCE_GRAPH,
    Contract,
    RelevanceGraph,
)
from artifact.dtypes import Array
from artifact.generation import TOKEN_RELEVANCE
from server.engine.agreement import check_contract, check_declared, check_given, check_runs
from server.engine.cost import Sample, fit_costs
from server.engine.decoder import Decoder
from server.engine.device import Device, Instances, without_tf32
from server.engine.device_memory import check_room
from server.engine.examples import example
from server.engine.execution import DEFAULT_EXECUTION, Execution, check_execution, choose
from server.engine.prepacked_weights import packed
from server.engine.session import Graph, make_options
from server.errors import StartError, first_line
from server.memory import give_back_memory

_log = logging.getLogger(__name__)

Loaded = TypeVar("Loaded", Graph, Decoder)
AttentionForm = Literal["auto", "fused", "lowered"]

# Above this, an attention run gives its memory back: for ViT-S/14 at 518 pixels 310 MB are left instead of 1402, and
# the run takes as long (0.56 s).
_MUCH_ATTENTION_BYTES = 64 * 2**20
# What is run to fit the cost model, rows and positions, until the time for it is used up.
_SAMPLES = ((1, 8), (8, 8), (1, 64), (4, 64), (2, 128))
_MEASURING_SECONDS = 0.4
# The longest text that is tried: a run's attention takes 16 heads x 2048 x 2048 x 4 bytes, 268 MB, if it is that long.
_TRIED_TOKENS, _TRIED_SECONDS = 2048, 1.0


class Engine:
    """The graphs of one model: plain; tapped, for attention; one for contributions; one for hidden states."""

    def __init__(
        self,
        folder: Path,
        contract: Contract,
        devices: Sequence[Device],
        instances: Instances,
        form: AttentionForm = "auto",
        execution: Execution = DEFAULT_EXECUTION,
    ) -> None:
        """Load the graphs.

        Args:
            folder: The artifact's.
            contract: The artifact's.
            devices: Where they run, of one kind; each has the weights.
            instances: How runs of a device share the CPUs.
            form: Which form of the tapped graph.
            execution: How runs without attention are executed; what is to be measured is so in warm_up.

        Raises:
            StartError: A graph cannot be loaded, is not what the contract says, or would run on another device.
        """
        check_execution(folder, execution, devices[0])
        if execution.precision == "float32":
            devices = [without_tf32(device) for device in devices]
        self._folder, self._contract, self._devices, self._execution = folder, contract, devices, execution
        self._instances = instances
        device = devices[0]
        check_contract(folder, contract)
        if contract.precision == "bfloat16" and device.gpu is None:
            raise StartError(
                f"{folder}: computes in bfloat16, which ONNX Runtime cannot do on the CPU; "
                "expected --device cuda, or an artifact of another precision"
            )
        tapped = choose_tapped(contract, device, form)
        beside = [CONTRIBUTIONS_GRAPH] if contract.contributions else []
        beside += [HIDDEN_GRAPH] if contract.hidden_states else []
        beside += contract.explaining_files
        decoders = [name for name in (DECODER_GRAPH, LOWERED_DECODER_GRAPH) if name in contract.files]
        graphs = (PLAIN_GRAPH, *tapped[:1], *beside, *decoders[:1])
        check_room(folder, graphs, devices)
        own = {graph: folder / graph for graph in (PLAIN_GRAPH, *tapped, *beside, *decoders)}
        on_cpu, keep_on_device = device.gpu is None, contract.further_axes
        with packed(folder, graphs, make_options) if on_cpu else nullcontext(own) as sources:
            self.plain = Graph(sources[PLAIN_GRAPH], devices, instances, all_threads=True)
            self.tapped: Graph | None = None
            self.contributing: Graph | None = None
            self.hidden: Graph | None = None
            self.comparing: Graph | None = None
            self.parting: Graph | None = None
            if contract.contributions:
                self.contributing = Graph(
                    sources[CONTRIBUTIONS_GRAPH], devices, instances, keep_on_device, shrinks=True
                )
            if contract.hidden_states:
                self.hidden = Graph(sources[HIDDEN_GRAPH], devices, instances, keep_on_device, all_threads=True)
            # What they give is sent as it is, and fetched: nothing on a device makes less of it.
            # Of other methods than Libra without a session for a run alone: they are for comparing, and take memory.
            self.explaining: dict[RelevanceGraph, Graph] = {
                one.graph: Graph(sources[one.file], devices, instances, all_threads=one.graph == "libra")
                for one in contract.explained
            }
            if contract.similarity:
                self.comparing, self.parting = (
                    Graph(sources[name], devices, instances, all_threads=True)
                    for name in (SIMILARITY_GRAPH, PARTS_GRAPH)
                )
            self.explaining_tokens: Graph | None = None
            if contract.explains_tokens:
                self.explaining_tokens = Graph(sources[TOKEN_RELEVANCE_GRAPH], devices, instances, all_threads=True)
            if contract.attention:
                shrinks = _weights_bytes(contract) > _MUCH_ATTENTION_BYTES

                def load_tapped(path: Path) -> Graph:
                    graph = Graph(path, devices, instances, keep_on_device, shrinks=shrinks)
                    if not on_cpu:
                        _try_form(path, lambda: graph.run(self._example(1, 1), contract.tapped_outputs))
                    return graph

                self.tapped = _load_first([sources[name] for name in tapped], load_tapped)
            self.decoder: Decoder | None = None
            if contract.generation:
                generation = contract.generation

                def load_decoder(path: Path) -> Decoder:
                    decoder = Decoder(path, generation, devices, instances)
                    if not on_cpu:
                        _try_form(path, decoder.try_longest)
                    return decoder

                self.decoder = _load_first([sources[name] for name in decoders if name in sources], load_decoder)
        for name, graph, outputs in self._graphs():
            said = self._contract_of(graph)
            graph.check_names(folder / name, [spec.name for spec in said.inputs], outputs)
            check_declared(folder, said, name, graph.declared)

    def _graphs(self) -> Iterator[tuple[str, Graph, list[str]]]:
        """Yield the graphs there are: the file's name, the graph, and the names of its outputs."""
        outputs = [spec.name for spec in self._contract.outputs]
        yield PLAIN_GRAPH, self.plain, outputs
        if self.tapped:
            yield TAPPED_GRAPH, self.tapped, [*outputs, *self._contract.tapped_outputs]
        if self.contributing:
            yield CONTRIBUTIONS_GRAPH, self.contributing, [*outputs, *self._contract.contributions]
        if self.hidden:
            yield HIDDEN_GRAPH, self.hidden, [*outputs, *(state.output for state in self._contract.hidden_outputs)]
        for one in self._contract.explained:
            yield one.file, self.explaining[one.graph], [*outputs, *one.outputs]
        if self.comparing and self.parting and (compared := self._contract.similarity):
            yield SIMILARITY_GRAPH, self.comparing, [*outputs, *compared.relevance.outputs]
            yield PARTS_GRAPH, self.parting, [*outputs, compared.part]
        if self.explaining_tokens:
            yield TOKEN_RELEVANCE_GRAPH, self.explaining_tokens, list(TOKEN_RELEVANCE.outputs)

    def _contract_of(self, graph: Graph) -> Contract:
        """What the contract says of a graph, whose inputs may be others than the plain one's."""
        return self._contract.of_tokens if graph is self.explaining_tokens else self._contract

    def warm_up(self) -> None:
        """Run each session, so that the first caller does not pay for it, and measure what batches cost.

        What the largest of them took is given back: all attention of an image of 518 pixels is 0.6 GB.
        """
        self._run_samples()
        self.give_back_memory()

    def give_back_memory(self) -> None:
        """Return to the system what no run needs at the moment."""
        try:
            self.plain.shrink_arena(self._example(1, 1), [self._contract.outputs[0].name])
        except (
            Exception
        ) as error:  # ONNX Runtime's exceptions have no common base; only a bare ONNX model may refuse zeros
            _log.debug("%s: its arena keeps its size: %s", self._contract.name, error)
        give_back_memory()

    def _run_samples(self) -> None:
        outputs = [spec.name for spec in self._contract.outputs]
        if self._contract.family == BARE_ONNX:
            self._warm_up_bare_onnx(outputs)
            return
        self._choose_execution()
        self.plain.run(self._example(1, 1), outputs, all_threads=True)
        for name, graph, names in self._graphs():
            self._fit_costs(name, graph, names)
            for further in range(1, len(self._devices)):  # the first has run
                graph.run(example(self._contract_of(graph), 1, 1), names, device=further)
        self._try_bounds(outputs)
        if self.decoder:
            most = self.decoder.generation.max_tokens
            check_runs(self._folder, "generation.max_tokens", most, self.decoder.try_longest)
            self.decoder.warm_up()

    def _choose_execution(self) -> None:
        path = self._folder / PLAIN_GRAPH
        if found := choose(path, self._contract, self._devices, self.plain, self._execution):
            _log.info("%s: %s", path, found)

    def _fit_costs(self, name: str, graph: Graph, names: Sequence[str]) -> None:
        def fit() -> None:
            self._fit(name, graph, names)

        if text := self._contract.text:  # no length that is run is longer than the contract allows
            check_runs(self._folder, "text.max_tokens", text.max_tokens, fit)
        else:
            fit()

    def _warm_up_bare_onnx(self, outputs: Sequence[str]) -> None:
        """Do what is possible where nothing is known of the inputs but their types."""
        if self._execution.way != "auto":
            self._choose_execution()
        try:
            self.plain.run(self._example(1, 1), outputs, all_threads=True)
            if self._execution.way == "auto":
                self._choose_execution()
            self._fit(PLAIN_GRAPH, self.plain, outputs)
            for further in range(1, len(self._devices)):
                self.plain.run(self._example(1, 1), outputs, device=further)
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            _log.warning("%s: cannot be run on zeros to warm up: %s", self._contract.name, first_line(error))

    def _try_bounds(self, outputs: Sequence[str]) -> None:
        """Run the plain graph with the largest and smallest values, and with a long text, that the contract allows."""
        for spec in self._contract.inputs:
            for bound in ("minimum", "maximum"):
                value = getattr(spec, bound)
                if value is not None and not spec.mask:
                    self._try(f"inputs[{spec.name}].{bound}", value, {spec.name: value}, 1, outputs)
        if text := self._contract.text:
            length = min(text.max_tokens, _TRIED_TOKENS)
            while self.plain.cost.seconds(1, length) > _TRIED_SECONDS:
                length //= 2
            self._try("text.max_tokens", text.max_tokens, {}, length, outputs)

    def _try(self, field: str, bound: float, values: Mapping[str, float], length: int, outputs: Sequence[str]) -> None:
        def run() -> None:
            inputs = self._example(1, length)
            for name, value in values.items():
                whole = inputs[name].dtype.kind in "iu"
                inputs[name] = np.full_like(inputs[name], int(value) if whole else value)
            self.plain.run(inputs, outputs)

        check_runs(self._folder, field, bound, run)

    def _fit(self, name: str, graph: Graph, names: Sequence[str]) -> None:
        """Measure both kinds of runs, of one instance and of all threads, which the scheduler chooses between."""
        graph.cost = graph.all_threads_cost = fit_costs(list(self._measure(name, graph, names)))
        if graph.can_use_all_threads:
            graph.all_threads_cost = fit_costs(list(self._measure(name, graph, names, all_threads=True)))

    def _measure(self, name: str, graph: Graph, names: Sequence[str], *, all_threads: bool = False) -> Iterator[Sample]:
        """Run batches of several sizes, each until three runs or the time is up; yields the fastest of each.

        Where instances share threads, all of them run at a time: alone a run would have the threads of the others. Not
        of graphs without a choice, those with attention: a single run of theirs may take a gigabyte.
        """
        contract = self._contract_of(graph)
        text, fixed = contract.text, contract.positions
        varies = text is not None and text.pad_token is None
        sizes = ((rows, min(length, fixed) if varies else fixed) for rows, length in _SAMPLES)
        others = 0 if all_threads or not graph.can_use_all_threads else self._instances.sharing - 1
        ends = time.perf_counter() + _MEASURING_SECONDS / (2 if all_threads else 1)
        with ThreadPoolExecutor(max(others, 1)) as executor:
            for rows, length in dict.fromkeys(sizes):
                inputs, seconds = example(contract, rows, length), list[float]()
                while len(seconds) < 3 and (not seconds or time.perf_counter() < ends):
                    started = time.perf_counter()
                    beside = [executor.submit(graph.run, inputs, names) for _ in range(others)]
                    found = graph.run(inputs, names, all_threads=all_threads)
                    for other in beside:
                        other.result()
                    seconds.append(time.perf_counter() - started)
                check_given(self._folder, contract, name, inputs, found)
                yield Sample(rows, length, min(seconds))
                if time.perf_counter() > ends:
                    return

    def _example(self, rows: int, length: int) -> dict[str, Array]:
        return example(self._contract, rows, length)


def choose_tapped(contract: Contract, device: Device, form: AttentionForm) -> list[str]:
    """Which forms of the tapped graph to try, in this order; none where no attention was exported.

    A fused node on a GPU may not give its weights, or fall to the CPU; its lowered form is then the second choice.
    """
    if not contract.attention:
        return []
    lowered = [LOWERED_GRAPH] if LOWERED_GRAPH in contract.files else []
    if form == "lowered":
        return lowered or [TAPPED_GRAPH]
    return [TAPPED_GRAPH, *(lowered if form == "auto" and device.gpu is not None else [])]


def _load_first(paths: Sequence[Path], load: Callable[[Path], Loaded]) -> Loaded:
    """Load the first of some graphs that can be loaded."""
    for path in paths[:-1]:
        try:
            return load(path)
        except StartError as error:
            _log.warning("%s; its lowered form is tried", error)
    return load(paths[-1])


def _try_form(path: Path, run: Callable[[], object]) -> None:
    """Run a graph once: CUDA takes fused attention that gives its weights, and refuses it when it is run.

    Raises:
        StartError: It cannot be run.
    """
    try:
        run()
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        raise StartError(f"{path}: loads, but cannot be run: {first_line(error)}") from error


def _weights_bytes(contract: Contract) -> int:
    """Attention weights of one row of the largest size, all of which are computed whatever is asked for."""
    return sum(layer.row_bytes(contract.limits, contract.positions) for layer in contract.attention)
