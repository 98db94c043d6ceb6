"""What is wanted, checked against a model before anything runs; and what is made of what was computed."""

import numpy as np
import pytest

from artifact.contract import Contract
from server.attention.planning import AttentionLimits, Positions
from server.errors import InvalidInput, NotPossible
from server.relevance.plan import RelevancePlan
from server.relevance.planning import plan_relevance
from server.relevance.reduce import explain_rows
from server.relevance.request import RelevanceRequest
from tests.server.fakes import CONTRACT

ROOM = AttentionLimits(10**9, 10**9)
FIVE = Positions(2, {"seq_len": 5}, 5, special=(0, 4))
LABELS = CONTRACT.labels


def plan(request: RelevanceRequest, limits: AttentionLimits = ROOM, contract: Contract = CONTRACT) -> RelevancePlan:
    """Of two rows of five positions."""
    return plan_relevance(request, contract, FIVE, limits)


def test_weights_tell_what_of_each_logit_is_explained() -> None:
    """None for the most probable, which the graph finds."""
    assert not plan(RelevanceRequest()).weights.any()
    assert plan(RelevanceRequest(LABELS[1])).weights.tolist() == [[0, 1]] * 2
    assert plan(RelevanceRequest(LABELS[0], LABELS[1])).weights.tolist() == [[1, -1]] * 2


def test_positions_are_those_of_the_input() -> None:
    """Of the request's own length, without special ones where these are not wanted."""
    assert (plan(RelevanceRequest()).count, plan(RelevanceRequest()).positions) == (5, None)
    assert plan(RelevanceRequest(drop_special=True)).positions == (1, 2, 3)


@pytest.mark.parametrize("update", [{"relevance": None}, {"labels": ()}], ids=["no graph", "no labels"])
def test_a_model_that_cannot_explain_says_so(update: dict[str, object]) -> None:
    """Without a graph, or without labels."""
    contract = CONTRACT.model_copy(update=update)
    with pytest.raises(NotPossible, match="relevance: tiny-text was exported without relevance of labels; expected a"):
        plan(RelevanceRequest(), contract=contract)


def test_an_answer_that_is_too_large_is_refused_before_anything_runs() -> None:
    """By what would be sent: seven numbers a row."""
    with pytest.raises(InvalidInput, match="relevance: an answer of 56 bytes; expected at most 55"):
        plan(RelevanceRequest(), AttentionLimits(55, 10**9))
    plan(RelevanceRequest(), AttentionLimits(56, 10**9))


def test_what_does_not_add_up_is_told() -> None:
    """In the score's unit, and as a share of all that was added."""
    wanted = plan(RelevanceRequest(LABELS[1], drop_special=True))
    positions, rest, score = wanted.outputs
    found = {
        positions: np.array([[1, 2, -3, 4, 0.5], [0] * 5], dtype=np.float32),
        rest: np.array([0.5, 0], dtype=np.float32),
        score: np.array([5.5, 0], dtype=np.float32),
    }
    first, second = explain_rows(wanted, np.zeros((2, 2), dtype=np.float32), found)
    assert (first.label, first.against, first.values.tolist()) == (1, None, [2, -3, 4])
    assert (first.unsent, first.rest, first.score) == (1.5, 0.5, 5.5)
    assert first.error == pytest.approx(0.5)
    assert first.relative_error == pytest.approx(0.5 / 11)
    assert (second.error, second.relative_error) == (0.0, 0.0)


def test_the_most_probable_label_is_that_of_each_row() -> None:
    """Where none is named."""
    wanted = plan(RelevanceRequest())
    positions, rest, score = wanted.outputs
    nothing = {positions: np.zeros((2, 5)), rest: np.zeros(2), score: np.zeros(2)}
    rows = explain_rows(wanted, np.array([[1, 2], [2, 1]], dtype=np.float32), nothing)
    assert [row.label for row in rows] == [1, 0]
