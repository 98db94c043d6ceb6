"""What is measured when a model is loaded, in counted runs."""

import threading
from collections import defaultdict
from types import SimpleNamespace

import numpy as np
import pytest

from artifact.contract import CONTRACT_FILE, read_contract
from server.engine import engine as module
from server.engine.cost import CostModel, Sample
from server.engine.device import Instances, choose_devices
from server.engine.engine import Engine
from server.engine.session import Graph
from tests.golden import GOLDEN_MODELS

ARTIFACT = GOLDEN_MODELS / "tiny-text" / "1"


@pytest.mark.parametrize("count", [1, 2])
def test_both_kinds_of_runs_are_measured_on_the_model_itself(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one thread and of all, where there is more than one: each has a cost of its own."""
    runs, fits = list[tuple[Graph, bool, int]](), list[list[Sample]]()
    original = Graph.run

    def run(graph: Graph, inputs, names, *, all_threads=False, device=0):  # type: ignore[no-untyped-def]
        runs.append((graph, all_threads, len(next(iter(inputs.values())))))
        return original(graph, inputs, names, all_threads=all_threads, device=device)

    def fit(samples: list[Sample]) -> CostModel:
        fits.append(samples)
        return CostModel(float(len(fits)))

    monkeypatch.setattr(Graph, "run", run)
    monkeypatch.setattr(module, "fit_costs", fit)
    monkeypatch.setattr(module, "_MEASURING_SECONDS", 3600.0)  # however slow the machine is
    engine = Engine(ARTIFACT, read_contract(ARTIFACT / CONTRACT_FILE), choose_devices("cpu"), Instances(count, count))
    engine.warm_up()
    plain = {rows for graph, all_threads, rows in runs if graph is engine.plain and all_threads}
    assert engine.plain.cost == CostModel(1.0)
    assert engine.plain.all_threads_cost == CostModel(float(count))
    assert (len(plain) > 1) == (count == 2)
    assert engine.tapped is not None
    assert not any(all_threads for graph, all_threads, _ in runs if graph is engine.tapped)
    assert engine.tapped.all_threads_cost == engine.tapped.cost


def test_measuring_all_threads_takes_half_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model whose run takes 0.3 s is run twice with one thread, and once with all."""
    engine = Engine(ARTIFACT, read_contract(ARTIFACT / CONTRACT_FILE), choose_devices("cpu"), Instances(2, 2))
    now, runs = [0.0], list[bool]()

    def run(_: Graph, inputs, names, *, all_threads=False, device=0):  # type: ignore[no-untyped-def]
        now[0] += 0.3
        runs.append(all_threads)
        return dict.fromkeys(names, np.zeros(1))

    monkeypatch.setattr(module, "_MEASURING_SECONDS", 0.4)  # which tests shorten
    monkeypatch.setattr(Graph, "run", run)
    monkeypatch.setattr(module, "check_given", lambda *_: None)
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    engine._fit("graph.onnx", engine.plain, ["embedding"])
    assert runs == [False, False, True]


@pytest.mark.parametrize(("instances", "at_a_time"), [(Instances(2, 2), 1), (Instances(2, 3), 2), (Instances(3, 8), 3)])
def test_runs_that_share_threads_are_measured_at_a_time(
    instances: Instances, at_a_time: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone, each would take those of the others; a run of all threads is alone, and so is one with attention."""
    engine = Engine(ARTIFACT, read_contract(ARTIFACT / CONTRACT_FILE), choose_devices("cpu"), instances)
    together, threads = threading.Barrier(at_a_time), defaultdict[tuple[Graph, bool], set[int]](set)
    sharing = [engine.plain, engine.hidden, engine.explaining["libra"], engine.comparing, engine.parting]

    def run(graph: Graph, inputs, names, *, all_threads=False, device=0):  # type: ignore[no-untyped-def]
        threads[graph, all_threads].add(threading.get_ident())
        if graph in sharing and not all_threads:
            together.wait(60)
        return dict.fromkeys(names, np.zeros(1))

    monkeypatch.setattr(Graph, "run", run)
    monkeypatch.setattr(module, "check_given", lambda *_: None)
    for name, graph, outputs in engine._graphs():
        engine._fit(name, graph, outputs)
    assert {key: len(found) for key, found in threads.items()} == {
        (graph, all_threads): at_a_time if graph in sharing and not all_threads else 1 for graph, all_threads in threads
    }
    assert {(engine.plain, True), (engine.tapped, False)} < threads.keys()
