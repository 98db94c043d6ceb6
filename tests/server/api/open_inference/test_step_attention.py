"""Several texts to stop at, and what each step attended to, through the Open Inference Protocol."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server.api.open_inference import open_inference_pb2 as pb
from server.api.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from server.attention.request import AttentionRequest
from server.generation.request import GeneratedText, StepAttention
from tests.server.api.generator import CROSS, FIRST, LAST, MEAN, FakeGenerator
from tests.server.api.open_inference.messages import Array, Request, make_request
from tests.server.api.open_inference.messages import read as read_arrays
from tests.server.api.open_inference.writing import asked, stream
from tests.server.asking import CODES, refused
from tests.server.conftest import Running, Serve, link_models

LATER = np.array([0.5, 0.25, 0.125, 0.125], dtype=np.float32)  # of self attention, one key more than MEAN
LATER_CROSS = CROSS[::-1].copy()
ENDING = dataclasses.replace(
    LAST,
    attention=(
        StepAttention("cross", 1, (0, 3), False, LATER_CROSS),
        StepAttention("self", 2, (0, 1, 2, 3), True, LATER),
    ),
)
STEPS = {"cross_attention.1", "self_attention.2"}


@pytest.fixture(scope="module")
def models_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of few models, since some tests start a server."""
    return link_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def stub(writing: Running, generator: FakeGenerator) -> GRPCInferenceServiceStub:
    """A server whose model writes two tokens, with the attention of each."""
    generator.tokens = (FIRST, ENDING)
    generator.results = (GeneratedText((FIRST, ENDING), "c", -0.75, "end"),)
    return GRPCInferenceServiceStub(writing.channel)


def with_stop(*texts: bytes, **parameters: Any) -> Request:
    """A request for a text that ends behind any of these."""
    request = asked(**parameters)
    tensor = request.inputs.add(name="stop", datatype="BYTES", shape=[len(texts)])
    tensor.contents.bytes_contents.extend(texts)
    return request


def named(request: Request, *outputs: str) -> Request:
    """Ask for outputs."""
    for name in outputs:
        request.outputs.add(name=name)
    return request


def attention_of(response: pb.ModelInferResponse) -> dict[str, Array]:
    """Those outputs that are attention; with them stand no texts."""
    return read_arrays(response)


async def test_an_input_has_several_texts_to_stop_at(stub: GRPCInferenceServiceStub, generator: FakeGenerator) -> None:
    """None of them where it is empty."""
    await stub.ModelInfer(with_stop(b"x", "\u00e9t\u00e9".encode(), max_tokens=7))
    await stub.ModelInfer(with_stop())
    (several, _, _), (none, _, _) = generator.requests
    assert (several.text, several.stop, several.max_tokens) == ("the cat", ("x", "\u00e9t\u00e9"), 7)
    assert none.stop == ()


async def test_texts_to_stop_at_that_cannot_be_used_are_refused(stub: GRPCInferenceServiceStub) -> None:
    """By the input's name; of a model that writes nothing, too."""
    numbers = asked()
    numbers.inputs.add(name="stop", datatype="INT32", shape=[1]).contents.int_contents.append(3)
    elsewhere = make_request("fashion")
    elsewhere.inputs.append(with_stop(b"x").inputs[1])
    for request, message in (
        (with_stop(b"x", stop="y"), r"parameters\[stop\]: string_param 'y'; expected none beside the input stop"),
        (with_stop(b"\xff"), r"inputs\[stop\]\[0\]: byte 0: 0xff; expected UTF-8"),
        (numbers, r"inputs\[stop\].datatype: INT32; expected BYTES"),
        (elsewhere, r"inputs: 'stop'; expected pixel_values"),
    ):
        assert await refused(stub.ModelInfer(request), message) == CODES.INVALID_ARGUMENT


async def test_parameters_ask_for_the_attention_of_each_step(
    stub: GRPCInferenceServiceStub, generator: FakeGenerator
) -> None:
    """Sent with each token, behind its outputs; the last response has none."""
    parameters = {"cross_attention_layers": "0,-1", "cross_attention_heads": "0,3", "self_attention_layers": 2}
    parameters |= {"self_attention_reduce": "mean"}
    request = named(asked(**parameters), "log_probability")
    first, last, end = [answer.infer_response for answer in await stream(stub, request)]
    assert [output.name for output in first.outputs] == ["log_probability", "cross_attention.1", "self_attention.2"]
    found, later = attention_of(first), attention_of(last)
    np.testing.assert_array_equal(found["cross_attention.1"], CROSS[np.newaxis, :, np.newaxis])  # [1, H, 1, K]
    np.testing.assert_array_equal(later["cross_attention.1"], LATER_CROSS[np.newaxis, :, np.newaxis])
    np.testing.assert_array_equal(found["self_attention.2"], MEAN[np.newaxis, np.newaxis])  # [1, 1, K]
    np.testing.assert_array_equal(later["self_attention.2"], LATER[np.newaxis, np.newaxis])
    assert not end.outputs
    assert generator.requests[0][0].attention == {
        "cross": AttentionRequest(layers=(0, -1), heads=(0, 3)),
        "self": AttentionRequest(layers=(2,), head_reduction="mean"),
    }


@pytest.mark.parametrize(("kind", "other"), [("cross", "self"), ("self", "cross")])
async def test_a_flag_asks_for_all_layers_of_one_kind(
    stub: GRPCInferenceServiceStub, generator: FakeGenerator, kind: Any, other: Any
) -> None:
    """As an output asks for one; a flag that is false asks for nothing."""
    await stub.ModelInfer(asked(**{f"{kind}_attention": True, f"{other}_attention": False}))
    await stub.ModelInfer(named(asked(**{f"{kind}_attention_heads": 1}), f"{kind}_attention.2"))
    (all_layers, _, _), (one, _, _) = generator.requests
    assert all_layers.attention == {kind: AttentionRequest()}
    assert one.attention == {kind: AttentionRequest(layers=(2,), heads=(1,))}


async def test_outputs_name_what_each_step_attended_to(stub: GRPCInferenceServiceStub) -> None:
    """In their order, under the names that were asked for."""
    request = named(asked(), "self_attention.-1", "log_probability", "cross_attention.1")
    first, _, end = [answer.infer_response for answer in await stream(stub, request)]
    assert [output.name for output in first.outputs] == ["self_attention.-1", "log_probability", "cross_attention.1"]
    np.testing.assert_array_equal(attention_of(first)["self_attention.-1"], MEAN[np.newaxis, np.newaxis])
    assert not end.outputs


async def test_the_whole_has_the_attention_of_all_tokens(stub: GRPCInferenceServiceStub) -> None:
    """A row each; of keys that a token had not yet, 0."""
    request = named(asked(cross_attention=True, self_attention=True), "log_probability")
    found = attention_of(await stub.ModelInfer(request))
    assert found.keys() == {"log_probability"} | STEPS
    np.testing.assert_array_equal(found["cross_attention.1"], np.stack([CROSS, LATER_CROSS], axis=1)[np.newaxis])
    np.testing.assert_array_equal(found["self_attention.2"], [[[*MEAN, 0.0], LATER]])


@pytest.mark.parametrize(
    ("parameters", "outputs", "message"),
    [
        (
            {"cross_attention_layers": "x"},
            (),
            r"parameters\[cross_attention_layers\]: 'x'; expected integers separated",
        ),
        ({"self_attention_heads": "1,,2"}, (), r"parameters\[self_attention_heads\]: ''; expected integers separated"),
        ({"self_attention_reduce": "sum"}, (), r"parameters\[self_attention_reduce\]: 'sum'; expected none, mean, max"),
        ({"cross_attention": 1}, (), r"parameters\[cross_attention\]: int64_param 1; expected a bool_param"),
        (
            {"cross_attention": False, "cross_attention_heads": 1},
            (),
            r"parameters\[cross_attention\]: false; expected true beside cross_attention_heads",
        ),
        ({"cross_attention_rows": 0}, (), r"parameters: 'cross_attention_rows'; expected one of"),
        ({}, ("cross_attention.last",), r"outputs\[cross_attention.last\]: 'last'; expected cross_attention.LAYER"),
        (
            {"self_attention_layers": 1},
            ("self_attention.0",),
            r"parameters\[self_attention_layers\]: .*expected no layers beside outputs named self_attention.LAYER",
        ),
    ],
)
async def test_attention_that_cannot_be_read_is_refused(
    stub: GRPCInferenceServiceStub, parameters: dict[str, Any], outputs: tuple[str, ...], message: str
) -> None:
    """By the name of the parameter or of the output."""
    call = stub.ModelInfer(named(asked(**parameters), *outputs))
    assert await refused(call, message) == CODES.INVALID_ARGUMENT


async def test_models_that_write_nothing_have_no_steps(stub: GRPCInferenceServiceStub) -> None:
    """Their parameters and outputs are refused."""
    image = make_request("fashion")
    image.parameters["self_attention"].bool_param = True
    assert await refused(stub.ModelInfer(image), r"parameters\[self_attention\]") == CODES.INVALID_ARGUMENT
    del image.parameters["self_attention"]
    call = stub.ModelInfer(named(image, "cross_attention.0"))
    assert await refused(call, "outputs: 'cross_attention.0'; expected last_hidden_state") == CODES.INVALID_ARGUMENT


async def test_attention_that_no_message_holds_ends_the_text(generator: FakeGenerator, start: Serve) -> None:
    """With regard.v1's words, and nothing is written behind."""
    large = (StepAttention("cross", 0, (0,), False, np.zeros((1, 40_000), dtype=np.float32)),)
    generator.tokens = tuple(dataclasses.replace(one, attention=large) for one in (FIRST, LAST))
    generator.results = (GeneratedText(generator.tokens, "c", -0.75, "end"),)
    async with start(max_message_bytes=100_000) as running:
        stub = GRPCInferenceServiceStub(running.channel)
        answers = await stream(stub, asked(cross_attention=True))
        (error,) = [answer.error_message for answer in answers]
        assert error.startswith("parameters[cross_attention]: an answer of 160")
        assert "(the server's --max-message-bytes): fewer layers or heads" in error
        for request, field in (
            (asked(cross_attention=True), "parameters[cross_attention]"),
            (named(asked(), "cross_attention.-1"), "outputs[cross_attention.*]"),
        ):
            message = f"{re.escape(field)}: an answer of 320.*ModelStreamInfer, which sends each token by itself"
            assert await refused(stub.ModelInfer(request), message) == CODES.INVALID_ARGUMENT


async def test_keys_that_a_token_had_not_yet_count_in_an_answer(generator: FakeGenerator, start: Serve) -> None:
    """Its size is known by the arrays alone, before they are made: two rows of 20,000 keys, though one has a key."""
    tokens = tuple(
        dataclasses.replace(one, attention=(StepAttention("self", 0, (0,), True, np.ones(keys, dtype=np.float32)),))
        for one, keys in ((FIRST, 1), (LAST, 20_000))
    )
    generator.results = (GeneratedText(tokens, "c", -0.75, "end"),)
    async with start(max_message_bytes=100_000) as running:
        call = GRPCInferenceServiceStub(running.channel).ModelInfer(asked(self_attention=True))
        assert await refused(call, r"parameters\[self_attention\]: an answer of 160000 bytes") == CODES.INVALID_ARGUMENT


@pytest.mark.parametrize("kind", ["cross", "self"])
async def test_attention_needs_permission(generator: FakeGenerator, start: Serve, tmp_path: Path, kind: str) -> None:
    """By parameter and by output; a text does not."""
    clients = tmp_path / "clients.toml"
    clients.write_text('[clients.writer]\ntokens = ["a-secret-of-sixteen"]\nallow = ["infer"]\n')
    async with start(clients=clients) as running:
        stub, metadata = GRPCInferenceServiceStub(running.channel), (("authorization", "Bearer a-secret-of-sixteen"),)
        await stub.ModelInfer(with_stop(b"x"), metadata=metadata)
        what = f"{kind}_attention"
        for request, field in (
            (asked(**{f"{what}_layers": 0}), f"parameters[{what}_layers]"),
            (named(asked(), f"{what}.0"), f"outputs[{what}.*]"),
        ):
            call = stub.ModelInfer(request, metadata=metadata)
            message = f"{re.escape(field)}: writer may not; expected a client with 'attention'"
            assert await refused(call, message) == CODES.PERMISSION_DENIED
    assert len(generator.requests) == 1


async def test_a_model_says_what_its_steps_attend_to(stub: GRPCInferenceServiceStub) -> None:
    """Each layer of both kinds, and that it takes texts to stop at; others have neither."""
    metadata = await stub.ModelMetadata(pb.ModelMetadataRequest(name="tiny-text"))
    tensors = {output.name: (output.datatype, list(output.shape)) for output in metadata.outputs}
    assert tensors["cross_attention.0"] == tensors["self_attention.0"] == ("FP32", [-1, 1, -1, -1])
    config = (await stub.ModelConfig(pb.ModelConfigRequest(name="tiny-text"))).config
    listed = {output.name: list(output.dims) for output in config.output}
    assert listed["cross_attention.0"] == [1, -1, -1]
    assert "cross_attention.1" not in listed  # it has one layer
    assert config.parameters["accepts_stop"].string_value == "true"
    other = (await stub.ModelConfig(pb.ModelConfigRequest(name="fashion"))).config
    assert "accepts_stop" not in other.parameters
    assert not any("_attention." in output.name for output in other.output)
