"""Two towers through the Open Inference Protocol: labels beside images, and which patch answers to which word."""

import asyncio
import shutil
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from regard.v1 import regard_pb2 as api
from regard.v1 import types_pb2 as pb
from server.api.open_inference import open_inference_pb2 as oip
from server.api.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from server.api.regard_v1.tensors import read_tensor
from server.auth.quota import Quota
from server.inference import pipeline, zero_shot
from server.inference.preprocess import check_answer_size, outputs_bytes
from server.inference.request import FirstPart, InferenceRequest, PreparedInput
from server.ledger import Account
from tests.golden import GOLDEN_TOWERS
from tests.server.api.open_inference.messages import Request, make_request, read
from tests.server.api.reference import TOLERANCE
from tests.server.api.towers import (
    LABELS,
    TEMPLATES,
    TOWERS,
    feed_image,
    feed_text,
    link_models,
    picture,
    picture_of_a_point,
    run_image,
    scores,
)
from tests.server.asking import CODES, refused, samples
from tests.server.conftest import Running, Serve

TEXT = "a very good dog"
PHOTO = picture()
MAP = [f"map.{name}" for name in ("similarities", "text_similarities", "similarity", "tokens", "offsets", "special")]
BOB = (("authorization", "Bearer 0123456789abcdef0123456789abcdef"),)


@pytest.fixture(scope="module")
def models_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of two towers, and others."""
    return link_models(tmp_path_factory.mktemp("models"))


def ask(model: str = "tiny-clip", parameters: dict[str, Any] | None = None, **inputs: list[Any]) -> Request:
    """A request of BYTES."""
    request = Request(model_name=model, id="9")
    for name, values in inputs.items():
        contents = [value if isinstance(value, bytes) else value.encode() for value in values]
        tensor = request.inputs.add(name=name, datatype="BYTES", shape=[len(contents)])
        tensor.contents.bytes_contents.extend(contents)
    kinds = {bool: "bool_param", int: "int64_param", str: "string_param"}
    for name, value in (parameters or {}).items():
        setattr(request.parameters[name], kinds[type(value)], value)
    return request


def with_labels(model: str = "tiny-clip", labels: Any = LABELS, images: Any = (PHOTO,), **parameters: Any) -> Request:
    """Images beside labels."""
    return ask(model, parameters, candidate_labels=list(labels), image=list(images))


def of_both(model: str = "tiny-clip", image: Any = PHOTO, text: Any = TEXT, **parameters: Any) -> Request:
    """An image beside a text."""
    return ask(model, parameters, image=[image], text=[text])


def named(request: Request, *outputs: str) -> Request:
    """With these outputs."""
    for name in outputs:
        request.outputs.add(name=name)
    return request


def twice(request: Request, name: str) -> Request:
    """With an input a second time."""
    request.inputs.add().CopyFrom(next(tensor for tensor in request.inputs if tensor.name == name))
    return request


def read_strings(response: oip.ModelInferResponse, name: str) -> list[str]:
    """An output of BYTES."""
    place = [output.name for output in response.outputs].index(name)
    raw, found = response.raw_output_contents[place], list[str]()
    while raw:
        (length,) = struct.unpack_from("<I", raw)
        found.append(raw[4 : 4 + length].decode())
        raw = raw[4 + length :]
    return found


def without(response: oip.ModelInferResponse, name: str) -> oip.ModelInferResponse:
    """All outputs but one."""
    place = [output.name for output in response.outputs].index(name)
    del response.outputs[place]
    del response.raw_output_contents[place]
    return response


@pytest.mark.parametrize("model", TOWERS)
async def test_labels_beside_images_give_scores(model: str, stub: GRPCInferenceServiceStub) -> None:
    """In the order of the labels, of every row, and nothing else unless it is named."""
    found = read(await stub.ModelInfer(with_labels(model, images=[PHOTO, picture(1)])))
    assert list(found) == ["scores"]
    texts = [TEMPLATES[model].replace("{}", label) for label in LABELS]
    expected = [scores(model, content, texts) for content in (PHOTO, picture(1))]
    np.testing.assert_allclose(found["scores"], expected, atol=TOLERANCE)
    asked = with_labels(model, label_template="the {} sat", attention_layers="1", vector_format="FP16")
    found = read(await stub.ModelInfer(named(asked, "embedding", "scores")))
    assert list(found) == ["embedding", "scores", "attention.1"]
    expected = [scores(model, PHOTO, [f"the {label} sat" for label in LABELS])]
    np.testing.assert_allclose(found["scores"], expected, atol=TOLERANCE)
    assert found["embedding"].dtype == np.float16
    np.testing.assert_allclose(found["embedding"], run_image(model, PHOTO)["embedding"], atol=1e-3)
    weights = run_image(model, PHOTO, "attention.onnx")["attention.1"]
    np.testing.assert_allclose(found["attention.1"], weights, atol=TOLERANCE)


async def test_labels_may_stand_beside_a_towers_tensors(stub: GRPCInferenceServiceStub) -> None:
    """Which are images, too."""
    request = ask(candidate_labels=LABELS)
    (pixels,) = feed_image("tiny-clip", PHOTO).values()
    tensor = request.inputs.add(name="pixel_values", datatype="FP32", shape=pixels.shape)
    tensor.contents.fp32_contents.extend(pixels.reshape(-1).tolist())
    alone = read(await stub.ModelInfer(with_labels()))["scores"]
    np.testing.assert_allclose(read(await stub.ModelInfer(request))["scores"], alone, atol=TOLERANCE)


@pytest.mark.parametrize("model", TOWERS)
async def test_an_image_beside_a_text_gives_the_map_of_both(
    model: str, running: Running, stub: GRPCInferenceServiceStub
) -> None:
    """As Align gives it, with patches as they lie on the image."""
    expected = await running.stub.Align(api.AlignRequest(model=model, image=PHOTO, text=TEXT))
    response = await stub.ModelInfer(of_both(model))
    assert [output.name for output in response.outputs] == [*MAP, "map.box"]
    assert read_strings(response, "map.tokens") == [token.text for token in expected.map.tokens.tokens]
    found, grid = read(without(response, "map.tokens")), expected.map.patches
    similarities = read_tensor("s", expected.map.similarities).reshape(1, -1, grid.rows, grid.cols)
    np.testing.assert_allclose(found["map.similarities"], similarities, atol=TOLERANCE)
    whole = read_tensor("s", expected.map.text_similarities).reshape(1, grid.rows, grid.cols)
    np.testing.assert_allclose(found["map.text_similarities"], whole, atol=TOLERANCE)
    np.testing.assert_allclose(found["map.similarity"], [expected.map.similarity], atol=TOLERANCE)
    assert found["map.offsets"].tolist() == [[[token.start, token.end] for token in expected.map.tokens.tokens]]
    assert found["map.special"].tolist() == [[token.special for token in expected.map.tokens.tokens]]
    assert found["map.box"].tolist() == [[grid.box.left, grid.box.top, grid.box.right, grid.box.bottom]]
    one = await stub.ModelInfer(named(of_both(model, text="dog " * 40, truncate=True), "map.similarity"))
    assert list(read(one)) == ["map.similarity"]


async def test_a_stream_answers_the_same(stub: GRPCInferenceServiceStub) -> None:
    """Each request by itself."""

    async def requests() -> Any:
        for request in (with_labels(), of_both(image=b"x"), named(of_both(), "map.similarity")):
            yield request

    answers = [answer async for answer in stub.ModelStreamInfer(requests())]
    outputs = {tuple(one.name for one in answer.infer_response.outputs) for answer in answers}
    assert outputs == {("scores",), (), ("map.similarity",)}
    (error,) = filter(None, (answer.error_message for answer in answers))
    assert error.startswith("inputs[image]: 1 bytes")


async def refusal(call: Any) -> tuple[grpc.StatusCode, str]:
    """Code and words."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


def classify(model: str = "tiny-clip", **fields: Any) -> api.ClassifyRequest:
    """Classify of regard.v1."""
    given: dict[str, Any] = {"image": PHOTO, "candidate_labels": LABELS}
    return api.ClassifyRequest(model=model, **(given | fields))


def align(model: str = "tiny-clip", **fields: Any) -> api.AlignRequest:
    """Align of regard.v1."""
    given: dict[str, Any] = {"image": PHOTO, "text": TEXT}
    return api.AlignRequest(model=model, **(given | fields))


LONG = ["a", "dog " * 30]
FAULTS: dict[str, tuple[Any, Request, str, str]] = {
    "no labels": (
        classify(candidate_labels=[]), with_labels(labels=[]), "candidate_labels", "inputs[candidate_labels]"
    ),
    "a sentence without labels": (
        classify(candidate_labels=[], label_template="a {}"),
        ask(parameters={"label_template": "a {}"}, image=[PHOTO]),
        "candidate_labels",
        "inputs[candidate_labels]",
    ),
    "too many labels": (
        classify(candidate_labels=["a"] * 257),
        with_labels(labels=["a"] * 257),
        "candidate_labels",
        "inputs[candidate_labels]",
    ),
    "an empty label": (
        classify(candidate_labels=["a", " "]),
        with_labels(labels=["a", " "]),
        "candidate_labels[1]",
        "inputs[candidate_labels][1]",
    ),
    "a long label": (
        classify(candidate_labels=LONG),
        with_labels(labels=LONG),
        "candidate_labels[1]",
        "inputs[candidate_labels][1]",
    ),
    "a label of too many bytes": (
        classify(candidate_labels=["a", "b" * 2**19]),
        with_labels(labels=["a", "b" * 2**19]),
        "candidate_labels[1]",
        "inputs[candidate_labels][1]",
    ),
    "a sentence of too many bytes": (
        classify(label_template="{}" + "a" * 2**19),
        with_labels(label_template="{}" + "a" * 2**19),
        "label_template",
        "parameters[label_template]",
    ),
    "a map of a text of too many bytes": (align(text="a" * 2**19), of_both(text="a" * 2**19), "text", "inputs[text]"),
    "labels of too many bytes with their sentence": (
        classify(candidate_labels=["a"] * 256, label_template="{}" + "a" * 4000),
        with_labels(labels=["a"] * 256, label_template="{}" + "a" * 4000),
        "candidate_labels",
        "inputs[candidate_labels]",
    ),
    "a sentence without a place": (
        classify(label_template="a photo"),
        with_labels(label_template="a photo"),
        "label_template",
        "parameters[label_template]",
    ),
    "a long sentence": (
        classify(label_template="{}" + "a" * 4095),
        with_labels(label_template="{}" + "a" * 4095),
        "label_template",
        "parameters[label_template]",
    ),
    "labels of a model that has its own": (
        classify("fashion"), with_labels("fashion"), "candidate_labels", "inputs[candidate_labels]"
    ),
    "a sentence of such a model": (
        classify("tiny-text", candidate_labels=[], label_template="{}"),
        ask("tiny-text", {"label_template": "{}"}, image=[PHOTO]),
        "label_template",
        "parameters[label_template]",
    ),
    "labels for a text": (
        api.ClassifyRequest(model="tiny-clip", text="a", candidate_labels=LABELS),
        ask(candidate_labels=LABELS, text=["a"]),
        "input",
        "inputs",
    ),
    "labels for nothing": (
        api.ClassifyRequest(model="tiny-clip", candidate_labels=LABELS),
        ask(candidate_labels=LABELS),
        "input",
        "inputs",
    ),
    "no image beside labels": (classify(image=b"x"), with_labels(images=[b"x"]), "image", "inputs[image]"),
    "a layer beside labels": (
        classify(attention=pb.AttentionRequest(layers=[2])),
        with_labels(attention_layers=2),
        "attention.layers",
        "parameters[attention_layers]",
    ),
    "a map of a model that has none": (align("tiny-text"), of_both("tiny-text"), "model", "model"),
    "a map of images alone": (align("fashion"), of_both("fashion"), "model", "model"),
    "a map of no text": (align(text=" "), of_both(text=" "), "text", "inputs[text]"),
    "a map of a long text": (align(text="dog " * 40), of_both(text="dog " * 40), "text", "inputs[text]"),
    "a map of no image": (align(image=b""), of_both(image=b""), "image", "inputs[image]"),
    "a map of no picture": (align(image=b"x"), of_both(image=b"x"), "image", "inputs[image]"),
    "a priority": (align(priority=4), of_both(priority=4), "priority", "parameters[priority]"),
}  # fmt: skip


async def test_the_same_fault_gets_the_same_code_and_words(start: Serve) -> None:
    """As by regard.v1, but for the name of the field, which is what the caller wrote."""
    differing = dict[str, Any]()
    async with start(max_message_bytes=1_000_000) as running:
        infer = GRPCInferenceServiceStub(running.channel).ModelInfer
        for fault, (own, other, field, written) in FAULTS.items():
            method = running.stub.Align if isinstance(own, api.AlignRequest) else running.stub.Classify
            code, said = await refusal(method(own))
            found, expected = await refusal(infer(other)), (code, said.replace(f"{field}: ", f"{written}: ", 1))
            if found != expected or not said.startswith(f"{field}: "):
                differing[fault] = (found, expected)
    assert differing == {}


async def test_what_this_protocol_alone_could_get_wrong_is_refused(stub: GRPCInferenceServiceStub) -> None:
    """Datatypes, numbers of elements, outputs, and parameters of something else."""
    numbers = with_labels()
    numbers.inputs[0].datatype = "INT64"
    for request, match in (
        (numbers, r"inputs\[candidate_labels\].datatype: INT64; expected BYTES"),
        (with_labels(labels=[b"a", b"\xff"]), r"inputs\[candidate_labels\]\[1\]: byte 0: 0xff; expected UTF-8"),
        (with_labels(label_template=3), r"parameters\[label_template\]: int64_param 3; expected a string_param"),
        (with_labels(labels=["a" * 2**19]), r"inputs\[candidate_labels\]\[0\]: 524288 bytes; expected at most 262144"),
        (with_labels(prompt="query"), r"parameters\[prompt\]: .*expected none, as there is no text"),
        (named(with_labels(), "map.box"), "outputs: 'map.box'; expected last_hidden_state, embedding, .*; or scores"),
        (named(with_labels(vector_format="INT8"), "scores"), r"outputs: \[\]; expected embedding among them"),
        (ask(candidate_labels=LABELS, image=[PHOTO], text=["a"]), "inputs: image, text; expected an image, or images"),
        (ask(image=[PHOTO, PHOTO], text=["a"]), r"inputs\[image\]: 2 elements; expected 1, to compare"),
        (ask(image=[PHOTO], text=["a", "b"]), r"inputs\[text\]: 2 elements; expected 1, to compare"),
        (named(of_both(), "embedding"), "outputs: 'embedding'; expected map.similarities, .*an image beside a text"),
        (of_both(attention=True), r"parameters\[attention\]: .*True; expected none beside a map"),
        (of_both(hidden_states_layers=1), r"parameters\[hidden_states_layers\]: .* 1; expected none beside a map"),
        (of_both(vector_dimensions=8), r"parameters\[vector_dimensions\]: .* 8; expected none beside a map"),
        (of_both(prompt="query"), r"parameters\[prompt\]: .*; expected none beside a map"),
        (named(of_both(), "hidden_states.1"), "outputs: 'hidden_states.1'; expected map.similarities, "),
        (twice(of_both(), "image"), r"inputs\[image\]: given twice; expected each input once"),
        (twice(ask(image=[PHOTO]), "image"), r"inputs\[image\]: given twice; expected each input once"),
        (twice(with_labels(), "image"), r"inputs\[image\]: given twice; expected each input once"),
        (of_both(label_template="{}"), "inputs: image, text; expected an image, or images, to compare with the labels"),
        (named(ask(image=[PHOTO]), "scores"), "outputs: 'scores'; expected candidate_labels beside image"),
        (named(ask(text=["a"]), "map.box"), "outputs: 'map.box'; expected a text beside image"),
    ):
        assert await refused(stub.ModelInfer(request), match) == CODES.INVALID_ARGUMENT
    tensors = ask(image=[PHOTO])
    tensors.inputs.add(name="text", datatype="INT64", shape=[1, 1]).contents.int64_contents.append(1)
    assert await refused(stub.ModelInfer(tensors), r"inputs: 'text'|inputs\[text\]") == CODES.INVALID_ARGUMENT


@pytest.mark.parametrize(
    "request_of",
    [lambda: ask("tiny-text", text=["a"]), lambda: ask(image=[PHOTO]), with_labels, of_both],
    ids=["a text", "a tower's image", "labels", "a map"],
)
async def test_an_output_without_a_name_is_refused(
    request_of: Callable[[], Request], stub: GRPCInferenceServiceStub
) -> None:
    """As any other that is not there, also beside one that is."""
    for names in ([""], ["embedding", ""]):
        request = named(request_of(), *names)
        assert await refused(stub.ModelInfer(request), "outputs: '(embedding)?'; exp") == CODES.INVALID_ARGUMENT


async def test_a_map_may_say_that_it_wants_no_attention(stub: GRPCInferenceServiceStub) -> None:
    """That is what it gets."""
    request = named(of_both(attention=False, hidden_states=False), "map.similarity")
    assert list(read(await stub.ModelInfer(request))) == ["map.similarity"]


async def test_what_is_refused_holds_nothing_and_runs_nothing(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its caller may take long to read that; by both protocols, whatever is wrong besides the labels."""
    held, hold = dict[str, int](), Account.hold

    def note(account: Account, part: str, size_bytes: int) -> None:
        held[part] = size_bytes
        hold(account, part, size_bytes)

    monkeypatch.setattr(Account, "hold", note)
    infer, batches = GRPCInferenceServiceStub(running.channel).ModelInfer, ("regard_batch_rows_count", "tiny-clip")
    before = (await samples(running)).get(batches)
    for call in (
        infer(named(with_labels(), "nope")),
        infer(with_labels(images=[])),
        infer(with_labels(attention_layers="x")),
        running.stub.Classify(classify(priority=77)),
        running.stub.Classify(classify(attention=pb.AttentionRequest(measure=99))),  # type: ignore[arg-type]
        running.stub.Classify(classify(hidden_states=pb.HiddenStatesRequest(pooling=99))),  # type: ignore[arg-type]
    ):
        assert await refused(call, "expected") == CODES.INVALID_ARGUMENT
    assert {part: held.get(part, 0) for part in ("labels", "kept", "answer")} == {"labels": 0, "kept": 0, "answer": 0}
    assert (await samples(running)).get(batches) == before


async def test_failures_are_counted_wherever_they_are(stub: GRPCInferenceServiceStub) -> None:
    """Alike for requests of one tower, beside labels and of maps; the second part's with the time of the first."""
    for request in (
        named(ask(image=[PHOTO]), "nope"),
        named(with_labels(), "nope"),
        named(of_both(), "nope"),
        of_both(image=b""),
    ):
        before = await failures(stub)
        await refused(stub.ModelInfer(request), "expected")
        assert (await failures(stub)).count == before.count + 1


async def test_a_failure_has_taken_the_time_of_both_parts(
    stub: GRPCInferenceServiceStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an answer has."""
    monkeypatch.setattr(FirstPart, "took_ns", 10**15)
    for request in (with_labels(images=[b"x"]), of_both(image=b"x")):
        before = await failures(stub)
        await refused(stub.ModelInfer(request), "expected")
        assert (await failures(stub)).ns - before.ns > 10**15


async def failures(stub: GRPCInferenceServiceStub) -> oip.StatisticDuration:
    """Of one model."""
    (found,) = (await stub.ModelStatistics(oip.ModelStatisticsRequest(name="tiny-clip"))).model_stats
    failed: oip.StatisticDuration = found.inference_stats.fail
    return failed


async def test_many_labels_are_read_beside_the_event_loop(
    stub: GRPCInferenceServiceStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few are read at once."""
    threads, check = list[bool](), zero_shot._check_labels

    def note(*given: Any) -> None:
        threads.append(threading.current_thread() is threading.main_thread())
        check(*given)

    monkeypatch.setattr(zero_shot, "_check_labels", note)
    await stub.ModelInfer(with_labels())
    await stub.ModelInfer(with_labels(labels=["a" * 500] * 10, truncate=True))
    assert threads == [True, False]


async def test_scores_that_no_message_holds_are_refused(start: Serve) -> None:
    """Before anything is computed."""
    async with start(max_message_bytes=4000) as running:
        stub = GRPCInferenceServiceStub(running.channel)
        many = with_labels(labels=["a"] * 80, images=[picture_of_a_point()] * 13)
        match = "outputs: an answer of 4160 bytes; expected at most 3750 .*fewer labels or rows"
        assert await refused(stub.ModelInfer(many), match) == CODES.INVALID_ARGUMENT


async def test_what_is_compared_here_may_be_larger_than_a_message(start: Serve) -> None:
    """The states of a text of 32 tokens, the vectors of 40 labels; not a map of 33 x 9 numbers."""
    aligned = {
        model: named(of_both(model, picture_of_a_point(), "dog " * 30), "map.text_similarities") for model in TOWERS
    }
    async with start(max_message_bytes=1300) as running:
        stub = GRPCInferenceServiceStub(running.channel)
        for model in TOWERS:
            assert read(await stub.ModelInfer(aligned[model]))["map.text_similarities"].shape == (1, 3, 3)
            labelled = with_labels(model, ["a"] * 40, [picture_of_a_point()])
            assert read(await stub.ModelInfer(labelled))["scores"].shape == (1, 40)
    async with start(max_message_bytes=1200) as running:
        infer = GRPCInferenceServiceStub(running.channel).ModelInfer
        match = r"inputs\[text\]: a map of 1188 bytes; expected at most 1125 .*: a shorter text"
        for model in TOWERS:
            assert await refused(infer(aligned[model]), match) == CODES.INVALID_ARGUMENT


async def test_an_images_vector_counts_where_it_is_sent(
    stub: GRPCInferenceServiceStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside labels it is compared here, unless it is named."""
    sizes = list[int]()

    def note(request: InferenceRequest, prepared: PreparedInput, max_bytes: int) -> None:
        sizes.append(outputs_bytes(request, prepared))
        check_answer_size(request, prepared, max_bytes)

    monkeypatch.setattr(pipeline, "check_answer_size", note)
    await stub.ModelInfer(with_labels())
    await stub.ModelInfer(named(with_labels(), "scores", "embedding"))
    assert sizes == [0, 4 * 12]


async def test_a_client_without_attention_gets_scores_but_no_map(start: Serve, tmp_path: Path) -> None:
    """Nor attention beside labels, before any label is computed; in the words of regard.v1."""
    clients = tmp_path / "clients.toml"
    clients.write_text('[clients.bob]\ntokens = ["0123456789abcdef0123456789abcdef"]\nallow = ["infer"]\n')
    async with start(clients=clients) as server:
        infer = GRPCInferenceServiceStub(server.channel).ModelInfer
        said = await refusal(infer(of_both(), metadata=BOB))
        assert said == await refusal(server.stub.Align(align(), metadata=BOB))
        assert said == (CODES.PERMISSION_DENIED, "map: bob may not; expected a client with 'attention'")
        assert read(await infer(with_labels(), metadata=BOB))["scores"].shape == (1, len(LABELS))
        asked, batches = classify(attention=pb.AttentionRequest()), ("regard_batch_rows_count", "tiny-clip")
        before = (await samples(server))[batches]
        said = await refusal(infer(with_labels(attention=True), metadata=BOB))
        assert (await samples(server))[batches] == before
        assert said == await refusal(server.stub.Classify(asked, metadata=BOB))
        assert said[0] == CODES.PERMISSION_DENIED


async def test_labels_and_both_of_a_map_are_charged(alone: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the quota, each a request but for the first; by the ledger, before they are made; by statistics, once."""
    stub = GRPCInferenceServiceStub(alone.channel)
    counted, held, hold = list[int](), dict[str, list[int]](), Account.hold

    def note(account: Account, part: str, size_bytes: int) -> None:
        held.setdefault(part, []).append(size_bytes)
        hold(account, part, size_bytes)

    monkeypatch.setattr(Quota, "count", lambda quota, requests: counted.append(requests))
    monkeypatch.setattr(Account, "hold", note)
    await stub.ModelInfer(with_labels(labels=["cat", "dog"], label_template="a {}"))
    assert sum(counted) == 2
    assert (held["labels"], held["kept"]) == ([4 * 2 * len("a cat"), 0], [2 * 12 * 4, 0])
    counted.clear()
    await stub.ModelInfer(with_labels(labels=["cat", "dog"], images=[PHOTO] * 3))
    assert sum(counted) == 2 + 2
    counted.clear()
    held.clear()
    await stub.ModelInfer(of_both())
    assert counted == [1]
    assert (held["kept"], held["map"]) == ([4 * (6 + 1) * 12, 0], [2 * 4 * (6 + 1) * 9, 0])
    assert not any(held["answer"][:-1]), "until it is sent: the map is reserved by itself"
    await asyncio.gather(stub.ModelInfer(with_labels(labels=[" "])), return_exceptions=True)
    (found,) = (await stub.ModelStatistics(oip.ModelStatisticsRequest(name="tiny-clip"))).model_stats
    assert (found.inference_stats.success.count, found.inference_stats.fail.count) == (3, 1)
    assert found.inference_count == 3 + 5 + 2


async def test_whatever_metadata_list_can_be_had_at_once(stub: GRPCInferenceServiceStub) -> None:
    """As perf_analyzer asks: for all outputs that are listed, with the tensors of one tower."""
    metadata = await stub.ModelMetadata(oip.ModelMetadataRequest(name="tiny-clip"))
    names = [one.name for one in metadata.outputs]
    inputs = (await stub.ModelConfig(oip.ModelConfigRequest(name="tiny-clip"))).config.input
    assert {one.name: one.optional for one in inputs} == dict.fromkeys(
        ("input_ids", "attention_mask", "pixel_values"), True
    )
    for feed in (feed_text("tiny-clip", TEXT), feed_image("tiny-clip", PHOTO)):
        request = named(make_request("tiny-clip", **feed), *names)
        assert list(read(await stub.ModelInfer(request))) == names
    config = (await stub.ModelConfig(oip.ModelConfigRequest(name="tiny-text"))).config
    assert not any(one.optional for one in config.input)
    assert "accepts_labels" not in config.parameters


async def test_metadata_say_what_can_be_had(start: Serve, tmp_path: Path) -> None:
    """Shapes of the outputs where they are to be listed, and in the configuration what may be sent."""
    shutil.copytree(GOLDEN_TOWERS / "tiny-clip", tmp_path / "tiny-clip")
    (tmp_path / "tiny-clip" / "config.toml").write_text("list_joint_outputs = true\n")
    async with start(models=tmp_path) as running:
        await check_metadata(GRPCInferenceServiceStub(running.channel))


async def check_metadata(stub: GRPCInferenceServiceStub) -> None:
    """Compare what is said with what is given."""
    metadata = await stub.ModelMetadata(oip.ModelMetadataRequest(name="tiny-clip"))
    described = {one.name: (one.datatype, list(one.shape)) for one in metadata.outputs}
    response = await stub.ModelInfer(of_both())
    outputs = {one.name: (one.datatype, list(one.shape)) for one in response.outputs}
    outputs |= {one.name: (one.datatype, list(one.shape)) for one in (await stub.ModelInfer(with_labels())).outputs}
    assert list(described) == ["embedding", "scores", *MAP, "map.box"]
    for name, (datatype, shape) in outputs.items():
        told, sizes = described[name]
        assert (told, len(sizes)) == (datatype, len(shape))
        assert all(size in (-1, own) for size, own in zip(sizes, shape, strict=True))
    config = (await stub.ModelConfig(oip.ModelConfigRequest(name="tiny-clip"))).config
    assert [(one.name, list(one.dims)) for one in config.output[1:]] == [
        (name, sizes[1:]) for name, (_, sizes) in list(described.items())[1:]
    ]
    parameters = {name: config.parameters[name].string_value for name in config.parameters}
    assert parameters == {
        "accepts": "text,image",
        "accepts_labels": "true",
        "accepts_image_with_text": "true",
        "label_template": TEMPLATES["tiny-clip"],
    }
