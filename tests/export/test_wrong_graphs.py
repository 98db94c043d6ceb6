"""Graphs that are wrong, each in a way of its own: refused with the node or with what differs, and none published.

Others stand beside what finds them: rows that mix (test_rows.py), attention that no rule takes (test_tapping_holes.py),
random numbers and norms in training (test_served.py), long inputs (test_longest.py, test_lengths.py, test_tensors.py),
and sizes that are fixed (test_fixed_sizes.py).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor

import export.build
from export.build import build
from export.errors import ExportError, VerificationError
from export.graph_source import load_graph
from export.sources import Source
from export.tapping.tap import tap
from export.traits import own_traits
from model.encoder import Encoder, EncoderConfig
from model.text import TextConfig, TextNetwork
from tests.export.networks import HEADS, WIDTH, Eager, Texts, spread, write_texts

Change = Callable[..., Tensor]


class Odd(Eager):
    """Attention that goes wrong in one of the ways below; each is a function of scores, values or weights."""

    def __init__(
        self, scores: Change | None = None, values: Change | None = None, weights: Change | None = None
    ) -> None:
        super().__init__()
        self.odd_scores, self.odd_values, self.odd_weights = scores, values, weights

    def explain(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the output and the weights."""
        batch, length = x.shape[0], x.shape[1]
        query, key, value = self.projection(x).view(batch, length, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        scores = query @ key.transpose(-1, -2) / 2
        scores = self.odd_scores(scores) if self.odd_scores else scores
        assert mask is not None
        scores = scores.masked_fill(mask[:, None, None] == 0, torch.finfo(torch.float32).min)
        weights = scores.softmax(-1)
        mixing = self.odd_weights(weights, value) if self.odd_weights else weights @ value
        mixing = self.odd_values(mixing, value) if self.odd_values else mixing
        return self.out(mixing.transpose(1, 2).reshape(batch, length, WIDTH)), weights


class OddTexts(Texts):
    """A network whose second layer, places or pooling go wrong."""

    def __init__(self, layer: Eager | None = None, places: Change | None = None, pool: Change | None = None) -> None:
        super().__init__()
        self.second, self.odd_places, self.odd_pool = layer or self.second, places, pool

    def explain(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the last state and the weights."""
        if self.odd_places is None:
            return super().explain(input_ids, attention_mask, token_type_ids)
        places = self.odd_places(input_ids, attention_mask)
        state = self.word_embeddings(input_ids) + self.position_embeddings(places)
        more, first = self.first.explain(state, attention_mask)
        last, second = self.second.explain(state + more, attention_mask)
        return state + more + last, [first, second]

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return the last state and a vector."""
        state, pooled = super().forward(input_ids, attention_mask, token_type_ids)
        return state, self.odd_pool(state, attention_mask) if self.odd_pool else pooled


def with_layer(**odd: Change) -> OddTexts:
    """Change the second layer."""
    return OddTexts(Odd(**odd))


class Unmasked(Eager):
    """Sees what fills a row up."""

    def explain(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the output and the weights."""
        return super().explain(x, None if mask is None else torch.ones_like(mask))


def renormalised(weights: Tensor, value: Tensor) -> Tensor:
    """Slots that compete for keys: weights over their sum over queries."""
    return (weights / weights.sum(-2, keepdim=True)) @ value


def by_decoy(weights: Tensor, value: Tensor) -> Tensor:
    """The softmax's product does not count; exponentials over their sum weigh the values."""
    other = torch.exp(weights * 3)
    return 0 * (weights @ value) + (other / other.sum(-1, keepdim=True)) @ value


def total(scores: Tensor) -> Tensor:
    """Sum exponentials of scores, no larger than 1, over keys."""
    return torch.exp(scores - scores.amax(-1, True)).sum(-1, True)


def exponentials(scores: Tensor) -> Tensor:
    """Return them."""
    return torch.exp(scores - scores.amax(-1, True))


def by_elements(weights: Tensor, value: Tensor) -> Tensor:
    """Weigh values without a product of matrices, by a mean."""
    return (weights[..., None] * value[:, :, None]).mean(-2) * weights.shape[-1]


# An attention whose weights are no softmax's, by how its output is made of scores and values.
WRITTEN_OUT: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "less the logarithm of their sum": lambda scores, value: (
        torch.exp(scores - torch.logsumexp(scores, -1, True)) @ value
    ),
    "less that, made step by step": lambda scores, value: (
        torch.exp(scores - scores.amax(-1, True) - torch.log(total(scores))) @ value
    ),
    "divided by their sum behind the product": lambda scores, value: (exponentials(scores) @ value) / total(scores),
    "divided by a product with ones": lambda scores, value: (
        (exponentials(scores) @ value) / (exponentials(scores) @ torch.ones_like(value[..., :1]))
    ),
    "by a sigmoid": lambda scores, value: torch.sigmoid(scores - 2) @ value,
    "by a ReLU": lambda scores, value: torch.relu(scores) / scores.shape[-1] @ value,
}


class WrittenOut(Odd):
    """Attends by exponentials, or another activation."""

    def __init__(self, attend: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.attend = attend

    def explain(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the output and the weights."""
        batch, length = x.shape[0], x.shape[1]
        query, key, value = self.projection(x).view(batch, length, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        scores = query @ key.transpose(-1, -2) / 2
        if mask is not None:
            scores = scores.masked_fill(mask[:, None, None] == 0, -1e4)
        mixed = self.attend(scores, value)
        return self.out(mixed.transpose(1, 2).reshape(batch, length, WIDTH)), scores.softmax(-1)


@pytest.mark.parametrize("way", WRITTEN_OUT)
def test_attention_without_a_softmax_leaves_no_hole(way: str, out: Path, tmp_path: Path) -> None:
    """The other layer would be served as the only one."""
    onnx.save_model(write_texts(spread(OddTexts(WrittenOut(WRITTEN_OUT[way])))), tmp_path / "odd.onnx")
    with pytest.raises(ExportError, match=r"(Exp|Sigmoid|Relu) between two products"):
        build(load_graph(tmp_path / "odd.onnx"), out)
    assert not list(out.rglob("*.onnx"))


def rows_of(scores: Tensor) -> Tensor:
    """Number the rows, float [B, 1, 1, 1]."""
    return torch.ones_like(scores[:, :1, :1, :1]).cumsum(0)


ALONE = "row alone: "
FILES: dict[str, tuple[Callable[[], OddTexts], str]] = {
    "values that are weighed without a product": (lambda: with_layer(weights=by_elements), "between two products"),
    "scores that double in large batches": (
        lambda: with_layer(scores=lambda scores: scores * (1 + (rows_of(scores).amax(0, True) - 12).clamp(0, 1))),
        ALONE,
    ),
    "the eighth row alone": (
        lambda: with_layer(scores=lambda scores: torch.where(rows_of(scores) == 8, -scores, scores)),
        ALONE,
    ),
    "keys of the next row": (lambda: with_layer(values=lambda mixed, value: mixed.roll(1, 0)), ALONE),
    "a temperature of the batch": (lambda: with_layer(scores=lambda scores: scores / scores.std()), ALONE),
    "a temperature by the number of rows": (lambda: with_layer(scores=lambda scores: scores * scores.shape[0]), ALONE),
    "a temperature by the longest row": (lambda: with_layer(scores=lambda scores: scores / scores.shape[-1]), ALONE),
    "a switch that the first row throws": (
        lambda: with_layer(scores=lambda scores: torch.where(scores[:1, :1, :1, :1] > 0, scores, -scores)),
        ALONE,
    ),
    "a state that goes on from row to row": (lambda: with_layer(values=lambda mixed, value: mixed.cumsum(0)), ALONE),
    "a mean over keys that fill up": (
        lambda: with_layer(values=lambda mixed, value: mixed + value.mean(2, True)),
        ALONE,
    ),
    "a norm over all positions": (
        lambda: with_layer(values=lambda mixed, value: mixed / mixed.norm(dim=2, keepdim=True)),
        ALONE,
    ),
    "no mask in the last layer": (lambda: OddTexts(Unmasked()), ALONE),
    "a mean over what fills up": (
        lambda: OddTexts(pool=lambda state, mask: state.mean(1)),
        "sentence_embedding: row alone",
    ),
    "a mean over the longest row": (
        lambda: OddTexts(pool=lambda state, mask: (state * mask[:, :, None]).sum(1) / mask.shape[1]),
        "sentence_embedding: row alone",
    ),
    "a maximum over what fills up": (
        lambda: OddTexts(pool=lambda state, mask: state.amax(1)),
        "sentence_embedding: row alone",
    ),
    "the last position for the last token": (
        lambda: OddTexts(pool=lambda state, mask: state[:, -1]),
        "sentence_embedding: row alone",
    ),
    "places counted from the end": (
        lambda: OddTexts(places=lambda ids, mask: torch.arange(ids.shape[1]).flip(0).expand(ids.shape)),
        ALONE,
    ),
    "places by the largest token of all": (
        lambda: OddTexts(places=lambda ids, mask: (ids.max() - ids).clamp(0, 39)),
        ALONE,
    ),
    "weights that are gated": (
        lambda: with_layer(weights=lambda weights, value: (weights * weights.sigmoid()) @ value),
        r"Softmax_1: its weights enter /Mul \(Mul\); expected MatMul",
    ),
    "weights over queries as well": (lambda: with_layer(weights=renormalised), "between two products"),
    "weights in another order of heads": (
        lambda: with_layer(weights=lambda weights, value: weights[:, [1, 0, 3, 2]] @ value),
        "between two products",
    ),
    "a decoy": (lambda: with_layer(weights=by_decoy), "between two products"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_wrong_is_refused(name: str, out: Path, tmp_path: Path) -> None:
    """Though every graph of it runs, and gives what the file gives."""
    make, said = FILES[name]
    onnx.save_model(write_texts(spread(make())), tmp_path / "odd.onnx")
    with pytest.raises(ExportError, match=said):
        build(load_graph(tmp_path / "odd.onnx"), out)
    assert not list(out.rglob("*.onnx"))


def test_the_same_file_without_a_fault_is_published(out: Path, tmp_path: Path) -> None:
    """So that what is refused above is refused for its fault."""
    onnx.save_model(write_texts(spread(with_layer())), tmp_path / "right.onnx")
    assert len(build(load_graph(tmp_path / "right.onnx"), out).contract.attention) == 2


def exported() -> bool:
    """Whether torch's exporter traces what runs: what is then done otherwise is wrong in the graph alone."""
    return torch.compiler.is_exporting()


class OddEncoder(Encoder):
    """Goes wrong as it is exported."""

    fault = ""

    def add_positions(self, x: Tensor, positions: Tensor | None = None) -> Tensor:
        places = torch.arange(x.shape[1])
        if exported() and self.fault == "places":
            places = torch.where(places > 40, places - 1, places)
        if exported() and self.fault == "overflow":
            places = places % 48
        return x + self.learned_positions.weight[places]

    def _scores_mask(self, x: Tensor, mask: Tensor | None) -> Tensor | None:
        seen = super()._scores_mask(x, mask)
        assert seen is not None
        if exported() and self.fault == "mask":
            return torch.ones_like(seen)
        causal = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()
        if exported() and self.fault == "causal":
            return seen & (causal | (torch.arange(x.shape[1]) >= 20)[:, None])
        return seen & causal


def make_source(fault: str) -> Source:
    """Make a small causal network of 64 positions."""
    config = EncoderConfig(WIDTH, 1, HEADS, 32, positions="learned", max_positions=64)
    network = spread(TextNetwork(TextConfig(config, vocab_size=64)))
    network.encoder.__class__ = type("Faulty", (OddEncoder,), {"fault": fault})
    return Source("odd", "regard-text", network, own_traits(network, None), "an odd text")


@pytest.mark.parametrize("fault", ["places", "overflow", "mask", "causal"])
def test_a_graph_that_is_not_its_network_is_refused(fault: str, out: Path) -> None:
    """Places off by one behind some, or that overflow; a mask that is lost, or is no triangle in long texts."""
    with pytest.raises(VerificationError, match="last_hidden_state: against torch: "):
        build(make_source(fault), out)
    assert not list(out.rglob("*.onnx"))


def test_heads_that_are_tapped_in_another_order_are_refused(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose plain graph is right."""

    def turn_heads(plain: onnx.ModelProto, *given: Any) -> Any:
        tapped, taps = tap(plain, *given)
        for one in tapped.graph.node:
            one.output[:] = ["right" if name == "attention.0" else name for name in one.output]
        turned = onnx.helper.make_node("Gather", ["right", "order"], ["attention.0"], name="turned", axis=1)
        tapped.graph.node.append(turned)
        tapped.graph.initializer.append(onnx.helper.make_tensor("order", onnx.TensorProto.INT64, [4], [1, 0, 2, 3]))
        return tapped, taps

    monkeypatch.setattr(export.build, "tap", turn_heads)
    with pytest.raises(VerificationError, match=r"the network:\n  attention\.0: against torch: "):
        build(make_source(""), out)


class TriangleOfFew(Eager):
    """Attends to what comes before, but in long texts to everything."""

    def explain(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the output and the weights."""
        places = torch.arange(x.shape[1])
        seen = (places[None] <= places[:, None]) | (places >= 20)[:, None]
        batch, length = x.shape[0], x.shape[1]
        query, key, value = self.projection(x).view(batch, length, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        assert mask is not None
        scores = (query @ key.transpose(-1, -2) / 2).masked_fill(~seen, -1e9)
        scores = scores.masked_fill(mask[:, None, None] == 0, torch.finfo(torch.float32).min)
        weights = scores.softmax(-1)
        return self.out((weights @ value).transpose(1, 2).reshape(batch, length, WIDTH)), weights


def test_attention_that_is_causal_in_short_texts_alone_is_not_called_causal(out: Path, tmp_path: Path) -> None:
    """Clients draw a triangle of it, and rollout counts on it."""
    onnx.save_model(write_texts(spread(OddTexts(TriangleOfFew()))), tmp_path / "odd.onnx")
    with pytest.raises(VerificationError, match=r"attention\.1: causal: "):
        build(load_graph(tmp_path / "odd.onnx"), out)
