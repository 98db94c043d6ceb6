from typing import Any

import pytest
from onnx import TensorProto, helper

from export.classes import count_classes, name_classes


def test_classes_are_named_in_the_order_of_the_logits() -> None:
    """Those without a name are numbered."""
    assert name_classes({"id2label": {"1": "good", "0": "bad"}}, 3) == ("bad", "good", "LABEL_2")
    assert name_classes({}, 0) == ()


@pytest.mark.parametrize(
    ("config", "count"),
    [({}, 1), ({"problem_type": "regression"}, 2), ({"problem_type": "multi_label_classification"}, 3)],
)
def test_scores_that_do_not_exclude_each_other_have_no_classes(config: dict[str, Any], count: int) -> None:
    """A reranker's score would be certain of itself; of several tags that are right none would be likely."""
    assert name_classes(config | {"id2label": {0: "a", 1: "b", 2: "c"}}, count) == ()


@pytest.mark.parametrize(
    ("name", "axes", "expected"),
    [
        ("logits", ["batch", 3], 3),
        ("logits", ["batch", "classes"], 0),
        ("logits", ["batch", "seq_len", 3], 0),  # of every token
        ("logits", None, 0),
        ("scores", ["batch", 3], 0),
    ],
)
def test_classes_are_counted_by_the_logits_of_a_row(name: str, axes: Any, expected: int) -> None:
    """Where the file says how many there are."""
    output = helper.make_tensor_value_info(name, TensorProto.FLOAT, axes)
    assert count_classes(helper.make_model(helper.make_graph([], "graph", [], [output]))) == expected
