"""What the Open Inference Protocol over HTTP refuses, and how it says so; test_tritonclient.py has what it answers."""

from typing import Any

import httpx2
import pytest

from tests.server.conftest import Running

INFER = "/v2/models/tiny-text/infer"
IDS = {"name": "input_ids", "datatype": "INT64", "shape": [1, 2], "data": [2, 3]}
MASK = {"name": "attention_mask", "datatype": "INT64", "shape": [1, 2], "data": [[1, 1]]}
BYTES = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["the cat"]}


async def test_elements_may_be_flat_or_nested(running: Running, http: httpx2.AsyncClient) -> None:
    """Both as the shape has them; the answer has the request's id."""
    asked = {"id": "7", "inputs": [IDS, MASK], "outputs": [{"name": "logits"}]}
    answer = await http.post(INFER, json=asked, headers={"x-request-id": "mine"})
    assert (answer.status_code, answer.headers["x-request-id"]) == (200, "mine")
    found = answer.json()
    assert (found["id"], found["model_name"], found["model_version"]) == ("7", "tiny-text", "1")
    (output,) = found["outputs"]
    assert (output["name"], output["datatype"], output["shape"], len(output["data"])) == ("logits", "FP32", [1, 2], 2)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"inputs": None}, "inputs: missing; expected a list"),
        ({"inputs": [IDS]}, "attention_mask"),
        ({"inptus": []}, "inptus: not known; expected one of id, parameters, inputs, outputs"),
        ({"id": 7}, "id: 7; expected a string"),
        ({"inputs": [IDS | {"shape": [1, -2]}, MASK]}, "inputs[input_ids].shape: -2; expected whole numbers"),
        ({"inputs": [IDS | {"data": [3]}, MASK]}, "inputs[input_ids].contents: 1 elements; expected 2"),
        ({"inputs": [IDS | {"data": [2, 3.5]}, MASK]}, "inputs[input_ids].data: 3.5; expected elements of INT64"),
        ({"inputs": [IDS | {"data": [2, True]}, MASK]}, "inputs[input_ids].data: true; expected elements of INT64"),
        ({"inputs": [IDS | {"data": [2, 2**70]}, MASK]}, "inputs[input_ids].data"),
        ({"inputs": [IDS | {"datatype": "INT65"}, MASK]}, "inputs[input_ids].datatype: 'INT65'"),
        ({"inputs": [IDS | {"datatype": "FP16"}, MASK]}, "inputs[input_ids].data: FP16; expected binary_data_size"),
        ({"inputs": [IDS | {"parameters": {"binary_data_size": 16}}]}, "given beside binary_data_size"),
        ({"inputs": [BYTES], "parameters": {"attenion": True}}, "parameters: 'attenion'"),
        ({"inputs": [BYTES], "parameters": {"attention": [1]}}, "parameters[attention]: a list of 1"),
        ({"inputs": [BYTES], "outputs": [{"name": "nope"}]}, "nope"),
        ({"inputs": [7]}, "inputs[0]: 7; expected an object"),
    ],
)
async def test_what_is_wrong_is_named(
    running: Running, http: httpx2.AsyncClient, change: dict[str, Any], words: str
) -> None:
    """With the field, its value and what was expected."""
    answer = await http.post(INFER, json={"inputs": [IDS, MASK]} | change)
    assert answer.status_code == 400
    assert words in answer.json()["error"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "body: no JSON"),
        (
            b'{"inputs": [{"name":"text","datatype":"BYTES","shape":[1],"data":["\\ud800"]}]}',
            "inputs[0].data[0]: '\\ud800'",
        ),
        (b'{"id": "\\ud800"}', "id: "),
        (b"[]", "body: a list; expected a JSON object"),
        (b'{"inputs": NaN}', "NaN, which JSON has not"),
        (b'{"inputs": [\xff]}', "no UTF-8"),
        (b'{"inputs":' + b"[" * 40 + b"]" * 40 + b"}", "deeper than 32"),
        (b'{"id": "' + b"[" * 99 + b'"}', "inputs: missing"),
        (b"", "inputs: missing"),
    ],
)
async def test_what_is_no_request_is_refused(
    running: Running, http: httpx2.AsyncClient, content: bytes, words: str
) -> None:
    """Brackets in strings are none."""
    answer = await http.post(INFER, content=content)
    assert answer.status_code == 400
    assert words in answer.json()["error"]


@pytest.mark.parametrize(
    ("length", "words"),
    [("9999", "of 121 that came"), ("-1", "a number of bytes"), ("x", "a number of bytes"), ("", "a number of bytes")],
)
async def test_a_header_length_that_cannot_be_is_refused(
    running: Running, http: httpx2.AsyncClient, length: str, words: str
) -> None:
    """It says where the JSON ends."""
    content = b'{"inputs":[]}'.ljust(121)
    answer = await http.post(INFER, content=content, headers={"Inference-Header-Content-Length": length})
    assert answer.status_code == 400
    assert words in answer.json()["error"]


async def test_bytes_and_sizes_have_to_go_together(running: Running, http: httpx2.AsyncClient) -> None:
    """Too few are refused, and too many."""
    head = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"parameters":{"binary_data_size":16}}]}'
    headers = {"Inference-Header-Content-Length": str(len(head))}
    few = await http.post("/v2/models/free/infer", content=head + bytes(15), headers=headers)
    assert "binary_data_size: 16; expected at most 15" in few.json()["error"]
    many = await http.post("/v2/models/free/infer", content=head + bytes(17), headers=headers)
    assert "1 bytes more than the inputs' binary_data_size say" in many.json()["error"]
    good = await http.post("/v2/models/free/infer", content=head + bytes(16), headers=headers)
    assert good.status_code == 200


async def test_infinity_is_no_json(running: Running, http: httpx2.AsyncClient) -> None:
    """It travels binary."""
    asked = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [3e38]}]}
    answer = await http.post("/v2/models/free/infer", json=asked)
    assert answer.status_code == 400
    assert "infinity" in answer.json()["error"]
    binary = asked | {"outputs": [{"name": "y", "parameters": {"binary_data": True}}]}
    answer = await http.post("/v2/models/free/infer", json=binary)
    assert (answer.status_code, answer.content[-4:]) == (200, b"\x00\x00\x80\x7f")


async def test_paths_and_verbs_that_are_not_known(running: Running, http: httpx2.AsyncClient) -> None:
    """404 and 405."""
    assert (await http.get("/v2/nope")).status_code == 404
    assert (await http.get(INFER)).status_code == 405
