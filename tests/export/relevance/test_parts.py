"""Parts of a vector: equal to an independent implementation by autograd, whole together, alone as in a batch."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import ModelProto

from export.errors import RelevanceError
from export.relevance.parts import CHOSEN, PART, add_parts
from export.tapping.tap import tap, tap_lowered
from tests.export.relevance.graphs import Floats, run_graph
from tests.export.relevance.libra import explain
from tests.export.relevance.test_networks import (
    IMAGES,
    TEXTS,
    image_network,
    lowered_graph,
    old_images,
    old_texts,
    text_network,
    two_tables,
)

_TOLERANCE = 1e-5  # of the largest number
_IDS, _MASK = np.array([[5, 7, 9, 11, 3], [8, 2, 4, 0, 0]]), np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
_PIXELS = np.random.default_rng(1).standard_normal((2, 3, 12, 12)).astype(np.float32)


def with_biases(network: Any) -> Any:
    """Biases of norms are 0 as long as nobody has trained them."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return network


def parts_of(
    graph: ModelProto, feed: dict[str, Floats], count: int, output: str = "embedding"
) -> tuple[Floats, Floats]:
    """All parts of an input [N + 1, D], and its vector [D]."""
    parted, names = add_parts(graph, Path(), output)
    given = {value.name for value in parted.graph.input}
    rows = {name: np.repeat(array, count + 1, axis=0) for name, array in feed.items() if name in given}
    found, whole = run_graph(parted, [names.part, output], {**rows, names.chosen: np.array([*range(count), -1])})
    return found, whole[0]


def _number(place: int, made: dict[str, torch.Tensor]) -> torch.Tensor:
    return made["embedding"][:, place]


def expected_parts(network: Any, tensors: tuple[torch.Tensor, ...], dim: int) -> Floats:
    """The same by autograd, a number of the vector at a time."""
    columns = []
    for place in range(dim):
        positions, rest = explain(network, tensors, partial(_number, place))
        columns.append(np.append(positions[0].numpy(), rest[0].item()))
    return np.stack(columns, axis=1)


def assert_equal(found: Floats, expected: Floats) -> None:
    """Within a share of the largest."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=_TOLERANCE * float(np.abs(expected).max()))


@pytest.mark.parametrize("name", TEXTS)
def test_parts_of_a_text_are_those_of_autograd(name: str, tmp_path: Path) -> None:
    """Each of the vector's numbers differentiated by itself gives one number of every part."""
    network = with_biases(text_network(name))
    found, whole = parts_of(lowered_graph(network, tmp_path), {"input_ids": _IDS[:1], "attention_mask": _MASK[:1]}, 5)
    assert_equal(found, expected_parts(network, (torch.from_numpy(_IDS[:1]), torch.from_numpy(_MASK[:1])), 24))
    assert_equal(found.sum(0), whole)


@pytest.mark.parametrize("name", IMAGES)
def test_parts_of_an_image_are_those_of_autograd(name: str, tmp_path: Path) -> None:
    """Likewise."""
    network = with_biases(image_network(name))
    found, whole = parts_of(lowered_graph(network, tmp_path, 12), {"pixel_values": _PIXELS[:1]}, 10)
    assert_equal(found, expected_parts(network, (torch.from_numpy(_PIXELS[:1]),), 24))
    assert_equal(found.sum(0), whole)


def test_a_row_has_the_part_that_it_has_alone(tmp_path: Path) -> None:
    """Beside a longer one."""
    parted, _ = add_parts(lowered_graph(text_network("norms behind, mean"), tmp_path), Path(), "embedding")
    both = {"input_ids": _IDS, "attention_mask": _MASK}
    alone = {name: array[1:, :3] for name, array in both.items()}
    (beside,) = run_graph(parted, [PART], {**both, CHOSEN: np.array([4, 2])})
    (by_itself,) = run_graph(parted, [PART], {**alone, CHOSEN: np.array([2])})
    assert_equal(by_itself[0], beside[1])


@pytest.mark.parametrize("name", [*TEXTS, *IMAGES])
def test_what_the_first_walk_made_is_not_computed(name: str, tmp_path: Path) -> None:
    """A part takes the graph and as many products again, none of the gradient that it is turned from."""
    network = text_network(name) if name in TEXTS else image_network(name)
    graph = lowered_graph(network, tmp_path, None if name in TEXTS else 12)
    parted, _ = add_parts(graph, Path(), "embedding")
    ours, all_of_them = (sum(node.op_type in ("MatMul", "Gemm") for node in one.graph.node) for one in (graph, parted))
    assert ours < all_of_them < 2 * ours


@pytest.mark.parametrize("make", [old_texts, old_images])
def test_parts_of_a_graph_of_unknown_origin_sum_to_its_output(make: Any, tmp_path: Path) -> None:
    """Whatever its operators."""
    model, feed, _ = make()
    tapped, _ = tap(model, tmp_path)
    one = {name: array[:1] for name, array in feed.items()}
    found, whole = parts_of(tap_lowered(tapped, tmp_path) or tapped, one, 5 if "input_ids" in feed else 17, "mean")
    assert_equal(found.sum(0), whole)
    assert np.abs(found[:-1]).max() > 1e-3


def test_a_graph_without_parts_is_refused() -> None:
    """As one without relevance."""
    with pytest.raises(RelevanceError, match="through which all of the input goes"):
        add_parts(two_tables(), Path(), "y")
