"""The ways to run without attention, with the CPU in a GPU's place: all of the code but the device itself."""

import gc
import logging
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from artifact.contract import CONTRACT_FILE, PLAIN_GRAPH, Contract, read_contract
from artifact.dtypes import Array
from server.config import EMBEDDED_MODELS
from server.engine.cuda_graphs import CapturedRuns, Shape, reasons_against
from server.engine.device import CPU, CUDA, TENSORRT, Device, Instances, choose_device, without_tf32
from server.engine.engine import Engine
from server.engine.examples import example, varied_example
from server.engine.execution import Execution, Way, _Choice
from server.engine.io_binding import BoundSession, Runs
from server.engine.session import UnboundSession
from server.errors import StartError
from server.repository.bare_onnx import describe_graph
from tests.golden import BARE_ONNX_MODELS, GOLDEN_MODELS

ONE = Instances(1, 1)
STAND_IN = Device("CPU", (CPU,), "for the test", bound=True)
GPU = Device("CUDA:1", ((CUDA, {"device_id": 1}), CPU), "for the test", gpu=1, bound=True)
TEXT, WRITES, IMAGES = (
    GOLDEN_MODELS / "tiny-text" / "1",
    EMBEDDED_MODELS / "g2p" / "1",
    EMBEDDED_MODELS / "fashion" / "1",
)
SMALL = {"graph_rows": (2, 4), "graph_tokens": (8, 16)}


def make(folder: Path, **wanted: Any) -> Engine:
    """An artifact, loaded and warmed up."""
    engine = Engine(folder, contract_of(folder), (STAND_IN,), ONE, execution=Execution(**wanted))
    engine.warm_up()
    return engine


def contract_of(folder: Path) -> Contract:
    """Its contract."""
    return read_contract(folder / CONTRACT_FILE)


def captured(engine: Engine) -> CapturedRuns:
    """What replays."""
    (runs,) = engine.plain.runs
    assert isinstance(runs, CapturedRuns)
    return runs


def outputs(contract: Contract) -> list[str]:
    """Names of all."""
    return [spec.name for spec in contract.outputs]


@pytest.fixture
def replayed(monkeypatch: pytest.MonkeyPatch) -> list[Shape]:
    """The shapes that are replayed."""
    found, replay = list[Shape](), CapturedRuns._replay

    def instead(self: CapturedRuns, shape: Shape, inputs: Any, names: Any) -> Any:
        found.append(shape)
        return replay(self, shape, inputs, names)

    monkeypatch.setattr(CapturedRuns, "_replay", instead)
    return found


@pytest.mark.parametrize("folder", [TEXT, WRITES, IMAGES], ids=["texts", "a source", "images"])
@pytest.mark.parametrize("way", ["unbound", "bound", "cuda_graphs"])
def test_no_way_changes_an_answer(way: Way, folder: Path) -> None:
    """Of any size, padded or not, with rows of several lengths."""
    contract = contract_of(folder)
    plain = Engine(folder, contract, (choose_device("cpu"),), ONE).plain
    engine, names = make(folder, way=way, **SMALL), outputs(contract)
    for rows, length in ((1, 1), (1, 8), (2, 5), (3, 9), (4, 16), (4, 17), (5, 3)):
        inputs = varied_example(contract, rows, length)
        found, expected = engine.plain.run(inputs, names), plain.run(inputs, names)
        for name in names:
            np.testing.assert_allclose(np.asarray(found[name]), np.asarray(expected[name]), atol=1e-5)


def test_a_batch_is_padded_to_the_next_shape_and_a_larger_one_runs_as_without(replayed: list[Shape]) -> None:
    """No shape is captured at a caller's request."""
    engine, contract = make(TEXT, way="cuda_graphs", **SMALL), contract_of(TEXT)
    assert captured(engine).shapes == [(2, 8), (2, 16), (4, 8), (4, 16)]
    replayed.clear()
    for rows, length in ((1, 1), (2, 8), (3, 8), (2, 9), (4, 16), (5, 1), (1, 17)):
        engine.plain.run(example(contract, rows, length), outputs(contract))
    assert replayed == [(2, 8), (2, 8), (4, 8), (2, 16), (4, 16)]
    assert captured(engine).shapes == [(2, 8), (2, 16), (4, 8), (4, 16)]


def test_no_shape_is_larger_than_contract_and_batches_allow() -> None:
    """Where positions are fixed only rows are chosen."""
    engine = make(TEXT, way="cuda_graphs", graph_rows=(2, 64), graph_tokens=(32, 512), max_rows=3)
    assert captured(engine).shapes == [(2, 32), (2, 64), (3, 32), (3, 64)]
    assert captured(make(IMAGES, way="cuda_graphs", graph_rows=(2, 4))).shapes == [(2, 0), (4, 0)]


def test_rows_that_are_added_repeat_the_first() -> None:
    """One whose positions are all masked would be divided by nothing; those that it has are masked as in any batch."""
    engine, contract = make(TEXT, way="cuda_graphs", **SMALL), contract_of(TEXT)
    inputs, seen = varied_example(contract, 3, 5), captured(engine)._captured[4, 8].inputs
    engine.plain.run(inputs, outputs(contract))
    for name, array in inputs.items():
        found = seen[name].numpy()
        np.testing.assert_array_equal(found[:3, :5], array)
        np.testing.assert_array_equal(found[3], found[0])
    np.testing.assert_array_equal(seen["attention_mask"].numpy()[:, 5:], 0)


def test_only_what_is_asked_for_is_fetched() -> None:
    """Though all of it is computed."""
    engine, contract = make(TEXT, way="cuda_graphs", **SMALL), contract_of(TEXT)
    (name, *_) = outputs(contract)
    assert set(engine.plain.run(example(contract, 1, 4), [name])) == {name}


def test_an_answer_does_not_change_with_the_next_replay() -> None:
    """It belongs to its caller, though a shape has one place for all of its outputs."""
    engine, contract = make(TEXT, way="cuda_graphs", **SMALL), contract_of(TEXT)
    names = outputs(contract)
    first = engine.plain.run(varied_example(contract, 2, 8), names)
    before = {name: np.array(first[name]) for name in names}
    engine.plain.run(example(contract, 2, 8), names)
    for name in names:
        np.testing.assert_array_equal(np.asarray(first[name]), before[name])


def test_instances_may_replay_at_the_same_time() -> None:
    """One thread does it for all of them."""
    engine, contract = make(TEXT, way="cuda_graphs", **SMALL), contract_of(TEXT)
    (name, *_) = outputs(contract)
    batches = [make_batch(contract, 2, length) for length in (3, 5, 8)]
    alone = [np.asarray(engine.plain.run(inputs, [name])[name]) for inputs in batches]
    begins = threading.Barrier(3, timeout=30)

    def work(place: int) -> None:
        begins.wait()
        for _ in range(30):
            found = engine.plain.run(batches[place], [name])[name]
            np.testing.assert_array_equal(np.asarray(found), alone[place])

    with ThreadPoolExecutor(3) as threads:
        for done in [threads.submit(work, place) for place in range(3)]:
            done.result(60)


def test_the_thread_that_replays_ends_with_its_model() -> None:
    """And lets go of its session: a version that is replaced is freed."""
    before = set(threading.enumerate())
    engine = make(TEXT, way="cuda_graphs", **SMALL)
    (thread,) = [one for one in threading.enumerate() if one not in before and one.name.startswith("cuda-graphs")]
    freed = weakref.ref(captured(engine)._session)
    del engine
    gc.collect()
    thread.join(30)
    assert not thread.is_alive()
    assert freed() is None


def make_batch(contract: Contract, rows: int, length: int) -> dict[str, Array]:
    """A batch of its own for each length."""
    inputs = varied_example(contract, rows, length)
    inputs["input_ids"] += length
    return inputs


def test_the_tapped_graph_gives_what_a_replay_gives() -> None:
    """Whoever asks for attention has the same answer, and the attention of all positions."""
    engine, contract = make(TEXT, way="cuda_graphs", **SMALL), contract_of(TEXT)
    names, inputs = outputs(contract), varied_example(contract, 3, 7)
    assert engine.tapped
    plain, tapped = engine.plain.run(inputs, names), engine.tapped.run(inputs, [*names, *contract.tapped_outputs])
    for name in names:
        np.testing.assert_allclose(np.asarray(plain[name]), np.asarray(tapped[name]), atol=1e-5)
    assert tapped["attention.0"].shape[-2:] == (7, 7)
    assert all(isinstance(runs, BoundSession) for runs in engine.tapped.runs)


@pytest.mark.parametrize("folder", [TEXT, EMBEDDED_MODELS / "g2p" / "1"], ids=["labels", "tokens"])
def test_relevance_comes_from_a_device_whole(folder: Path) -> None:
    """It is sent as it is: nothing there makes less of it, as of attention, and numpy cannot read what stays there."""
    engine, contract = make(folder), contract_of(folder)
    assert contract.explaining_files
    for name, graph, names in engine._graphs():
        if name in contract.explaining_files:
            assert all(isinstance(runs, BoundSession) for runs in graph.runs)
            found = graph.run(example(engine._contract_of(graph), 2, 3), names)
            assert {one: type(array) for one, array in found.items()} == dict.fromkeys(names, np.ndarray)


def changed(**fields: Any) -> Contract:
    """The golden model's contract, changed."""
    return contract_of(TEXT).model_copy(update=fields)


def with_output(**fields: Any) -> Contract:
    """The same with its first output changed."""
    first, *others = contract_of(TEXT).outputs
    return changed(outputs=(first.model_copy(update=fields), *others))


@pytest.mark.parametrize(
    ("contract", "why"),
    [
        (contract_of(TEXT), ""),
        (contract_of(IMAGES), ""),
        (changed(inputs=contract_of(TEXT).inputs[:1]), "none of its inputs is a mask"),
        (with_output(axes=("batch", "found")), "has the axis found"),
        (with_output(axes=("found",)), "rows cannot be added"),
        (with_output(dtype="string"), "is of string"),
        (with_output(dtype="bfloat16"), "is of bfloat16"),
    ],
)
def test_batches_are_padded_only_where_that_changes_nothing(contract: Contract, why: str) -> None:
    """Known rows, masked positions, outputs whose sizes follow from both."""
    found = reasons_against(contract)
    assert why in found
    assert bool(found) == bool(why)


def scripted(monkeypatch: pytest.MonkeyPatch, seconds: Callable[[Runs, Shape], float]) -> None:
    """Let runs take what a function says."""
    monkeypatch.setattr(_Choice, "_seconds", lambda self, runs, size: seconds(runs, size))


@pytest.mark.parametrize(("unbound", "kind"), [(0.5, UnboundSession), (0.97, BoundSession), (2.0, BoundSession)])
def test_auto_takes_the_fastest_way(
    unbound: float, kind: type, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Bound buffers stay where the difference may be chance; the log says what was measured, and what was not."""
    times = {BoundSession: 1.0, UnboundSession: unbound, CapturedRuns: 9.0}
    scripted(monkeypatch, lambda runs, size: times[type(runs)])
    caplog.set_level(logging.INFO)
    (runs,) = make(TEXT, **SMALL).plain.runs
    assert type(runs) is kind
    taken = "unbound" if kind is UnboundSession else "bound"
    assert (
        f"{taken} is taken, runs of 1x16 and 8x64 take bound 2000.000 ms, unbound {2000 * unbound:.3f} ms"
        in caplog.text
    )
    assert "tensorrt is not to be had: without --tensorrt-cache" in caplog.text
    assert "cuda_graphs are faster for none of 2x8, 2x16, 4x8, 4x16" in caplog.text


@pytest.mark.parametrize("broken", [UnboundSession, BoundSession, CapturedRuns])
def test_a_way_that_fails_while_it_is_measured_is_done_without(
    broken: type, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Auto takes one of the others, and says why; a model that runs in none is not loaded."""
    failing = {broken}

    def seconds(runs: Runs, size: Shape) -> float:
        if type(runs) in failing:
            raise RuntimeError("cannot run")
        return 1.0

    scripted(monkeypatch, seconds)
    caplog.set_level(logging.INFO)
    (runs,) = make(TEXT, **SMALL).plain.runs
    assert type(runs) is (UnboundSession if broken is BoundSession else BoundSession)
    name = {UnboundSession: "unbound is", BoundSession: "bound is", CapturedRuns: "cuda_graphs are"}[broken]
    assert f"{name} not to be had: cannot run" in caplog.text
    failing |= {BoundSession, UnboundSession}
    with pytest.raises(StartError, match=r"model.onnx: execution: auto: cannot run; expected a graph that"):
        make(TEXT, **SMALL)


def test_auto_keeps_the_shapes_that_are_faster_for_the_smallest_batch_padded_to_them(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, replayed: list[Shape]
) -> None:
    """For the others of those that are padded they are, then, too. What is less than a twentieth may be chance."""
    sizes = list[Shape]()

    def seconds(runs: Runs, size: Shape) -> float:
        sizes.append(size)
        if isinstance(runs, CapturedRuns):
            return 0.1 if size[0] == 3 else 0.48
        return 0.5

    scripted(monkeypatch, seconds)
    caplog.set_level(logging.INFO)
    engine, contract = make(TEXT, **SMALL), contract_of(TEXT)
    assert {(1, 1), (1, 9), (3, 1), (3, 9)} < set(sizes)
    assert captured(engine).shapes == [(4, 8), (4, 16)]
    assert "cuda_graphs are taken for 2 of 4 shapes: 4x8 100.000 instead of 500.000 ms, 4x16" in caplog.text
    replayed.clear()
    for rows in (1, 3):
        engine.plain.run(example(contract, rows, 8), outputs(contract))
    assert replayed == [(4, 8)]


def test_a_way_that_answers_otherwise_is_not_taken(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As a recorded graph would that holds what depends on its input: auto says so, who asked for it is refused."""
    replay = CapturedRuns._replay

    def off(self: CapturedRuns, shape: Shape, inputs: Any, names: Any) -> Mapping[str, Any]:
        return {name: np.asarray(array) + 1 for name, array in replay(self, shape, inputs, names).items()}

    monkeypatch.setattr(CapturedRuns, "_replay", off)
    caplog.set_level(logging.INFO)
    make(TEXT, **SMALL)
    differs = "2x8 gives answers that differ from those of bound buffers: last_hidden_state"
    assert f"cuda_graphs are not to be had: {differs}" in caplog.text
    with pytest.raises(StartError, match=rf"model.onnx: execution: cuda_graphs: {differs}; expected auto"):
        make(TEXT, way="cuda_graphs", **SMALL)


def test_what_cannot_be_captured_is_refused_to_who_asked_for_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With what ONNX Runtime says; auto goes on without."""

    def refuse(self: CapturedRuns, shape: Shape, inputs: Any) -> None:
        raise RuntimeError("This session cannot use the graph capture feature")

    monkeypatch.setattr(CapturedRuns, "_capture", refuse)
    caplog.set_level(logging.INFO)
    make(TEXT)
    assert "cuda_graphs are not to be had: This session cannot use the graph capture feature" in caplog.text
    with pytest.raises(StartError, match=r"execution: cuda_graphs: This session cannot use .*; expected auto"):
        make(TEXT, way="cuda_graphs")


def test_a_bare_onnx_model_that_cannot_be_padded_is_refused_cuda_graphs() -> None:
    """With the axis."""
    folder = BARE_ONNX_MODELS / "plus" / "1"
    contract = describe_graph(folder)
    reason = reasons_against(contract)
    assert reason
    engine = Engine(folder, contract, (STAND_IN,), ONE, execution=Execution("cuda_graphs"))
    with pytest.raises(StartError, match="execution: cuda_graphs: "):
        engine.warm_up()


@pytest.mark.parametrize(
    ("device", "wanted", "message"),
    [
        ("cpu", {"way": "bound"}, r"execution: bound: CPU reads .*; expected auto or unbound, or --device cuda"),
        ("cpu", {"way": "tensorrt"}, r"execution: tensorrt: CPU reads .*; expected auto or unbound, or --device cuda"),
        (
            "cpu",
            {"precision": "float16"},
            r"precision: float16: TensorRT alone .* not auto; expected float32, tf32, exec",
        ),
        (
            "",
            {"precision": "bfloat16", "way": "cuda_graphs"},
            r"precision: bfloat16: TensorRT alone .* not cuda_graphs",
        ),
    ],
)
def test_what_a_device_cannot_do_is_refused(device: str, wanted: dict[str, Any], message: str) -> None:
    """Before anything is loaded; the file, the setting, its value and what was expected."""
    chosen = choose_device(device) if device else STAND_IN
    with pytest.raises(StartError, match=f"tiny-text/1: {message}"):
        Engine(TEXT, contract_of(TEXT), (chosen,), ONE, execution=Execution(**wanted))


def test_tensorrt_is_refused_where_there_is_no_gpu() -> None:
    """The stand-in is none."""
    with pytest.raises(StartError, match=r"execution: tensorrt: CPU is no NVIDIA GPU; expected auto, or another way"):
        make(TEXT, way="tensorrt")


def test_float32_is_multiplied_in_full_where_that_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    """By every graph of the artifact, on one device for all models that want it."""
    full = without_tf32(GPU)
    assert full.providers == ((CUDA, {"device_id": 1, "use_tf32": 0}), CPU)
    assert without_tf32(GPU) is full
    assert without_tf32(STAND_IN) is STAND_IN
    seen = list[Sequence[Device]]()

    def note(folder: Path, graphs: Sequence[str], devices: Sequence[Device]) -> None:
        seen.append(devices)
        raise StartError("far enough")

    monkeypatch.setattr("server.engine.engine.check_room", note)
    for precision, device in (("float32", full), ("tf32", GPU)):
        with pytest.raises(StartError, match="far enough"):
            Engine(TEXT, contract_of(TEXT), (GPU,), ONE, execution=Execution(precision=precision))  # type: ignore[arg-type]
        assert list(seen.pop()) == [device]


def tensorrt_of(folder: Path, contract: Contract, **wanted: Any) -> tuple[Device, dict[str, Any]]:
    """The device that TensorRT comes first on, and its options."""
    graph = Engine(TEXT, contract_of(TEXT), (STAND_IN,), ONE).plain
    execution = Execution("tensorrt", max_rows=16, **wanted)
    device = _Choice(folder / PLAIN_GRAPH, contract, (GPU,), graph, execution)._with_tensorrt(GPU)
    (name, options), *others = device.providers
    assert name == TENSORRT
    assert others == list(GPU.providers)
    return device, options


def test_tensorrts_engine_takes_every_shape_of_the_contract() -> None:
    """One is built beforehand, and none while a caller waits."""
    _, options = tensorrt_of(TEXT, contract_of(TEXT))
    assert options == {
        "device_id": 1,
        "trt_profile_min_shapes": "input_ids:1x1,attention_mask:1x1",
        "trt_profile_opt_shapes": "input_ids:8x64,attention_mask:8x64",
        "trt_profile_max_shapes": "input_ids:16x64,attention_mask:16x64",
    }
    assert tensorrt_of(TEXT, contract_of(TEXT), precision="float16")[1]["trt_fp16_enable"] == 1
    assert tensorrt_of(TEXT, contract_of(TEXT), precision="bfloat16")[1]["trt_bf16_enable"] == 1
    with pytest.raises(StartError, match="multiplies float32 as TF32; expected precision tf32, float16 or bfloat16"):
        tensorrt_of(TEXT, contract_of(TEXT), precision="float32")


def test_the_cache_has_a_folder_for_each_content_and_setting(tmp_path: Path) -> None:
    """TensorRT's own names are of the graph alone: other weights would run in the engine of these."""
    contract = contract_of(TEXT)
    others = changed(files=dict.fromkeys(contract.files, "0" * 64))
    cases: tuple[tuple[Contract, dict[str, Any]], ...]
    cases = ((contract, {}), (contract, {"precision": "float16"}), (others, {}), (contract, {}))
    found = [tensorrt_of(TEXT, one, tensorrt_cache=tmp_path / "new", **wanted)[1] for one, wanted in cases]
    places = [options["trt_engine_cache_path"] for options in found]
    assert len(set(places)) == 3
    assert places[0] == places[3]
    for options in found:
        assert Path(options["trt_engine_cache_path"]).parent == tmp_path / "new"
        assert Path(options["trt_engine_cache_path"]).is_dir()
        assert options["trt_engine_cache_enable"] == options["trt_timing_cache_enable"] == 1
        assert options["trt_timing_cache_path"] == options["trt_engine_cache_path"]


def test_examples_keep_the_contracts_bounds() -> None:
    """What varies is masked, and never beyond what a caller may send."""
    contract = contract_of(TEXT)
    inputs = varied_example(contract, 3, 40)
    for spec in contract.inputs:
        array = inputs[spec.name]
        assert array.shape == (3, 40)
        assert spec.minimum is None or array.min() >= spec.minimum
        assert spec.maximum is None or array.max() <= spec.maximum
    assert len(np.unique(inputs["input_ids"])) > 30
    assert inputs["attention_mask"].sum(axis=1).tolist() == [40, 40, 20]
