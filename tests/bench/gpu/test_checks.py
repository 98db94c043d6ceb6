"""The checks with the CPU in the device's place: what is right passes, and what is broken on purpose fails."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from artifact.contract import PLAIN_GRAPH
from artifact.dtypes import Array
from artifact.generation import GenerationContract
from bench.gpu import engines
from bench.gpu.checks import (
    buffers,
    cuda_graphs,
    generation,
    machine,
    parity,
    placement,
    reductions,
    shared_memory,
    tensorrt,
)
from bench.gpu.engines import make_decoder, make_graph
from bench.gpu.rows import Row
from bench.gpu.setting import PLAIN_CPU, Part, Setting
from server.api.open_inference import open_inference_pb2 as pb
from server.config import EMBEDDED_MODELS
from server.engine.cuda_graphs import CapturedRuns
from server.engine.decoder import BoundStep, Decoder
from server.engine.device import CPU, CUDA, Device
from server.engine.device_ops import DeviceMeasures
from server.engine.execution import _Choice
from server.engine.io_binding import BoundSession
from tests.golden import GOLDEN_MODELS
from tests.server.engine.test_device import Node, Subgraph

GPU = Device("CUDA:0", ((CUDA, {"device_id": 0}), CPU), "for the test", gpu=0)
STAND_IN = Setting("cpu", GOLDEN_MODELS, 600)
WRITING = Setting("cpu", EMBEDDED_MODELS, 600)


def failures(rows: Iterator[Row]) -> list[str]:
    """Names of what failed."""
    return [row.name for row in rows if row.status == "failed"]


@pytest.mark.parametrize(
    "check",
    [machine.check, placement.check, parity.check, reductions.check, buffers.check, cuda_graphs.check, tensorrt.check],
)
def test_every_check_passes_where_nothing_is_broken(check: Callable[[Setting], Iterator[Row]]) -> None:
    """On the golden model."""
    rows = list(check(STAND_IN))
    assert rows
    assert failures(iter(rows)) == []


def test_relevance_is_compared_of_labels_and_of_similarities() -> None:
    """Why the first number is what it is, whichever is the largest."""
    rows = {row.name.rpartition("/")[2]: row.status for row in parity.check(STAND_IN)}
    for graph in ("relevance.onnx", "similarity.onnx", "parts.onnx"):
        assert rows[graph] == "passed"
    contract = next(part.contract for part in STAND_IN.parts() if part.contract.similarity)
    assert contract.relevance
    weights = parity.asked(contract, "relevance.onnx", 3)[contract.relevance.weights]
    np.testing.assert_array_equal(weights, [[1.0, *[0.0] * (len(contract.labels) - 1)]] * 3)
    assert parity.asked(contract, PLAIN_GRAPH, 3) == {}


def test_relevance_adds_up_on_the_device(tmp_path: Path) -> None:
    """By Libra, of labels and of similarities; what took the score of another does not, and a broken file says why."""
    part = copied(tmp_path)
    rows = {row.name: row.status for row in parity.complete(part, STAND_IN.choose(), 1e-4)}
    names = [
        f"{part.name}/{graph}, adds up to the score"
        for graph in ("relevance.layers.onnx", "relevance.onnx", "similarity.onnx")
    ]
    assert rows == dict.fromkeys(names, "passed")
    assert set(names) < {row.name for row in parity.check(STAND_IN)}
    file = part.folder / "relevance.onnx"
    model = onnx.load(file, load_external_data=False)
    for node in model.graph.node:
        node.output[:] = ["summed" if name == "relevance.score" else name for name in node.output]
    model.graph.node.append(onnx.helper.make_node("Add", ["summed", "summed"], ["relevance.score"]))
    onnx.save(model, file)
    (part.folder / "similarity.onnx").write_bytes(b"no graph")
    assert failures(parity.complete(part, STAND_IN.choose(), 1e-4)) == names[1:]


def test_graphs_of_relevance_are_placed() -> None:
    """All that the contract names: of labels by each method, of similarities, and of their parts."""
    contract = next(part.contract for part in WRITING.parts() if part.model == "fashion")
    found = placement.graphs_of(contract)
    assert {name for name in contract.files if name.endswith(".onnx")} == set(found)
    assert {"relevance.onnx", "relevance.genatt.onnx", "similarity.onnx", "parts.onnx"} < set(found)
    rows = {row.name: row.status for row in placement.check(STAND_IN)}
    for graph in ("relevance.onnx", "similarity.onnx", "parts.onnx"):
        assert rows[f"tiny-text/1/{graph}"] == "passed"


def test_what_a_model_writes_is_compared_in_both_forms() -> None:
    """The embedded one writes."""
    rows = list(generation.check(WRITING))
    assert failures(iter(rows)) == []
    assert [row.status for row in rows].count("passed") == 4


def test_where_the_time_is_up_the_rest_is_skipped() -> None:
    """With the reason."""
    rows = list(parity.check(replace(STAND_IN, seconds=-1)))
    assert {(row.status, row.why) for row in rows[:1]} == {("skipped", "the time is up")}


def test_a_device_that_is_not_there_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what is missing."""

    def absent(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr("ctypes.CDLL", absent)
    (row,) = [row for row in machine.check(replace(STAND_IN, device="cuda")) if row.status == "failed"]
    assert "expected an NVIDIA GPU" in row.why


@pytest.mark.parametrize(
    ("device", "subgraphs", "status", "why"),
    [
        (GPU, [Subgraph(CUDA, [Node("a", "MatMul")]), Subgraph(CPU, [Node("b", "Gather")])], "passed", ""),
        (GPU, [Subgraph(CUDA, [Node("a", "MatMul")]), Subgraph(CPU, [Node("b", "Softmax")])], "failed", "b (Softmax)"),
        (GPU, [Subgraph("Other", [Node("b", "MatMul")])], "failed", "b (MatMul) on Other"),
        (STAND_IN.choose(), [Subgraph("Other", [Node("b", "MatMul")])], "failed", "b (MatMul) on Other"),
        (GPU, [], "failed", "tells of no node"),
    ],
)
def test_a_node_that_is_elsewhere_fails(device: Device, subgraphs: list[Subgraph], status: str, why: str) -> None:
    """By its name."""
    row = placement.judge("graph", device, [CUDA, CPU], subgraphs)
    assert row.status == status
    assert why in row.why


def test_an_artifact_of_which_no_form_runs_fails(tmp_path: Path) -> None:
    """As do its graphs that do not load."""
    part = copied(tmp_path)
    for name in ("attention.onnx", "attention.lowered.onnx"):
        (part.folder / name).write_bytes(b"no graph")
    assert placement.form(part, STAND_IN.choose()).status == "failed"
    assert placement.placed("it", part.folder / "attention.onnx", STAND_IN.choose()).status == "failed"


def test_a_fused_form_that_is_not_placed_is_skipped_where_the_lowered_one_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the server does; a lowered one that is not, fails."""
    part = copied(tmp_path)
    (part.folder / "attention.onnx").write_bytes(b"no graph")
    monkeypatch.setattr(Setting, "parts", lambda setting: [part])
    rows = {row.name: row for row in placement.check(STAND_IN)}
    assert "the lowered form is run instead" in rows["tiny-text/1/attention.onnx"].why
    (part.folder / "attention.lowered.onnx").write_bytes(b"no graph")
    assert "tiny-text/1/attention.lowered.onnx" in failures(placement.check(STAND_IN))


def test_a_contract_that_cannot_be_read_is_told_and_the_others_are_checked(tmp_path: Path) -> None:
    """By its name."""
    shutil.copytree(GOLDEN_MODELS / "tiny-text", tmp_path / "tiny-text")
    (tmp_path / "broken" / "1").mkdir(parents=True)
    (tmp_path / "broken" / "1" / "contract.json").write_text("{}")
    (row,) = [row for row in placement.check(replace(STAND_IN, models=tmp_path)) if row.status == "failed"]
    assert row.why.startswith("broken/1: ")


def copied(folder: Path) -> Part:
    """A copy of the golden artifact."""
    (part,) = STAND_IN.parts()
    shutil.copytree(part.folder, folder / "1")
    return replace(part, folder=folder / "1")


def move(path: Path, output: str, by: float) -> None:
    """Add a number to an output of a graph."""
    model = onnx.load(path, load_external_data=False)
    (maker,) = (node for node in model.graph.node if output in node.output)
    maker.output[list(maker.output).index(output)] = "before"
    model.graph.initializer.append(numpy_helper.from_array(np.array(by, np.float32), "by"))
    model.graph.node.append(helper.make_node("Add", ["before", "by"], [output]))
    path.write_bytes(model.SerializeToString())


def compared(part: Part, reference: Part | None) -> Iterator[Row]:
    """What parity says of an artifact."""
    return parity.compare(part, parity.ways_of(part.contract, STAND_IN.choose()), reference, STAND_IN)


def test_only_float32_is_compared_with_tf32_too() -> None:
    """The reference is computed once for both."""
    (part,) = STAND_IN.parts()
    assert list(parity.ways_of(part.contract, GPU)) == [", TF32 off", ", TF32 on"]
    half = part.contract.model_copy(update={"precision": "float16"})
    assert list(parity.ways_of(half, GPU)) == [""]


def test_what_is_compared_with_has_all_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what stands in for a device one thread, as a run beside others has."""
    monkeypatch.setattr(engines, "cpus", lambda: 7)
    monkeypatch.setattr(engines, "Graph", lambda path, devices, instances, keep_on_device: instances.pool_threads)
    found: list[Any] = [make_graph(Path(), device) for device in (PLAIN_CPU, STAND_IN.choose())]
    assert found == [7, 1]


def test_a_reference_is_computed_once_for_all_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    """On all CPUs, and forgotten: no more answers are kept than those of one size."""
    (part,), runs = STAND_IN.parts(), list[Device]()

    def counted(path: Path, device: Device, keep_on_device: Any = ()) -> Any:
        graph = make_graph(path, device, keep_on_device)

        class Counting:
            def run(self, inputs: Any, names: Any) -> Any:
                runs.append(device)
                return graph.run(inputs, names)

        return Counting()

    monkeypatch.setattr(parity, "make_graph", counted)
    ways = {way: (STAND_IN.choose(), 1e-4) for way in ("one", "two")}
    names = [spec.name for spec in part.contract.outputs]
    assert parity.furthest([part.folder / PLAIN_GRAPH] * 2, part.contract, names, ways) == [0.0, 0.0]
    assert runs.count(PLAIN_CPU) == 3
    assert len(runs) == 9


@pytest.mark.parametrize("by", [0.01, float("nan")])
def test_a_graph_that_answers_otherwise_than_the_cpus_fails(tmp_path: Path, by: float) -> None:
    """And no other graph of the artifact."""
    part, (reference,) = copied(tmp_path), STAND_IN.parts()
    move(part.folder / PLAIN_GRAPH, "embedding", by)
    rows = compared(part, reference)
    assert failures(rows) == [f"tiny-text/1/{PLAIN_GRAPH}"]


def test_a_graph_that_cannot_be_run_fails_unless_a_lowered_form_is_run_instead(tmp_path: Path) -> None:
    """Which says why."""
    part, (reference,) = copied(tmp_path), STAND_IN.parts()
    for name in ("attention.onnx", "hidden.onnx"):
        (part.folder / name).write_bytes(b"no graph")
    rows = list(compared(part, reference))
    assert failures(iter(rows)) == ["tiny-text/1/hidden.onnx"]
    assert ["the lowered form is run instead" in row.why for row in rows if row.status == "skipped"] == [True]


def test_bfloat16_is_compared_with_its_float32_or_not_at_all() -> None:
    """CPUs cannot compute it."""
    (part,) = STAND_IN.parts()
    twin = replace(part, model="tiny-text-bf16", contract=part.contract.model_copy(update={"precision": "bfloat16"}))
    assert parity.reference_of(twin, [part, twin]) is part
    assert parity.reference_of(twin, [twin]) is None
    (row,) = compared(twin, None)
    assert row.status == "skipped"


def test_a_reduction_that_is_wrong_on_the_device_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """It alone."""
    monkeypatch.setattr(DeviceMeasures, "entropy", lambda on, weights: on.choose_keys(weights, [0]))
    monkeypatch.setattr(DeviceMeasures, "weigh_by_values", lambda on, weights, norms: weights)
    assert failures(reductions.check(STAND_IN)) == ["weigh_by_values", "entropy"]


def test_a_reduction_that_nothing_compares_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that none is forgotten."""
    monkeypatch.setattr(DeviceMeasures, "median", lambda on, weights: weights, raising=False)
    (row,) = [row for row in reductions.check(STAND_IN) if row.status == "failed"]
    assert row.why == "median"


def test_buffers_that_keep_what_was_in_them_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """An input that is not copied again."""
    run = BoundSession.run
    seen: dict[Any, Mapping[str, Array]] = {}

    def stale(bound: BoundSession, inputs: Mapping[str, Array], names: Any) -> Any:
        shapes = tuple(array.shape for array in inputs.values())
        return run(bound, seen.setdefault(shapes, inputs), names)

    monkeypatch.setattr(BoundSession, "run", stale)
    assert failures(buffers.check(STAND_IN)) == ["tiny-text/1, bound against not"]


@pytest.mark.parametrize("is_checked", [True, False])
def test_replays_that_answer_otherwise_fail(monkeypatch: pytest.MonkeyPatch, is_checked: bool) -> None:
    """Also those that the server would not notice."""
    replay = CapturedRuns._replay

    def off(runs: CapturedRuns, *arguments: Any) -> Mapping[str, Any]:
        return {name: np.asarray(array) + 1 for name, array in replay(runs, *arguments).items()}

    monkeypatch.setattr(CapturedRuns, "_replay", off)
    if not is_checked:
        monkeypatch.setattr(_Choice, "_check", lambda *_: None)
    sizes = ("1 rows of 16", "32 rows of 16", "1 rows of 5", "9 rows of 11")
    expected = ["tiny-text/1"] if is_checked else [f"tiny-text/1, {size}, replayed" for size in sizes]
    assert failures(cuda_graphs.check(STAND_IN)) == expected


def test_what_cannot_be_captured_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server runs it without."""

    def refuse(*_: Any) -> None:
        raise RuntimeError("ONNX Runtime does not want to")

    monkeypatch.setattr(CapturedRuns, "_capture", refuse)
    (row,) = cuda_graphs.check(STAND_IN)
    assert (row.status, "ONNX Runtime does not want to" in row.why) == ("skipped", True)


def test_what_tensorrt_answers_is_compared_with_the_cpu(tmp_path: Path) -> None:
    """The stand-in's graph in its place, right and wrong."""
    part, (reference,) = copied(tmp_path), STAND_IN.parts()
    move(part.folder / PLAIN_GRAPH, "embedding", 1)
    graphs = [make_graph(one.folder / PLAIN_GRAPH, STAND_IN.choose()) for one in (reference, part)]
    expected: list[list[str]] = [[], ["it, 1 rows", "it, 8 rows"]]
    found = [failures(tensorrt.against_cpu("it", reference, (graph, graphs[0]), 0.02)) for graph in graphs]
    assert found == expected


def test_a_cache_without_an_engine_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each load would build it anew."""
    (part,) = STAND_IN.parts()
    graph = make_graph(part.folder / PLAIN_GRAPH, STAND_IN.choose())
    monkeypatch.setattr(tensorrt, "make_plain", lambda *_: (graph, ""))
    assert failures(tensorrt.try_precision("it", part, STAND_IN, "tf32", tmp_path)) == ["it, cache"]
    (tmp_path / "engine").touch()
    assert failures(tensorrt.try_precision("it", part, STAND_IN, "tf32", tmp_path)) == []


class HostMemory:
    """In the place of a GPU's memory: a file that the server opens as system shared memory."""

    def __init__(self, byte_size: int, files: ExitStack) -> None:
        self.byte_size = byte_size
        file = tempfile.NamedTemporaryFile(dir="/dev/shm", prefix="regard-test-")  # noqa: SIM115 -- with the stack
        self._file = files.enter_context(file)
        self.handle = Path(self._file.name).name
        os.truncate(self._file.name, byte_size)

    def write(self, content: bytes) -> None:
        os.pwrite(self._file.fileno(), content, 0)

    def read(self, byte_size: int) -> bytes:
        return os.pread(self._file.fileno(), byte_size, 0)


def register_on_host(stub: Any, name: str, memory: HostMemory, gpu: int) -> None:
    """Register it as what it is."""
    del gpu
    request = pb.SystemSharedMemoryRegisterRequest(name=name, key=f"/{memory.handle}", byte_size=memory.byte_size)
    stub.SystemSharedMemoryRegister(request)


@pytest.mark.parametrize("is_right", [True, False])
def test_what_a_server_writes_to_shared_memory_is_compared(monkeypatch: pytest.MonkeyPatch, is_right: bool) -> None:
    """A server on the CPU, and host memory in the place of a GPU's; wrong are inputs of which one number is another."""

    def write_wrong(memory: HostMemory, content: bytes) -> None:
        os.pwrite(memory._file.fileno(), bytes([content[0] ^ 1]) + content[1:], 0)

    if not is_right:
        monkeypatch.setattr(HostMemory, "write", write_wrong)
    monkeypatch.setattr(shared_memory, "register", register_on_host)
    monkeypatch.setattr(Setting, "choose", lambda setting: GPU)
    with ExitStack() as files:
        monkeypatch.setattr(shared_memory, "OwnMemory", lambda gpu, byte_size: HostMemory(byte_size, files))
        (row,) = shared_memory.check(STAND_IN)
    assert row.status == ("passed" if is_right else "failed"), row


class Stale:
    """A decoder that reads what was there when its step was bound."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder, self.generation, self.hold = decoder, decoder.generation, decoder.hold

    def bind(self, given: Mapping[str, Array], made: Mapping[str, Array], **options: Any) -> BoundStep:
        copies = {name: array.copy() for name, array in given.items()}
        return self._decoder.bind(copies, made, **options)


def test_steps_that_read_what_was_there_when_they_were_bound_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """As all did on a GPU."""

    def make_stale(path: Path, contract: GenerationContract, device: Device) -> Decoder | Stale:
        decoder = make_decoder(path, contract, device)
        return Stale(decoder) if device.bound else decoder

    monkeypatch.setattr(generation, "make_decoder", make_stale)
    found = failures(generation.check(WRITING))
    assert "g2p/1/decoder.onnx, logits" in found
    assert "g2p/1/decoder.lowered.onnx, logits" in found
