"""What /openapi.json says is so."""

import re
from typing import Any

import httpx2
import pytest

from server.api.rest.routes import all_routes
from tests.server.conftest import Running

jsonschema = pytest.importorskip("jsonschema")

GOOD: dict[str, Any] = {
    "/v2/models/{model}/infer": {
        "inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["the cat"]}],
        "outputs": [{"name": "embedding", "parameters": {"binary_data": False}}],
    },
    "/v1/embeddings": {"model": "tiny-text", "input": ["the cat"], "encoding_format": "float"},
    "/rerank": {"model": "tiny-rank", "query": "the cat", "texts": ["a dog"]},
    "/v1/rerank": {"model": "tiny-rank", "query": "the cat", "documents": ["a dog", {"text": "a cat"}], "top_n": 1},
}


async def test_every_path_is_described(running: Running, http: httpx2.AsyncClient) -> None:
    """With the parts of its name; identifiers are there once."""
    document = (await http.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.1.")
    described = {(verb.upper(), path) for path, verbs in document["paths"].items() for verb in verbs}
    assert described == {(route.verb, route.path) for route in all_routes(1)}
    operations = [(path, one) for path, verbs in document["paths"].items() for one in verbs.values()]
    for path, one in operations:
        assert [name["name"] for name in one["parameters"]] == re.findall(r"\{(\w+)\}", path)
        assert "200" in one["responses"]
    assert len({one["operationId"] for _, one in operations}) == len(operations)


@pytest.mark.parametrize("path", GOOD)
async def test_what_the_schema_takes_the_server_takes(running: Running, http: httpx2.AsyncClient, path: str) -> None:
    """And both refuse a field that is not known, and one that is missing."""
    document = (await http.get("/openapi.json")).json()
    schema = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    jsonschema.Draft202012Validator.check_schema(schema)
    validator, where = jsonschema.Draft202012Validator(schema), path.replace("{model}", "tiny-text")
    good = GOOD[path]
    missing = {name: value for name, value in good.items() if name not in ("inputs", "input", "query")}
    for body, expected in ((good, True), (good | {"unknown": 1}, False), (missing, False)):
        assert validator.is_valid(body) == expected
        assert ((await http.post(where, json=body)).status_code == 200) == expected
