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


OTHERS = (*fakes.CONTRACT.other_relevance, other("gradient"), other("genatt"), other("legrad"))
CONTRACT = fakes.CONTRACT.model_copy(update={"other_relevance": OTHERS})
ROOM = AttentionLimits(10**9, 10**9)
FIVE = Positions(1, {"seq_len": 5}, 5, special=(0, 4))
LABELS = CONTRACT.labels


def plan(request: RelevanceRequest, limits: AttentionLimits = ROOM, contract: Contract = CONTRACT) -> RelevancePlan:
    """Of a row of five positions."""
    return plan_relevance(request, contract, FIVE, limits)


def weights_of(request: RelevanceRequest) -> list[list[float]]:
    """What of each logit is in the score, a list a row of the graph."""
    found: list[list[float]] = plan(request).spread({"input_ids": np.array([[7, 8]])})["relevance.weights"].tolist()
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
    assert [one.label for one in settled.of_row(0).targets] == [1, 0]
    assert (settled.is_open, settled.is_list, settled.rows_each) == (False, True, 2)
    assert [one.label for one in wanted.settled(np.ones((1, 2), dtype=np.float32)).of_row(0).targets] == [0, 1]
    both = wanted.settled(np.array([[1, 2], [2, 1]], dtype=np.float32))
    assert [[one.label for one in both.of_row(row).targets] for row in range(2)] == [[1, 0], [0, 1]]
    made = both.spread({"input_ids": np.array([[7, 8], [5, 6]])})
    assert made["input_ids"].tolist() == [[7, 8], [7, 8], [5, 6], [5, 6]]
    assert made["relevance.weights"].tolist() == [[0, 1], [1, 0], [1, 0], [0, 1]]


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


def test_what_is_copied_of_several_rows_counts_as_computed() -> None:
    """Where a row becomes several; one that is alone is shown, not copied."""
    wanted = plan(RelevanceRequest(labels=LABELS))
    row_bytes = sum(5 * np.dtype(spec.dtype).itemsize for spec in CONTRACT.inputs)
    assert wanted.computed_bytes(3) == 3 * (wanted.computed_bytes(1) + 2 * row_bytes)
    single = plan(RelevanceRequest())
    assert single.computed_bytes(3) == 3 * single.computed_bytes(1)


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
            RelevanceRequest(by_layer=True, method="legrad"),
            "relevance.by_layer: true; expected none but with libra, not with legrad",
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


def test_layers_that_were_not_exported_are_refused() -> None:
    """By the field; all else is answered."""
    contract = CONTRACT.model_copy(update={"other_relevance": ()})
    message = "relevance.by_layer: tiny-text was exported without it; expected a model with Model.can_explain_layers"
    with pytest.raises(NotPossible, match=message):
        plan(RelevanceRequest(by_layer=True), contract=contract)
    assert plan(RelevanceRequest(), contract=contract).contract.graph == "libra"


def test_each_depth_is_told_with_what_is_left_out_and_what_is_added_behind() -> None:
    """Of each label its own, and how far each depth is from making up the score."""
    wanted = plan(RelevanceRequest(labels=LABELS, drop_special=True, by_layer=True))
    positions, rest, score, by_layer, added = wanted.outputs
    depths = np.array([[1, 2, -3, 4, 0.5], [0, 0, 0, 0, 5], [1, 1, 1, 1, 1]], dtype=np.float32)
    found = {
        positions: np.array([depths[0], depths[0]]),
        rest: np.array([0.5, 0.5], dtype=np.float32),
        score: np.array([5, 10], dtype=np.float32),
        by_layer: np.stack([depths, 2 * depths]),
        added: np.array([[0.5, 0, 1], [1, 0, 0]], dtype=np.float32),
    }
    first, second = (why.by_layer for why in explain_row(wanted, np.zeros((2, 2), dtype=np.float32), found))
    assert first is not None and second is not None
    np.testing.assert_array_equal(first.values, depths[:, 1:4])
    np.testing.assert_array_equal(second.values, 2 * depths[:, 1:4])
    assert (first.unsent, second.unsent) == ((1.5, 5, 2), (3, 10, 4))
    assert (first.added, second.added) == ((0.5, 0, 1), (1, 0, 0))
    assert first.relative_errors == pytest.approx((0, 0, 1 / 6))
    assert explain_row(plan(RelevanceRequest()), np.zeros((1, 2)), found)[0].by_layer is None


def test_layers_are_counted_among_what_is_sent_and_computed() -> None:
    """Three depths here, each of five positions, what is left out, what is added and an error."""
    asked = RelevanceRequest(by_layer=True)
    sent, computed = (7 + 3 * 8) * 4, (7 + 2 * 2 + 3 * 6) * 4
    with pytest.raises(InvalidInput, match=f"relevance: an answer of {sent} bytes; expected at most {sent - 1}"):
        plan(asked, AttentionLimits(sent - 1, 10**9))
    with pytest.raises(InvalidInput, match=f"relevance: {computed} bytes to compute; expected at most {computed - 1}"):
        plan(asked, AttentionLimits(10**9, computed - 1))
    plan(asked, AttentionLimits(sent, computed))


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
