"""What a model has put before texts, asked for by both protocols."""

import json
import shutil
from pathlib import Path

import grpc
import numpy as np
import pytest

from regard.v1 import regard_pb2 as api
from regard.v1 import types_pb2 as pb
from server.api.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from server.api.regard_v1.tensors import read_tensor, write_tensor
from server.config import EMBEDDED_MODELS
from tests.golden import GOLDEN_MODELS
from tests.server.api.open_inference.messages import Request, make_bytes_request, make_request, read, tokens_of
from tests.server.api.reference import TOLERANCE, run_alone
from tests.server.conftest import Running

PROMPTS = {"query": "see the dog: ", "document": ""}
TEXT = "a cat sat"


@pytest.fixture(scope="module")
def models_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models whose contracts have prompts, with a default and without; and one of images."""
    folder = tmp_path_factory.mktemp("models")
    for name, default in (("asks", "query"), ("plain", "")):
        shutil.copytree(GOLDEN_MODELS / "tiny-text", folder / name)
        file = folder / name / "1" / "contract.json"
        contract = json.loads(file.read_text())
        contract["name"] = name
        contract["text"] |= {"prompts": PROMPTS, "default_prompt": default}
        contract["embedding"]["similarity"] = "dot"
        file.write_text(json.dumps(contract))
    (folder / "tiny-text").symlink_to(GOLDEN_MODELS / "tiny-text")
    (folder / "fashion").symlink_to(EMBEDDED_MODELS / "fashion")
    return folder


@pytest.fixture
def stub(running: Running) -> GRPCInferenceServiceStub:
    """The server, asked through the Open Inference Protocol."""
    return GRPCInferenceServiceStub(running.channel)


def by_parameter(model: str, prompt: str) -> Request:
    """A text of the Open Inference Protocol with a prompt."""
    request = make_bytes_request(model, "text", TEXT.encode())
    request.outputs.add(name="embedding")
    if prompt:
        request.parameters["prompt"].string_param = prompt
    return request


@pytest.mark.parametrize(
    ("model", "prompt", "before"),
    [
        ("asks", "", PROMPTS["query"]),
        ("asks", "query", PROMPTS["query"]),
        ("asks", "document", ""),
        ("plain", "", ""),
        ("plain", "query", PROMPTS["query"]),
        ("tiny-text", "", ""),
    ],
)
async def test_a_text_is_read_behind_its_prompt(
    model: str, prompt: str, before: str, running: Running, stub: GRPCInferenceServiceStub
) -> None:
    """The one that is asked for, else the model's default; equal to a run of both together, by every call."""
    alone = run_alone(before + TEXT)
    asked = pb.AttentionRequest()
    answer = await running.stub.Embed(api.EmbedRequest(model=model, text=TEXT, prompt=prompt, attention=asked))
    np.testing.assert_allclose(read_tensor("v", answer.vector), alone["embedding"][0], atol=TOLERANCE)
    request = api.AttendRequest(model=model, text=TEXT, prompt=prompt)
    shown = [message async for message in running.stub.Attend(request)]
    for layer, message in enumerate(shown):
        weights = read_tensor("w", message.attention.layers[0].weights)
        np.testing.assert_allclose(weights, alone[f"attention.{layer}"][0], atol=TOLERANCE)
    found = read(await stub.ModelInfer(by_parameter(model, prompt)))
    np.testing.assert_allclose(found["embedding"], alone["embedding"], atol=TOLERANCE)


async def test_each_of_many_texts_is_read_behind_the_prompt(running: Running) -> None:
    """With attention or without; an unknown prompt fails the call, and so does one beside images."""
    many = pb.Texts(items=[TEXT, "the dog"])
    for attention in (None, pb.AttentionRequest()):
        answer = await running.stub.Embed(api.EmbedRequest(model="asks", texts=many, attention=attention))
        for text, result in zip(many.items, answer.results, strict=True):
            alone = run_alone(PROMPTS["query"] + text)["embedding"][0]
            np.testing.assert_allclose(read_tensor("v", result.vector), alone, atol=TOLERANCE)
    with pytest.raises(grpc.aio.AioRpcError, match="prompt: 'passage'; expected query, document, the prompts of asks"):
        await running.stub.Embed(api.EmbedRequest(model="asks", texts=many, prompt="passage"))
    images = pb.Images(items=[b"x"])
    with pytest.raises(grpc.aio.AioRpcError, match="prompt: 'query'; expected none, as there is no text"):
        await running.stub.Embed(api.EmbedRequest(model="fashion", images=images, prompt="query"))


async def test_a_prompts_tokens_are_shown_but_are_no_part_of_the_text(running: Running) -> None:
    """Not special, so that drop_special leaves them; the others say where in the sent text they lie."""
    request = api.EmbedRequest(model="asks", text=TEXT, attention=pb.AttentionRequest(drop_special=True))
    answer = await running.stub.Embed(request)
    tokens = answer.attention.tokens.tokens
    assert [token.text for token in tokens] == ["[CLS]", "see", "the", "dog", ":", "a", "cat", "sat", "[SEP]"]
    assert [token.special for token in tokens] == [True, *[False] * 7, True]
    assert [(token.start, token.end) for token in tokens[:5]] == [(0, 0)] * 5
    assert [TEXT[token.start : token.end] for token in tokens[5:8]] == ["a", "cat", "sat"]
    assert list(answer.attention.layers[0].keys) == list(range(1, 8))


async def test_a_prompt_counts_as_tokens(running: Running) -> None:
    """62 words fit beside the special tokens, but not behind four more; cut where that is allowed, at the end."""
    text = " ".join(["cat"] * 62)
    await running.stub.Embed(api.EmbedRequest(model="asks", text=text, prompt="document"))
    with pytest.raises(grpc.aio.AioRpcError, match="text: 68 tokens; expected at most 64, or truncate set"):
        await running.stub.Embed(api.EmbedRequest(model="asks", text=text))
    assert (await running.stub.Embed(api.EmbedRequest(model="asks", text=text, truncate=True))).truncated


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("asks", "prompt: 'passage'; expected query, document, the prompts of asks"),
        ("tiny-text", "prompt: 'passage'; expected none: tiny-text has no prompts"),
    ],
)
async def test_unknown_prompts_are_refused_with_the_known_ones(
    model: str, expected: str, running: Running, stub: GRPCInferenceServiceStub
) -> None:
    """By both protocols, each as its callers write it."""
    with pytest.raises(grpc.aio.AioRpcError, match=expected) as caught:
        await running.stub.Embed(api.EmbedRequest(model=model, text=TEXT, prompt="passage"))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(grpc.aio.AioRpcError, match=expected.replace("prompt:", r"parameters\[prompt\]:", 1)) as caught:
        await stub.ModelInfer(by_parameter(model, "passage"))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_prompt_without_a_text_is_refused(running: Running, stub: GRPCInferenceServiceStub) -> None:
    """Beside an image, and beside tensors; a parameter that is no text is none."""
    expected = "'query'; expected none, as there is no text to put it before"
    with pytest.raises(grpc.aio.AioRpcError, match=f"prompt: {expected}"):
        await running.stub.Embed(api.EmbedRequest(model="fashion", image=b"x", prompt="query"))
    request = api.AttendRequest(model="asks", prompt="query")
    for name, array in tokens_of().items():
        request.tensors.tensors[name].CopyFrom(write_tensor(array))
    with pytest.raises(grpc.aio.AioRpcError, match=f"prompt: {expected}"):
        await running.stub.Attend(request).read()
    infer = make_request("asks", **tokens_of())
    infer.parameters["prompt"].string_param = "query"
    with pytest.raises(grpc.aio.AioRpcError, match=rf"parameters\[prompt\]: {expected}"):
        await stub.ModelInfer(infer)
    infer.parameters["prompt"].int64_param = 1
    with pytest.raises(grpc.aio.AioRpcError, match=r"parameters\[prompt\]: int64_param 1; expected a string_param"):
        await stub.ModelInfer(infer)


async def test_prompts_and_the_similarity_are_described(running: Running) -> None:
    """Nothing where there is nothing."""
    asks = (await running.stub.GetModel(api.GetModelRequest(model="asks"))).model
    assert (dict(asks.prompts), asks.default_prompt, asks.similarity) == (PROMPTS, "query", "dot")
    text = (await running.stub.GetModel(api.GetModelRequest(model="tiny-text"))).model
    assert (dict(text.prompts), text.default_prompt, text.similarity) == ({}, "", "")
