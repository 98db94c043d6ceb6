"""A model on several devices, which the CPU stands for: each has its sessions, and reduces what stays there."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from artifact.contract import CONTRACT_FILE, DECODER_GRAPH, PLAIN_GRAPH, TAPPED_GRAPH, read_contract
from artifact.dtypes import Array
from server.config import EMBEDDED_MODELS
from server.engine.decoder import Decoder, step_arrays
from server.engine.device import CPU, Device, Instances, choose_devices
from server.engine.device_ops import DeviceArray, measures_on
from server.engine.engine import Engine
from server.engine.faults import judge_cpu, judge_gpu, judge_of
from server.engine.session import Graph
from server.errors import DeviceFailed
from tests.golden import GOLDEN_MODELS

ARTIFACT = GOLDEN_MODELS / "tiny-text" / "1"
CONTRACT = read_contract(ARTIFACT / CONTRACT_FILE)
BOUND = tuple(Device(f"CPU:{number}", (CPU,), "for the test", bound=True) for number in range(2))
NAMES = ["embedding", "attention.1"]
ONE = Instances(1, 1)


def make_inputs() -> dict[str, Array]:
    """Two texts of five tokens."""
    ids = np.random.default_rng(0).integers(4, 60, (2, 5))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def test_what_stays_on_a_device_is_reduced_there() -> None:
    """With the same numbers on each, and on none."""
    graph = Graph(ARTIFACT / TAPPED_GRAPH, BOUND, ONE, CONTRACT.further_axes)
    alone = Graph(ARTIFACT / TAPPED_GRAPH, choose_devices("cpu"), ONE).run(make_inputs(), NAMES)
    expected = np.asarray(alone["attention.1"]).mean(axis=1)
    for number, device in enumerate(BOUND):
        found = graph.run(make_inputs(), NAMES, device=number)
        weights = found["attention.1"]
        assert isinstance(weights, DeviceArray)
        assert weights.measures is measures_on(device)
        fused = weights.measures.fuse_heads(weights, "mean")
        assert fused.measures is measures_on(device)
        np.testing.assert_allclose(fused.copy(), expected, atol=1e-6)
        np.testing.assert_allclose(np.asarray(found["embedding"]), np.asarray(alone["embedding"]), atol=1e-6)
    assert measures_on(BOUND[0]) is not measures_on(BOUND[1])


class Broken:
    """A value, a session or its binding, of a device that has failed at something; or of one that has no memory."""

    def __init__(self, whole: Any, number: int, failing: str) -> None:
        self._whole, self._number, self._failing = whole, number, failing

    def __getattr__(self, name: str) -> Any:
        if name == self._failing:
            raise RuntimeError(f"CUDA failure {self._number}: what CUDA says ; GPU=0 ; hostname=here")
        return getattr(self._whole, name)

    def io_binding(self) -> "Broken":
        return Broken(self._whole.io_binding(), self._number, self._failing)

    def run_with_iobinding(self, binding: "Broken") -> None:
        self.__getattr__("run_with_iobinding")(binding._whole)


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch) -> DeviceArray:
    """Attention that stays on a device that can fail, as the CPU cannot."""
    graph = Graph(ARTIFACT / TAPPED_GRAPH, BOUND[:1], ONE, CONTRACT.further_axes)
    weights = graph.run(make_inputs(), NAMES)["attention.1"]
    assert isinstance(weights, DeviceArray)
    monkeypatch.setattr(weights.measures, "_judge", judge_gpu)
    return weights


@pytest.mark.parametrize(("number", "error"), [(700, DeviceFailed), (2, RuntimeError)])
@pytest.mark.parametrize("failing", ["bind_cpu_input", "bind_output", "run_with_iobinding", "get_outputs"])
def test_who_waits_for_what_stays_on_a_device_is_told_that_it_has_failed(
    failing: str, number: int, error: type[Exception], weights: DeviceArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """UNAVAILABLE, after which a retry is computed on another; other faults are ours.

    What lies on the host is copied when it is bound.
    """
    sessions = weights.measures._sessions
    monkeypatch.setitem(sessions, "largest", Broken(sessions["largest"], number, failing))
    with pytest.raises(error):
        weights.measures.largest(weights, 2)


@pytest.mark.parametrize(("number", "error"), [(700, DeviceFailed), (2, RuntimeError)])
def test_what_is_copied_from_a_device_tells_that_it_has_failed(
    number: int, error: type[Exception], weights: DeviceArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights, the places of the largest, and the scale of rounded ones."""
    on = weights.measures
    broken = DeviceArray(weights.value, on)
    broken.value = Broken(weights.value, number, "numpy")
    with pytest.raises(error):
        broken.copy()
    monkeypatch.setattr(on, "_run", lambda *_: [weights, broken])
    for fetch in (lambda: on.largest(weights, 2), lambda: on.to_uint8(weights)):
        with pytest.raises(error):
            fetch()


def test_a_message_that_reads_like_cudas_is_no_failure_of_the_cpu() -> None:
    """Where measures are made there, whatever is wrong is a fault of ours."""
    assert measures_on(BOUND[1])._judge is judge_cpu
    assert judge_of(Device("CUDA:0", (CPU,), "for the test", gpu=0)) is judge_gpu


@pytest.mark.parametrize(("devices", "sessions"), [(BOUND, 2), (BOUND[:1] * 2, 1)])
def test_a_device_has_one_session_of_a_graph(devices: Sequence[Device], sessions: int) -> None:
    """One that stands in for another that has failed does not load it again."""
    graph = Graph(ARTIFACT / PLAIN_GRAPH, devices, ONE)
    assert len(set(map(id, graph._of_instance))) == sessions
    found = [graph.run(make_inputs(), ["embedding"], device=device)["embedding"] for device in (0, 1)]
    np.testing.assert_array_equal(np.asarray(found[0]), np.asarray(found[1]))


def test_runs_with_all_threads_have_a_session_on_each_device() -> None:
    """Of more than one thread."""
    graph = Graph(ARTIFACT / PLAIN_GRAPH, choose_devices("cpu:0,cpu:1"), Instances(2, 2), all_threads=True)
    assert graph.can_use_all_threads
    assert len({*map(id, graph._all_threads), *map(id, graph._of_instance)}) == 4
    found = [graph.run(make_inputs(), ["embedding"], all_threads=True, device=one)["embedding"] for one in (0, 1)]
    np.testing.assert_array_equal(np.asarray(found[0]), np.asarray(found[1]))


class Said:
    """A session that gives its own number."""

    def __init__(self, number: int) -> None:
        self.number = number

    def run(self, names: list[str], *rest: object) -> list[int]:
        return [self.number for _ in names]


def test_a_run_is_that_of_its_devices_session() -> None:
    """With one thread, and with all."""
    graph = Graph(ARTIFACT / PLAIN_GRAPH, choose_devices("cpu:0,cpu:1"), Instances(2, 2), all_threads=True)
    graph._of_instance, graph._all_threads = [Said(0), Said(1)], [Said(2), Said(3)]
    ran = [graph.run({}, ["x"], all_threads=all_threads, device=one) for all_threads in (False, True) for one in (0, 1)]
    assert ran == [{"x": 0}, {"x": 1}, {"x": 2}, {"x": 3}]


def test_every_graph_has_run_on_every_device_before_the_first_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who would have to wait for what a device does once."""
    run, ran = Graph.run, set[tuple[int, int]]()

    def instead(self: Graph, inputs: dict[str, Array], names: list[str], *, device: int = 0, **how: bool) -> object:
        ran.add((id(self), device))
        return run(self, inputs, names, device=device, **how)

    engine = Engine(ARTIFACT, CONTRACT, choose_devices("cpu:0,cpu:1"), ONE)
    monkeypatch.setattr(Graph, "run", instead)
    engine.warm_up()
    graphs = (engine.plain, engine.tapped, engine.contributing, engine.hidden, *engine.explaining.values())
    graphs += (engine.comparing, engine.parting)
    assert ran == {(id(graph), device) for graph in graphs for device in (0, 1)}


def test_a_step_is_the_same_on_every_device() -> None:
    """The rows lie in the host's memory: one step here, the next there."""
    folder = EMBEDDED_MODELS / "g2p" / "1"
    generation = read_contract(folder / CONTRACT_FILE).generation
    assert generation
    decoder = Decoder(folder / DECODER_GRAPH, generation, choose_devices("cpu:0,cpu:1"), ONE)
    decoder.warm_up()
    logits = []
    for devices in ((0, 0), (1, 1), (0, 1)):
        given, made = step_arrays(generation, 1, 16, 16)
        given["source_lengths"][:] = 3
        for device in devices:
            step = decoder.bind(given, made, device=device)
            assert step._session is decoder._one[device]
            step.run()
            given["lengths"] += 1
        logits.append(made["logits"].copy())
    np.testing.assert_array_equal(logits[0], logits[1])
    np.testing.assert_array_equal(logits[0], logits[2])
