"""What is refused of a request for a text, and what its defaults come to."""

import math
from dataclasses import replace
from typing import Any

import pytest

from artifact.detokenizing import TextWriter
from server.attention.request import AttentionRequest
from server.errors import InvalidInput, NotPossible
from server.generation.generator import _read_target
from server.generation.plan import AttentionPlan, GenerationPlan
from server.generation.request import GenerationRequest, Sampling
from server.generation.validation import GenerationLimits, check_request, check_target_length, plan_request
from tests.server.fakes import CONTRACT, make_model
from tests.server.generation.fakes import make_writer

LIMITS = GenerationLimits(max_beams=4)
PLAIN = GenerationRequest(make_writer(), "cat")
SAMPLED = Sampling()


def asked(**fields: Any) -> GenerationRequest:
    """A request with some fields set."""
    return replace(PLAIN, **fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"start": "french"}, r"^start: 'french'; expected one of one, three, or none$"),
        ({"max_tokens": 13}, r"^max_tokens: 13; expected 0 for the model's, or 1 to 12$"),
        ({"max_tokens": -1}, r"^max_tokens: -1; expected"),
        ({"num_beams": 5}, r"^num_beams: 5; expected 1 to 4 \(the server's --max-beams\)$"),
        ({"num_beams": -1}, r"^num_beams: -1; expected 1 to 4"),
        ({"num_beams": 2, "sampling": SAMPLED}, r"^num_beams: 2; expected 1 with sampling$"),
        ({"num_beams": 2, "target": "K AE T"}, r"^num_beams: 2; expected 1 with target$"),
        ({"num_results": 2}, r"^num_results: 2; expected 1 to 1 with num_beams of 1, the model's, or 0 for 1$"),
        ({"num_beams": 2, "num_results": 3}, r"^num_results: 3; expected 1 to 2 with num_beams of 2, or 0 for 1$"),
        ({"num_results": 2, "sampling": SAMPLED}, r"^num_results: 2; expected 1 to 1 with sampling, or 0 for 1$"),
        ({"num_results": -1}, r"^num_results: -1; expected"),
        ({"length_penalty": math.nan}, r"^length_penalty: nan; expected a number from -16 to 16$"),
        ({"length_penalty": math.inf}, r"^length_penalty: inf; expected a number from -16 to 16$"),
        ({"sampling": Sampling(temperature=0.0)}, r"^sampling.temperature: 0.0; expected a number above 0$"),
        ({"sampling": Sampling(temperature=math.nan)}, r"^sampling.temperature: nan; expected a number above 0$"),
        ({"sampling": Sampling(temperature=math.inf)}, r"^sampling.temperature: inf; expected a number above 0$"),
        ({"sampling": Sampling(top_k=-1)}, r"^sampling.top_k: -1; expected 0 for all tokens"),
        ({"sampling": Sampling(top_p=0.0)}, r"^sampling.top_p: 0.0; expected above 0, and at most 1$"),
        ({"sampling": Sampling(top_p=1.001)}, r"^sampling.top_p: 1.001; expected above 0, and at most 1$"),
        ({"sampling": Sampling(top_p=math.nan)}, r"^sampling.top_p: nan; expected above 0, and at most 1$"),
        ({"sampling": Sampling(seed=-1)}, r"^sampling.seed: -1; expected 0 to 2\^64 - 1$"),
        ({"sampling": Sampling(seed=2**64)}, r"^sampling.seed: 18446744073709551616; expected"),
        ({"stop": ("a",) * 17}, r"^stop: 17 texts; expected at most 16$"),
        ({"stop": ("a", "")}, r"^stop\[1\]: empty; expected 1 to 256 characters$"),
        ({"stop": ("a" * 257,)}, r"^stop\[0\]: 257 characters; expected 1 to 256 characters$"),
        (
            {"stop": ("a",), "num_beams": 2},
            r"^stop: given; expected none with num_beams of 2; num_beams of 1 allows it",
        ),
        ({"target": "K", "sampling": SAMPLED}, r"^sampling: given; expected none together with target"),
        ({"target": "K", "stop": ("a",)}, r"^stop: 1 texts; expected none together with target"),
        ({"alternatives": 21}, r"^alternatives: 21; expected 0 to 20$"),
        ({"alternatives": -1}, r"^alternatives: -1; expected 0 to 20$"),
        ({"alternatives": 1, "num_beams": 2}, r"^alternatives: given; expected none with num_beams of 2"),
        (
            {"attention": {"cross": AttentionRequest()}, "num_beams": 2},
            r"^cross_attention: given; expected none with num_beams of 2",
        ),
    ],
)
def test_what_cannot_be_used_is_refused(fields: dict[str, Any], message: str) -> None:
    """By the field, with what came and what was expected."""
    with pytest.raises(InvalidInput, match=message):
        check_request(asked(**fields), LIMITS)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"start": "three", "max_tokens": 12},
        {"num_beams": 4, "num_results": 4, "length_penalty": -0.5},
        {"num_results": 0},
        {"sampling": Sampling(temperature=1e-3, top_k=1, top_p=1e-6, seed=2**64 - 1), "num_beams": 1},
        {"stop": ("a" * 256,) * 16, "alternatives": 20},
        {"target": "K AE T", "alternatives": 20, "num_beams": 1},
        {"attention": {"cross": AttentionRequest(), "self": AttentionRequest(layers=(-1,), head_reduction="max")}},
    ],
)
def test_what_lies_at_the_bounds_is_taken(fields: dict[str, Any]) -> None:
    """All of it, and nothing at all."""
    check_request(asked(**fields), LIMITS)


@pytest.mark.parametrize(
    ("attention", "message"),
    [
        (AttentionRequest(rows=(0,)), r"^self_attention.rows: \(0,\); expected none: of a step only layers, heads and"),
        (AttentionRequest(keys=(0,)), r"^self_attention.keys: "),
        (AttentionRequest(cls_only=True), r"^self_attention.cls_only: true; "),
        (AttentionRequest(drop_special=True), r"^self_attention.drop_special: true; "),
        (AttentionRequest(measure="rollout"), r"^self_attention.measure: rollout; "),
        (AttentionRequest(residual_share=0.5), r"^self_attention.residual_share: 0.5; "),
        (AttentionRequest(value_weighted=True), r"^self_attention.value_weighted: true; "),
        (AttentionRequest(top_k=2), r"^self_attention.top_k: 2; "),
        (AttentionRequest(renormalize=True), r"^self_attention.renormalize: true; "),
        (AttentionRequest(dtype="uint8"), r"^self_attention.dtype: uint8; expected float32$"),
        (AttentionRequest(rows_of_text="first"), r"^self_attention.rows_of_text: first; "),
        (AttentionRequest(keys_of_text="first"), r"^self_attention.keys_of_text: first; "),
    ],
)
def test_of_the_attention_of_a_step_only_layers_and_heads_are_chosen(attention: AttentionRequest, message: str) -> None:
    """Anything else names the field."""
    with pytest.raises(InvalidInput, match=message):
        check_request(asked(attention={"self": attention}), LIMITS)


@pytest.mark.parametrize(
    ("attention", "message"),
    [
        (AttentionRequest(layers=(3,)), r"^cross_attention.layers: 3; expected from -3 to 2$"),
        (AttentionRequest(heads=(-5,)), r"^cross_attention.heads: -5; expected from -4 to 3$"),
        (AttentionRequest(heads=(0, -4)), r"^cross_attention.heads: \[0, -4\]; expected each at most once$"),
    ],
)
def test_layers_and_heads_that_are_not_there_are_refused(attention: AttentionRequest, message: str) -> None:
    """When they are sought."""
    with pytest.raises(InvalidInput, match=message):
        plan_request(asked(attention={"cross": attention}))


def test_a_model_that_writes_nothing_says_so() -> None:
    """With the code for what a model cannot do."""
    request = asked(model=make_model(CONTRACT))
    for refused in (lambda: check_request(request, LIMITS), lambda: plan_request(request)):
        with pytest.raises(NotPossible, match=r"^model: tiny-text writes no texts; expected a model with generation$"):
            refused()


def test_the_models_own_beams_are_refused_where_the_server_takes_fewer() -> None:
    """And say whose they are; one that is asked for is taken, and that of sampling and of a target."""
    model = make_writer(num_beams=6)
    with pytest.raises(
        InvalidInput, match=r"^num_beams: 6, the model's; expected 1 to 4 \(the server's --max-beams\)$"
    ):
        check_request(asked(model=model), LIMITS)
    for fields in ({"num_beams": 1}, {"sampling": SAMPLED}, {"target": "K"}):
        check_request(asked(model=model, **fields), LIMITS)


def test_a_target_has_as_many_tokens_as_may_be_written() -> None:
    """No more, and some."""
    check_target_length(1, 3)
    check_target_length(3, 3)
    for tokens in (0, 4):
        with pytest.raises(InvalidInput, match=rf"^target: {tokens} tokens; expected 1 to 3 \(max_tokens\)"):
            check_target_length(tokens, 3)


def test_what_is_not_said_is_the_models() -> None:
    """Its start, its length, its beams and its penalty."""
    model = make_writer(num_beams=3, length_penalty=0.6)
    generation = model.contract.generation
    assert generation
    assert plan_request(asked(model=model, num_results=0)) == GenerationPlan(
        generation, {"one": (1,)}, max_tokens=12, num_beams=3, num_results=1, length_penalty=0.6
    )
    for fields in ({"sampling": SAMPLED}, {"target": "K"}):
        assert plan_request(asked(model=model, **fields)).num_beams == 1


def test_a_start_may_be_one_that_is_chosen_among_others() -> None:
    """By its name, or as the default."""
    starts = {"same": (1, 3), "one": (1, 3), "two": (1, 4), "three": (1, 5, 6)}
    for default in ("three", "any"):
        model = make_writer(starts=starts, chosen_starts={"any": ("two", "one")}, default_start=default)
        name = "any" if default == "three" else ""
        check_request(asked(model=model, start=name), LIMITS)
        plan = plan_request(asked(model=model, start=name))
        assert list(plan.starts.items()) == [("two", (1, 4)), ("one", (1, 3))]
        assert [plan.name_start(tokens) for tokens in ((1, 4), (1, 3))] == ["two", "one"]  # not another with the same
        assert plan_request(asked(model=model, start="one")).starts == {"one": (1, 3)}
    with pytest.raises(InvalidInput, match=r"^start: 'some'; expected one of same, one, two, three, any, or none$"):
        check_request(asked(model=model, start="some"), LIMITS)


def test_what_is_said_is_taken() -> None:
    """With negative layers and heads counted from the end, and cross attention first."""
    attention = {
        "self": AttentionRequest(layers=(-1, 0), heads=(-4,)),
        "cross": AttentionRequest(layers=(1,), head_reduction="mean"),
    }
    fields = {"sampling": SAMPLED, "stop": ("a",), "alternatives": 3, "length_penalty": 0.0}
    plan = plan_request(asked(start="three", max_tokens=5, attention=attention, **fields))
    assert plan.starts == {"three": (1, 5, 6)}
    assert plan.max_tokens == 5
    assert plan.length_penalty == 0.0
    assert (plan.sampling, plan.stop, plan.alternatives) == (SAMPLED, ("a",), 3)
    assert plan.attention == (
        AttentionPlan("cross", 1, (0, 1, 2, 3), "mean"),
        AttentionPlan("self", 2, (0,), None),
        AttentionPlan("self", 0, (0,), None),
    )
    beams = plan_request(asked(num_beams=4, num_results=2))
    assert (beams.num_beams, beams.num_results) == (4, 2)


def test_a_target_of_what_cannot_be_written_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tokenizer may know tokens that the network does not."""
    model = make_writer()
    request = GenerationRequest(model, "regard", target="x")
    monkeypatch.setattr(TextWriter, "tokens", lambda self, text: [5, 10_000])
    with pytest.raises(InvalidInput, match=r"^target: token 10000; expected tokens below "):
        _read_target(request, plan_request(request))
