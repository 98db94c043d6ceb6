"""What is wanted, checked against a model before anything runs; and what is made of what was computed."""

import re

import numpy as np
import pytest

from artifact.contract import Contract, RelevanceContract, RelevanceGraph, RelevanceMethod
from server.attention.planning import AttentionLimits
from server.attention.positions import Positions
from server.errors import InvalidInput, NotPossible
from server.relevance.path import straight_path
from server.relevance.plan import RelevancePlan
from server.relevance.planning import plan_relevance
from server.relevance.reduce import Completeness, explain_row
from server.relevance.request import RelevanceRequest
from tests.server import fakes


def other(graph: RelevanceGraph) -> RelevanceContract:
    """By another method."""
    scale = "relevance.scale" if graph == "gradient" else None
    assert fakes.CONTRACT.relevance
    return fakes.CONTRACT.relevance.model_copy(update={"graph": graph, "rest": None, "scale": scale})


CONTRACT = fakes.CONTRACT.model_copy(update={"other_relevance": (other("gradient"), other("genatt"), other("legrad"))})
ROOM = AttentionLimits(10**9, 10**9)
FIVE = Positions(1, {"seq_len": 5}, 5, special=(0, 4))
LABELS = CONTRACT.labels


def plan(request: RelevanceRequest, limits: AttentionLimits = ROOM, contract: Contract = CONTRACT) -> RelevancePlan:
    """Of a row of five positions."""
    return plan_relevance(request, contract, FIVE, limits)


def weights_of(request: RelevanceRequest) -> list[list[float]]:
    """What of each logit is in the score, a list a row of the graph."""
    found: list[list[float]] = plan(request).spread({})["relevance.weights"].tolist()
    return found


def test_weights_tell_what_of_each_logit_is_explained() -> None:
    """None for the most probable, which the graph finds; a row for each of several."""
    assert weights_of(RelevanceRequest()) == [[0, 0]]
    assert weights_of(RelevanceRequest(LABELS[1])) == [[0, 1]]
    assert weights_of(RelevanceRequest(LABELS[0], LABELS[1])) == [[1, -1]]
    assert weights_of(RelevanceRequest(labels=(LABELS[1], LABELS[0]))) == [[0, 1], [1, 0]]


def test_the_most_probable_labels_are_explained_once_they_are_known() -> None:
    """In their order, of equal ones that with the smaller index first; and so many as there are, at most."""
    wanted = plan(RelevanceRequest(top=5))
    assert (wanted.is_open, wanted.rows_each) == (True, 2)
    settled = wanted.settled(np.array([[1, 2]], dtype=np.float32))
    assert [one.label for one in settled.targets] == [1, 0]
    assert (settled.is_open, settled.is_list, settled.rows_each) == (False, True, 2)
    assert [one.label for one in wanted.settled(np.ones((1, 2), dtype=np.float32)).targets] == [0, 1]


def test_integrated_gradients_take_a_row_for_each_point() -> None:
    """And one for the score and one for the baseline's, of each label; of the most probable label of the row itself."""
    request = RelevanceRequest(labels=LABELS, method="integrated-gradients", steps=3)
    made = plan(request).spread({"input_ids": np.array([[7, 8]])})
    assert made["input_ids"].tolist() == [[7, 8]] * 10
    assert made["relevance.weights"].tolist() == [[1, 0]] * 5 + [[0, 1]] * 5
    np.testing.assert_array_equal(made["relevance.scale"], np.tile(straight_path(3).scales, 2))
    assert plan(RelevanceRequest(method="integrated-gradients")).is_open


def test_an_input_is_not_copied_for_each_row_that_it_becomes() -> None:
    """An image of 600 KB would be 600 MB of 1024 rows, while its request waits; a run copies no more than its own."""
    given = np.ones((1, 4, 2), dtype=np.float32)
    wanted = plan(RelevanceRequest(labels=LABELS, method="integrated-gradients", steps=256))
    made = wanted.spread({"pixel_values": given})["pixel_values"]
    assert made.shape == (2 * 258, 4, 2)
    assert np.shares_memory(made, given)
    assert made.strides[0] == 0


@pytest.mark.parametrize("steps", [1, 4, 64])
def test_the_path_integrates(steps: int) -> None:
    """A constant by one point, and what is a polynomial in the square root of the scale by few."""
    path = straight_path(steps)
    assert path.scales[:2].tolist() == [1, 0]
    assert path.shares[:2].tolist() == [0, 0]
    assert path.shares.sum() == pytest.approx(1)
    assert (path.scales[2:] > 0).all() and (path.scales[2:] < 1).all()
    if steps > 1:
        assert path.shares @ path.scales.astype(np.float64) ** 2 == pytest.approx(1 / 3, rel=1e-6)


def test_what_integrated_gradients_add_up_to_is_told() -> None:
    """The distance from the baseline's score."""
    wanted = plan(RelevanceRequest(LABELS[1], method="integrated-gradients", steps=1))
    path = wanted.path
    assert path is not None
    positions, score = wanted.outputs
    found = {
        positions: np.array([[9] * 5, [9] * 5, [1, 2, -3, 4, 0.5]], dtype=np.float32),
        score: np.array([5, 1.5, 3], dtype=np.float32),
    }
    (why,) = explain_row(wanted, np.zeros((3, 2), dtype=np.float32), found)
    assert why.values.tolist() == [1, 2, -3, 4, 0.5]
    assert (why.score, why.rest) == (5, 0)
    assert why.completeness == Completeness(baseline=1.5, error=1.0, relative_error=1 / 10.5)


def test_each_label_is_explained_by_its_own_points() -> None:
    """The rows of a label lie together: its score, the baseline's, and the path's."""
    wanted = plan(RelevanceRequest(labels=LABELS, method="integrated-gradients", steps=1))
    positions, score = wanted.outputs
    found = {
        positions: np.arange(30, dtype=np.float32).reshape(6, 5),
        score: np.array([5, 1, 0, 7, 2, 0], dtype=np.float32),
    }
    first, second = explain_row(wanted, np.zeros((1, 2), dtype=np.float32), found)
    assert (first.values.tolist(), first.score) == ([10, 11, 12, 13, 14], 5)
    assert (second.values.tolist(), second.score) == ([25, 26, 27, 28, 29], 7)
    assert first.completeness is not None and second.completeness is not None
    assert (first.completeness.baseline, second.completeness.baseline) == (1, 2)


@pytest.mark.parametrize("method", ["gradient", "genatt", "legrad"])
def test_methods_that_make_up_no_score_say_so(method: RelevanceMethod) -> None:
    """Nothing is made up."""
    wanted = plan(RelevanceRequest(LABELS[1], method=method))
    positions, score = wanted.outputs
    found = {positions: np.ones((1, 5), dtype=np.float32), score: np.ones(1, dtype=np.float32)}
    (why,) = explain_row(wanted, np.zeros((1, 2), dtype=np.float32), found)
    assert (why.completeness, why.rest, why.unsent) == (None, 0, 0)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (
            RelevanceRequest(labels=("a",), label="b"),
            "relevance.labels: 1 labels; expected none beside relevance.label",
        ),
        (RelevanceRequest(labels=("a",), top=1), "relevance.labels: 1 labels; expected none beside relevance.top"),
        (RelevanceRequest(label="a", top=1), "relevance.top: 1; expected none beside relevance.label"),
        (RelevanceRequest(top=33), "relevance.top: 33; expected 0 to 32"),
        (RelevanceRequest(top=-1), "relevance.top: -1; expected 0 to 32"),
        (RelevanceRequest(labels=("a", "a")), "relevance.labels[1]: 'a'; expected a label, each once"),
        (RelevanceRequest(labels=("",)), "relevance.labels[0]: ''; expected a label, each once"),
        (RelevanceRequest(labels=tuple(map(str, range(33)))), "relevance.labels: 33 labels; expected at most 32"),
        (RelevanceRequest(labels=("no",)), "relevance.labels[0]: 'no'; expected one of Model.labels: "),
        (RelevanceRequest(steps=3), "relevance.steps: 3; expected none but with integrated-gradients, not with libra"),
        (
            RelevanceRequest(steps=257, method="integrated-gradients"),
            "relevance.steps: 257; expected 1 to 256, or 0 for",
        ),
        (
            RelevanceRequest(labels=LABELS, steps=256, method="integrated-gradients"),
            "relevance: 516 rows to compute (1 x 516 by labels and steps); expected at most 515",
        ),
    ],
)
def test_requests_that_make_no_sense_are_refused(
    request_: RelevanceRequest, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The field, the value, and what was expected."""
    monkeypatch.setattr("server.relevance.planning.MAX_ROWS", 515)
    with pytest.raises(InvalidInput, match=re.escape(message)):
        plan(request_)


def test_a_method_that_was_not_exported_is_refused() -> None:
    """With those that were."""
    contract = CONTRACT.model_copy(update={"other_relevance": ()})
    message = "relevance.method: tiny-text was exported without genatt; expected libra"
    with pytest.raises(NotPossible, match=message):
        plan(RelevanceRequest(method="genatt"), contract=contract)


def test_positions_are_those_of_the_input() -> None:
    """Of the request's own length, without special ones where these are not wanted."""
    assert (plan(RelevanceRequest()).count, plan(RelevanceRequest()).positions) == (5, None)
    assert plan(RelevanceRequest(drop_special=True)).positions == (1, 2, 3)


@pytest.mark.parametrize(
    "update", [{"relevance": None, "other_relevance": ()}, {"labels": ()}], ids=["no graph", "no labels"]
)
def test_a_model_that_cannot_explain_says_so(update: dict[str, object]) -> None:
    """Without a graph, or without labels."""
    contract = CONTRACT.model_copy(update=update)
    with pytest.raises(NotPossible, match="relevance: tiny-text was exported without relevance of labels; expected a"):
        plan(RelevanceRequest(), contract=contract)


def test_an_answer_that_is_too_large_is_refused_before_anything_runs() -> None:
    """By what would be sent: seven numbers a row."""
    with pytest.raises(InvalidInput, match="relevance: an answer of 28 bytes; expected at most 27"):
        plan(RelevanceRequest(), AttentionLimits(27, 10**9))
    plan(RelevanceRequest(), AttentionLimits(28, 10**9))


def test_more_than_may_be_computed_is_refused_before_anything_runs() -> None:
    """Of each row its positions, rest and score, and of each label its weight and logit."""
    asked = RelevanceRequest(labels=LABELS, method="integrated-gradients", steps=8)
    size_bytes = 2 * 10 * (5 + 2 + 2 * 2) * 4
    message = f"relevance: {size_bytes} bytes to compute; expected at most {size_bytes - 1} .the server's --max-att"
    with pytest.raises(InvalidInput, match=message):
        plan(asked, AttentionLimits(10**9, size_bytes - 1))
    plan(asked, AttentionLimits(10**9, size_bytes))


def test_what_does_not_add_up_is_told() -> None:
    """In the score's unit, and as a share of all that was added."""
    wanted = plan(RelevanceRequest(LABELS[1], drop_special=True))
    positions, rest, score = wanted.outputs
    found = {
        positions: np.array([[1, 2, -3, 4, 0.5]], dtype=np.float32),
        rest: np.array([0.5], dtype=np.float32),
        score: np.array([5.5], dtype=np.float32),
    }
    (why,) = explain_row(wanted, np.zeros((1, 2), dtype=np.float32), found)
    assert (why.label, why.against, why.values.tolist()) == (1, None, [2, -3, 4])
    assert (why.unsent, why.rest, why.score) == (1.5, 0.5, 5.5)
    assert why.completeness is not None
    assert why.completeness.baseline is None
    assert why.completeness.error == pytest.approx(0.5)
    assert why.completeness.relative_error == pytest.approx(0.5 / 11)
    nothing = {name: np.zeros_like(array) for name, array in found.items()}
    (why,) = explain_row(wanted, np.zeros((1, 2), dtype=np.float32), nothing)
    assert why.completeness == Completeness(None, 0.0, 0.0)


def test_the_most_probable_label_is_that_of_the_row() -> None:
    """Where none is named."""
    wanted = plan(RelevanceRequest())
    positions, rest, score = wanted.outputs
    nothing = {positions: np.zeros((1, 5)), rest: np.zeros(1), score: np.zeros(1)}
    (why,) = explain_row(wanted, np.array([[1, 2]], dtype=np.float32), nothing)
    assert why.label == 1
