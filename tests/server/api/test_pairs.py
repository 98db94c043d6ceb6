"""Two texts as one input: classified, ranked, attended to, by both protocols; equal to ONNX Runtime alone."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from regard.v1 import regard_pb2 as api
from regard.v1 import types_pb2 as pb
from server.api.open_inference import open_inference_pb2 as oip
from server.api.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from server.api.regard_v1.tensors import read_tensor, write_tensor
from tests.golden import CROSS_ENCODERS, GOLDEN_PAIRS
from tests.server.api.open_inference.messages import Request, make_bytes_request, make_request, read
from tests.server.api.pairs import DOCUMENTS, PAIR, QUERY, encode, feed_of, link_models, run_pair
from tests.server.api.reference import TOLERANCE
from tests.server.asking import CODES, refused
from tests.server.conftest import Running, Serve

FIRST, SECOND = pb.TEXT_OF_PAIR_FIRST, pb.TEXT_OF_PAIR_SECOND


@pytest.fixture(scope="module")
def models_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models that read pairs, and others."""
    return link_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def stub(running: Running) -> GRPCInferenceServiceStub:
    """The server, asked through the Open Inference Protocol."""
    return GRPCInferenceServiceStub(running.channel)


async def test_a_pair_is_classified_by_what_both_say(running: Running) -> None:
    """Its token types are those of the tokenizer: the same texts the other way round are another pair."""
    for first, second in (PAIR, PAIR[::-1]):
        pair = pb.TextPair(first=first, second=second)
        answer = await running.stub.Classify(api.ClassifyRequest(model="tiny-nli", pair=pair))
        logits = run_pair("tiny-nli", first, second)["logits"][0].astype(np.float64)
        expected = np.exp(logits) / np.exp(logits).sum()
        found = {label.index: label.probability for label in answer.labels}
        np.testing.assert_allclose([found[index] for index in range(3)], expected, atol=TOLERANCE)
        assert {label.name for label in answer.labels} == set(CROSS_ENCODERS["tiny-nli"])


def test_token_types_count() -> None:
    """Else the tests here would not see whether they are sent."""
    session = onnxruntime.InferenceSession(GOLDEN_PAIRS / "tiny-rank" / "1" / "model.onnx")
    feed = feed_of("tiny-rank", *PAIR)
    assert feed["token_type_ids"].any()
    (told,), (untold,) = (
        session.run(["logits"], feed | {"token_type_ids": types})
        for types in (feed["token_type_ids"], np.zeros_like(feed["token_type_ids"]))
    )
    assert abs(told - untold).max() > 0.1


async def test_each_of_many_pairs_has_its_labels_or_its_error(running: Running) -> None:
    """The error names which text of which pair; the others are answered."""
    pairs = [PAIR, ("a cat", " "), ("", "a cat"), ("dog " * 40, "cat " * 40), PAIR[::-1]]
    items = [pb.TextPair(first=first, second=second) for first, second in pairs]
    answer = await running.stub.Classify(api.ClassifyRequest(model="tiny-nli", pairs=pb.TextPairs(items=items)))
    assert [bool(result.labels) for result in answer.results] == [True, False, False, False, True]
    messages = [result.error.message for result in answer.results]
    assert messages[1] == "pairs[1].second: empty; expected a text with something in it"
    assert messages[2] == "pairs[2].first: empty; expected a text with something in it"
    assert messages[3] == "pairs[3]: 83 tokens; expected at most 64, or truncate set"
    logits = run_pair("tiny-nli", *PAIR[::-1])["logits"][0]
    assert answer.results[4].labels[0].index == logits.argmax()


async def test_a_pair_that_is_too_long_is_cut_where_it_is_longer(running: Running) -> None:
    """Where the call says so."""
    pair = pb.TextPair(first="a dog", second="cat " * 99)
    asked = api.AttendRequest(model="tiny-nli", pair=pair, truncate=True, attention=pb.AttentionRequest(layers=[0]))
    (found,) = [message async for message in running.stub.Attend(asked)]
    assert found.truncated
    tokens = found.attention.tokens.tokens
    assert (len(tokens), [token.text for token in tokens[:4]]) == (64, ["[CLS]", "a", "dog", "[SEP]"])


async def test_attention_of_a_pair_says_which_text_each_token_is_of(running: Running) -> None:
    """Where it begins and ends counts in its own text; every way to ask gives the same."""
    encoding, pair = encode("tiny-nli", *PAIR), pb.TextPair(first=PAIR[0], second=PAIR[1])
    alone = run_pair("tiny-nli", *PAIR)
    wanted = pb.AttentionRequest()
    answer = await running.stub.Classify(api.ClassifyRequest(model="tiny-nli", pair=pair, attention=wanted))
    stream = running.stub.Attend(api.AttendRequest(model="tiny-nli", pair=pair))
    first, second = [message.attention async for message in stream]
    assert first.tokens == answer.attention.tokens
    for token, part, (start, end) in zip(first.tokens.tokens, encoding.sequence_ids, encoding.offsets, strict=True):
        assert token.of_text == {None: 0, 0: FIRST, 1: SECOND}[part]
        assert (token.start, token.end, token.special) == (start, end, part is None)
        assert part is None or PAIR[part][start:end] == token.text
    for number, layer in enumerate((first.layers[0], second.layers[0])):
        weights = read_tensor("w", layer.weights)
        np.testing.assert_allclose(weights, alone[f"attention.{number}"][0], atol=TOLERANCE)


async def test_a_text_and_a_pair_share_a_batch(start: Serve) -> None:
    """Each with its own token types, as each alone."""
    single, other = api.ClassifyRequest(model="tiny-nli", text=PAIR[0]), classify()
    async with start(cache_bytes=10**6) as server:
        alone = [await server.stub.Classify(request) for request in (single, other)]
    async with start() as server:
        slow = [server.stub.Classify(request) for request in [single, other] * 16]
        answers = await asyncio.gather(*slow)
    assert max(answer.timings.batch_size for answer in answers) > 1
    for answer, expected in zip(answers, alone * 16, strict=True):
        assert [label.index for label in answer.labels] == [label.index for label in expected.labels]
        np.testing.assert_allclose(
            [label.probability for label in answer.labels],
            [label.probability for label in expected.labels],
            atol=TOLERANCE,
        )


async def test_answers_that_are_kept_are_told_apart_by_token_types(start: Serve) -> None:
    """The same tokens as one text, and as two, are two requests."""
    feed = feed_of("tiny-rank", *PAIR)
    untold = feed | {"token_type_ids": np.zeros_like(feed["token_type_ids"])}
    async with start(cache_bytes=10**6) as server:
        found = []
        for given in (feed, untold, feed):
            tensors = {name: write_tensor(array) for name, array in given.items()}
            answer = await server.stub.Predict(api.PredictRequest(model="tiny-rank", inputs=tensors))
            found.append(read_tensor("logits", answer.outputs["logits"]))
    assert abs(found[0] - found[1]).max() > 0.1
    np.testing.assert_array_equal(found[0], found[2])


@pytest.mark.parametrize(("first", "second", "field"), [("a dog", "\u200b", "second"), ("\u200b", "a dog", "first")])
async def test_a_text_that_has_no_tokens_makes_no_pair(first: str, second: str, field: str, running: Running) -> None:
    """The network would score the other one alone."""
    pair = pb.TextPair(first=first, second=second)
    call = running.stub.Classify(api.ClassifyRequest(model="tiny-nli", pair=pair))
    assert await refused(call, rf"pair\.{field}: no token left of \d+; expected a text of which") == (
        CODES.INVALID_ARGUMENT
    )


def classify(model: str = "tiny-nli", **fields: Any) -> api.ClassifyRequest:
    """A call of a pair."""
    return api.ClassifyRequest(model=model, pair=pb.TextPair(first=PAIR[0], second=PAIR[1]), **fields)


async def test_what_cannot_be_a_pair_is_refused(running: Running) -> None:
    """With the field, its value and what was expected."""
    stub = running.stub
    ask, wants = pb.AttentionRequest, "pair: tiny-text takes single texts; expected a model with takes_pairs"
    assert await refused(stub.Classify(classify("tiny-text")), wants) == CODES.FAILED_PRECONDITION
    pairs = pb.TextPairs(items=[pb.TextPair(first="a", second="b")])
    many = api.ClassifyRequest(model="tiny-text", pairs=pairs)
    assert await refused(stub.Classify(many), wants) == CODES.FAILED_PRECONDITION
    assert await refused(stub.Classify(classify("fashion")), "text: fashion takes no text") == CODES.FAILED_PRECONDITION
    none = api.ClassifyRequest(model="tiny-nli", pairs=pb.TextPairs())
    assert await refused(stub.Classify(none), "pairs: 0 of them; expected 1 to 256") == CODES.INVALID_ARGUMENT
    nothing = api.ClassifyRequest(model="tiny-nli")
    assert await refused(stub.Classify(nothing), "input: neither image, text nor pair; expected one of them") == (
        CODES.INVALID_ARGUMENT
    )
    half = api.ClassifyRequest(model="tiny-nli", pair=pb.TextPair(first="a"))
    assert await refused(stub.Classify(half), r"pair\.second: empty; expected a text") == CODES.INVALID_ARGUMENT
    single = api.EmbedRequest(model="tiny-nli", text="a dog", attention=ask(rows_of_text=FIRST))
    assert await refused(stub.Embed(single), r"attention\.rows_of_text: first; expected none: only a pair") == (
        CODES.INVALID_ARGUMENT
    )
    for fields, expected in (
        ({"rows_of_text": FIRST, "rows": [1]}, "rows_of_text: first; expected none together with rows or cls_only"),
        ({"rows_of_text": FIRST, "cls_only": True}, "rows_of_text: first; expected none together with rows or cls"),
        ({"keys_of_text": SECOND, "keys": [1]}, "keys_of_text: second; expected none together with keys"),
        ({"keys_of_text": 7}, "keys_of_text: 7; expected one of the values of TextOfPair"),
    ):
        given: dict[str, Any] = fields
        assert await refused(stub.Classify(classify(attention=ask(**given))), expected) == CODES.INVALID_ARGUMENT
    prompted = api.AttendRequest(model="tiny-nli", pair=pb.TextPair(first="a", second="b"), prompt="query")
    assert await refused(stub.Attend(prompted).read(), "prompt: 'query'; expected none") == CODES.INVALID_ARGUMENT


async def test_models_say_what_they_make_of_pairs(running: Running, stub: GRPCInferenceServiceStub) -> None:
    """And that token types may be left out."""
    listed = {model.name: model for model in (await running.stub.ListModels(api.ListModelsRequest())).models}
    can = {name: (model.takes_pairs, model.can_rank, model.activation) for name, model in listed.items()}
    assert can["tiny-rank"] == (True, True, "sigmoid")
    assert can["tiny-nli"] == (True, False, "softmax")
    assert can["tiny-text"][:2] == can["fashion"][:2] == (False, False)
    optional = {spec.name: spec.optional for spec in listed["tiny-rank"].inputs}
    assert optional == {"input_ids": False, "attention_mask": False, "token_type_ids": True}
    config = (await stub.ModelConfig(oip.ModelConfigRequest(name="tiny-rank"))).config
    assert {one.name: one.optional for one in config.input} == optional
    assert config.parameters["accepts_pairs"].string_value == "true"
    single = (await stub.ModelConfig(oip.ModelConfigRequest(name="tiny-text"))).config
    assert "accepts_pairs" not in single.parameters


async def test_token_types_that_are_left_out_are_zeros(running: Running, stub: GRPCInferenceServiceStub) -> None:
    """By both protocols; those of a pair are taken as they come, and too large ones are refused."""
    feed = feed_of("tiny-rank", *PAIR)
    without = {name: array for name, array in feed.items() if name != "token_type_ids"}
    session = onnxruntime.InferenceSession(GOLDEN_PAIRS / "tiny-rank" / "1" / "model.onnx")
    for given in (feed, without):
        types = given.get("token_type_ids", np.zeros_like(feed["input_ids"]))
        (expected,) = session.run(["logits"], {**without, "token_type_ids": types})
        tensors = {name: write_tensor(array) for name, array in given.items()}
        answer = await running.stub.Predict(api.PredictRequest(model="tiny-rank", inputs=tensors, outputs=["logits"]))
        np.testing.assert_allclose(read_tensor("l", answer.outputs["logits"]), expected, atol=TOLERANCE)
        found = read(await stub.ModelInfer(make_request("tiny-rank", **given)))
        np.testing.assert_allclose(found["logits"], expected, atol=TOLERANCE)
    wrong = {name: write_tensor(array + (name == "token_type_ids")) for name, array in feed.items()}
    call = running.stub.Predict(api.PredictRequest(model="tiny-rank", inputs=wrong))
    assert await refused(call, r"inputs\[token_type_ids\]: a value of 2; expected values from 0 to 1") == (
        CODES.INVALID_ARGUMENT
    )


def of_pairs(model: str, *pairs: tuple[str, str]) -> Request:
    """Pairs of the Open Inference Protocol."""
    request = make_bytes_request(model, "text", *(first.encode() for first, _ in pairs))
    other = make_bytes_request(model, "text_pair", *(second.encode() for _, second in pairs))
    request.inputs.extend(other.inputs)
    request.raw_input_contents.extend(other.raw_input_contents)
    return request


async def test_the_open_inference_protocol_takes_pairs(stub: GRPCInferenceServiceStub) -> None:
    """As text and text_pair, in rows; blocks of attention by parameters."""
    found = read(await stub.ModelInfer(of_pairs("tiny-rank", *((QUERY, text) for text in DOCUMENTS))))
    expected = [run_pair("tiny-rank", QUERY, text)["logits"][0] for text in DOCUMENTS]
    np.testing.assert_allclose(found["logits"], expected, atol=TOLERANCE)
    request = of_pairs("tiny-nli", PAIR)
    request.parameters["attention_layers"].string_param = "1"
    request.parameters["attention_rows_of_text"].string_param = "first"
    request.parameters["attention_keys_of_text"].string_param = "second"
    of_part = encode("tiny-nli", *PAIR).sequence_ids
    rows, keys = ([place for place, part in enumerate(of_part) if part == wanted] for wanted in (0, 1))
    block = run_pair("tiny-nli", *PAIR)["attention.1"][:, :, rows][:, :, :, keys]
    np.testing.assert_allclose(read(await stub.ModelInfer(request))["attention.1"], block, atol=TOLERANCE)


async def test_the_open_inference_protocol_refuses_what_is_no_pair(stub: GRPCInferenceServiceStub) -> None:
    """In the words of its own fields."""
    uneven = of_pairs("tiny-nli", PAIR)
    uneven.inputs[1].shape[0] = 2
    match = r"inputs\[text_pair\]: BYTES \[2\]; expected 1 of BYTES, one for each element of text"
    assert await refused(stub.ModelInfer(uneven), match) == CODES.INVALID_ARGUMENT
    number = make_bytes_request("tiny-nli", "text", b"a dog")
    other = make_request("tiny-nli", text_pair=np.zeros(1, np.int64))
    number.inputs.extend(other.inputs)
    number.raw_input_contents.extend(other.raw_input_contents)
    match = r"inputs\[text_pair\]: INT64 \[1\]; expected 1 of BYTES"
    assert await refused(stub.ModelInfer(number), match) == CODES.INVALID_ARGUMENT
    prompted = of_pairs("tiny-nli", PAIR)
    prompted.parameters["prompt"].string_param = "query"
    match = r"parameters\[prompt\]: 'query'; expected none beside text_pair"
    assert await refused(stub.ModelInfer(prompted), match) == CODES.INVALID_ARGUMENT
    several = of_pairs("tiny-nli", PAIR, PAIR)
    several.parameters["attention_rows_of_text"].string_param = "first"
    match = r"parameters\[attention_rows_of_text\]: first; expected none for 2 rows: only a single pair's"
    assert await refused(stub.ModelInfer(several), match) == CODES.INVALID_ARGUMENT
    empty = of_pairs("tiny-nli", (PAIR[0], " "))
    assert (
        await refused(stub.ModelInfer(empty), r"inputs\[text_pair\]: empty; expected a text") == CODES.INVALID_ARGUMENT
    )
    single = of_pairs("tiny-text", PAIR)
    match = r"inputs\[text_pair\]: tiny-text takes single texts; expected a model with takes_pairs"
    assert await refused(stub.ModelInfer(single), match) == CODES.FAILED_PRECONDITION
    alone = make_bytes_request("tiny-nli", "text_pair", b"a")
    assert (
        await refused(stub.ModelInfer(alone), "inputs: 'text_pair'; expected attention_mask") == CODES.INVALID_ARGUMENT
    )
    request = of_pairs("tiny-nli", PAIR)
    request.parameters["attention_rows_of_text"].string_param = "third"
    match = r"parameters\[attention_rows_of_text\]: 'third'; expected none, first or second"
    assert await refused(stub.ModelInfer(request), match) == CODES.INVALID_ARGUMENT
    text = make_bytes_request("tiny-nli", "text", b"a dog")
    text.parameters["attention_keys_of_text"].string_param = "second"
    match = r"parameters\[attention_keys_of_text\]: second; expected none: only a pair of texts"
    assert await refused(stub.ModelInfer(text), match) == CODES.INVALID_ARGUMENT
