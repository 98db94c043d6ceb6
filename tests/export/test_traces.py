"""What tests share instead of doing it again: traces of the same network alone, and processes that end as others do."""

import copy
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import MethodType
from typing import Any

import numpy as np
import pytest
import torch
from onnx import ModelProto
from torch import nn

import export.served
from export.graph import to_onnx
from export.sources import Source, load_folder
from model.attention import MultiHeadAttention
from model.text import TextNetwork
from tests.export.families import FAMILIES, shallow, write_folder
from tests.export.forks import Forked
from tests.export.traces import Traces, Unknown, fingerprint
from tests.golden import GOLDEN_MODELS

EXAMPLE = (torch.zeros(2, 3),)
AXES = ({0: torch.export.Dim("batch", min=2, max=9)},)


def network(width: int = 3, bias: bool = True) -> nn.Module:
    """Always with the same weights."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, width, bias=bias), nn.GELU())


class Scaled(nn.Module):
    """What a test may change, of the class or of a module."""

    factor = 2

    @property
    def offset(self) -> int:
        """What is added."""
        return 0

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        """Scale it."""
        return given * self.factor + self.offset


def scaling(by: int, *, default: bool = False) -> Callable[..., torch.Tensor]:
    """Methods of one and the same code."""

    def forward(self: nn.Module, given: torch.Tensor) -> torch.Tensor:
        return given * by

    def with_default(self: nn.Module, given: torch.Tensor, by: int = by) -> torch.Tensor:
        return given * by

    return with_default if default else forward


def test_the_same_network_is_known_again(tmp_path: Path) -> None:
    """Made anew, and read from another folder."""
    assert fingerprint(network(), EXAMPLE, AXES) == fingerprint(network(), EXAMPLE, AXES)
    family = shallow(FAMILIES["electra"])
    loaded = [load_folder(write_folder(family, tmp_path / name)).network for name in ("one", "other")]
    assert fingerprint(loaded[0]) == fingerprint(loaded[1])


def test_other_weights_attributes_and_sizes_are_another_network() -> None:
    """Each of them alone."""
    changed, heads = network(), network()
    with torch.no_grad():
        changed[0].weight[0, 0] += 1e-6  # type: ignore[index]
    heads[1].approximate = "tanh"  # type: ignore[index]
    wider = ({0: torch.export.Dim("batch", min=2, max=10)},)
    same = (network(), EXAMPLE, AXES)
    others: Sequence[tuple[Any, ...]] = (
        (changed, EXAMPLE, AXES),
        (heads, EXAMPLE, AXES),
        (network(bias=False), EXAMPLE, AXES),
        (network(), (torch.zeros(3, 3),), AXES),
        (network(), EXAMPLE, wider),
        (network(), EXAMPLE, AXES, "opset"),
        (network().double(), EXAMPLE, AXES),
    )
    assert len({fingerprint(*one) for one in (same, *others)}) == 1 + len(others)
    one = nn.Linear(3, 3)
    assert fingerprint(nn.ModuleList([one, one])) != fingerprint(nn.ModuleList([one, copy.deepcopy(one)]))


def test_a_method_that_a_test_replaces_makes_another_network(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the network, or of a module within."""
    found = {fingerprint(source.network)}
    forward = MultiHeadAttention.forward
    monkeypatch.setattr(MultiHeadAttention, "forward", lambda *given: forward(*given))
    found.add(fingerprint(source.network))
    monkeypatch.setattr(TextNetwork, "show_states", lambda *given: None)
    assert len({*found, fingerprint(source.network)}) == 3


# Each two of a line differ in one thing alone.
CONSTANTS = (lambda self, given: given * 2, lambda self, given: given * 3)
DEEPER = (lambda self, given: (lambda: given * 2)(), lambda self, given: (lambda: given * 3)())
PROPERTIES = (property(lambda self: 1), property(lambda self: 2))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        pytest.param("forward", (scaling(2), scaling(3)), id="closure"),
        pytest.param("forward", (scaling(2, default=True), scaling(3, default=True)), id="default"),
        pytest.param("forward", CONSTANTS, id="constant"),
        pytest.param("forward", DEEPER, id="constant of a function within"),
        pytest.param("factor", (2, 3), id="class attribute"),
        pytest.param("factor", ({"a", "b", "c"}, {"a", "b", "d"}), id="set"),
        pytest.param("offset", PROPERTIES, id="property"),
    ],
)
def test_a_class_is_known_by_all_that_it_holds(
    name: str, values: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever of its attributes a test replaces, and by what."""
    found = list[str]()
    for value in (values[0], values[0], values[1]):
        monkeypatch.setattr(Scaled, name, value)
        found.append(fingerprint(nn.Sequential(Scaled())))
    assert found[0] == found[1] != found[2]


def test_a_method_of_a_module_alone_is_known_by_its_code() -> None:
    """Though it has the name of that of its class, and is bound to the module."""

    def bound(by: int) -> str:
        one = Scaled()
        one.forward = MethodType(scaling(by), one)  # type: ignore[method-assign]
        assert one.forward.__name__ == Scaled.forward.__name__
        return fingerprint(one)

    assert bound(2) == bound(2)
    assert len({bound(2), bound(3), fingerprint(Scaled())}) == 3


def test_what_may_know_more_than_its_attributes_is_not_known() -> None:
    """A class within a function."""

    class Within(nn.Module):
        pass

    with pytest.raises(Unknown):
        fingerprint(Within())


def test_a_function_within_another_is_known_by_what_it_knows() -> None:
    """As the transformers library hangs some on its modules."""

    def hung(known: int) -> nn.Module:
        one = network()
        one.register_forward_hook(lambda module, taken, made: made * known)
        return one

    assert fingerprint(hung(1)) == fingerprint(hung(1))
    assert fingerprint(hung(1)) != fingerprint(hung(2))


def test_a_network_is_traced_once_and_its_graph_may_be_changed(tmp_path: Path) -> None:
    """By several workers, which share a folder; but where it is asked for anew."""
    calls = list[Any]()

    def trace(*given: Any, **more: Any) -> ModelProto:
        calls.append(given)
        return ModelProto(producer_name="torch")

    first, second = Traces(tmp_path, trace), Traces(tmp_path, trace)
    first(network(), EXAMPLE, AXES, ["x"], ["y"]).producer_name = "changed"
    assert second(network(), EXAMPLE, AXES, ["x"], ["y"]).producer_name == "torch"
    assert len(calls) == 1
    second(network(), EXAMPLE, AXES, ["x"], ["z"])
    second.anew = True
    second(network(), EXAMPLE, AXES, ["x"], ["z"])
    assert len(calls) == 3


def test_two_processes_do_not_write_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before either has it whole: each writes one that has the process's number."""
    written, replace = list[str](), Path.replace

    def noted(self: Path, target: Path) -> Path:
        written.append(self.suffix)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", noted)
    for number in (71, 72):
        monkeypatch.setattr(os, "getpid", lambda number=number: number)
        Traces(tmp_path / str(number), lambda *_, **__: ModelProto())(network(), EXAMPLE, AXES)
    assert written == [".71", ".72"]


def test_the_exporter_is_given_what_it_would_trace(
    source: Source, traces: Traces, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same bytes."""
    assert isinstance(source.network, TextNetwork)
    shared = to_onnx(source.network, source.traits).SerializeToString(deterministic=True)
    monkeypatch.setattr(traces, "anew", True)
    assert to_onnx(source.network, source.traits).SerializeToString(deterministic=True) == shared


def test_a_forked_process_ends_as_one_that_was_started(tmp_path: Path) -> None:
    """With its exit code and what it printed."""
    nowhere = str(tmp_path / "tiny-text" / "1")
    refused = Forked("server.repository.trial", [nowhere, "cpu", "1", "1"])
    output, _ = refused.communicate(60)
    assert refused.returncode == 1
    assert "contract.json" in output
    failed = Forked("export.served", [nowhere])
    output, _ = failed.communicate(60)
    assert (failed.returncode, output.strip().splitlines()[-1]) == (1, "IndexError: list index out of range")
    stuck = Forked("export.served", [str(GOLDEN_MODELS / "tiny-text" / "1"), str(tmp_path)])
    for one in (refused, failed, stuck):
        one.kill()
    assert stuck.returncode is not None


def test_graphs_run_in_a_process_that_is_forked(source: Source) -> None:
    """Not in this one, and not in one that is started."""
    feed = {name: np.ones((1, 3), dtype=np.int64) for name in ("input_ids", "attention_mask")}
    with export.served.AsServed(GOLDEN_MODELS / "tiny-text" / "1", [feed]) as served:
        assert isinstance(served._process, Forked)
        assert {name for name, _, _ in served.results()} >= {"model.onnx", "attention.onnx"}
