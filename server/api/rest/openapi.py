"""What /openapi.json says of the paths: made from them, so that none is missing.

https://spec.openapis.org/oas/v3.1.0
"""

import json
import re
from collections.abc import Iterable
from typing import Any

from artifact.installed import installed_version
from server.api.rest.exchange import BINARY, JSON, Route

PATH = "/openapi.json"
_STRING, _FLAG, _WHOLE, _TEXTS = {"type": "string"}, {"type": "boolean"}, {"type": "integer"}, {"type": "array"}
_LIST_OF_TEXTS = _TEXTS | {"items": _STRING}
_PARAMETERS = {"type": "object", "additionalProperties": {"type": ["boolean", "integer", "number", "string"]}}


def _object(required: Iterable[str] = (), **properties: Any) -> dict[str, Any]:
    """The schema of an object that has no further fields."""
    made = {"type": "object", "properties": properties, "additionalProperties": False}
    return made | ({"required": list(required)} if required else {})


_TENSOR = _object(
    ("name", "datatype", "shape"),
    name=_STRING,
    datatype=_STRING,
    shape={"type": "array", "items": _WHOLE | {"minimum": 0}},
    parameters=_PARAMETERS,
    data={"type": "array"},
)
_TOKEN_IDS = {"type": "array", "items": _WHOLE | {"minimum": 0}}
_OUTPUT = _object(("name",), name=_STRING, parameters=_PARAMETERS)
BODIES: dict[str, dict[str, Any]] = {
    "ModelInfer": _object(
        ("inputs",),
        id=_STRING,
        parameters=_PARAMETERS,
        inputs={"type": "array", "items": _TENSOR},
        outputs={"type": "array", "items": _OUTPUT},
    ),
    "/v1/embeddings": _object(
        ("model", "input"),
        model=_STRING,
        input={"anyOf": [_STRING, _LIST_OF_TEXTS, _TOKEN_IDS, {"type": "array", "items": _TOKEN_IDS}]},
        encoding_format={"enum": ["float", "base64"], "default": "float"},
        dimensions=_WHOLE,
        user=_STRING,
        truncate=_FLAG,
        prompt=_STRING,
        priority=_WHOLE,
    ),
    "/rerank": _object(
        ("query", "texts"),
        query=_STRING,
        texts=_LIST_OF_TEXTS,
        raw_scores=_FLAG,
        return_text=_FLAG,
        truncate=_FLAG,
        truncation_direction={"enum": ["Right", "right"]},
        model=_STRING,
    ),
    "Rank": _object(
        ("model", "query", "documents"),
        model=_STRING,
        query=_STRING,
        documents={"type": "array", "items": {"oneOf": [_STRING, {"type": "object", "required": ["text"]}]}},
        top_n=_WHOLE | {"minimum": 1},
        return_documents=_FLAG,
        truncate=_FLAG,
        priority=_WHOLE,
    ),
}
"""What is posted, by a path or by the method behind it; anything for what is not here."""


def describe(routes: Iterable[Route]) -> bytes:
    """Write the document.

    Args:
        routes: All of them.
    """
    paths = dict[str, dict[str, Any]]()
    for route in routes:
        paths.setdefault(route.path, {})[route.verb.lower()] = _describe_one(route)
    document = {
        "openapi": "3.1.0",
        "info": {"title": "regard", "version": installed_version(), "license": {"name": "Apache-2.0"}},
        "paths": paths,
        "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
        "security": [{}, {"token": []}],
    }
    return json.dumps(document).encode()


def _describe_one(route: Route) -> dict[str, Any]:
    names = re.findall(r"\{(\w+)\}", route.path)
    service, _, method = route.method[1:].partition("/")
    described: dict[str, Any] = {
        "operationId": re.sub(r"\W+", "_", f"{route.verb.lower()}{route.path}"),
        "summary": f"{method} of {service}",
        "tags": [route.path.split("/")[1].partition(".")[0]],
        "parameters": [{"name": name, "in": "path", "required": True, "schema": _STRING} for name in names],
        "responses": {
            "200": {"description": "The answer", "content": {JSON: {}}},
            "default": {"description": "Why there is none", "content": {JSON: {"schema": {"type": "object"}}}},
        },
    }
    if route.verb == "POST":
        body = {} if route.path.startswith("/regard.v1.") else BODIES.get(route.path, BODIES.get(method, {}))
        content = {JSON: {"schema": body or {"type": "object"}}}
        described["requestBody"] = {"content": content | ({BINARY: {}} if method == "ModelInfer" else {})}
    return described
