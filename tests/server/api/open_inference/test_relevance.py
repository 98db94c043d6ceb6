"""Relevance of labels through the Open Inference Protocol."""

import json
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import pytest

from regard.v1 import regard_pb2 as api
from regard.v1 import types_pb2 as regard
from server.api.open_inference import open_inference_pb2 as pb
from server.api.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.server.api.open_inference.messages import (
    Request,
    make_bytes_request,
    make_request,
    read,
    tokens_of,
)
from tests.server.api.reference import TOLERANCE
from tests.server.asking import samples, values_of
from tests.server.conftest import Running, Serve

TEXT = "the cat sat on the mat"
TEXTS = [TEXT, "a dog", "it was not a very good film"]
CLOTHING = [
    (Path(__file__).parents[4] / "examples" / "clothing" / f"{name}.png").read_bytes() for name in ("sandal", "sneaker")
]
ALL = ["values", "score", "rest", "unsent", "label", "error", "relative_error"]


def text_request(*texts: str) -> Request:
    """Of the text model."""
    return make_bytes_request("tiny-text", "text", *(text.encode() for text in texts or (TEXT,)))


def ask(request: Request, **parameters: str | int | bool) -> Request:
    """Set parameters, as their kinds are."""
    kinds = {str: "string_param", int: "int64_param", bool: "bool_param"}
    for name, value in parameters.items():
        setattr(request.parameters[f"relevance_{name}" if name != "relevance" else name], kinds[type(value)], value)
    return request


def check_same(found: dict[str, np.ndarray], row: tuple[int, ...], why: regard.Relevance) -> None:
    """All that one answer says, bit by bit."""
    told = {name: getattr(why, name) for name in ("score", "rest", "unsent", "error", "relative_error", "baseline")} | {
        "label": why.index,
        "values": values_of(why),
    }
    for name, value in told.items():
        if name in ("error", "relative_error", "baseline") and not why.HasField(name):
            assert f"relevance.{name}" not in found
        else:
            np.testing.assert_array_equal(found[f"relevance.{name}"][row], value, err_msg=name)


async def test_it_is_what_regards_own_protocol_gives(stub: GRPCInferenceServiceStub, running: Running) -> None:
    """To the last bit; beside the logits, which it explains."""
    found = read(await stub.ModelInfer(ask(text_request(), relevance=True)))
    assert list(found) == ["logits", *(f"relevance.{name}" for name in ALL)]
    own = await running.stub.Classify(
        api.ClassifyRequest(model="tiny-text", text=TEXT, relevance=regard.RelevanceRequest())
    )
    assert found["relevance.values"].shape == (1, len(TEXT.split()) + 2)
    check_same(found, (0,), own.relevance)
    chosen = ask(text_request(), label="positive", against="negative", drop_special=True)
    found = read(await stub.ModelInfer(chosen))
    wanted = regard.RelevanceRequest(label="positive", against="negative", drop_special=True)
    own = await running.stub.Classify(api.ClassifyRequest(model="tiny-text", text=TEXT, relevance=wanted))
    check_same(found, (0,), own.relevance)
    assert found["relevance.positions"].tolist() == [list(own.relevance.positions)]
    assert found["relevance.unsent"][0] != 0


@pytest.mark.parametrize("method", ["gradient", "integrated-gradients", "genatt", "legrad"])
async def test_so_it_is_by_other_methods(method: str, stub: GRPCInferenceServiceStub, running: Running) -> None:
    """With a list of labels, which is an axis; the logits are those of the image itself."""
    number = f"RELEVANCE_METHOD_{method.upper().replace('-', '_')}"
    steps = 5 if method == "integrated-gradients" else 0
    request = make_bytes_request("fashion", "image", CLOTHING[0])
    plain = read(await stub.ModelInfer(request))["logits"]
    ask(request, labels='["Sandal", "T-shirt/top"]', method=method, steps=steps)
    found = read(await stub.ModelInfer(request))
    wanted = regard.RelevanceRequest(labels=["Sandal", "T-shirt/top"], method=number, steps=steps)
    own = await running.stub.Classify(api.ClassifyRequest(model="fashion", image=CLOTHING[0], relevance=wanted))
    assert found["relevance.values"].shape == (1, 2, 50)
    for place, why in enumerate(own.relevances):
        check_same(found, (0, place), why)
    np.testing.assert_allclose(found["logits"], plain, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    "parameters",
    [
        {"relevance": True},
        {"label": "negative", "against": "positive"},
        {"top": 2},
        {"labels": '["positive", "negative"]'},
    ],
    ids=lambda given: next(iter(given)),
)
async def test_rows_are_explained_each_as_alone(
    parameters: dict[str, str | int | bool], stub: GRPCInferenceServiceStub
) -> None:
    """Of unequal length: behind the shorter ones there are zeros."""
    together = read(await stub.ModelInfer(ask(text_request(*TEXTS), **parameters)))
    assert together["relevance.values"].shape[-1] == max(len(text.split()) for text in TEXTS) + 2
    labels = []
    for row, text in enumerate(TEXTS):
        alone = read(await stub.ModelInfer(ask(text_request(text), **parameters)))
        length = alone["relevance.values"].shape[-1]
        for name in ("logits", "relevance.score", "relevance.rest", "relevance.label", "relevance.unsent"):
            np.testing.assert_allclose(together[name][row], alone[name][0], rtol=0, atol=TOLERANCE, err_msg=name)
        values = together["relevance.values"][row]
        np.testing.assert_allclose(values[..., :length], alone["relevance.values"][0], rtol=0, atol=TOLERANCE)
        assert not values[..., length:].any()
        labels.append(alone["relevance.label"].tolist())
    assert together["relevance.error"].max() < TOLERANCE


async def test_rows_have_their_own_most_probable_labels_by_many_points(
    stub: GRPCInferenceServiceStub, running: Running
) -> None:
    """Of images, whose labels differ; patches alone."""
    request = make_bytes_request("fashion", "image", *CLOTHING)
    ask(request, top=2, method="integrated-gradients", steps=4, drop_special=True)
    found = read(await stub.ModelInfer(request))
    assert found["relevance.values"].shape == (2, 2, 49)
    assert found["relevance.positions"].tolist() == [list(range(1, 50))] * 2
    assert found["logits"].shape == (2, 10)
    assert found["relevance.label"].tolist() == np.argsort(-found["logits"], axis=1)[:, :2].tolist()
    assert found["relevance.label"][0, 0] != found["relevance.label"][1, 0]
    method = regard.RELEVANCE_METHOD_INTEGRATED_GRADIENTS
    wanted = regard.RelevanceRequest(top=2, method=method, steps=4, drop_special=True)
    for row, image in enumerate(CLOTHING):
        own = await running.stub.Classify(api.ClassifyRequest(model="fashion", image=image, relevance=wanted))
        for place, why in enumerate(own.relevances):
            np.testing.assert_allclose(
                found["relevance.values"][row, place], values_of(why), rtol=0, atol=10 * TOLERANCE
            )
            assert found["relevance.baseline"][row, place] == pytest.approx(why.baseline, abs=10 * TOLERANCE)


async def test_it_is_asked_for_as_outputs_too(stub: GRPCInferenceServiceStub) -> None:
    """Those alone, in their order; of a caller's own tokens, and again as it was understood."""
    request = make_request("tiny-text", **tokens_of())
    for name in ("relevance.score", "relevance.values"):
        request.outputs.add(name=name)
    for _ in range(2):
        found = read(await stub.ModelInfer(request))
        assert list(found) == ["relevance.score", "relevance.values"]
    every = read(await stub.ModelInfer(ask(make_request("tiny-text", **tokens_of()), relevance=True)))
    np.testing.assert_array_equal(found["relevance.values"], every["relevance.values"])
    total = every["relevance.values"].sum() + every["relevance.rest"][0]
    assert total == pytest.approx(every["logits"].max(), abs=TOLERANCE)


Change = Callable[[Request], object]


def with_(**parameters: str | int | bool) -> Change:
    """Set parameters."""
    return lambda request: ask(request, **parameters)


def with_output(*names: str, **parameters: str | int | bool) -> Change:
    """Name outputs."""
    return lambda request: (ask(request, **parameters), [request.outputs.add(name=name) for name in names])


def beside_attention(request: Request) -> None:
    """Two graphs."""
    ask(request, relevance=True).parameters["attention"].bool_param = True


def beside_states(request: Request) -> None:
    """Likewise."""
    with_output("hidden_states.0", "relevance.values")(request)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_(relevance=1), r"parameters\[relevance\]: int64_param 1; expected a bool_param"),
        (with_(relevance=False, top=1), r"parameters\[relevance\]: false; expected true beside relevance_top"),
        (with_(label="no"), r"parameters\[relevance_label\]: 'no'; expected one of Model.labels: negative, positive"),
        (with_(label=3), r"parameters\[relevance_label\]: int64_param 3; expected a string_param"),
        (with_(against="no", label="positive"), r"parameters\[relevance_against\]: 'no'; expected one of Model.labels"),
        (with_(against="no"), r"parameters\[relevance_against\]: 'no'; expected none without relevance_label"),
        (with_(method="lrp"), r"parameters\[relevance_method\]: 'lrp'; expected libra, gradient, .* or legrad"),
        (with_(steps=7), r"parameters\[relevance_steps\]: 7; expected none but with integrated-gradients"),
        (with_(steps="7"), r"parameters\[relevance_steps\]: string_param '7'; expected an int64_param"),
        (with_(steps=2**40), r"parameters\[relevance_steps\]: 1099511627776; expected a whole number of 32 bits"),
        (with_(top=33), r"parameters\[relevance_top\]: 33; expected 0 to 32"),
        (with_(top=1, label="positive"), r"parameters\[relevance_top\]: 1; expected none beside relevance_label"),
        (with_(labels="positive"), r"parameters\[relevance_labels\]: 'positive'; expected a list of labels as JSON"),
        (with_(labels="[1]"), r"parameters\[relevance_labels\]: '\[1\]'; expected a list of labels as JSON"),
        (with_(labels="[]"), r"parameters\[relevance_labels\]: '\[\]'; expected a list of labels as JSON"),
        (with_(labels="[" * 9999), r"parameters\[relevance_labels\]: '\[\[.*; expected a list of labels as JSON"),
        (with_(labels='["' + "a" * 2**16), r"parameters\[relevance_labels\]: 65538 characters; expected at most 65536"),
        (with_(labels='["positive", "\\ud800"]'), r"parameters\[relevance_labels\]\[1\]: '.ud800'; expected one of"),
        (with_(labels='["positive", "no"]'), r"parameters\[relevance_labels\]\[1\]: 'no'; expected one of Model.lab"),
        (with_(drop_special="yes"), r"parameters\[relevance_drop_special\]: string_param 'yes'; expected a bool_param"),
        (with_output("relevance.nope"), r"outputs\[relevance.nope\]: 'relevance.nope'; expected one of relevance.val"),
        (
            with_output("relevance.error", method="genatt"),
            r"outputs\[relevance.error\]: by genatt; expected a method that has it: libra, integrated-gradients",
        ),
        (with_output("relevance.baseline"), r"outputs\[relevance.baseline\]: by libra; expected .* integrated-gradien"),
        (with_output("relevance.positions"), r"outputs\[relevance.positions\]: without relevance_drop_special"),
        (with_output("embedding", relevance=True), r"outputs\[embedding\]: beside relevance; expected logits alone"),
        (beside_attention, r"parameters\[relevance\]: beside attention; expected one of both, or a call for each"),
        (beside_states, r"outputs\[relevance.\*\]: beside hidden_states; expected one of both"),
    ],
)
async def test_what_cannot_be_had_is_refused_in_the_protocols_words(
    change: Change, message: str, stub: GRPCInferenceServiceStub
) -> None:
    """The parameter or the output by its name, the value, and what was expected."""
    request = text_request()
    change(request)
    with pytest.raises(grpc.aio.AioRpcError, match=message) as caught:
        await stub.ModelInfer(request)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_special_positions_of_several_texts_are_the_callers_to_know(stub: GRPCInferenceServiceStub) -> None:
    """As those of attention are."""
    with pytest.raises(grpc.aio.AioRpcError, match=r"parameters\[relevance_drop_special\]: true; expected false: only"):
        await stub.ModelInfer(ask(text_request(*TEXTS), drop_special=True))


async def test_so_many_rows_are_refused_before_any_is_computed(stub: GRPCInferenceServiceStub) -> None:
    """By labels and points."""
    request = ask(text_request(*["a dog"] * 3), labels='["positive", "negative"]', method="libra")
    assert read(await stub.ModelInfer(request))["relevance.score"].shape == (3, 2)
    images = make_bytes_request("fashion", "image", *[CLOTHING[0]] * 16)
    ask(images, method="integrated-gradients")
    message = r"parameters\[relevance\]: 1056 rows to compute \(16 x 66 by labels and steps\); expected at most 1024"
    with pytest.raises(grpc.aio.AioRpcError, match=message) as caught:
        await stub.ModelInfer(images)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (make_request("free", x=np.ones((1, 4), np.float32)), r"parameters\[relevance\]: free was exported without"),
        (make_bytes_request("tiny-clip", "image", CLOTHING[0]), r"parameters\[relevance\]: .* was exported without"),
    ],
    ids=["bare", "towers"],
)
async def test_a_model_without_it_says_so(request_: Request, message: str, stub: GRPCInferenceServiceStub) -> None:
    """It is none of the caller's numbers that is wrong."""
    asked = Request()
    asked.CopyFrom(request_)
    with pytest.raises(grpc.aio.AioRpcError, match=message) as caught:
        await stub.ModelInfer(ask(asked, relevance=True))
    assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION


async def test_methods_that_a_model_lacks_are_refused(stub: GRPCInferenceServiceStub) -> None:
    """With those that it has, which its configuration names, too, as the labels."""
    message = r"parameters\[relevance_method\]: tiny-text was exported without genatt; expected libra"
    with pytest.raises(grpc.aio.AioRpcError, match=message) as caught:
        await stub.ModelInfer(ask(text_request(), method="genatt"))
    assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    config = (await stub.ModelConfig(pb.ModelConfigRequest(name="tiny-text"))).config
    assert config.parameters["relevance_methods"].string_value == "libra"
    assert json.loads(config.parameters["labels"].string_value) == ["negative", "positive"]
    metadata = await stub.ModelMetadata(pb.ModelMetadataRequest(name="tiny-text"))
    assert not [one.name for one in metadata.outputs if one.name.startswith("relevance.")]
    free = (await stub.ModelConfig(pb.ModelConfigRequest(name="free"))).config
    assert "relevance_methods" not in free.parameters


async def test_neither_callers_labels_nor_maps_have_it(stub: GRPCInferenceServiceStub) -> None:
    """A classifier's own labels are explained."""
    request = make_bytes_request("tiny-clip", "image", CLOTHING[0])
    request.inputs.add(name="candidate_labels", datatype="BYTES", shape=[1]).contents.bytes_contents.append(b"cat")
    message = r"parameters\[relevance\]: beside candidate_labels; expected none"
    with pytest.raises(grpc.aio.AioRpcError, match=message):
        await stub.ModelInfer(ask(request, relevance=True))
    request = make_bytes_request("tiny-clip", "image", CLOTHING[0])
    request.inputs.add(name="text", datatype="BYTES", shape=[1]).contents.bytes_contents.append(b"cat")
    with pytest.raises(grpc.aio.AioRpcError, match=r"parameters\[relevance_top\]: .*; expected none beside a map"):
        await stub.ModelInfer(ask(request, top=1))


async def test_a_client_without_permission_has_none(start: Serve, tmp_path: Path) -> None:
    """That of attention; what it explains is to be had."""
    clients = tmp_path / "clients.toml"
    clients.write_text('[clients.reader]\ntokens = ["a-secret-of-sixteen"]\nallow = ["infer"]\n')
    async with start(clients=clients) as running:
        stub, metadata = GRPCInferenceServiceStub(running.channel), [("authorization", "Bearer a-secret-of-sixteen")]
        assert "logits" in read(await stub.ModelInfer(text_request(), metadata=metadata))
        for request in (ask(text_request(), relevance=True), text_request()):
            if not request.parameters:
                request.outputs.add(name="relevance.values")
            with pytest.raises(grpc.aio.AioRpcError, match="relevance") as caught:
                await stub.ModelInfer(request, metadata=metadata)
            assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED


async def test_what_is_kept_is_kept_by_what_was_asked(start: Serve) -> None:
    """The same again comes from memory, another label does not."""
    async with start(cache_bytes=2**20) as running:
        stub = GRPCInferenceServiceStub(running.channel)
        first = read(await stub.ModelInfer(ask(text_request(), label="positive")))
        again = read(await stub.ModelInfer(ask(text_request(), label="positive")))
        other = read(await stub.ModelInfer(ask(text_request(), label="negative")))
        np.testing.assert_array_equal(first["relevance.values"], again["relevance.values"])
        assert [one["relevance.label"].tolist() for one in (first, other)] == [[1], [0]]
        assert not np.allclose(first["relevance.values"], other["relevance.values"])
        found = await samples(running)
        told = [found["regard_cache_lookups_total", outcome] for outcome in ("hit", "miss")]
        assert told == [1, 2]
