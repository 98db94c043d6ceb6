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
from tests.export.tapping import compare_tapped, numbers

DIM = WIDTH // HEADS
SUMS = ("summed", "summed, with biases")
AXIS_EACH = ("an axis each", "an axis each, side by side", "an axis each, squeezed", "an axis each, picked")
WAYS = ("side by side", "stacked", "stacked behind positions", *AXIS_EACH, *SUMS)


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
            case "an axis each, picked":
                return self.project(torch.cat([head[:, 0] for head in found], -1))
            case "an axis each, squeezed":
                return self.project(torch.cat([head.squeeze(1) for head in found], -1))
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


class Head(nn.Module):
    """One head with projections of its own; queries and keys may be normed and get rotary positions."""

    def __init__(self, turns: bool = False) -> None:
        super().__init__()
        self.inward = nn.ModuleList(nn.Linear(WIDTH, DIM) for _ in range(3))
        self.norm, self.turns = nn.LayerNorm(DIM), turns

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Return what is attended to, [B, Q, d]."""
        query, key = self.turn(self.inward[0](queries)), self.turn(self.inward[1](keys))
        attended: Tensor = (query @ key.transpose(-1, -2) / 2).softmax(-1) @ self.inward[2](values)
        return attended

    def turn(self, part: Tensor) -> Tensor:
        """Norm and turn [B, N, d] by its positions."""
        if not self.turns:
            return part
        part = self.norm(part)
        angles = torch.arange(part.shape[1])[:, None] * torch.tensor([1.0, 0.1]).repeat(2)
        turned = torch.cat([-part[..., DIM // 2 :], part[..., : DIM // 2]], -1)
        return part * angles.cos() + turned * angles.sin()


class TwoHeads(nn.Module):
    """Two attentions of one head each, whose outputs stand side by side or are projected and summed.

    Args:
        seen: What each has for queries, keys and values: x, a, b, or x by steps of positions ("x2", "x3").
        summed: Whether they are summed.
        turns: Of each head.
    """

    def __init__(self, seen: tuple[str, str], summed: bool, turns: bool = False) -> None:
        super().__init__()
        self.seen, self.summed = [one.split() for one in seen], summed
        self.heads = nn.ModuleList(Head(turns) for _ in seen)
        self.each = nn.ModuleList(nn.Linear(DIM, WIDTH) for _ in seen)
        self.out = nn.Linear(2 * DIM, WIDTH)

    def forward(self, x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """Return what both give, and use every input."""
        given = {"x": x, "a": a, "b": b, "x2": x[:, ::2], "x3": x[:, ::3]}
        found = [head(*(given[name] for name in names)) for head, names in zip(self.heads, self.seen, strict=True)]
        used = a.mean() + b.mean()
        if self.summed:
            return self.each[0](found[0]) + self.each[1](found[1]) + used  # type: ignore[no-any-return]
        return self.out(torch.cat(found, -1)) + used  # type: ignore[no-any-return]


def tap_two(network: TwoHeads) -> list[tuple[int, ...]]:
    """Return the shape of each layer's weights, after a run of the tapped graph."""
    feed = {name: torch.from_numpy(numbers(2, length, WIDTH)) for name, length in (("x", 7), ("a", 5), ("b", 5))}
    axes = {"x": {0: "batch", 1: "n"}, "a": {0: "batch", 1: "m"}, "b": {0: "batch", 1: "m"}}
    model = write_onnx(spread(network), feed, axes, 17, ["y"])
    taps, got = compare_tapped(model, {name: one.numpy() for name, one in feed.items()})
    return [got[one.output].shape for one in taps]


@pytest.mark.parametrize("summed", [False, True])
@pytest.mark.parametrize("seen", [("x a a", "x b b"), ("x a a", "x a b"), ("a x x", "b x x")])
def test_attention_to_different_sequences_is_no_layer_of_two_heads(seen: tuple[str, str], summed: bool) -> None:
    """As many positions, but other ones: keys, values or queries are of another input."""
    rows, keys = (7, 5) if seen[0].startswith("x") else (5, 7)
    assert tap_two(TwoHeads(seen, summed)) == [(2, 1, rows, keys)] * 2


@pytest.mark.parametrize("summed", [False, True])
def test_attention_to_different_positions_is_no_layer_of_two_heads(summed: bool) -> None:
    """The graph does not name how many positions a step leaves; joined, it did not run."""
    assert tap_two(TwoHeads(("x x2 x2", "x x3 x3"), summed)) == [(2, 1, 7, 4), (2, 1, 7, 3)]


class Slots(nn.Module):
    """Two heads that attend to learned positions, each to as many as another input has."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.from_numpy(numbers(1, 1, 40, WIDTH)))
        self.out = nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """Return what both give."""
        slots = [self.table[:, :, : one.shape[1]] for one in (a, b)]
        found = [(x[:, None] @ one.transpose(-1, -2)).softmax(-1) @ one for one in slots]
        return self.out(torch.cat(found, -1)) + a.mean() + b.mean()  # type: ignore[no-any-return]


def test_attention_to_unknown_numbers_of_learned_positions_is_no_layer_of_two_heads() -> None:
    """Nothing tells how many there are, and joined, the graph did not run."""
    feed = {name: torch.from_numpy(numbers(2, length, WIDTH)) for name, length in (("x", 7), ("a", 5), ("b", 3))}
    axes = {name: {0: "batch", 1: f"of {name}"} for name in feed}
    model = write_onnx(Slots().eval(), feed, axes, 17, ["y"])
    taps, got = compare_tapped(model, {name: one.numpy() for name, one in feed.items()})
    assert [got[one.output].shape for one in taps] == [(2, 1, 7, 5), (2, 1, 7, 3)]


@pytest.mark.parametrize("summed", [False, True])
@pytest.mark.parametrize("turns", [False, True])
@pytest.mark.parametrize("seen", ["x x x", "x a a", "x a b", "x x2 x2"])
def test_heads_with_projections_of_their_own_are_a_layer(seen: str, turns: bool, summed: bool) -> None:
    """They see the same, however each makes its queries and keys of it."""
    keys = {"x x x": 7, "x x2 x2": 4}.get(seen, 5)
    assert tap_two(TwoHeads((seen, seen), summed, turns)) == [(2, 2, 7, keys)]


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
