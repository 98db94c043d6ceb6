"""The same fault gets the same code and the same words, whichever protocol it comes by."""

import io
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image

from regard.v1 import regard_pb2 as api
from regard.v1 import types_pb2 as pb
from server.api.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from server.api.regard_v1.tensors import write_tensor
from server.config import EMBEDDED_MODELS
from tests.golden import BARE_ONNX_MODELS, GOLDEN_MODELS, GOLDEN_WINDOWS
from tests.server.api.open_inference.messages import Request, make_bytes_request, make_request, tokens_of, words
from tests.server.conftest import Serve

TOKENS = tokens_of()
# By the field of regard.v1, what the other protocol's callers write, where it is not attention_ and the same.
WRITTEN = {
    "text": "inputs[text]",
    "image": "inputs[image]",
    "role": "parameters[role]",
    "prompt": "parameters[prompt]",
    "attention.cls_only": "parameters[attention_rows]",
    "attention.head_reduction": "parameters[attention_reduce]",
}
PARAMETERS: dict[type, str] = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}
Pair = tuple[Any, Request]


@pytest.fixture(scope="module")
def models_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of texts, one of images, one with windows, and one of tensors without attention."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "fashion").symlink_to(EMBEDDED_MODELS / "fashion")
    (folder / "tiny-text").symlink_to(GOLDEN_MODELS / "tiny-text")
    (folder / "tiny-swin").symlink_to(GOLDEN_WINDOWS / "tiny-swin")
    shutil.copytree(BARE_ONNX_MODELS / "free", folder / "free")
    return folder


def tensors(model: str = "tiny-text", /, **inputs: Any) -> Pair:
    """The same arrays by Predict and by ModelInfer."""
    own = {name: write_tensor(array) for name, array in inputs.items()}
    return api.PredictRequest(model=model, inputs=own), make_request(model, **inputs)


def text(content: str, model: str = "tiny-text") -> Pair:
    """The same text by Embed and by ModelInfer."""
    return api.EmbedRequest(model=model, text=content), make_bytes_request(model, "text", content.encode())


def image(content: bytes, model: str = "fashion") -> Pair:
    """The same image by Embed and by ModelInfer."""
    return api.EmbedRequest(model=model, image=content), make_bytes_request(model, "image", content)


def attention(pair: Pair, wanted: dict[str, Any], **parameters: Any) -> Pair:
    """With attention, as regard.v1 says it and as parameters do."""
    return with_parameters(pair, "attention", wanted, parameters)


def hidden_states(pair: Pair, wanted: dict[str, Any], **parameters: Any) -> Pair:
    """With hidden states, likewise."""
    return with_parameters(pair, "hidden_states", wanted, parameters)


def with_parameters(pair: Pair, what: str, wanted: dict[str, Any], parameters: dict[str, Any]) -> Pair:
    """With a message of that field, and with parameters that begin so."""
    own, other = pair
    message = getattr(own, what)
    message.CopyFrom(type(message)(**wanted))
    for name, value in parameters.items():
        setattr(other.parameters[f"{what}_{name}"], PARAMETERS[type(value)], value)
    return pair


def named(pair: Pair, output: str) -> Pair:
    """With an output."""
    own, other = pair
    own.outputs.append(output)
    other.outputs.add(name=output)
    return pair


def urgent(pair: Pair, priority: int) -> Pair:
    """With a priority."""
    own, other = pair
    own.priority = other.parameters["priority"].int64_param = priority
    return pair


def prompted(pair: Pair, name: str) -> Pair:
    """With a prompt."""
    own, other = pair
    own.prompt = other.parameters["prompt"].string_param = name
    return pair


def query(pair: Pair) -> Pair:
    """As a query."""
    own, other = pair
    own.role, other.parameters["role"].string_param = api.TEXT_ROLE_QUERY, "query"
    return pair


def png(width: int, height: int) -> bytes:
    """A grey picture."""
    file = io.BytesIO()
    Image.new("L", (width, height)).save(file, "PNG")
    return file.getvalue()


def version(pair: Pair) -> Pair:
    """Of a version that is not there."""
    own, other = pair
    own.version = other.model_version = "7"
    return pair


IDS, MASK = TOKENS["input_ids"], TOKENS["attention_mask"]
FAULTS: dict[str, Callable[[], Pair]] = {
    "a text to a model of images": lambda: text("the cat", "fashion"),
    "an image to a model of texts": lambda: image(png(8, 8), "tiny-text"),
    "an unknown model": lambda: text("the cat", "nope"),
    "no model": lambda: text("the cat", ""),
    "an unknown version": lambda: version(text("the cat")),
    "an unknown output": lambda: named(tensors(**TOKENS), "nope"),
    "an unknown input": lambda: tensors(ids=IDS),
    "an input missing": lambda: tensors(input_ids=IDS),
    "another type": lambda: tensors(input_ids=IDS.astype(np.int32), attention_mask=MASK),
    "another number of axes": lambda: tensors(input_ids=IDS[0], attention_mask=MASK),
    "another length": lambda: tensors(input_ids=IDS[:, :3], attention_mask=MASK),
    "a token that is none": lambda: tensors(**words(2, 10**6)),
    "a row without a position": lambda: tensors(input_ids=IDS, attention_mask=np.zeros_like(MASK)),
    "too many rows": lambda: tensors(input_ids=np.repeat(IDS, 33, 0), attention_mask=np.repeat(MASK, 33, 0)),
    "no rows": lambda: tensors("free", x=np.zeros((0, 2), np.float32)),
    "too many tokens": lambda: tensors(**tokens_of(65)),
    "a text of too many tokens": lambda: text("the " * 100),
    "a text of too many bytes": lambda: text("a" * 2000),
    "a text of far too many bytes": lambda: text("a" * 2**18),
    "a prompt of far too many bytes": lambda: prompted(text("a"), "a" * 2**18),
    "a prompt that is not there": lambda: prompted(text("a"), "query"),
    "a prompt of no text": lambda: prompted(image(png(8, 8)), "query"),
    "an empty text": lambda: text(" "),
    "no picture": lambda: image(b"no picture at all"),
    "an empty picture": lambda: image(b""),
    "half a picture": lambda: image(png(90, 90)[:60]),
    "a picture too large": lambda: image(png(101, 100)),
    "a priority that is none": lambda: urgent(text("the cat"), 4),
    "no attention exported": lambda: attention(tensors("free", x=np.ones((1, 2), np.float32)), {}, layers=0),
    "a layer": lambda: attention(text("the cat"), {"layers": [5]}, layers=5),
    "a layer twice": lambda: attention(text("the cat"), {"layers": [1, -1]}, layers="1,-1"),
    "a head": lambda: attention(text("the cat"), {"heads": [-9]}, heads=-9),
    "a row": lambda: attention(text("the cat"), {"rows": [99]}, rows=99),
    "a key": lambda: attention(text("the cat"), {"keys": [99]}, keys=99),
    "falling layers": lambda: attention(text("a"), {"layers": [1, 0], "measure": 1}, layers="1,0", measure="rollout"),
    "keys of an entropy": lambda: attention(text("a"), {"top_k": 1, "measure": 2}, top_k=1, measure="entropy"),
    "a share of weights": lambda: attention(text("a"), {"residual_share": 0.5}, residual_share=0.5),
    "too large a share": lambda: attention(
        text("a"), {"residual_share": 1.0, "measure": 1}, residual_share=1.0, measure="rollout"
    ),
    "heads of a contribution": lambda: attention(
        text("a"), {"heads": [1], "measure": 4}, heads=1, measure="contribution"
    ),
    "a mean of contributions": lambda: attention(
        text("a"), {"head_reduction": 1, "measure": 4}, reduce="mean", measure="contribution"
    ),
    "special tokens and keys": lambda: attention(
        text("a"), {"drop_special": True, "keys": [0]}, drop_special=True, keys=0
    ),
    "special tokens of tensors": lambda: attention(tensors(**TOKENS), {"drop_special": True}, drop_special=True),
    "a distance from no patch": lambda: attention(
        image(png(8, 8)), {"measure": 3, "rows": [0]}, measure="distance", rows=0
    ),
    "a rollout over windows": lambda: attention(
        image(png(8, 8), "tiny-swin"), {"measure": 1, "layers": [0]}, measure="rollout", layers=0
    ),
    "values of windows": lambda: attention(
        image(png(8, 8), "tiny-swin"), {"value_weighted": True, "layers": [1]}, value_weighted=True, layers=1
    ),
    "a class token of windows": lambda: attention(image(png(8, 8), "tiny-swin"), {"cls_only": True}, rows="cls"),
    "no hidden states exported": lambda: hidden_states(tensors("free", x=np.ones((1, 2), np.float32)), {}, layers=0),
    "a layer of states": lambda: hidden_states(text("the cat"), {"layers": [5]}, layers=5),
    "a position twice": lambda: hidden_states(text("the cat"), {"positions": [1, 1]}, positions="1,1"),
    "a position of one": lambda: hidden_states(
        text("a"), {"positions": [1], "pooling": pb.HIDDEN_STATES_POOLING_LAST}, positions=1, pooling="last"
    ),
    "a pooling of one position and special tokens": lambda: hidden_states(
        text("a"),
        {"drop_special": True, "pooling": pb.HIDDEN_STATES_POOLING_CLS},
        drop_special=True,
        pooling="cls",
    ),
    "special tokens and positions of states": lambda: hidden_states(
        text("a"), {"drop_special": True, "positions": [0]}, drop_special=True, positions=0
    ),
    "special tokens of states of tensors": lambda: hidden_states(
        tensors(**TOKENS), {"drop_special": True}, drop_special=True
    ),
    "a position of states": lambda: hidden_states(text("a"), {"positions": [99]}, positions=99),
    "a layer of states twice": lambda: hidden_states(text("a"), {"layers": [1, -2]}, layers="1,-2"),
    "a query to a model that reads none": lambda: query(text("the cat")),
    "an image as a query": lambda: query(image(png(8, 8))),
    "attention and states": lambda: hidden_states(attention(text("a"), {}, layers=0), {}, layers=0),
    "too many states": lambda: hidden_states(
        tensors(input_ids=np.repeat(tokens_of(64)["input_ids"], 8, 0), attention_mask=np.ones((8, 64), np.int64)),
        {"layers": [0, 1, 2]},
        layers="0,1,2",
    ),
    "too much attention": lambda: attention(tensors(**tokens_of(64)), {"rows": []}, rows="all"),
}


def in_its_words(field: str, said: str) -> str:
    """What the Open Inference Protocol says where regard.v1 says this of a field."""
    what, _, own = field.partition(".")
    if own and what in ("attention", "hidden_states"):
        said = re.sub(r"(?:ATTENTION_MEASURE|HIDDEN_STATES_POOLING)_(\w+)", lambda found: found[1].lower(), said)
        return f"{WRITTEN.get(field) or f'parameters[{what}_{own}]'}: {said}"
    if field == "priority":
        return f"parameters[priority]: {said}"
    if field.endswith(".dtype"):
        return f"{field.replace('dtype', 'datatype')}: {said.replace('int', 'INT')}"
    return f"{WRITTEN.get(field, field)}: {said.replace('int64 [', 'INT64 [')}"


async def test_the_same_fault_gets_the_same_code_and_words(start: Serve) -> None:
    """But for the name of the field, which is what the caller wrote."""
    differing = dict[str, tuple[Any, Any]]()
    async with start(max_text_bytes=1000, max_image_pixels=10_000, max_attention_bytes=60_000) as running:
        infer = GRPCInferenceServiceStub(running.channel).ModelInfer
        for fault, make in FAULTS.items():
            own, other = make()
            method = running.stub.Predict if isinstance(own, api.PredictRequest) else running.stub.Embed
            code, said = await refusal(method, own)
            found = await refusal(infer, other)
            expected = (code, in_its_words(*said.split(": ", 1)))
            if found != expected:
                differing[fault] = (found, expected)
    assert differing == {}


async def refusal(method: Any, request: Any) -> tuple[grpc.StatusCode, str]:
    """Code and words."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await method(request)
    return caught.value.code(), caught.value.details() or ""


@pytest.mark.parametrize(
    ("outputs", "said"),
    [
        (["attention.5"], "outputs[attention.5]: 5; expected from -2 to 1"),
        (["attention.1", "attention.-1"], "outputs[attention.*]: [1, -1]; expected each at most once"),
        (["hidden_states.1", "hidden_states.-2"], "outputs[hidden_states.*]: [1, -2]; expected each at most once"),
    ],
)
async def test_layers_are_named_as_the_outputs_that_ask_for_them(start: Serve, outputs: list[str], said: str) -> None:
    """That is how their caller wrote them."""
    async with start() as running:
        _, request = tensors(**TOKENS)
        for name in outputs:
            request.outputs.add(name=name)
        refused = await refusal(GRPCInferenceServiceStub(running.channel).ModelInfer, request)
    assert refused == (grpc.StatusCode.INVALID_ARGUMENT, said)
