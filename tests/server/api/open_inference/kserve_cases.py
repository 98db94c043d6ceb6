"""What a user of KServe's Python client does. A program for a virtual environment of its own."""

import asyncio
import sys
from typing import Any

import numpy as np
from kserve import InferenceGRPCClient, InferInput, InferRequest

IDS = np.array([[2, 9, 5, 3]], np.int64)


def text_inputs(*, raw: bool) -> list[Any]:
    """One row for the text model."""
    inputs = []
    for name, array in (("input_ids", IDS), ("attention_mask", np.ones_like(IDS))):
        tensor = InferInput(name, list(array.shape), "INT64")
        tensor.set_data_from_numpy(array, binary_data=raw)
        inputs.append(tensor)
    return inputs


async def main() -> None:
    """Ask in every way; the first that fails ends it."""
    client = InferenceGRPCClient(sys.argv[1])
    assert await client.is_server_live()
    assert await client.is_server_ready()
    assert await client.is_model_ready("tiny-text")
    parameters = {"attention_layers": "-1", "attention_rows": "cls"}
    answers = []
    for raw in (True, False):
        request = InferRequest("tiny-text", text_inputs(raw=raw), request_id="9", parameters=parameters)
        answer = await client.infer(request)
        assert answer.id == "9"
        answers.append({output.name: output.as_numpy() for output in answer.outputs})
    assert answers[0]["embedding"].shape == (1, 32)
    assert answers[0]["attention.1"].shape == (1, 4, 1, 4)
    np.testing.assert_array_equal(answers[0]["attention.1"], answers[1]["attention.1"])
    text = InferInput("text", [1], "BYTES", data=["the cat sat"])
    answer = await client.infer(InferRequest("tiny-text", [text]))
    assert {output.name for output in answer.outputs} >= {"embedding", "logits"}
    print("all is well")


if __name__ == "__main__":
    asyncio.run(main())
