"""The openai package against a server, unchanged; and what it never sends."""

import asyncio
import base64
from collections.abc import Callable
from typing import Any

import httpx2
import numpy as np
import pytest

from regard.v1 import regard_pb2 as api
from server.errors import InvalidInput
from tests.server.conftest import Running

openai = pytest.importorskip("openai")

MODEL, TEXTS = "tiny-text", ["the cat sat", "a dog"]
INPUT = "a string, a list of strings, a list of token ids, or a list of such lists"


async def ask(running: Running, call: Callable[[Any], Any]) -> Any:
    """Call a client of the package in a thread, as it blocks."""

    def run() -> Any:
        url = f"http://{running.started.http_address}/v1"
        with openai.OpenAI(api_key="none", base_url=url, max_retries=0, timeout=60) as client:
            return call(client)

    return await asyncio.to_thread(run)


async def test_vectors_are_those_of_embed(running: Running) -> None:
    """Of a string and of a list, by the package's own choice of format and by both; tokens are counted."""
    expected = await running.stub.Embed(api.EmbedRequest(model=MODEL, texts={"items": TEXTS}))
    vectors = [np.frombuffer(one.vector.data, "<f4") for one in expected.results]
    found = await ask(running, lambda client: client.embeddings.create(model=MODEL, input=TEXTS))
    assert [one.index for one in found.data] == [0, 1]
    for one, vector in zip(found.data, vectors, strict=True):
        np.testing.assert_allclose(one.embedding, vector, atol=1e-6)
    tokens = sum(one.num_tokens for one in expected.results)
    assert (found.model, found.usage.prompt_tokens, found.usage.total_tokens) == (MODEL, tokens, tokens)
    assert tokens == 3 + 2 + 2 * 2


@pytest.mark.parametrize("given", [[[4, 6, 8], [5, 7]], [[2, 4, 6, 8, 3], [5, 7]], [4, 6, 8]])
async def test_ids_of_tokens_are_read_as_the_texts_that_they_spell(running: Running, given: Any) -> None:
    """With their special tokens or without; several texts or one."""
    texts = TEXTS if isinstance(given[0], list) else TEXTS[:1]
    expected = await ask(running, lambda client: client.embeddings.create(model=MODEL, input=texts))
    found = await ask(running, lambda client: client.embeddings.create(model=MODEL, input=given))
    assert (found.usage, len(found.data)) == (expected.usage, len(texts))
    for one, other in zip(found.data, expected.data, strict=True):
        np.testing.assert_allclose(one.embedding, other.embedding, atol=1e-6)


@pytest.mark.parametrize("how", ["float", "base64"])
async def test_a_vector_has_the_format_that_is_asked_for(running: Running, how: Any) -> None:
    """Numbers, or the bytes of float32."""
    found = await ask(
        running, lambda client: client.embeddings.create(model=MODEL, input=TEXTS[0], encoding_format=how)
    )
    vector: Any = found.data[0].embedding
    assert isinstance(vector, str) == (how == "base64")
    read: Any = np.frombuffer(base64.b64decode(str(vector)), "<f4") if how == "base64" else vector
    expected = await running.stub.Embed(api.EmbedRequest(model=MODEL, text=TEXTS[0]))
    np.testing.assert_allclose(read, np.frombuffer(expected.vector.data, "<f4"), atol=1e-6)


async def test_the_models_are_listed(running: Running) -> None:
    """All, one, and one that is not there."""
    names = await ask(running, lambda client: [one.id for one in client.models.list()])
    assert {"fashion", "tiny-text", "tiny-rank"} <= set(names)
    assert (await ask(running, lambda client: client.models.retrieve(MODEL))).id == MODEL
    with pytest.raises(openai.NotFoundError, match="nope"):
        await ask(running, lambda client: client.models.retrieve("nope"))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"input": ["the cat", " "]}, "input[1]: "),
        ({"input": []}, "input: 0 of them; expected 1 to 256"),
        ({"input": ["a", 7]}, "input[1]: 7; expected a string"),
        ({"input": 7}, f"input: 7; expected {INPUT}"),
        ({"input": True}, f"input: true; expected {INPUT}"),
        ({"input": {"text": "a"}}, f"input: an object of 1; expected {INPUT}"),
        ({"input": None}, f"input: missing; expected {INPUT}"),
        ({"input": [1.5]}, "input[0]: 1.5; expected a string or a list of token ids"),
        ({"input": [7, "a"]}, "input[1]: 'a'; expected a token id, a whole number from 0 on"),
        ({"input": [[7], "a"]}, "input[1]: 'a'; expected a list of token ids"),
        ({"input": [[7, True]]}, "input[0][1]: true; expected a token id"),
        ({"input": [[7, -1]]}, "input[0][1]: -1; expected a token id"),
        ({"input": [2**32]}, "input[0]: 4294967296; expected a token id"),
        ({"input": [[6], []]}, "input[1]: empty; expected a text with something in it"),
        ({"input": [[6], [6, 160]]}, "input[1]: id 160; expected ids of the model's own tokenizer, up to 159"),
        ({"input": [6, 7, 2, 3]}, "input[0]: 4 ids, of which it would make others from the 3. on; expected those that"),
        ({"input": [6], "model": "fashion"}, "fashion"),
        ({"encoding_format": "int8"}, "encoding_format: 'int8'; expected float or base64"),
        ({"dimensions": 7}, "tiny-text"),
        ({"dimensions": -1}, "dimensions"),
        ({"dimensions": 2**40}, "dimensions"),
        ({"model": "fashion"}, "fashion"),
        ({"inputs": "x"}, "inputs: not known"),
    ],
)
async def test_what_is_wrong_is_named(
    running: Running, http: httpx2.AsyncClient, given: dict[str, Any], words: str
) -> None:
    """As OpenAI says it."""
    answer = await http.post("/v1/embeddings", json={"model": MODEL, "input": "the cat"} | given)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert words in error["message"]
    assert error["type"] == "invalid_request_error"
    assert error["code"] in ("invalid_argument", "failed_precondition")


async def test_the_package_knows_the_errors(running: Running) -> None:
    """By their statuses."""
    with pytest.raises(openai.NotFoundError, match="nope"):
        await ask(running, lambda client: client.embeddings.create(model="nope", input="the cat"))
    with pytest.raises(openai.BadRequestError, match=r"input\[0\]") as caught:
        await ask(running, lambda client: client.embeddings.create(model=MODEL, input=[""]))
    assert caught.value.param == "input[0]"
    assert InvalidInput.code.name.lower() == caught.value.code
