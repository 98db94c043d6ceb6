"""Hidden states through the Open Inference Protocol."""

import shutil
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import pytest

from server.api.open_inference import open_inference_pb2 as pb
from server.api.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.golden import GOLDEN_MODELS
from tests.server.api.open_inference.messages import Request, make_bytes_request, make_request, read, tokens_of
from tests.server.api.reference import TOLERANCE, run_graph
from tests.server.conftest import Serve

TEXT = "the cat sat on the mat"


async def test_states_are_asked_for_by_parameters(stub: GRPCInferenceServiceStub) -> None:
    """Beside the ordinary outputs, hidden_states.LAYER each, counted from 0; the batch stays."""
    request = make_bytes_request("tiny-text", "text", TEXT.encode())
    request.parameters["hidden_states_layers"].string_param = "-1, 0"
    request.parameters["hidden_states_positions"].string_param = "0,2"
    found, alone = read(await stub.ModelInfer(request)), run_graph(TEXT, "hidden.onnx")
    assert list(found) == ["last_hidden_state", "embedding", "logits", "hidden_states.2", "hidden_states.0"]
    for layer in (0, 2):
        name = f"hidden_states.{layer}"
        np.testing.assert_allclose(found[name], alone[name][:, [0, 2]], rtol=0, atol=TOLERANCE)


async def test_states_are_asked_for_as_outputs(stub: GRPCInferenceServiceStub) -> None:
    """Under the names asked for, in that order; pooled, in 8 bits with a scale and an offset a vector."""
    request = make_request("tiny-text", **tokens_of())
    for name in ("hidden_states.-1", "embedding"):
        request.outputs.add(name=name)
    request.parameters["hidden_states_pooling"].string_param = "cls"
    request.parameters["hidden_states_dtype"].string_param = "UINT8"
    found = read(await stub.ModelInfer(request))
    assert list(found) == ["hidden_states.-1", "embedding", "hidden_states.-1.scale", "hidden_states.-1.offset"]
    plain = read(await stub.ModelInfer(make_request("tiny-text", **tokens_of())))["last_hidden_state"][:, 0]
    scale, offset = found["hidden_states.-1.scale"], found["hidden_states.-1.offset"]
    assert scale.shape == offset.shape == (1,)
    values = found["hidden_states.-1"] * scale[:, None] + offset[:, None]
    np.testing.assert_allclose(values, plain, rtol=0, atol=float(scale[0]) / 2 + TOLERANCE)


async def test_several_texts_are_pooled_over_their_own_tokens(stub: GRPCInferenceServiceStub) -> None:
    """The shorter one is padded in the request's own batch."""
    texts = [TEXT, "a dog"]
    request = make_bytes_request("tiny-text", "text", *(text.encode() for text in texts))
    request.outputs.add(name="hidden_states.1")
    request.parameters["hidden_states_pooling"].string_param = "mean"
    request.parameters["hidden_states_normalize"].bool_param = True
    found = read(await stub.ModelInfer(request))["hidden_states.1"]
    for row, text in enumerate(texts):
        mean = run_graph(text, "hidden.onnx")["hidden_states.1"][0].mean(axis=0)
        np.testing.assert_allclose(found[row], mean / np.linalg.norm(mean), rtol=0, atol=TOLERANCE)


def said_not_to_be(request: Request) -> None:
    """Layers, and the word that there are to be none."""
    request.parameters["hidden_states"].bool_param = False
    request.parameters["hidden_states_layers"].int64_param = 0


def named_twice(request: Request) -> None:
    """As an output and as a parameter."""
    request.outputs.add(name="hidden_states.1")
    request.parameters["hidden_states_layers"].int64_param = 0


def text_parameter(name: str, value: str) -> Callable[[Request], None]:
    """Set a parameter."""
    return lambda request: setattr(request.parameters[f"hidden_states_{name}"], "string_param", value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (text_parameter("layers", "3"), r"parameters\[hidden_states_layers\]: 3; expected from -3 to 2"),
        (text_parameter("layers", "last"), r"parameters\[hidden_states_layers\]: 'last'; expected integers"),
        (lambda r: r.outputs.add(name="hidden_states.3"), r"outputs\[hidden_states.3\]: 3; expected from -3 to 2"),
        (
            lambda r: r.outputs.add(name="hidden_states.x"),
            r"outputs\[hidden_states.x\]: 'x'; expected hidden_states.LAY",
        ),
        (text_parameter("pooling", "max"), r"hidden_states_pooling\]: 'max'; expected none, cls, mean or last"),
        (text_parameter("dtype", "INT8"), r"hidden_states_dtype\]: 'INT8'; expected FP32, FP16 or UINT8"),
        (text_parameter("positions", "99"), r"hidden_states_positions\]: 99; expected from -8 to 7"),
        (said_not_to_be, r"parameters\[hidden_states\]: false; expected true beside hidden_states_layers"),
        (named_twice, r"hidden_states_layers\]: \[0\]; expected no layers beside outputs named hidden_states.LAYER"),
        (
            lambda r: [text_parameter("pooling", "last")(r), text_parameter("positions", "1")(r)],
            r"parameters\[hidden_states_positions\]: \[1\]; expected none together with last, which takes one",
        ),
    ],
)
async def test_what_cannot_be_had_is_refused_in_the_protocols_words(
    change: Callable[[Request], object], message: str, stub: GRPCInferenceServiceStub
) -> None:
    """The parameter or the output by its name."""
    request = make_bytes_request("tiny-text", "text", TEXT.encode())
    change(request)
    with pytest.raises(grpc.aio.AioRpcError, match=message) as caught:
        await stub.ModelInfer(request)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_metadata_say_that_they_can_be_had(start: Serve, stub: GRPCInferenceServiceStub, tmp_path: Path) -> None:
    """In the configuration's parameters; among the outputs where the model's settings say so, as attention is."""
    config = (await stub.ModelConfig(pb.ModelConfigRequest(name="tiny-text"))).config
    assert config.parameters["hidden_states_layers"].string_value == "0,1,2"
    metadata = await stub.ModelMetadata(pb.ModelMetadataRequest(name="tiny-text"))
    assert not [one.name for one in metadata.outputs if one.name.startswith("hidden_states.")]
    shutil.copytree(GOLDEN_MODELS / "tiny-text", tmp_path / "tiny-text")
    (tmp_path / "tiny-text" / "config.toml").write_text("list_attention = false\nlist_hidden_states = true\n")
    async with start(models=tmp_path) as running:
        other = GRPCInferenceServiceStub(running.channel)
        metadata = await other.ModelMetadata(pb.ModelMetadataRequest(name="tiny-text"))
        names = [f"hidden_states.{layer}" for layer in range(3)]
        listed = [one for one in metadata.outputs if "." in one.name]
        assert [(one.name, one.datatype, list(one.shape)) for one in listed] == [
            (name, "FP32", [-1, -1, 32]) for name in names
        ]
        config = (await other.ModelConfig(pb.ModelConfigRequest(name="tiny-text"))).config
        assert [(one.name, list(one.dims)) for one in config.output[-3:]] == [(name, [-1, 32]) for name in names]
        request = make_bytes_request("tiny-text", "text", TEXT.encode())
        for one in metadata.outputs:  # as perf_analyzer asks
            request.outputs.add(name=one.name)
        assert list(read(await other.ModelInfer(request))) == [one.name for one in metadata.outputs]
