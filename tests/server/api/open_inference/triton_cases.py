"""What a user of tritonclient does. A program of its own, since tritonclient brings its own stubs.

Prints a line of JSON a case: its name, and the traceback where it failed.
"""

import asyncio
import json
import os
import queue
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
import tritonclient.utils.shared_memory as shared_memory
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from tests.server.api.triton_relevance import check_relevance

Client = Any
IDS = np.array([[2, 9, 5, 3], [2, 7, 7, 3]], np.int64)
MASK = np.ones_like(IDS)


def make_input(name: str, array: Any) -> triton.InferInput:
    """A tensor as users make it."""
    tensor = triton.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
    tensor.set_data_from_numpy(array)
    return tensor


def text_inputs() -> list[triton.InferInput]:
    """Two rows for the text model."""
    return [make_input("input_ids", IDS), make_input("attention_mask", MASK)]


def expect_error(call: Callable[[], object], *words: str) -> None:
    """The call fails, and the message has these words."""
    try:
        call()
    except InferenceServerException as error:
        assert all(word in str(error) for word in words), error
    else:
        raise AssertionError(f"no error; expected one with {words}")


def strings(name: str, *values: bytes) -> triton.InferInput:
    """BYTES."""
    return make_input(name, np.array(values, dtype=np.object_))


def case_labels_and_maps(client: Client) -> None:
    """What docs/two-towers.md says."""
    image = strings("image", Path(os.environ["PICTURE"]).read_bytes())
    labels = strings("candidate_labels", b"cat", b"dog", b"mat")
    scores = client.infer("tiny-clip", [image, labels], parameters={"label_template": "a {}"}).as_numpy("scores")
    assert scores.shape == (1, 3)
    assert np.isclose(scores.sum(), 1)
    found = client.infer("tiny-clip", [image, strings("text", b"a cat")])
    tokens = found.as_numpy("map.tokens")[0]
    assert [token for token in tokens if token in (b"a", b"cat")] == [b"a", b"cat"]
    assert found.as_numpy("map.similarities").shape == (1, len(tokens), 3, 3)
    outputs = [triton.InferRequestedOutput("map.similarity")]
    assert client.infer("tiny-clip", [image, strings("text", b"a cat")], outputs=outputs).as_numpy("map.tokens") is None
    expect_error(lambda: client.infer("tiny-text", [image, labels]), "inputs[candidate_labels]: tiny-text has labels")


def case_health_and_metadata(client: Client) -> None:
    """Everything that describes."""
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny-text")
    assert not client.is_model_ready("nope")
    assert client.get_server_metadata().name == "regard"
    metadata = client.get_model_metadata("tiny-text")
    assert [(one.name, one.datatype) for one in metadata.inputs] == [
        ("input_ids", "INT64"),
        ("attention_mask", "INT64"),
    ]
    assert client.get_model_metadata("tiny-text", as_json=True)["versions"] == ["1"]
    config = client.get_model_config("tiny-text").config
    assert config.max_batch_size == 32
    assert config.input[0].data_type == 9
    assert config.dynamic_batching.priority_levels == 3
    expect_error(lambda: client.get_model_metadata("nope"), "NOT_FOUND", "nope")


def case_infer_raw(client: Client) -> None:
    """All outputs, and some."""
    result = client.infer("tiny-text", text_inputs(), request_id="42")
    assert result.get_response().id == "42"
    assert result.as_numpy("embedding").shape == (2, 32)
    assert result.as_numpy("last_hidden_state").shape == (2, 4, 32)
    some = client.infer("tiny-text", text_inputs(), outputs=[triton.InferRequestedOutput("logits")])
    np.testing.assert_allclose(some.as_numpy("logits"), result.as_numpy("logits"), atol=1e-5)
    assert some.as_numpy("embedding") is None


def case_infer_bytes(client: Client) -> None:
    """Texts as a user has them, and strings there and back."""
    texts = np.array([b"the cat sat", b"a dog"], dtype=np.object_)
    assert client.infer("tiny-text", [make_input("text", texts)]).as_numpy("embedding").shape == (2, 32)
    back = client.infer("words", [make_input("x", texts)]).as_numpy("y")
    assert back.tolist() == [b"the cat sat", b"a dog"]


def case_infer_jpeg(client: Client) -> None:
    """A picture as a file."""
    with open(os.environ["PICTURE"], "rb") as file:  # noqa: PTH123 -- as users do
        picture = np.array([file.read()], dtype=np.object_)
    assert client.infer("fashion", [make_input("image", picture)]).as_numpy("logits").shape == (1, 10)


def case_attention_by_name(client: Client) -> None:
    """As an output."""
    outputs = [triton.InferRequestedOutput("embedding"), triton.InferRequestedOutput("attention.1")]
    weights = client.infer("tiny-text", text_inputs(), outputs=outputs).as_numpy("attention.1")
    assert weights.shape == (2, 4, 4, 4)
    np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-5)


def case_attention_by_parameters(client: Client) -> None:
    """Cut and reduced before it travels."""
    parameters = {
        "attention_layers": "-1",
        "attention_rows": "cls",
        "attention_reduce": "mean",
        "attention_dtype": "FP16",
    }
    weights = client.infer("tiny-text", text_inputs(), parameters=parameters).as_numpy("attention.1")
    assert (weights.shape, weights.dtype) == ((2, 1, 4), np.float16)
    every = client.infer("tiny-text", text_inputs(), parameters={"attention": True})
    expected = every.as_numpy("attention.1")[:, :, :1].mean(axis=1)
    np.testing.assert_allclose(weights.astype(np.float32), expected, atol=1e-3)
    expect_error(
        lambda: client.infer("tiny-text", text_inputs(), parameters={"attention_layers": "9"}),
        "INVALID_ARGUMENT",
        "parameters[attention_layers]: 9",
    )


def case_relevance(client: Client) -> None:
    """What docs/relevance.md says: why each row has its label, in the message and in shared memory."""
    texts = strings("text", b"the cat sat", b"a dog")
    check_relevance(triton, client, texts)
    expect_error(
        lambda: client.infer("tiny-text", [texts], parameters={"relevance_label": "no"}),
        "parameters[relevance_label]: 'no'",
    )


def case_priority_and_timeout(client: Client) -> None:
    """Both as Triton's clients send them."""
    assert client.infer("tiny-text", text_inputs(), priority=1, timeout=60_000_000).as_numpy("logits") is not None
    expect_error(lambda: client.infer("tiny-text", text_inputs(), timeout=1), "DEADLINE_EXCEEDED")
    expect_error(lambda: client.infer("tiny-text", text_inputs(), priority=9), "INVALID_ARGUMENT", "priority")


def case_compression(client: Client) -> None:
    """Requests and answers are compressed."""
    for algorithm in ("gzip", "deflate"):
        result = client.infer("tiny-text", text_inputs(), compression_algorithm=algorithm)
        assert result.as_numpy("embedding").shape == (2, 32)


def case_async_infer(client: Client) -> None:
    """With a callback."""
    answers: queue.Queue[Any] = queue.Queue()
    for _ in range(4):
        client.async_infer("tiny-text", text_inputs(), lambda result, error: answers.put((result, error)))
    for _ in range(4):
        result, error = answers.get(timeout=30)
        assert error is None
        assert result.as_numpy("embedding").shape == (2, 32)


def case_stream(client: Client) -> None:
    """Answers with their ids; one error harms nobody."""
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for index in range(3):
        client.async_stream_infer("tiny-text", text_inputs(), request_id=str(index))
    client.async_stream_infer("tiny-text", [make_input("input_ids", IDS)], request_id="bad")
    found = [answers.get(timeout=30) for _ in range(4)]
    client.stop_stream()
    assert sorted(result.get_response().id for result, error in found if error is None) == ["0", "1", "2"]
    (error,) = [error for _, error in found if error is not None]
    assert "attention_mask" in str(error)


def case_shared_memory(client: Client) -> None:
    """Inputs read from it, outputs written to it."""
    array = np.arange(8, dtype=np.float32).reshape(2, 4)
    key = f"/regard-{os.getpid()}"
    region = shared_memory.create_shared_memory_region("region", key, 64)
    try:
        shared_memory.set_shared_memory_region(region, [array])
        client.register_system_shared_memory("region", key, 64)
        assert "region" in client.get_system_shared_memory_status(as_json=True)["regions"]
        tensor = triton.InferInput("x", array.shape, "FP32")
        tensor.set_shared_memory("region", 32)
        output = triton.InferRequestedOutput("y")
        output.set_shared_memory("region", 32, offset=32)
        result = client.infer("free", [tensor], outputs=[output])
        assert result.get_output("y").parameters["shared_memory_region"].string_param == "region"
        found = shared_memory.get_contents_as_numpy(region, np.float32, (2, 4), offset=32)
        np.testing.assert_array_equal(found, 2 * array)
        expect_error(lambda: client.register_system_shared_memory("region", key, 64), "region")
    finally:
        client.unregister_system_shared_memory("region")
        shared_memory.destroy_shared_memory_region(region)
    assert not client.get_system_shared_memory_status(as_json=True).get("regions")


def case_statistics(client: Client) -> None:
    """Before and after."""

    def read() -> tuple[int, int, int]:
        (found,) = client.get_inference_statistics("fixed").model_stats
        return found.inference_count, found.execution_count, found.inference_stats.success.count

    before = read()
    for _ in range(5):
        client.infer("fixed", [make_input("x", np.zeros((2, 3), np.float32))])
    assert read() == tuple(count + 5 for count in before)


def case_repository(client: Client) -> None:
    """Unload, load, index."""
    assert {one.name for one in client.get_model_repository_index().models} >= {"fixed", "free", "tiny-text"}
    client.unload_model("fixed")
    assert not client.is_model_ready("fixed")
    expect_error(lambda: client.infer("fixed", [make_input("x", np.zeros((2, 3), np.float32))]), "NOT_FOUND")
    client.load_model("fixed")
    assert client.is_model_ready("fixed")
    expect_error(lambda: client.load_model("nope"), "NOT_FOUND", "nope")


def case_log_and_trace_settings(client: Client) -> None:
    """As JSON, as users read them."""
    assert client.update_log_settings({"log_verbose_level": 0})
    assert client.get_log_settings(as_json=True)["settings"]["log_error"]["bool_param"]
    assert client.get_trace_settings(as_json=True)["settings"]["trace_level"]["value"] == ["OFF"]


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


def case_what_perf_analyzer_calls(client: Client) -> None:
    """In its order, seen on the wire: both unregistrations first and last."""
    for _ in range(2):
        client.unregister_system_shared_memory()
        client.unregister_cuda_shared_memory()
        client.get_model_metadata("free")
        client.get_model_config("free")
        assert "statistics" in client.get_server_metadata().extensions
        before = client.get_inference_statistics("free").model_stats[0].inference_stats.queue.count
        request = triton.InferInput("x", (1, 4), "FP32")
        request.set_data_from_numpy(np.ones((1, 4), np.float32))
        for _ in range(3):
            client.infer("free", [request])
        after = client.get_inference_statistics("free").model_stats[0].inference_stats.queue.count
        assert after == before + 3


def main() -> None:
    """Run every case against the server at the address given."""
    client = triton.InferenceServerClient(sys.argv[1])
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
