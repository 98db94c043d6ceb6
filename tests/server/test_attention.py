from typing import Any

import numpy as np
import pytest

from regard.v1 import types_pb2 as pb
from server.attention import AttentionLimits, AttentionPlan, plan_attention, reduce_weights, write_attention
from server.contract import Contract
from server.errors import InvalidInput, NotPossible
from server.tensors import read_tensor
from tests.server.test_batching import CONTRACT

LENGTH = 6
WEIGHTS = np.random.default_rng(0).dirichlet(np.ones(LENGTH), size=(2, 4, LENGTH)).astype(np.float32)


def plan(
    contract: Contract = CONTRACT, *, answer_bytes: int = 10**6, computed_bytes: int = 10**6, **request: Any
) -> AttentionPlan:
    """Plan an attention request on a text of six tokens."""
    message = pb.AttentionRequest(**request)
    return plan_attention(
        message, contract, rows=1, length=LENGTH, limits=AttentionLimits(answer_bytes, computed_bytes)
    )


def test_an_empty_request_means_every_layer_head_and_row() -> None:
    """All of the attention, as float32."""
    everything = plan()
    assert everything.outputs == ("attention.0", "attention.1")
    assert (everything.heads, everything.queries, everything.dtype) == ((0, 1, 2, 3), None, np.float32)


def test_negative_numbers_count_from_the_end() -> None:
    """-1 is the last layer, head and row."""
    last = plan(layers=[-1, 0], heads=[-1], rows=[-1, 2])
    assert last.outputs == ("attention.1", "attention.0")
    assert (last.heads, last.queries) == ((3,), (5, 2))


def test_the_class_token_is_row_0() -> None:
    """cls_only is a shorthand."""
    assert plan(cls_only=True).queries == (0,)


@pytest.mark.parametrize(
    ("request_fields", "message"),
    [
        ({"layers": [99]}, "attention.layers: 99; expected from -2 to 1"),
        ({"layers": [-3]}, "attention.layers: -3; expected from -2 to 1"),
        ({"heads": [4]}, "attention.heads: 4; expected from -4 to 3"),
        ({"rows": [6]}, "attention.rows: 6; expected from -6 to 5"),
        ({"layers": [1, -1]}, r"attention.layers: \[1, -1\]; expected each at most once"),
        ({"rows": [1], "cls_only": True}, r"attention.rows: \[1\]; expected no rows together with cls_only"),
        ({"dtype": pb.DATA_TYPE_INT64}, "attention.dtype: DATA_TYPE_INT64; expected FLOAT32 or FLOAT16"),
        ({"dtype": 77}, "attention.dtype: 77; expected FLOAT32 or FLOAT16"),
        ({"head_reduction": 9}, "attention.head_reduction: 9; expected one of the values of HeadReduction"),
    ],
)
def test_what_does_not_exist_is_refused_by_name(request_fields: dict[str, Any], message: str) -> None:
    """The message names the field, the value and what was expected."""
    with pytest.raises(InvalidInput, match=message):
        plan(**request_fields)


def test_an_answer_too_large_is_refused_before_it_is_computed() -> None:
    """2 layers x 4 heads x 6 x 6 float32 are 1152 bytes; half precision fits."""
    with pytest.raises(InvalidInput, match="an answer of 1152 bytes; expected at most 600: fewer layers"):
        plan(answer_bytes=600)
    assert plan(answer_bytes=600, dtype=pb.DATA_TYPE_FLOAT16).answer_bytes(1, LENGTH) == 576


def test_weights_too_large_to_compute_are_refused_even_where_the_answer_is_small() -> None:
    """The class token's row needs the whole layer: two layers of 4 heads and 6 x 6 float32."""
    with pytest.raises(InvalidInput, match=r"1152 bytes of weights to compute; expected at most 1000 .*fewer layers"):
        plan(computed_bytes=1000, cls_only=True)
    assert plan(computed_bytes=1000, cls_only=True, layers=[-1]).computed_bytes(1, LENGTH) == 576


def test_a_model_without_attention_says_so() -> None:
    """FAILED_PRECONDITION, since no input would help."""
    with pytest.raises(NotPossible, match="tiny-text was exported without attention"):
        plan(CONTRACT.model_copy(update={"attention": ()}))


def test_selection_equals_numpy_indexing() -> None:
    """Heads and rows in the order asked for."""
    reduced = reduce_weights(WEIGHTS, plan(heads=[2, 0], rows=[5, 1]))
    assert np.array_equal(reduced, WEIGHTS[:, [2, 0]][:, :, [5, 1]])


def test_the_mean_over_chosen_heads_equals_its_definition() -> None:
    """Against float64, within 1e-7; rows still sum to 1."""
    reduced = reduce_weights(WEIGHTS, plan(heads=[1, 3], head_reduction=pb.HEAD_REDUCTION_MEAN))
    expected = WEIGHTS[:, [1, 3]].astype(np.float64).mean(axis=1)
    np.testing.assert_allclose(reduced, expected, atol=1e-7)
    np.testing.assert_allclose(reduced.sum(-1), 1, atol=1e-6)


def test_the_answer_names_its_axes_heads_and_rows() -> None:
    """What was sent can be read without knowing what was asked."""
    answer = write_attention(
        plan(layers=[1], heads=[3, 1], cls_only=True, dtype=pb.DATA_TYPE_FLOAT16),
        {"attention.1": WEIGHTS[:1]},
        batched=False,
    )
    (layer,) = answer.layers
    assert (layer.layer, layer.kind, list(layer.axes)) == (1, pb.ATTENTION_KIND_SELF, ["head", "query", "key"])
    assert (list(layer.heads), list(layer.queries)) == ([3, 1], [0])
    expected = WEIGHTS[0, [3, 1], :1].astype(np.float16)
    assert np.array_equal(read_tensor("weights", layer.weights), expected)


def test_predict_keeps_the_batch_axis() -> None:
    """Two rows stay two rows; a mean has no head axis."""
    answer = write_attention(
        plan(layers=[0], head_reduction=pb.HEAD_REDUCTION_MEAN), {"attention.0": WEIGHTS}, batched=True
    )
    assert list(answer.layers[0].axes) == ["batch", "query", "key"]
    assert list(answer.layers[0].weights.shape) == [2, LENGTH, LENGTH]
