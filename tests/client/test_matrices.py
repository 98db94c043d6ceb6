"""Attention as matrices with names: heads, reductions, the largest of each row, and what is said of layers."""

import numpy as np
import pytest

from regard import AttentionRequest, LayerAttention, Token
from regard.matrices import Matrix, counted, in_shares, layer_name, matrices, one_matrix, tokens_at, unit_name

WEIGHTS = np.array([[[0.1, 0.2, 0.7]], [[0.3, 0.6, 0.1]]], np.float32)  # 2 heads, 1 query, 3 keys


def test_each_head_that_was_sent_has_a_matrix() -> None:
    """Named by its number in the model, whatever its place in the answer."""
    layer = LayerAttention(4, "self", ("head", "query", "key"), (7, 2), (5,), WEIGHTS)
    first, second = matrices(layer, 3)
    assert (first.name, second.name, first.queries, first.keys) == ("head 7", "head 2", (5,), (0, 1, 2))
    np.testing.assert_array_equal(second.weights, WEIGHTS[1])


@pytest.mark.parametrize(("reduction", "expected"), [("mean", [0.2, 0.4, 0.4]), ("max", [0.3, 0.6, 0.7])])
def test_several_heads_become_one_as_was_asked_for(reduction: str, expected: list[float]) -> None:
    """The name says how."""
    layer = LayerAttention(4, "self", ("head", "query", "key"), (0, 1), (0,), WEIGHTS)
    matrix = one_matrix(layer, 3, AttentionRequest(reduce_heads=reduction))  # type: ignore[arg-type]
    np.testing.assert_allclose(matrix.weights, [expected], atol=1e-6)
    assert matrix.name == f"{reduction} of 2 heads"


def test_the_largest_of_each_row_stand_where_they_belong() -> None:
    """Among the keys that were chosen; NaN where nothing was sent, unless another head sent it."""
    indices = np.array([[[5, 9]], [[7, 5]]], np.int32)
    largest = np.array([[[0.7, 0.2]], [[0.6, 0.3]]], np.float32)
    layer = LayerAttention(
        0, "self", ("head", "query", "top"), (0, 1), (0,), largest, keys=(5, 7, 8, 9), indices=indices
    )
    first, second = matrices(layer, 12)
    np.testing.assert_array_equal(first.weights, np.array([[0.7, np.nan, np.nan, 0.2]], np.float32))
    np.testing.assert_array_equal(second.weights, np.array([[0.3, 0.6, np.nan, np.nan]], np.float32))
    np.testing.assert_allclose(one_matrix(layer, 12).weights, [[0.5, 0.3, np.nan, 0.1]], atol=1e-6)


def test_weights_that_do_not_fit_are_refused() -> None:
    """With both shapes."""
    layer = LayerAttention(0, "self", ("head", "query", "key"), (0, 1), (0,), WEIGHTS)
    with pytest.raises(ValueError, match=r"shape \[2, 1, 3\]; expected \[2, 1, 4\]: heads, queries, keys"):
        matrices(layer, 4)


@pytest.mark.parametrize(
    ("covered", "name"),
    [
        ((0, 1, 2, 3), "rollout over layers 0 to 3"),
        ((1, 5), "rollout over layers 1 and 5"),
        ((), "rollout over layer 3"),
    ],
)
def test_a_rollout_names_the_layers_that_it_covers(covered: tuple[int, ...], name: str) -> None:
    """A range where there is one."""
    layer = LayerAttention(3, "self", ("query", "key"), (0,), (0,), WEIGHTS[0], (), "rollout", None, covered)
    assert layer_name(layer) == name
    assert unit_name(layer) == "share in the rollout"


def test_numbers_are_listed_as_people_do() -> None:
    """One, two, a gap, a range."""
    named = [counted("head", numbers) for numbers in ((3,), (3, 4), (0, 2, 3), (3, 4, 5))]
    assert named == ["head 3", "heads 3 and 4", "heads 0, 2 and 3", "heads 3 to 5"]


def test_weighted_values_are_no_plain_weights() -> None:
    """The scale says so."""
    layer = LayerAttention(0, "self", ("query", "key"), (0,), (0,), WEIGHTS[0])
    assert unit_name(layer, AttentionRequest(value_weighted=True)) == "attention weight x value length"


def test_contributions_are_of_all_heads_and_no_shares_by_themselves() -> None:
    """Their unit is a length; printed, each row is divided by its sum."""
    lengths = np.array([[1.0, 3.0, 4.0]], np.float32)
    layer = LayerAttention(2, "self", ("query", "key"), (0, 1), (0,), lengths, measure="contribution")
    (matrix,) = matrices(layer, 3)
    assert (matrix.name, layer_name(layer)) == ("all heads", "contributions in layer 2")
    assert unit_name(layer) == "length of what is added"
    np.testing.assert_allclose(in_shares(matrix).weights, [[0.125, 0.375, 0.5]])
    product = LayerAttention(
        2, "self", ("query", "key"), (), (0,), lengths, measure="contribution_rollout", covered_layers=(0, 1, 2)
    )
    assert layer_name(product) == "rollout of contributions over layers 0 to 2"
    assert unit_name(product) == "share in the rollout"


def test_shares_of_numbers_below_0_are_of_their_absolute_sum() -> None:
    """A row may sum to next to nothing, and a number that was not sent counts as none."""
    weights = np.array([[0.5, -0.75, np.nan], [0, 0, np.nan]], np.float32)
    shares = in_shares(Matrix("head 0", (0, 1), (0, 1, 2), weights)).weights
    np.testing.assert_allclose(shares, [[0.4, -0.6, np.nan], [0, 0, np.nan]], rtol=1e-6)


def test_positions_that_are_none_of_the_text_have_no_tokens() -> None:
    """As of cross-attention, whose queries may be more than the tokens that they attend to."""
    tokens = [Token(number, word, 0, 1, False) for number, word in enumerate("abc")]
    assert [token.text for token in tokens_at(tokens, (2, 0))] == ["c", "a"]
    with pytest.raises(ValueError, match="attention of position 3 for 3 tokens"):
        tokens_at(tokens, (0, 3))
