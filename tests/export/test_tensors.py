"""Sequences without a mask, of sound or whatever: verified at several lengths, and held to those that they run on."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from artifact.contract import Contract, DerivedAxis
from export.build import build
from export.cases import MAX_WEIGHTS, make_cases
from export.errors import VerificationError
from export.graph_source import load_graph
from export.probe import Axes
from export.reach import Reach
from export.sources import Source
from export.traits import InputSpec, Traits
from tests.export.networks import WIDTH, Eager, spread, write_onnx
from tests.export.tapping import node

GOES_WRONG = 20  # positions
AXES = ("batch", "frames", WIDTH)
JOINED = DerivedAxis(of="frames", unit=2, offset=2)


@pytest.fixture
def much(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hold as much attention as an export does."""
    monkeypatch.setattr("export.cases.MAX_WEIGHTS", MAX_WEIGHTS)


class Frames(nn.Module):
    """One layer on frames of sound with a table of positions, of which an end may be lost in the export."""

    input_names = ("x",)

    def __init__(self, rows: int = 64, ends: int = 64) -> None:
        super().__init__()
        self.layer, self.positions, self.ends = Eager(), nn.Parameter(torch.randn(rows, WIDTH)), ends

    def explain(self, x: Tensor) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Return the state and the weights."""
        places = torch.arange(x.shape[1])
        if torch.compiler.is_exporting():
            places = places.clamp(max=self.ends)
        state, weights = self.layer.explain(x + self.positions[places])
        return {"last_hidden_state": state}, [weights]

    def show_states(self, x: Tensor) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Return the state alone."""
        return self(x), []

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return the state."""
        return self.explain(x)[0]


def publish(network: Any, out: Path) -> Contract:
    """Export the network itself."""
    traits = Traits((InputSpec("x", AXES),), other_axes={"frames": 64})
    return build(Source("frames", "sound", spread(network), traits, "sound"), out).contract


def write(rows: int) -> onnx.ModelProto:
    """Export the network with a table of so many rows as a file."""

    class Alone(Frames):
        def forward(self, x: Tensor) -> Any:
            return self.explain(x)[0]["last_hidden_state"]

    axes = {name: {0: "batch", 1: "frames"} for name in ("x", "y")}
    return write_onnx(spread(Alone(rows)), {"x": torch.randn(2, 6, WIDTH)}, axes, 17, ["y"])


@pytest.mark.usefixtures("much")
def test_sound_is_verified_at_several_lengths_up_to_the_longest() -> None:
    """Alone and in batches; one axis more is a little longer, and no axis longer than it may be."""
    inputs = (InputSpec("x", AXES), InputSpec("ids", ("batch", "tokens"), "int64"))
    traits = Traits(inputs, other_axes={"frames": 8000, "tokens": 40}, units={"frames": 4})
    derived = DerivedAxis(of="frames", unit=4, offset=0)
    attention = {"attention.0": ("batch", 2, derived.name, derived.name)}
    cases = make_cases(Reach(traits, attention, (derived,)))
    assert [case.feed["x"].shape[:2] for case in cases] == [(1, 36), (2, 36), (32, 36), (2, 132), (1, 256), (2, 8000)]
    assert [case.feed["ids"].shape[1] for case in cases] == [12, 12, 12, 36, 40, 40]
    assert [case.positions for case in cases] == [36, 36, 36, 132, 256, 8000]


@pytest.mark.usefixtures("much")
def test_a_length_that_would_take_too_much_is_not_held() -> None:
    """4096 positions have 2**24 weights a head; 8191 frames, of which convolutions make half, are as many."""
    traits = Traits((InputSpec("x", AXES),), other_axes={"frames": 10**6})
    for axes, longest in ((("frames", "frames"), 4096), ((JOINED.name, JOINED.name), 8191)):
        assert make_cases(Reach(traits, {"attention.0": ("batch", 4, *axes)}, (JOINED,)))[-1].positions == longest


@pytest.mark.usefixtures("much")
def test_what_is_fixed_takes_nothing_from_what_is_not() -> None:
    """Whisper's encoder has 1500 positions whatever its decoder is given; five rows of it are too many."""
    traits = Traits((InputSpec("x", ("batch", 80, 3000)), InputSpec("ids", ("batch", "n"), "int64")), 448)
    axes: dict[str, Axes] = {"attention.0": ("batch", 64, 1500, 1500), "attention.1": ("batch", 8, "n", 1500)}
    cases = make_cases(Reach(traits, axes))
    assert [case.feed["ids"].shape for case in cases] == [(1, 9), (2, 9), (2, 33), (1, 64), (2, 448)]


@pytest.mark.usefixtures("much")
def test_edges_of_images_that_are_free_are_multiplied() -> None:
    """Nobody knows how many patches there are, but no more than pixels."""
    traits = Traits((InputSpec("x", ("batch", 3, "height", "width")),), other_axes={"height": 900, "width": 900})
    last = make_cases(Reach(traits, {"attention.0": ("batch", 4, None, None)}))[-1].feed["x"].shape
    assert last == (2, 3, 62, 65)


def test_a_graph_that_goes_wrong_with_more_than_a_few_positions_is_refused(out: Path) -> None:
    """Nine were tried."""
    with pytest.raises(VerificationError, match="last_hidden_state: against torch: "):
        publish(Frames(ends=GOES_WRONG), out)
    assert not list(out.rglob("*.onnx"))


def test_a_right_one_is_published(out: Path) -> None:
    """With the longest that was tried."""
    contract = publish(Frames(), out)
    assert {line.positions for line in contract.verification if line.check == "against torch"} == {64}
    assert contract.limits == {"frames": 64}


def test_rows_that_mix_with_more_than_a_few_positions_are_refused(out: Path, tmp_path: Path) -> None:
    """Of a file nothing but itself tells what is right: rows alone do."""
    model = write(64)
    model.graph.node[-1].output[0] = "right"
    mixed = [
        node("ReduceMean", "right", "mean", axes=[0], keepdims=1),
        node("Sub", "right mean", "mixed"),
        node("Shape", "x", "sizes"),
        node("Gather", "sizes one", "length"),
        node("Greater", "length some", "is_long"),
        node("Where", "is_long mixed right", "y"),
    ]
    model.graph.node.extend(mixed)
    numbers = {"one": 1, "some": GOES_WRONG}
    model.graph.initializer.extend(numpy_helper.from_array(np.array(number), name) for name, number in numbers.items())
    onnx.save_model(model, tmp_path / "odd.onnx")
    with pytest.raises(VerificationError, match="y: row alone: "):
        build(load_graph(tmp_path / "odd.onnx"), out)


def test_a_file_is_held_to_the_sizes_that_it_runs_on(out: Path, tmp_path: Path) -> None:
    """A caller's longer sound failed in the server."""
    onnx.save_model(write(40), tmp_path / "sound.onnx")
    assert build(load_graph(tmp_path / "sound.onnx"), out).contract.limits == {"frames": 40}
