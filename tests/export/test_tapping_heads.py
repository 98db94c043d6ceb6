"""Heads that a graph computes one by one are heads of one layer, not layers."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from export.build import build
from export.errors import TapError
from export.graph_source import load_graph
from export.tapping.tap import tap
from tests.export.networks import HEADS, WIDTH, Eager, spread, write_onnx
from tests.export.tapping import compare_tapped

DIM = WIDTH // HEADS
SUMS = ("summed", "summed, with biases")
WAYS = ("side by side", "stacked", "stacked behind positions", "an axis each", "an axis each, side by side", *SUMS)


class OneByOne(nn.Module):
    """Attention that is computed head by head, and what comes of it is put together in one of these ways."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.inward = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.out = nn.Linear(WIDTH, WIDTH)
        self.each = nn.ModuleList(nn.Linear(DIM, WIDTH, bias=way.endswith("biases")) for _ in range(HEADS))

    def heads(self, x: Tensor) -> list[tuple[Tensor, ...]]:
        """Return query, key and value of each head, [B, N, d] or with an axis of one head."""
        parts = [inward(x) for inward in self.inward]
        if self.way.startswith("an axis"):
            split = [part.view(*x.shape[:2], HEADS, DIM).transpose(1, 2) for part in parts]
            return [tuple(part[:, head : head + 1] for part in split) for head in range(HEADS)]
        return [tuple(part[..., DIM * head : DIM * (head + 1)] for part in parts) for head in range(HEADS)]

    def explain(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the output, and the weights [B, H, N, N]."""
        weights, found = list[Tensor](), list[Tensor]()
        for query, key, value in self.heads(x):
            weights.append((query @ key.transpose(-1, -2) / 2).softmax(-1))
            found.append(weights[-1] @ value)
        seen = torch.cat(weights, 1) if weights[0].ndim == 4 else torch.stack(weights, 1)
        return self.combine(found), seen

    def combine(self, found: list[Tensor]) -> Tensor:
        """Put heads together, [B, N, D]."""
        match self.way:
            case "side by side":
                return self.project(torch.cat(found, -1))
            case "stacked":
                return self.project(torch.stack(found, 1).transpose(1, 2).flatten(2))
            case "stacked behind positions":
                return self.project(torch.stack(found, 2).flatten(2))
            case "an axis each":
                return self.project(torch.cat(found, 1).transpose(1, 2).flatten(2))
            case "an axis each, side by side":
                flat = [head.transpose(1, 2).reshape(head.shape[0], head.shape[2], DIM) for head in found]
                return self.project(torch.cat(flat, -1))
        total = self.each[0](found[0])
        for each, head in zip(list(self.each)[1:], found[1:], strict=True):
            total = total + each(head)
        assert isinstance(total, Tensor)
        return total

    def project(self, heads: Tensor) -> Tensor:
        """Project what stands side by side."""
        projected: Tensor = self.out(heads)
        return projected

    def forward(self, x: Tensor) -> Tensor:
        """Return the output."""
        return self.explain(x)[0]


class InTurn(nn.Module):
    """Layers with a residual connection around each."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        """Return the last state."""
        for layer in self.layers:
            x = x + layer(x)
        return x


class Beside(nn.Module):
    """Two layers that see the same, and are summed or stand one behind the other."""

    def __init__(self, first: nn.Module, second: nn.Module, behind: bool = False) -> None:
        super().__init__()
        self.first, self.second, self.behind = first, second, behind

    def forward(self, x: Tensor) -> Tensor:
        """Return the last state."""
        first, second = self.first(x), self.second(x)
        together: Tensor = torch.cat([first, second], 1) if self.behind else x + first + second
        return together


X = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 5, WIDTH), dtype=np.float32))
AXES = {"x": {0: "batch", 1: "n"}}


@pytest.mark.parametrize("way", WAYS)
def test_heads_computed_one_by_one_are_a_layer(way: str) -> None:
    """Two layers of four heads, in their order, were eight layers of one head, or refused."""
    network = spread(InTurn(OneByOne(way), OneByOne(way)))
    taps, got = compare_tapped(write_onnx(network, {"x": X}, AXES, 17, ["y"]), {"x": X.numpy()})
    assert [one.layer for one in taps] == [0, 1]
    state = X
    with torch.inference_mode():
        for number, layer in enumerate(network.layers):
            assert isinstance(layer, OneByOne)
            more, weights = layer.explain(state)
            np.testing.assert_allclose(got[f"attention.{number}"], weights.numpy(), atol=1e-5)
            state = state + more


@pytest.mark.parametrize("behind", [False, True])
def test_layers_of_several_heads_beside_each_other_stay_layers(behind: bool) -> None:
    """Summed, or with their outputs one behind the other along positions."""
    network = spread(Beside(Eager(), Eager(), behind))
    taps, got = compare_tapped(write_onnx(network, {"x": X}, AXES, 17, ["y"]), {"x": X.numpy()})
    assert len(taps) == 2
    assert got["attention.0"].shape == got["attention.1"].shape == (2, HEADS, 5, 5)


def test_what_may_be_heads_or_layers_is_refused() -> None:
    """Where sizes are computed in the graph, nothing says how many heads each of the summands has."""
    network = spread(InTurn(OneByOne("summed"), OneByOne("summed")))
    model = write_onnx(network, {"x": X}, AXES, 17, ["y"])
    del model.graph.value_info[:]
    for one in model.graph.node:
        if one.op_type == "Slice":  # whose ends then come from an input, so that no size is known
            one.input[2] = "ends"
    model.graph.input.append(model.graph.input[0].__class__())
    model.graph.input[-1].name = "ends"
    model.graph.input[-1].type.tensor_type.elem_type = 7
    model.graph.input[-1].type.tensor_type.shape.dim.add().dim_value = 1
    with pytest.raises(TapError, match="are summed, and the graph does not say how many heads each has"):
        tap(model, Path())


def test_a_file_of_heads_one_by_one_is_published_with_its_layers(tmp_path: Path) -> None:
    """As every caller is told: two layers of four heads, verified in batches and rows alone."""
    network = spread(InTurn(OneByOne("side by side"), OneByOne("an axis each")))
    onnx.save_model(write_onnx(network, {"x": X}, AXES, 17, ["y"]), tmp_path / "loop.onnx")
    built = build(load_graph(tmp_path / "loop.onnx"), tmp_path / "models")
    layers = built.contract.attention
    assert [(one.layer, one.kind, one.num_heads) for one in layers] == [(0, "self", HEADS), (1, "self", HEADS)]
