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
    """A value, or a session, of a device that has failed; or of one that has no memory."""

    def __init__(self, session: Any, number: int) -> None:
        self._session, self._number = session, number

    def __getattr__(self, name: str) -> Any:
        if name in ("run_with_iobinding", "numpy"):
            raise RuntimeError(f"CUDA failure {self._number}: what CUDA says ; GPU=0 ; hostname=here")
        return getattr(self._session, name)


@pytest.mark.parametrize(("number", "error"), [(700, DeviceFailed), (2, RuntimeError)])
def test_who_waits_for_what_stays_on_a_device_is_told_that_it_has_failed(
    number: int, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """UNAVAILABLE, after which a retry is computed on another; other faults are ours."""
    graph = Graph(ARTIFACT / TAPPED_GRAPH, BOUND[:1], ONE, CONTRACT.further_axes)
    weights = graph.run(make_inputs(), NAMES)["attention.1"]
    assert isinstance(weights, DeviceArray)
    sessions, kernel = weights.measures._sessions, "fuse_heads.mean"
    monkeypatch.setitem(sessions, kernel, Broken(sessions[kernel], number))
    with pytest.raises(error):
        weights.measures.fuse_heads(weights, "mean")
    weights.value = Broken(weights.value, number)
    with pytest.raises(error):
        weights.copy()


@pytest.mark.parametrize(("devices", "sessions"), [(BOUND, 2), (BOUND[:1] * 2, 1)])
def test_a_device_has_one_session_of_a_graph(devices: Sequence[Device], sessions: int) -> None:
    """One that stands in for another that has failed does not load it again."""
    graph = Graph(ARTIFACT / PLAIN_GRAPH, devices, ONE)
    assert len(set(map(id, graph._of_instance))) == sessions
    found = [graph.run(make_inputs(), ["embedding"], device=device)["embedding"] for device in (0, 1)]
    np.testing.assert_array_equal(np.asarray(found[0]), np.asarray(found[1]))


def test_runs_with_all_threads_have_a_session_on_each_device() -> None:
    """Of more than one thread."""
    graph = Graph(ARTIFACT / PLAIN_GRAPH, choose_devices("cpu:0,cpu:1"), Instances(2, 1), all_threads=True)
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
    graph = Graph(ARTIFACT / PLAIN_GRAPH, choose_devices("cpu:0,cpu:1"), Instances(2, 1), all_threads=True)
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
    graphs = (engine.plain, engine.tapped, engine.contributing, engine.hidden)
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
