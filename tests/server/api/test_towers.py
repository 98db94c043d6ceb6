"""Two towers, by both protocols: vectors of one space, the caller's labels, patches beside words, attention of each."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regard.v1 import regard_pb2 as api
from regard.v1 import types_pb2 as pb
from server.api.open_inference import open_inference_pb2 as oip
from server.api.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from server.api.regard_v1.tensors import read_tensor, write_tensor
from server.auth.quota import Quota
from server.ledger import Account
from tests.server.api.open_inference.messages import make_bytes_request, make_request, read
from tests.server.api.reference import TOLERANCE
from tests.server.api.towers import (
    FILLED,
    LABELS,
    TEMPLATES,
    TOWERS,
    feed_image,
    feed_text,
    link_models,
    picture,
    run_image,
    run_text,
    scores,
    unit,
)
from tests.server.asking import CODES, refused, samples
from tests.server.conftest import Running, Serve

TEXT = "a very good dog"
PHOTO = picture()


@pytest.fixture(scope="module")
def models_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of two towers, and others."""
    return link_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def stub(running: Running) -> GRPCInferenceServiceStub:
    """The server, asked through the Open Inference Protocol."""
    return GRPCInferenceServiceStub(running.channel)


@pytest.mark.parametrize("model", TOWERS)
async def test_texts_and_images_become_vectors_of_one_space(model: str, running: Running) -> None:
    """Of length 1, each by its tower; many as well as one, an error in its place."""
    text = await running.stub.Embed(api.EmbedRequest(model=model, text=TEXT))
    image = await running.stub.Embed(api.EmbedRequest(model=model, image=PHOTO))
    for answer, expected in ((text, run_text(model, TEXT)), (image, run_image(model, PHOTO))):
        vector = read_tensor("v", answer.vector)
        np.testing.assert_allclose(vector, expected["embedding"][0], atol=TOLERANCE)
        assert np.linalg.norm(vector) == pytest.approx(1, abs=TOLERANCE)
    many = await running.stub.Embed(api.EmbedRequest(model=model, texts=pb.Texts(items=["a cat", "", TEXT])))
    assert many.results[1].error.message == "texts[1]: empty; expected a text with something in it"
    np.testing.assert_allclose(read_tensor("v", many.results[2].vector), read_tensor("v", text.vector), atol=TOLERANCE)
    photos = await running.stub.Embed(api.EmbedRequest(model=model, images=pb.Images(items=[picture(1), b"x", PHOTO])))
    assert photos.results[1].error.message.startswith("images[1]: ")
    np.testing.assert_allclose(
        read_tensor("v", photos.results[2].vector), read_tensor("v", image.vector), atol=TOLERANCE
    )


@pytest.mark.parametrize("model", TOWERS)
async def test_each_tower_shows_its_attention_and_states(model: str, running: Running) -> None:
    """What fills a text of SigLIP up is among the tokens, as special ones."""
    asked = pb.AttentionRequest(layers=[1])
    text = await running.stub.Embed(api.EmbedRequest(model=model, text=TEXT, attention=asked))
    expected = run_text(model, TEXT, "attention.onnx")["attention.1"][0]
    np.testing.assert_allclose(read_tensor("w", text.attention.layers[0].weights), expected, atol=TOLERANCE)
    tokens = text.attention.tokens.tokens
    assert len(tokens) == (FILLED if model == "tiny-siglip" else 6)
    assert [token.text for token in tokens if not token.special] == TEXT.split()
    states = pb.HiddenStatesRequest(layers=[-1])
    image = await running.stub.Embed(api.EmbedRequest(model=model, image=PHOTO, hidden_states=states))
    expected = run_image(model, PHOTO, "hidden.onnx")["hidden_states.2"][0]
    np.testing.assert_allclose(read_tensor("h", image.hidden_states.layers[0].values), expected, atol=TOLERANCE)
    stream = running.stub.Attend(api.AttendRequest(model=model, image=PHOTO, attention=asked))
    (found,) = [message async for message in stream]
    expected = run_image(model, PHOTO, "attention.onnx")["attention.1"][0]
    np.testing.assert_allclose(read_tensor("w", found.attention.layers[0].weights), expected, atol=TOLERANCE)
    assert (found.attention.patches.rows, found.attention.patches.cols) == (3, 3)


@pytest.mark.parametrize("model", TOWERS)
async def test_tensors_go_to_the_tower_that_has_their_names(model: str, running: Running) -> None:
    """By Predict and Attend of both."""
    for feed, expected in (
        (feed_text(model, TEXT), run_text(model, TEXT)),
        (feed_image(model, PHOTO), run_image(model, PHOTO)),
    ):
        tensors = {name: write_tensor(array) for name, array in feed.items()}
        answer = await running.stub.Predict(api.PredictRequest(model=model, inputs=tensors))
        assert answer.outputs.keys() == expected.keys()
        for name, array in expected.items():
            np.testing.assert_allclose(read_tensor(name, answer.outputs[name]), array, atol=TOLERANCE)
        given = pb.TensorMap(tensors=tensors)
        stream = running.stub.Attend(api.AttendRequest(model=model, tensors=given))
        assert len([message async for message in stream]) >= 2
    both = {name: write_tensor(array) for name, array in (feed_text(model, TEXT) | feed_image(model, PHOTO)).items()}
    call = running.stub.Predict(api.PredictRequest(model=model, inputs=both))
    assert await refused(call, f"expected pixel_values, the inputs of {model}") == CODES.INVALID_ARGUMENT


@pytest.mark.parametrize("model", TOWERS)
async def test_images_are_classified_with_the_callers_labels(model: str, running: Running) -> None:
    """By the softmax of CLIP and the sigmoid of SigLIP; the attention is that of the image."""
    texts = [TEMPLATES[model].replace("{}", label) for label in LABELS]
    expected = scores(model, PHOTO, texts)
    asked = api.ClassifyRequest(
        model=model, image=PHOTO, candidate_labels=LABELS, attention=pb.AttentionRequest(layers=[0])
    )
    answer = await running.stub.Classify(asked)
    assert [label.index for label in answer.labels] == np.argsort(-expected, kind="stable").tolist()
    for label in answer.labels:
        assert label.name == LABELS[label.index]
        assert label.probability == pytest.approx(expected[label.index], abs=TOLERANCE)
    weights = run_image(model, PHOTO, "attention.onnx")["attention.0"][0]
    np.testing.assert_allclose(read_tensor("w", answer.attention.layers[0].weights), weights, atol=TOLERANCE)
    assert answer.timings.batch_size >= 1
    best = await running.stub.Classify(api.ClassifyRequest(model=model, image=PHOTO, candidate_labels=LABELS, top_k=1))
    assert [label.index for label in best.labels] == [int(expected.argmax())]


@pytest.mark.parametrize("model", TOWERS)
async def test_many_images_are_classified_with_the_same_labels(model: str, running: Running) -> None:
    """Each with its own scores or its error; the sentence is the caller's."""
    images = pb.Images(items=[PHOTO, b"no image", picture(1)])
    request = api.ClassifyRequest(model=model, images=images, candidate_labels=LABELS, label_template="the {} sat")
    answer = await running.stub.Classify(request)
    assert answer.results[1].error.message.startswith("images[1]: ")
    for number, content in ((0, PHOTO), (2, picture(1))):
        expected = scores(model, content, [f"the {label} sat" for label in LABELS])
        found = {label.index: label.probability for label in answer.results[number].labels}
        np.testing.assert_allclose([found[index] for index in range(len(LABELS))], expected, atol=TOLERANCE)


async def test_labels_that_cannot_be_used_are_refused(running: Running) -> None:
    """With the field, its value and what was expected; with the code of what the model cannot do."""
    classify = running.stub.Classify

    def ask(model: str = "tiny-clip", **fields: Any) -> api.ClassifyRequest:
        given: dict[str, Any] = {"image": PHOTO, "candidate_labels": LABELS}
        return api.ClassifyRequest(model=model, **(given | fields))

    for request, match in (
        (ask(candidate_labels=[]), "candidate_labels: none; expected some: tiny-clip has none of its own"),
        (ask(candidate_labels=["a"] * 257), "candidate_labels: 257 of them; expected 1 to 256"),
        (ask(candidate_labels=["a", " "]), r"candidate_labels\[1\]: empty; expected a text with something in it"),
        (ask(candidate_labels=["a", "dog " * 30]), r"candidate_labels\[1\]: 41 tokens; expected at most 32, or trunc"),
        (ask(candidate_labels=["a" * 2**19]), r"candidate_labels\[0\]: 524288 bytes; expected at most"),
        (ask(label_template="{}" + "a" * 4095), "label_template: 4097 characters; expected at most 4096"),
        (ask(label_template="a photo"), r"label_template: 0 of {}; expected one {}, where a label goes"),
        (ask(label_template="{} {}"), r"label_template: 2 of {}; expected one {}"),
        (ask(image=b""), "image"),
        (
            api.ClassifyRequest(model="tiny-clip", text="a", candidate_labels=LABELS),
            "input: text; expected an image, or images",
        ),
        (api.ClassifyRequest(model="tiny-clip", candidate_labels=LABELS), "input: none; expected an image"),
        (ask(top_k=-1), "top_k: -1"),
        (ask(priority=4), "priority: 4"),
        (ask(attention=pb.AttentionRequest(layers=[2])), "layers: 2; expected from -2 to 1"),
    ):
        assert await refused(classify(request), match) == CODES.INVALID_ARGUMENT
    match = "candidate_labels: tiny-text has labels of its own, or none; expected a model of two towers"
    assert await refused(classify(ask("tiny-text")), match) == CODES.FAILED_PRECONDITION
    alone = api.ClassifyRequest(model="fashion", image=PHOTO, label_template="{}")
    assert await refused(classify(alone), "label_template: fashion has labels") == CODES.FAILED_PRECONDITION
    cut = await classify(ask(candidate_labels=["a", "dog " * 30], truncate=True))
    assert len(cut.labels) == 2
    rank = api.RankRequest(model="tiny-clip", query="a", documents=pb.Texts(items=["b"]))
    assert await refused(running.stub.Rank(rank), "gives pairs of texts no single score") == CODES.FAILED_PRECONDITION


async def test_labels_are_counted_before_they_are_made(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """With their sentence, four bytes a character; and given back when they are read."""
    held, hold = list[int](), Account.hold

    def note(account: Account, part: str, size_bytes: int) -> None:
        held.extend([size_bytes] if part == "labels" else [])
        hold(account, part, size_bytes)

    monkeypatch.setattr(Account, "hold", note)
    request = api.ClassifyRequest(
        model="tiny-clip", image=PHOTO, candidate_labels=["cat", "dog"], label_template="a {}"
    )
    await running.stub.Classify(request)
    assert held == [4 * 2 * len("a cat"), 0]


async def test_labels_and_images_are_counted_as_requests(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each, by the client's quota: but for the first, which was counted when the request was admitted."""
    counted = list[int]()
    monkeypatch.setattr(Quota, "count", lambda quota, requests: counted.append(requests))
    await running.stub.Classify(api.ClassifyRequest(model="tiny-clip", image=PHOTO, candidate_labels=LABELS))
    assert sum(counted) == len(LABELS)
    counted.clear()
    images = pb.Images(items=[PHOTO] * 3)
    await running.stub.Classify(api.ClassifyRequest(model="tiny-clip", images=images, candidate_labels=LABELS))
    assert sum(counted) == len(LABELS) + 2
    counted.clear()
    await running.stub.Align(api.AlignRequest(model="tiny-clip", image=PHOTO, text=TEXT))
    assert counted == [1]


async def test_both_parts_of_a_call_are_counted_as_one(alone: Running) -> None:
    """By statistics and metrics, with the rows and the time of both; an input that failed is one, too."""
    stub = GRPCInferenceServiceStub(alone.channel)

    async def counted() -> tuple[int, int, int, int]:
        (found,) = (await stub.ModelStatistics(oip.ModelStatisticsRequest(name="tiny-clip"))).model_stats
        figures = found.inference_stats
        return figures.success.count, figures.compute_input.count, figures.fail.count, found.inference_count

    images = pb.Images(items=[PHOTO, b"no image"])
    await alone.stub.Classify(api.ClassifyRequest(model="tiny-clip", image=PHOTO, candidate_labels=LABELS))
    assert await counted() == (1, 1, 0, len(LABELS) + 1)
    await alone.stub.Classify(api.ClassifyRequest(model="tiny-clip", images=images, candidate_labels=LABELS))
    await alone.stub.Align(api.AlignRequest(model="tiny-clip", image=PHOTO, text=TEXT))
    assert await counted() == (3, 3, 0, 2 * (len(LABELS) + 1) + 2)
    for call in (
        alone.stub.Classify(api.ClassifyRequest(model="tiny-clip", image=b"x", candidate_labels=LABELS)),
        alone.stub.Align(api.AlignRequest(model="tiny-clip", image=b"x", text=TEXT)),
        alone.stub.Align(api.AlignRequest(model="tiny-clip", image=PHOTO, text=" ")),
    ):
        await refused(call, "expected")
    assert (await counted())[:3] == (3, 3, 3)
    found = await samples(alone)
    assert found[("regard_stage_seconds_count", "hidden", "tiny-clip", "compute")] == 1
    assert ("regard_hidden_states_sent_bytes_total", "tiny-clip") not in found, "a map's are compared here"
    assert found[("regard_failed_inputs_total", "INVALID_ARGUMENT")] == 1


async def test_what_is_kept_between_both_parts_is_given_back(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the answer is sent, which its caller may take long to read; also where the second part fails."""
    held, hold = dict[str, list[int]](), Account.hold

    def note(account: Account, part: str, size_bytes: int) -> None:
        held.setdefault(part, []).append(size_bytes)
        hold(account, part, size_bytes)

    monkeypatch.setattr(Account, "hold", note)
    vectors, floats = len(LABELS) * 12 * 4, 4 * (6 + 1) * 12
    for image in (PHOTO, b"no image"):
        label = api.ClassifyRequest(model="tiny-clip", image=image, candidate_labels=LABELS)
        align = api.AlignRequest(model="tiny-clip", image=image, text=TEXT)
        calls: tuple[tuple[Any, Any, dict[str, int]], ...] = (
            (running.stub.Classify, label, {"kept": vectors}),
            (running.stub.Align, align, {"kept": floats, "map": 2 * 4 * (6 + 1) * 9}),
        )
        for method, request, expected in calls:
            held.clear()
            await asyncio.gather(method(request), return_exceptions=True)
            assert {part: held[part] for part in expected} == {part: [size, 0] for part, size in expected.items()}


async def test_a_map_and_what_it_is_made_of_are_counted_once(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """When its room is sought, the text's states are gone: its tokens' vectors are kept, and the one of the whole."""
    parts, before, hold = dict[str, int](), list[dict[str, int]](), Account.hold

    def note(account: Account, part: str, size_bytes: int) -> None:
        parts[part] = size_bytes
        before.extend([dict(parts)] if part == "map" and size_bytes else [])
        hold(account, part, size_bytes)

    monkeypatch.setattr(Account, "hold", note)
    await running.stub.Align(api.AlignRequest(model="tiny-clip", image=PHOTO, text=TEXT))
    (found,) = before
    floats = {"result": 12, "answer": 0, "kept": (6 + 1) * 12, "map": 2 * (6 + 1) * 9}
    assert {part: found[part] for part in floats} == {part: 4 * count for part, count in floats.items()}


@pytest.mark.parametrize("model", TOWERS)
async def test_a_map_says_which_patch_answers_to_which_word(model: str, running: Running) -> None:
    """The cosines of projected states; the text's own vector and the image's are Embed's."""
    answer = await running.stub.Align(api.AlignRequest(model=model, image=PHOTO, text=TEXT))
    words = unit(run_text(model, TEXT, "hidden.onnx")["hidden_states.projected"][0])
    grid = answer.map.patches
    patches = unit(run_image(model, PHOTO, "hidden.onnx")["hidden_states.projected"][0])[grid.prefix_tokens :]
    found = read_tensor("s", answer.map.similarities)
    assert found.shape == (len(answer.map.tokens.tokens), grid.rows * grid.cols)
    np.testing.assert_allclose(found, words @ patches.T, atol=TOLERANCE)
    text, image = run_text(model, TEXT)["embedding"][0], run_image(model, PHOTO)["embedding"][0]
    np.testing.assert_allclose(read_tensor("s", answer.map.text_similarities), patches @ text, atol=TOLERANCE)
    assert answer.map.similarity == pytest.approx(float(text @ image), abs=TOLERANCE)
    assert (grid.image_width, grid.image_height) == (50, 40)
    assert (answer.model, answer.version, answer.truncated) == (model, "1", False)


async def test_what_cannot_be_aligned_is_refused(running: Running) -> None:
    """With the field, its value and what was expected."""
    align = running.stub.Align
    for model in ("tiny-text", "fashion"):
        request = api.AlignRequest(model=model, image=PHOTO, text=TEXT)
        match = f"model: {model} cannot align; expected two towers with can_align"
        assert await refused(align(request), match) == CODES.FAILED_PRECONDITION
    for request, match in (
        (api.AlignRequest(model="tiny-clip", image=PHOTO), "text: empty; expected a text with something in it"),
        (api.AlignRequest(model="tiny-clip", text=TEXT), "image: empty; expected a JPEG, PNG or WebP file"),
        (api.AlignRequest(model="tiny-clip", image=b"x", text=TEXT), "image: 1 bytes"),
        (api.AlignRequest(model="tiny-clip", image=PHOTO, text="dog " * 40), "text: 42 tokens; expected at most 32"),
        (api.AlignRequest(model="tiny-clip", image=PHOTO, text=TEXT, priority=9), "priority: 9"),
    ):
        assert await refused(align(request), match) == CODES.INVALID_ARGUMENT
    cut = await align(api.AlignRequest(model="tiny-clip", image=PHOTO, text="dog " * 40, truncate=True))
    assert cut.truncated


async def test_a_client_without_attention_gets_no_map(start: Serve, tmp_path: Path) -> None:
    """It tells what attention tells: where in the image a word is."""
    clients = tmp_path / "clients.toml"
    clients.write_text('[clients.bob]\ntokens = ["0123456789abcdef0123456789abcdef"]\nallow = ["infer"]\n')
    metadata = (("authorization", "Bearer 0123456789abcdef0123456789abcdef"),)
    async with start(clients=clients) as server:
        request = api.AlignRequest(model="tiny-clip", image=PHOTO, text=TEXT)
        assert await refused(server.stub.Align(request, metadata=metadata), "attention") == CODES.PERMISSION_DENIED
        labels = api.ClassifyRequest(model="tiny-clip", image=PHOTO, candidate_labels=LABELS)
        assert (await server.stub.Classify(labels, metadata=metadata)).labels


async def test_models_say_that_they_are_two_towers(running: Running, stub: GRPCInferenceServiceStub) -> None:
    """And describe each."""
    listed = {model.name: model for model in (await running.stub.ListModels(api.ListModelsRequest())).models}
    assert listed.keys() == {*TOWERS, "tiny-text", "fashion"}
    for name in TOWERS:
        model, towers = listed[name], listed[name].towers
        assert (model.modality, model.can_embed, model.can_classify) == (pb.MODALITY_TEXT_OR_IMAGE, True, False)
        assert (model.embedding_normalized, model.similarity) == (True, "cosine")
        assert (towers.text.modality, towers.image.modality) == (pb.MODALITY_TEXT, pb.MODALITY_IMAGE)
        assert towers.text.max_tokens == model.max_tokens == FILLED
        assert len(towers.text.attention_layers) == 2
        assert towers.can_align
        assert towers.label_template == TEMPLATES[name]
        assert towers.logit_scale == pytest.approx(np.exp(2.0), rel=1e-6)
        assert (towers.text.name, towers.image.version) == (name, "1")
        assert {spec.name for spec in model.inputs} >= {"input_ids", "pixel_values"}
    assert [listed[name].towers.activation for name in TOWERS] == ["softmax", "sigmoid"]
    assert not listed["tiny-text"].HasField("towers")
    config = (await stub.ModelConfig(oip.ModelConfigRequest(name="tiny-clip"))).config
    assert config.parameters["accepts"].string_value == "text,image"
    metadata = await stub.ModelMetadata(oip.ModelMetadataRequest(name="tiny-clip"))
    assert {spec.name for spec in metadata.inputs} == {"input_ids", "attention_mask", "pixel_values"}
    assert [spec.name for spec in metadata.outputs] == ["embedding"]


@pytest.mark.parametrize("model", TOWERS)
async def test_the_open_inference_protocol_takes_texts_images_or_tensors(model: str, alone: Running) -> None:
    """In rows; each by its tower, with its attention."""
    stub = GRPCInferenceServiceStub(alone.channel)
    found = read(await stub.ModelInfer(make_bytes_request(model, "text", b"a cat", TEXT.encode())))
    expected = [run_text(model, text)["embedding"][0] for text in ("a cat", TEXT)]
    np.testing.assert_allclose(found["embedding"], expected, atol=TOLERANCE)
    request = make_bytes_request(model, "image", PHOTO)
    request.parameters["attention_layers"].string_param = "1"
    found = read(await stub.ModelInfer(request))
    np.testing.assert_allclose(found["embedding"], run_image(model, PHOTO)["embedding"], atol=TOLERANCE)
    weights = run_image(model, PHOTO, "attention.onnx")["attention.1"]
    np.testing.assert_allclose(found["attention.1"], weights, atol=TOLERANCE)
    found = read(await stub.ModelInfer(make_request(model, **feed_image(model, PHOTO))))
    np.testing.assert_allclose(found["embedding"], run_image(model, PHOTO)["embedding"], atol=TOLERANCE)
    counted = await stub.ModelStatistics(oip.ModelStatisticsRequest(name=model))
    assert counted.model_stats[0].inference_count == 4
    wrong = make_bytes_request(model, "image", PHOTO)
    wrong.inputs.add(name="text_pair", datatype="BYTES", shape=[1]).contents.bytes_contents.append(b"a")
    assert await refused(stub.ModelInfer(wrong), "inputs: '") == CODES.INVALID_ARGUMENT
