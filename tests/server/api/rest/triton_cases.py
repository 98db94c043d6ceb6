"""What a user of tritonclient.http does. A program of its own: its greenlets wait in place of the event loop.

Prints a line of JSON a case: its name, and the traceback where it failed.
"""

import asyncio
import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
import tritonclient.utils.shared_memory as shared_memory
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from tests.server.api.triton_relevance import check_relevance

Client = Any
IDS = np.array([[2, 9, 5, 3], [2, 7, 7, 3]], np.int64)
MASK = np.ones_like(IDS)


def make_input(name: str, array: Any, *, binary: bool = True) -> triton.InferInput:
    """A tensor as users make it."""
    tensor = triton.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
    tensor.set_data_from_numpy(array, binary_data=binary)
    return tensor


def text_inputs(*, binary: bool = True) -> list[triton.InferInput]:
    """Two rows for the text model."""
    return [make_input("input_ids", IDS, binary=binary), make_input("attention_mask", MASK, binary=binary)]


def expect_error(call: Callable[[], object], status: int, *words: str) -> None:
    """The call fails, and the message has these words."""
    try:
        call()
    except InferenceServerException as error:
        assert error.status() == str(status), error
        assert all(word in str(error) for word in words), error
    else:
        raise AssertionError(f"no error; expected one with {words}")


def strings(name: str, *values: bytes, binary: bool = True) -> triton.InferInput:
    """BYTES."""
    return make_input(name, np.array(values, dtype=np.object_), binary=binary)


def case_health_and_metadata(client: Client) -> None:
    """Everything that describes."""
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny-text")
    assert client.is_model_ready("tiny-text", "1")
    assert not client.is_model_ready("nope")
    assert client.get_server_metadata()["name"] == "regard"
    metadata = client.get_model_metadata("tiny-text", "1")
    assert [(one["name"], one["datatype"], one["shape"]) for one in metadata["inputs"]] == [
        ("input_ids", "INT64", [-1, -1]),
        ("attention_mask", "INT64", [-1, -1]),
    ]
    assert metadata["versions"] == ["1"]
    config = client.get_model_config("tiny-text")
    assert config["max_batch_size"] == 32
    assert config["input"][0]["data_type"] == "TYPE_INT64"
    assert config["dynamic_batching"]["priority_levels"] == 3
    expect_error(lambda: client.get_model_metadata("nope"), 404, "nope")


def case_infer_binary_and_json_alike(client: Client) -> None:
    """All outputs, and some, in every mixture."""
    result = client.infer("tiny-text", text_inputs(), request_id="42")
    assert result.get_response()["id"] == "42"
    assert result.as_numpy("embedding").shape == (2, 32)
    assert result.as_numpy("last_hidden_state").shape == (2, 4, 32)
    for binary_in in (True, False):
        for binary_out in (True, False):
            outputs = [triton.InferRequestedOutput("logits", binary_data=binary_out)]
            some = client.infer("tiny-text", text_inputs(binary=binary_in), outputs=outputs)
            np.testing.assert_allclose(some.as_numpy("logits"), result.as_numpy("logits"), atol=1e-5)
            assert ("data" in some.get_output("logits")) != binary_out
            assert some.as_numpy("embedding") is None
    mixed = [make_input("input_ids", IDS, binary=False), make_input("attention_mask", MASK)]
    np.testing.assert_allclose(
        client.infer("tiny-text", mixed).as_numpy("logits"), result.as_numpy("logits"), atol=1e-5
    )


def case_every_type(client: Client) -> None:
    """There and back, binary and as JSON, but FP16 and BF16, which JSON has not."""
    metadata = client.get_model_metadata("every-type")
    own: dict[str, Any] = {"BYTES": np.object_, "BOOL": np.bool_, "FP16": np.float16, "FP64": np.float64}
    own |= {"BF16": ml_dtypes.bfloat16, "FP32": np.float32}
    binary: list[triton.InferInput] = []
    texts: list[triton.InferInput] = []
    for one in metadata["inputs"]:
        kind, shape = one["datatype"], [2 if size < 0 else size for size in one["shape"]]
        array = np.arange(int(np.prod(shape))).reshape(shape)
        array = np.full(shape, b"a", np.object_) if kind == "BYTES" else array.astype(own.get(kind, kind.lower()))
        for made, is_binary in ((binary, True), (texts, kind in ("FP16", "BF16"))):
            made.append(triton.InferInput(one["name"], shape, kind))
            made[-1].set_data_from_numpy(array, binary_data=is_binary)
    outputs = [
        triton.InferRequestedOutput(one["name"], binary_data=one["datatype"] == "BF16") for one in metadata["outputs"]
    ]
    first, second = client.infer("every-type", binary), client.infer("every-type", texts, outputs=outputs)
    for one in metadata["outputs"]:
        assert second.get_output(one["name"])["datatype"] == one["datatype"]
        found, expected = second.as_numpy(one["name"]), first.as_numpy(one["name"])
        if one["datatype"] == "BYTES":
            expected = np.array([value.decode() for value in expected.reshape(-1)]).reshape(expected.shape)
        np.testing.assert_array_equal(found, expected)


def case_infer_bytes(client: Client) -> None:
    """Texts as a user has them, and strings there and back."""
    for binary in (True, False):
        texts = [strings("text", b"the cat sat", b"a dog", binary=binary)]
        assert client.infer("tiny-text", texts).as_numpy("embedding").shape == (2, 32)
        outputs = [triton.InferRequestedOutput("y", binary_data=binary)]
        back = client.infer("words", [strings("x", b"the cat", b"a dog", binary=binary)], outputs=outputs)
        found = [one if isinstance(one, bytes) else one.encode() for one in back.as_numpy("y").tolist()]
        assert found == [b"the cat", b"a dog"]


def case_infer_jpeg(client: Client) -> None:
    """A picture as a file."""
    picture = Path(os.environ["PICTURE"]).read_bytes()
    assert client.infer("fashion", [strings("image", picture)]).as_numpy("logits").shape == (1, 10)


def case_attention(client: Client) -> None:
    """As an output, and by parameters."""
    outputs = [triton.InferRequestedOutput("attention.1")]
    weights = client.infer("tiny-text", text_inputs(), outputs=outputs).as_numpy("attention.1")
    assert weights.shape == (2, 4, 4, 4)
    np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-5)
    parameters = {"attention_layers": "-1", "attention_rows": "cls", "attention_reduce": "mean"}
    reduced = client.infer("tiny-text", text_inputs(), parameters=parameters).as_numpy("attention.1")
    np.testing.assert_allclose(reduced, weights[:, :, :1].mean(axis=1), atol=1e-5)
    parameters = {"attention_layers": "9"}
    expect_error(lambda: client.infer("tiny-text", text_inputs(), parameters=parameters), 400, "attention_layers", "9")


def case_relevance(client: Client) -> None:
    """What docs/relevance.md says: why each row has its label, in the message and in shared memory."""
    texts = strings("text", b"the cat sat", b"a dog")
    values = check_relevance(triton, client, texts)
    as_json = [triton.InferRequestedOutput("relevance.values", binary_data=False)]
    np.testing.assert_array_equal(
        client.infer("tiny-text", [texts], outputs=as_json).as_numpy("relevance.values"), values
    )
    bare = make_input("x", np.ones((1, 4), np.float32))
    expect_error(
        lambda: client.infer("free", [bare], parameters={"relevance": True}), 400, "parameters[relevance]: free"
    )
    expect_error(
        lambda: client.infer("tiny-text", [texts], parameters={"relevance_label": "no"}),
        400,
        "parameters[relevance_label]: 'no'",
    )


def case_priority_and_timeout(client: Client) -> None:
    """Both as Triton's clients send them."""
    assert client.infer("tiny-text", text_inputs(), priority=1, timeout=60_000_000).as_numpy("logits") is not None
    expect_error(lambda: client.infer("tiny-text", text_inputs(), timeout=1), 504)
    expect_error(lambda: client.infer("tiny-text", text_inputs(), priority=9), 400, "priority")


def case_compression(client: Client) -> None:
    """Requests are compressed; answers are not, whatever is asked for."""
    for algorithm in ("gzip", "deflate"):
        result = client.infer(
            "tiny-text",
            text_inputs(),
            request_compression_algorithm=algorithm,
            response_compression_algorithm=algorithm,
        )
        assert result.as_numpy("embedding").shape == (2, 32)


def case_async_infer(client: Client) -> None:
    """Several at a time."""
    asked = [client.async_infer("tiny-text", text_inputs()) for _ in range(4)]
    assert [one.get_result(timeout=60).as_numpy("embedding").shape for one in asked] == [(2, 32)] * 4


def case_shared_memory(client: Client) -> None:
    """Inputs read from it, outputs written to it."""
    array = np.arange(8, dtype=np.float32).reshape(2, 4)
    key = f"/regard-http-{os.getpid()}"
    region = shared_memory.create_shared_memory_region("region", key, 64)
    try:
        shared_memory.set_shared_memory_region(region, [array])
        client.register_system_shared_memory("region", key, 64)
        assert [one["name"] for one in client.get_system_shared_memory_status()] == ["region"]
        tensor = triton.InferInput("x", array.shape, "FP32")
        tensor.set_shared_memory("region", 32)
        output = triton.InferRequestedOutput("y")
        output.set_shared_memory("region", 32, offset=32)
        result = client.infer("free", [tensor], outputs=[output])
        assert result.get_output("y")["parameters"]["shared_memory_region"] == "region"
        found = shared_memory.get_contents_as_numpy(region, np.float32, (2, 4), offset=32)
        np.testing.assert_array_equal(found, 2 * array)
        expect_error(lambda: client.register_system_shared_memory("region", key, 64), 400, "region")
    finally:
        client.unregister_system_shared_memory("region")
        shared_memory.destroy_shared_memory_region(region)
    assert client.get_system_shared_memory_status() == []


def case_statistics(client: Client) -> None:
    """Before and after."""

    def read() -> tuple[int, int, int]:
        (found,) = client.get_inference_statistics("fixed")["model_stats"]
        return found["inference_count"], found["execution_count"], found["inference_stats"]["success"]["count"]

    before = read()
    for _ in range(5):
        client.infer("fixed", [make_input("x", np.zeros((2, 3), np.float32))])
    assert read() == tuple(count + 5 for count in before)
    names = [one["name"] for one in client.get_inference_statistics()["model_stats"]]
    assert {"fixed", "tiny-text"} <= set(names)


def case_repository(client: Client) -> None:
    """Unload, load, index."""
    assert {one["name"] for one in client.get_model_repository_index()} >= {"fixed", "free", "tiny-text"}
    client.unload_model("fixed")
    assert not client.is_model_ready("fixed")
    expect_error(lambda: client.infer("fixed", [make_input("x", np.zeros((2, 3), np.float32))]), 404, "fixed")
    client.load_model("fixed")
    assert client.is_model_ready("fixed")
    expect_error(lambda: client.load_model("nope"), 404, "nope")
    expect_error(lambda: client.load_model("fixed", config="{}"), 400, "config")


def case_log_and_trace_settings(client: Client) -> None:
    """As users read them."""
    assert client.update_log_settings({"log_verbose_level": 0})["log_error"] is True
    assert client.get_log_settings()["log_error"] is True
    assert client.get_trace_settings()["trace_level"] == ["OFF"]


def case_asyncio(client: Client) -> None:
    """The asyncio client, many at a time."""
    del client

    async def ask() -> None:
        async with triton_aio.InferenceServerClient(sys.argv[1]) as own:
            inputs = [
                triton_aio.InferInput("input_ids", IDS.shape, "INT64"),
                triton_aio.InferInput("attention_mask", IDS.shape, "INT64"),
            ]
            inputs[0].set_data_from_numpy(IDS)
            inputs[1].set_data_from_numpy(MASK)
            answers = await asyncio.gather(*(own.infer("tiny-text", inputs) for _ in range(16)))
            for answer in answers:
                np.testing.assert_allclose(answer.as_numpy("logits"), answers[0].as_numpy("logits"), atol=1e-5)

    asyncio.run(ask())


def main() -> None:
    """Run every case against the server at the address given."""
    client = triton.InferenceServerClient(sys.argv[1], concurrency=4)
    for name, case in list(globals().items()):
        if name.startswith("case_"):
            try:
                case(client)
                trouble = ""
            except Exception:
                trouble = traceback.format_exc()
            print(json.dumps({"case": name, "trouble": trouble}), flush=True)
    client.close()


if __name__ == "__main__":
    main()
