"""What one of two inputs is asked for, checked before anything runs; and what both make up."""

import numpy as np
import pytest

from artifact.contract import Contract
from server.attention.planning import AttentionLimits
from server.attention.positions import Positions
from server.errors import InvalidInput, NotPossible
from server.relevance.similarity import (
    Side,
    SimilarityPlan,
    SimilarityRequest,
    compare,
    plan_similarity,
)
from tests.server.fakes import CONTRACT

FIVE = Positions(1, {"seq_len": 5}, 5, special=(0, 4))
VECTOR = np.ones(32, dtype=np.float32)
FIRST_PARTS = np.array([[3, 0], [0, 2], [0, 2]], dtype=np.float32)  # two positions, and none: [3, 4], of length 5
SECOND_PARTS = np.array([[0, 1], [-1, 0], [1, 1]], dtype=np.float32)  # likewise [0, 2]


def plan(request: SimilarityRequest, pair_tokens: int = 30, contract: Contract = CONTRACT) -> SimilarityPlan:
    """Of five positions."""
    return plan_similarity(request, contract, FIVE, AttentionLimits(10**9, 10**9, pair_tokens))


def side(parts: np.ndarray, positions: tuple[int, ...] | None = None) -> Side:
    """With all parts."""
    return Side(parts.sum(0), positions, parts=parts)


def test_parts_take_a_run_for_each_position_and_one_for_none() -> None:
    """Relevance for another vector takes one, whatever the bound."""
    parts, along = plan(SimilarityRequest()), plan(SimilarityRequest(VECTOR), 1)
    assert CONTRACT.similarity is not None
    assert parts.spread({})[CONTRACT.similarity.chosen].tolist() == [0, 1, 2, 3, 4, -1]
    assert (parts.runs, parts.outputs, parts.computed_bytes(1)) == (6, (CONTRACT.similarity.part,), 6 * 32 * 4)
    assert along.spread({})[CONTRACT.similarity.relevance.weights].shape == (1, 32)
    assert (along.runs, along.outputs) == (1, CONTRACT.similarity.relevance.outputs)
    assert plan(SimilarityRequest(drop_special=True)).positions == (1, 2, 3)


def test_sizes_are_those_of_what_is_sent_and_computed() -> None:
    """Of each row its positions, rest and score, in float32; where some positions are left out, their indices, too."""
    whole, some = plan(SimilarityRequest(VECTOR)), plan(SimilarityRequest(VECTOR, drop_special=True))
    assert (whole.index_counts, some.index_counts) == ([5], [6])
    assert (whole.answer_bytes(2), some.answer_bytes(2)) == (2 * (5 + 2) * 4, 2 * (3 + 2) * 4)
    assert some.computed_bytes(2) == 2 * (5 + 2) * 4


def test_more_runs_than_are_allowed_are_refused() -> None:
    """With the number that it would take."""
    message = "relevance.pairs: 30 tokens or patches in all runs of an input of 5; expected at most 29 "
    with pytest.raises(InvalidInput, match=message):
        plan(SimilarityRequest(), 29)


def test_a_model_without_it_says_so() -> None:
    """It was exported without."""
    with pytest.raises(NotPossible, match="relevance: tiny-text was exported without relevance of similarities"):
        plan(SimilarityRequest(), contract=CONTRACT.model_copy(update={"similarity": None}))


def test_parts_of_both_make_up_the_cosine() -> None:
    """By position of either, and by pairs; the lengths are 5 and 2, the product is 8."""
    found = compare(side(FIRST_PARTS), side(SECOND_PARTS), dot=False)
    assert found.similarity == pytest.approx(0.8)
    assert found.sides is not None
    first, second = found.sides
    np.testing.assert_allclose(first.values, [0, 0.4])
    np.testing.assert_allclose(second.values, [0.4, -0.3])
    assert first.rest == pytest.approx(0.4)
    assert second.rest == pytest.approx(0.7)
    assert found.pairs is not None
    np.testing.assert_allclose(found.pairs.values, [[0, -0.3], [0.2, 0]])
    assert found.pairs.unpaired == pytest.approx(0.9)
    assert found.pairs.error == pytest.approx(0, abs=1e-12)


def test_the_dot_product_is_as_long_as_the_vectors() -> None:
    """Where that is what the model compares by."""
    found = compare(side(FIRST_PARTS), side(SECOND_PARTS), dot=True)
    assert (found.similarity, found.pairs is not None) == (8, True)
    assert found.pairs is not None
    np.testing.assert_allclose(found.pairs.values, [[0, -3], [2, 0]])


def test_pairs_that_are_not_sent_are_unpaired() -> None:
    """And the others stay where they are."""
    found = compare(side(FIRST_PARTS, (1,)), side(SECOND_PARTS, (0,)), dot=True)
    assert found.pairs is not None
    assert found.pairs.values.tolist() == [[2]]
    assert found.pairs.unpaired == pytest.approx(6)
    assert found.positions == ((1,), (0,))


def test_parts_that_do_not_make_up_the_vectors_say_so() -> None:
    """As a share of all that was added: 11 without signs, of a product that is 3 more than all of it."""
    wrong = Side(
        np.array([3, 4], dtype=np.float32), parts=FIRST_PARTS - np.array([[0, 1.5]] + [[0, 0]] * 2, np.float32)
    )
    found = compare(wrong, side(SECOND_PARTS), dot=True)
    assert found.pairs is not None
    assert found.pairs.error == pytest.approx(3)
    added = np.abs(np.asarray(wrong.parts) @ SECOND_PARTS.T).sum()
    assert found.pairs.relative_error == pytest.approx(3 / added)


def test_relevance_of_each_for_the_other_is_scaled_alike() -> None:
    """Without parts there are no pairs; without either, no reasons."""
    first = Side(FIRST_PARTS.sum(0), values=np.array([0, 4], np.float32), rest=4.0)
    second = Side(SECOND_PARTS.sum(0), values=np.array([4, -3], np.float32), rest=7.0)
    found = compare(first, second, dot=False)
    assert found.pairs is None
    assert found.sides is not None
    np.testing.assert_allclose(found.sides[0].values, [0, 0.4])
    assert found.sides[1].rest == pytest.approx(0.7)
    assert found.sides[0].completeness is not None
    assert found.sides[0].completeness.error == pytest.approx(0, abs=1e-7)
    bare = compare(Side(first.vector), Side(second.vector), dot=False)
    assert (bare.sides, bare.pairs) == (None, None)
