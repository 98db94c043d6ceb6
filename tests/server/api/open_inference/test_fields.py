"""Fields by which requests are refused, as callers of the Open Inference Protocol write them."""

import pytest

from server.api.open_inference.fields import rename_fields
from server.errors import InvalidInput

GIVEN = "given; expected none with num_beams of 2"
TWICE = "[2, -1]; expected each at most once"


@pytest.mark.parametrize("what", ["attention", "hidden_states", "cross_attention", "self_attention"])
@pytest.mark.parametrize(
    ("field", "rest", "outputs", "parameters", "named"),
    [
        ("{}.layers", "5; expected from -2 to 1", ["{}.5", "{}.0"], [], "outputs[{}.5]"),
        ("{}.layers", "5; expected from -2 to 1", ["{}.05"], [], "outputs[{}.*]"),
        ("{}.layers", TWICE, ["{}.2", "{}.-1"], ["{}"], "outputs[{}.*]"),
        ("{}.layers", "8 numbers; expected at most 2, each once", ["{}.2"], [], "outputs[{}.*]"),
        ("{}.layers", TWICE, ["token"], ["{}", "{}_layers"], "parameters[{}_layers]"),
        ("{}.layers", "1 x 2; expected the same", [], ["{}"], "parameters[{}]"),
        ("{}.layers", "1 x 2; expected the same", [], ["{}_measure"], "parameters[{}_layers]"),
        ("{}.heads", "5; expected from -2 to 1", ["{}.5"], ["{}_heads"], "parameters[{}_heads]"),
    ],
)
def test_layers_are_named_as_they_were_asked_for(
    what: str, field: str, rest: str, outputs: list[str], parameters: list[str], named: str
) -> None:
    """By an output each, by all of them, by the parameter of layers, or by that of all; heads by their parameter."""
    assert renamed(what, field, rest, outputs, parameters) == f"{named.format(what)}: {rest}"


@pytest.mark.parametrize("what", ["cross_attention", "self_attention"])
@pytest.mark.parametrize(
    ("outputs", "parameters", "named"),
    [
        (["token", "{}.2"], [], "outputs[{}.*]"),
        (["{}.2"], ["{}", "{}_heads"], "outputs[{}.*]"),
        (["token"], ["{}"], "parameters[{}]"),
        ([], ["{}", "{}_layers"], "parameters[{}_layers]"),
        ([], ["{}_heads"], "parameters[{}]"),
        (["other_attention.2"], ["other_attention_layers", "{}"], "parameters[{}]"),
    ],
)
def test_what_steps_attend_to_is_named_as_it_was_asked_for(
    what: str, outputs: list[str], parameters: list[str], named: str
) -> None:
    """Where all of it is refused."""
    assert renamed(what, "{}", GIVEN, outputs, parameters) == f"{named.format(what)}: {GIVEN}"


@pytest.mark.parametrize(
    ("field", "rest", "named", "said"),
    [
        ("relevance.labels[1]", "'a'; expected b", "parameters[relevance_labels][1]", "'a'; expected b"),
        (
            "relevance.top",
            "1; expected none beside relevance.label",
            "parameters[relevance_top]",
            "1; expected none beside relevance_label",
        ),
        ("relevance", "x; expected y", "parameters[relevance]", "x; expected y"),
    ],
)
def test_what_is_explained_is_named_by_its_parameters(field: str, rest: str, named: str, said: str) -> None:
    """And so are others that what was expected names."""
    assert renamed("", field, rest, [], ["relevance_top"]) == f"{named}: {said}"


def renamed(what: str, field: str, rest: str, outputs: list[str], parameters: list[str]) -> str:
    """What is said of a field of attention or hidden states."""
    error = InvalidInput(field.format(what), *rest.split("; expected "))
    rename_fields(error, ["text"], [name.format(what) for name in outputs], [name.format(what) for name in parameters])
    return str(error)
