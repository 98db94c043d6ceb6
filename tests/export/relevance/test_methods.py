"""Other methods than Libra on whole networks: equal to an independent implementation, and alone as in a batch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from onnx import ModelProto
from torch import Tensor

from artifact.contract import RelevanceGraph
from export.errors import RelevanceError
from export.graph import to_onnx
from export.relevance.graph import SCALE, WEIGHTS, add_relevance
from export.sources import load_folder
from export.tapping.tap import tap, tap_lowered
from tests.export.families import write_folder
from tests.export.relevance.attention import Eager, genatt, legrad, run_own
from tests.export.relevance.graphs import Floats, run_graph
from tests.export.relevance.test_networks import IMAGES, TEXTS, image_network, lowered_graph, text_network, weights_like
from tests.export.small.family import IMAGE, LABELS, TEXT, Family

_TOLERANCE = 1e-5  # of the largest relevance
_IDS = np.array([[5, 7, 9, 11, 3], [8, 2, 4, 0, 0]])
_MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
_TEXTS = {"input_ids": _IDS, "attention_mask": _MASK}
_PIXELS = np.random.default_rng(1).standard_normal((2, 3, 12, 12)).astype(np.float32)
_ATTENTION = ("attention.0", "attention.1")
_FAMILIES = {
    "bert": Family("bert", TEXT | LABELS, task="SequenceClassification"),
    "vit": Family("vit", IMAGE | LABELS, task="ImageClassification"),
}


def found_of(
    graph: ModelProto,
    method: RelevanceGraph,
    feed: dict[str, Floats],
    weights: Floats,
    scale: Floats | None = None,
) -> Floats:
    """Relevance of positions [B, N]."""
    explained, names = add_relevance(graph, Path(), "logits", method, _ATTENTION)
    given = {value.name for value in explained.graph.input}
    taken = {name: array for name, array in {**feed, WEIGHTS: weights}.items() if name in given}
    if scale is not None:
        taken[SCALE] = scale
    found, _ = run_graph(explained, [names.positions, names.score], taken)
    return found


def assert_equal(found: Floats, expected: Tensor) -> None:
    """Within a share of the largest, which is not nothing."""
    largest = float(expected.abs().max())
    assert largest > 1e-4
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=_TOLERANCE * largest)


def first_alone(positions: int) -> Tensor:
    """The class token is read."""
    return torch.eye(positions)[:1].expand(2, -1)


def assert_attention_methods(
    graph: ModelProto, feed: dict[str, Floats], run: Eager, read: Tensor, real: Tensor
) -> None:
    """GenAtt and LeGrad of one label against another."""
    weights = weights_like(2, run.logits.shape[1])
    seed = torch.from_numpy(weights)
    assert_equal(found_of(graph, "genatt", feed, weights), genatt(run, seed, read))
    assert_equal(found_of(graph, "legrad", feed, weights), legrad(run, seed, read, real))


@pytest.mark.parametrize("name", TEXTS)
def test_texts_have_the_attention_methods_of_autograd(name: str, tmp_path: Path) -> None:
    """Of a mean over positions, the padding left out, or of the class token."""
    network, mask = text_network(name), torch.from_numpy(_MASK).float()
    run = run_own(network, torch.from_numpy(_IDS), torch.from_numpy(_MASK))
    is_mean = network.config.pooling == "mean" and network.config.classify_from != "pooler"
    read = mask if is_mean else first_alone(5)
    assert_attention_methods(lowered_graph(network, tmp_path), _TEXTS, run, read, mask)


@pytest.mark.parametrize("name", IMAGES)
def test_images_have_the_attention_methods_of_autograd(name: str, tmp_path: Path) -> None:
    """Likewise."""
    network = image_network(name)
    run = run_own(network, torch.from_numpy(_PIXELS))
    read = torch.ones(2, 10) if name == "class token and mean" else first_alone(10)
    feed = {"pixel_values": _PIXELS}
    assert_attention_methods(lowered_graph(network, tmp_path, 12), feed, run, read, torch.ones(2, 10))


def library_heads(name: str, network: Any) -> Callable[[Tensor], Tensor]:
    """What makes logits of the last state."""
    if name == "bert":
        return lambda state: network.classifier(network.bert.pooler(state))
    return lambda state: network.classifier(network.vit.layernorm(state)[:, 0])


@pytest.mark.parametrize("name", _FAMILIES)
def test_networks_of_the_library_have_the_methods_of_autograd(name: str, tmp_path: Path) -> None:
    """Computed by the library itself; the gradient's, too."""
    folder = write_folder(_FAMILIES[name], tmp_path / name)
    source, kind = load_folder(folder, None), getattr(transformers, f"AutoModelFor{_FAMILIES[name].task}")
    assert source.network is not None
    tapped, _ = tap(to_onnx(source.network, source.traits), tmp_path)
    graph, network = tap_lowered(tapped, tmp_path) or tapped, kind.from_pretrained(folder, attn_implementation="eager")
    network.eval()
    feed: dict[str, Floats] = _TEXTS if name == "bert" else {"pixel_values": images(source.traits.inputs[0].axes)}
    tensors = {key: torch.from_numpy(array) for key, array in feed.items()}
    made = network(**tensors, output_attentions=True, output_hidden_states=True)
    run = Eager(made.logits, made.attentions, made.hidden_states[1:], library_heads(name, network))
    positions = made.hidden_states[0].shape[1]
    real = torch.from_numpy(_MASK).float() if name == "bert" else torch.ones(2, positions)
    assert_attention_methods(graph, feed, run, first_alone(positions), real)
    weights, embedded = weights_like(2), made.hidden_states[0]
    (gradient,) = torch.autograd.grad((made.logits * torch.from_numpy(weights)).sum(), embedded)
    expected = (embedded * gradient).sum(-1).detach()
    assert_equal(found_of(graph, "gradient", feed, weights), expected)


def images(axes: tuple[int | str, ...]) -> Floats:
    """Two images of the size that a network takes."""
    sizes = [axis if isinstance(axis, int) else 2 for axis in axes]
    return np.random.default_rng(3).standard_normal(sizes).astype(np.float32)


@pytest.mark.parametrize("scale", [0.3, 1.0])
def test_what_enters_the_layers_may_be_scaled(scale: float, tmp_path: Path) -> None:
    """The gradient is that at the scaled value, and the factor before it the unscaled one."""
    network, weights = text_network("norms before, class token"), weights_like(2)
    graph = lowered_graph(network, tmp_path)
    given = np.full(2, scale, dtype=np.float32)
    found = found_of(graph, "gradient", _TEXTS, weights, given)
    factor = torch.full((2, 1, 1), scale)
    entered = list[Tensor]()

    def scaled(_module: Any, taken: tuple[Any, ...]) -> tuple[Any, ...]:
        entered.append(taken[0])
        return (taken[0] * factor, *taken[1:])

    hook = network.encoder.layers[0].register_forward_pre_hook(scaled)
    made = network(torch.from_numpy(_IDS), torch.from_numpy(_MASK))
    hook.remove()
    (gradient,) = torch.autograd.grad((made["logits"] * torch.from_numpy(weights)).sum(), entered[0])
    assert_equal(found, (entered[0] * gradient / factor).sum(-1).detach())


def test_the_gradient_is_that_of_finite_differences(tmp_path: Path) -> None:
    """Along what enters the first layer: the score's slope by its scale is the sum of all positions."""
    graph = lowered_graph(text_network("norms behind, mean"), tmp_path)
    explained, names = add_relevance(graph, Path(), "logits", "gradient")
    step = 1e-2

    def run(scale: float) -> tuple[Floats, Floats]:
        given = {WEIGHTS: weights_like(2), SCALE: np.full(2, scale, dtype=np.float32), **_TEXTS}
        taken = {value.name for value in explained.graph.input}
        feed = {name: array for name, array in given.items() if name in taken}
        positions, score = run_graph(explained, [names.positions, names.score], feed)
        return positions, score.astype(np.float64)

    slope = (run(1 + step)[1] - run(1 - step)[1]) / (2 * step)
    np.testing.assert_allclose(run(1)[0].sum(1), slope, rtol=0, atol=1e-3 * np.abs(slope).max())


@pytest.mark.parametrize("method", ["gradient", "genatt", "legrad"])
def test_a_row_alone_has_the_relevance_that_it_has_in_a_batch(method: RelevanceGraph, tmp_path: Path) -> None:
    """Shorter than the other, whose padding it then lacks; in the batch padding has none."""
    graph = lowered_graph(text_network("norms behind, mean"), tmp_path)
    both = found_of(graph, method, _TEXTS, weights_like(2))
    alone = found_of(graph, method, {name: array[1:, :3] for name, array in _TEXTS.items()}, weights_like(1))
    np.testing.assert_allclose(alone, both[1:, :3], rtol=0, atol=1e-5 * float(np.abs(both).max()))
    assert not both[1, 3:].any()


@pytest.mark.parametrize(
    ("attention", "message"),
    [((), "no attention, whose gradient"), (("logits",), r"logits: .*expected \[batch, head, query, key\]")],
)
def test_attention_that_is_not_there_is_refused(attention: tuple[str, ...], message: str, tmp_path: Path) -> None:
    """With what was found."""
    graph = lowered_graph(text_network("norms behind, mean"), tmp_path)
    with pytest.raises(RelevanceError, match=message):
        add_relevance(graph, Path(), "logits", "genatt", attention)


def test_attention_that_the_output_is_not_made_by_is_refused(tmp_path: Path) -> None:
    """As that of windows, which is put together for callers."""
    graph = lowered_graph(text_network("norms behind, mean"), tmp_path)
    graph.graph.output.append(graph.graph.output[0])
    node = next(node for node in graph.graph.node if node.output[0] == "attention.0")
    node.op_type, node.input[:] = "Relu", node.input[:1]
    with pytest.raises(RelevanceError, match=r"attention\.0: the output is not made by it as it is"):
        add_relevance(graph, Path(), "logits", "genatt", _ATTENTION)
