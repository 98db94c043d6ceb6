"""What contradicts itself in a request for attention."""

import math

import pytest

from server.attention.request import AttentionRequest
from server.errors import InvalidInput


def test_nothing_asked_for_is_all_of_the_weights() -> None:
    """As float32, as they are."""
    everything = AttentionRequest()
    assert everything == AttentionRequest(
        cls_only=False, drop_special=False, measure="weights", value_weighted=False, top_k=0, renormalize=False
    )
    everything.check()


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (AttentionRequest(cls_only=True, rows=(1,)), r"attention.rows: \[1\]; expected no rows together with cls_only"),
        (AttentionRequest(drop_special=True, rows=(1,)), "attention.drop_special: true; expected neither rows"),
        (AttentionRequest(drop_special=True, cls_only=True), "attention.drop_special: true; expected neither rows"),
        (AttentionRequest(drop_special=True, keys=(1,)), "attention.drop_special: true; expected neither rows"),
        (AttentionRequest(top_k=-1), "attention.top_k: -1; expected 0 for all keys"),
        (AttentionRequest(top_k=1, measure="entropy"), "attention.top_k: 1; expected 0 with ATTENTION_MEASURE_ENTROPY"),
        (AttentionRequest(top_k=1, measure="distance"), "which has no keys"),
        (AttentionRequest(residual_share=0.5), "attention.residual_share: 0.5; expected none but for a rollout"),
        (AttentionRequest(residual_share=-0.5, measure="rollout"), "-0.5; expected at least 0 and less than 1"),
        (AttentionRequest(residual_share=1.0, measure="rollout"), "1.0; expected at least 0 and less than 1"),
        (AttentionRequest(residual_share=math.nan, measure="rollout"), "nan; expected at least 0 and less than 1"),
    ],
)
def test_fields_that_do_not_go_together_are_refused(request_: AttentionRequest, message: str) -> None:
    """By the field, with what was expected."""
    with pytest.raises(InvalidInput, match=message):
        request_.check()


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_a_share_of_the_residual_is_less_than_1(share: float) -> None:
    """None at all is allowed."""
    AttentionRequest(residual_share=share, measure="rollout").check()
